"""Computes explanations: closed forms, cached maps, and plans that share the network's batches."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from handler.explain.batching import Outcome, Task, run
from handler.explain.cache import AttributionCache, attribution_key
from handler.explain.evaluator import Evaluator
from handler.explain.types import Activations, Attribution, Method, Parameters, Plan, Sample
from handler.isolation import together_or_alone
from handler.model.checkpoint import Model
from handler.model.engine import Forward, Image


@dataclass(frozen=True)
class Explanation:
    """The explanation of one image by one method.

    `attribution` is the signed map in `unit`, float32 `[h, w]` or `[3, h, w]`, for the logit of class `target`, minus
    that of class `contrast`, if any. `details` are the method's own figures, such as `completeness_residual`.
    `complete` is False if a time budget cut the work short. `cached` says whether the map came from the cache; None if
    no cache was asked.
    """

    method: str
    target: int
    contrast: int | None
    attribution: NDArray[np.floating[Any]]
    unit: str
    details: Mapping[str, Any]
    complete: bool = True
    cached: bool | None = None


@dataclass(eq=False)
class Job:
    """One explanation to compute for one image; `Explainer.run` fills in the outcome.

    `forward` holds that image alone, `parameters` all of the method's parameters. `deadline` is by `time.monotonic`.
    The cache finds maps by `image`, or by the network's input if there is none.
    """

    forward: Forward
    method: Method
    parameters: Parameters
    target: int
    contrast: int | None = None
    deadline: float = math.inf
    image: Image | None = None
    outcome: Outcome | None = None
    cached: bool | None = None

    @property
    def coefficients(self) -> Tensor:
        """Of the explained score, a weighted sum of logits: `[1, 9]`."""
        coefficients = torch.zeros_like(self.forward.logits)
        coefficients[0, self.target] += 1
        if self.contrast is not None:
            coefficients[0, self.contrast] -= 1
        return coefficients

    @property
    def score(self) -> Tensor:
        """`[1]`."""
        return (self.coefficients * self.forward.logits).sum(dim=1)

    def key(self, model: Model) -> bytes:
        """Equal for equal maps."""
        pixels = self.forward.inputs.cpu().numpy() if self.image is None else self.image
        return attribution_key(model, pixels, self.method.name, self.parameters, self.target, self.contrast)

    def result(self) -> Explanation:
        """The explanation. Raises the error that prevented it, and `ArithmeticError` if the map is not finite."""
        if not isinstance(self.outcome, Attribution):
            raise self.outcome or RuntimeError("the job was not run")
        values = self.outcome.values.detach().cpu().numpy()
        if not np.isfinite(values).all():
            raise ArithmeticError(f"{self.method.name} gave values that are not finite")
        return Explanation(
            method=self.method.name,
            target=self.target,
            contrast=self.contrast,
            attribution=values,
            unit=self.outcome.unit,
            details=self.outcome.details,
            complete=self.outcome.complete,
            cached=self.cached,
        )

    def fail(self, error: Exception) -> None:
        self.outcome = error


class Explainer:
    """Explains with one model. Stores maps that cost more than a prediction in the cache, if there is one."""

    def __init__(self, model: Model, cache: AttributionCache | None = None) -> None:
        self._model = model
        self._evaluator = Evaluator(model.network)
        self._cache = cache

    def run(self, jobs: Sequence[Job]) -> None:
        """Give every job its outcome. A job that fails does not affect the others."""
        closed_forms: dict[str, list[Job]] = {}
        planned: list[Job] = []
        for job in jobs:
            group = closed_forms.setdefault(job.method.name, []) if job.method.closed_form else planned
            group.append(job)
        for group in closed_forms.values():
            together_or_alone(group, self._run_closed_form, Job.fail)
        self._run_plans(planned)

    def _run_closed_form(self, jobs: Sequence[Job]) -> None:
        """Explain jobs of one method at once."""
        closed_form = jobs[0].method.closed_form
        assert closed_form
        activations = Activations(
            fc=self._model.network.fc,
            features=torch.cat([job.forward.features for job in jobs]),
            coefficients=torch.cat([job.coefficients for job in jobs]),
            scores=torch.cat([job.score for job in jobs]),
        )
        for job, attribution in zip(jobs, closed_form(activations), strict=True):
            job.outcome = attribution

    def _run_plans(self, jobs: Sequence[Job]) -> None:
        """Take maps from the cache and compute the others together, equal ones once."""
        missing: dict[tuple[bytes, float], list[Job]] = {}
        for job in jobs:
            key = job.key(self._model)
            if not self._find(key, job):
                missing.setdefault((key, job.deadline), []).append(job)
        tasks = [Task(self._plan(equal[0]), deadline) for (_, deadline), equal in missing.items()]
        run(tasks, self._evaluator)
        for ((key, _), equal), task in zip(missing.items(), tasks, strict=True):
            self._store(key, task.outcome)
            for job in equal:
                job.outcome = task.outcome

    def _plan(self, job: Job) -> Plan:
        assert job.method.plan
        sample = Sample(self._model.preprocessing, job.forward.inputs, job.coefficients, job.score)
        return job.method.plan(sample, job.parameters)

    def _find(self, key: bytes, job: Job) -> bool:
        """Give a job its map from the cache, if there is one."""
        if self._cache is None:
            return False
        job.outcome = self._cache.get(key)
        job.cached = job.outcome is not None
        return job.cached

    def _store(self, key: bytes, outcome: Outcome | None) -> None:
        """Store a map, unless it is not finite or a time budget cut it short."""
        if self._cache is None or not isinstance(outcome, Attribution) or not outcome.complete:
            return
        if outcome.values.isfinite().all():
            self._cache.put(key, outcome)
