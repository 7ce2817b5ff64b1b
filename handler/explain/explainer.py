"""From explanations wanted to maps: closed forms, the cache, and plans that share the network's batches."""

import logging
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from handler.api.options import ExplanationRequest
from handler.classes import NUM_CLASSES
from handler.explain.batching import Outcome, Task, run
from handler.explain.cache import AttributionCache, attribution_key
from handler.explain.evaluator import Evaluator
from handler.explain.types import Attribution, Plan, Question
from handler.model.checkpoint import Model
from handler.model.engine import Forward

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """One explanation to give: which tile's, at which place of its answer, of which class, due when."""

    row: int
    position: int
    image: NDArray[np.uint8]
    wanted: ExplanationRequest
    target: int
    deadline: float | None

    def key(self, model: Model) -> bytes:
        """Equal for equal maps."""
        wanted = self.wanted
        question = {
            "method": wanted.method.name,
            "parameters": wanted.parameters,
            "target": self.target,
            "contrast": wanted.contrast,
        }
        return attribution_key(model, self.image, question)


@dataclass(frozen=True)
class Result:
    """A map, or why there is none; `cached` is None where no cache was asked."""

    outcome: Outcome
    cached: bool | None = None


class Explainer:
    """Explains with one model, and keeps what was costly in the cache, if there is one."""

    def __init__(self, model: Model, cache: AttributionCache | None = None) -> None:
        self._model = model
        self._evaluator = Evaluator(model.network)
        self._cache = cache

    def explain(self, jobs: list[Job], forward: Forward) -> list[Result]:
        """A result for each job: closed forms method by method, all others as plans that share batches."""
        results: dict[int, Result] = {}
        planned: list[int] = []
        groups: dict[str, list[int]] = {}
        for index, job in enumerate(jobs):
            if job.wanted.method.closed_form is None:
                planned.append(index)
            else:
                groups.setdefault(job.wanted.method.name, []).append(index)
        for members in groups.values():
            results |= zip(members, self._closed_forms([jobs[index] for index in members], forward), strict=True)
        results |= zip(planned, self._run_plans([jobs[index] for index in planned], forward), strict=True)
        return [results[index] for index in range(len(jobs))]

    def _closed_forms(self, jobs: list[Job], forward: Forward) -> list[Result]:
        method = jobs[0].wanted.method
        assert method.closed_form is not None
        try:
            # These need no inputs, and copying them would be most of their cost.
            without_inputs = replace(forward, inputs=forward.inputs[:, :0])
            return [Result(item) for item in method.closed_form(self._question(jobs, without_inputs))]
        except Exception as error:
            logger.exception("%s of %d tiles failed", method.name, len(jobs))
            return [Result(error)] * len(jobs)

    def _run_plans(self, jobs: list[Job], forward: Forward) -> list[Result]:
        """Maps from the cache, and the others computed together, each once however many ask for it."""
        keys = [job.key(self._model) for job in jobs]
        known = {key: found for key in set(keys) if (found := self._cached(key)) is not None}
        missing = {(key, job.deadline): job for key, job in zip(keys, jobs, strict=True) if key not in known}
        tasks = [Task(self._plan(job, forward), job.deadline) for job in missing.values()]
        outcomes = dict(zip(missing, run(tasks, self._evaluator), strict=True))
        for (key, _), outcome in outcomes.items():
            self._remember(key, outcome)
        missed = None if self._cache is None else False
        return [
            Result(known[key], cached=True) if key in known else Result(outcomes[key, job.deadline], missed)
            for key, job in zip(keys, jobs, strict=True)
        ]

    def _plan(self, job: Job, forward: Forward) -> Plan:
        assert job.wanted.method.plan is not None
        return job.wanted.method.plan(self._question([job], forward), dict(job.wanted.parameters))

    def _question(self, jobs: list[Job], forward: Forward) -> Question:
        rows = [job.row for job in jobs]
        coefficients = torch.zeros(len(jobs), NUM_CLASSES)
        for row, job in enumerate(jobs):
            coefficients[row, job.target] += 1
            if job.wanted.contrast is not None:
                coefficients[row, job.wanted.contrast] -= 1
        return Question(
            self._model.network,
            self._model.preprocessing,
            forward.inputs[rows],
            forward.features[rows],
            forward.logits[rows],
            coefficients.to(forward.logits.device),
        )

    def _cached(self, key: bytes) -> Attribution | None:
        return None if self._cache is None else self._cache.get(key)

    def _remember(self, key: bytes, outcome: Outcome) -> None:
        """Keep a map unless it is broken, or only what a time budget allowed."""
        if self._cache is None or not isinstance(outcome, Attribution) or not outcome.complete:
            return
        if outcome.values.isfinite().all():
            self._cache.put(key, outcome)
