"""Plans of many requests run together, with a real network."""

import time
from typing import Any

import pytest
import torch

from handler.classifier import Classifier
from handler.explain.batching import MAX_BATCH, Outcome, Task, chunks, run
from handler.explain.evaluator import Evaluator
from handler.explain.types import Attribution, BudgetExceededError, Evaluation, EvaluationRequest, Plan, Sample
from handler.model.checkpoint import Model
from tests.conftest import Pixels
from tests.support.explaining import map_error, maps, plan_of


class Counting(Evaluator):
    """Records the batches it evaluates."""

    def __init__(self, network: Any) -> None:
        super().__init__(network)
        self.batches: list[tuple[str, int]] = []

    def evaluate(self, request: EvaluationRequest) -> Evaluation:
        self.batches.append((request.kind, len(request.inputs)))
        return super().evaluate(request)


@pytest.fixture
def evaluator(model: Model) -> Counting:
    return Counting(model.network)


def outcomes(tasks: list[Task], evaluator: Evaluator) -> list[Outcome | None]:
    run(tasks, evaluator)
    return [task.outcome for task in tasks]


def test_mixed_plans_share_batches_and_answer_as_alone(
    samples: list[Sample], evaluator: Counting, classifier: Classifier, tiles: Pixels
) -> None:
    mixed: list[tuple[str, int, dict[str, Any]]] = [
        ("saliency", 0, {}),
        ("integrated_gradients", 1, {"n_steps": 4}),
        ("smoothgrad", 2, {"n_samples": 3}),
        ("integrated_gradients", 3, {"n_steps": 5, "baseline": "white"}),
        ("input_x_gradient", 4, {}),
        ("occlusion", 5, {"window": 112}),
        ("occlusion", 6, {"window": 224}),
    ]
    tasks = [Task(plan_of(name, samples[index], **parameters)) for name, index, parameters in mixed]
    together = outcomes(tasks, evaluator)
    assert [size for kind, size in evaluator.batches if kind == "gradient"] == [1 + 4 + 3 + 5 + 1]
    assert len(evaluator.batches) <= 3
    for (name, index, parameters), outcome in zip(mixed, together, strict=True):
        alone = classifier.explain([tiles[index]], name, index, **parameters)
        assert isinstance(outcome, Attribution)
        assert map_error(outcome.values, maps(alone)[0]) < 1e-3, name
        assert outcome.details.keys() == alone[0].details.keys()


def test_no_batch_exceeds_the_limit(samples: list[Sample], evaluator: Counting) -> None:
    run([Task(plan_of("integrated_gradients", sample, n_steps=MAX_BATCH - 8)) for sample in samples[:2]], evaluator)
    assert max(size for _, size in evaluator.batches) <= MAX_BATCH


def broken(sample: Sample) -> Plan:
    yield EvaluationRequest("score", sample.inputs, sample.coefficients)
    raise RuntimeError("this plan is broken")


def test_a_plan_that_fails_fails_alone(samples: list[Sample], evaluator: Counting) -> None:
    failed, fine = outcomes([Task(broken(samples[0])), Task(plan_of("saliency", samples[1]))], evaluator)
    assert isinstance(failed, RuntimeError)
    assert isinstance(fine, Attribution)


def misshapen(kind: Any) -> Plan:
    """Inputs that no network of three colours takes."""
    yield EvaluationRequest(kind, torch.zeros(1, 5, 224, 224), torch.zeros(1, 9))
    raise AssertionError("unreachable")


def test_an_evaluation_that_fails_fails_alone_even_in_a_shared_batch(
    samples: list[Sample], evaluator: Counting
) -> None:
    tasks = [Task(plan_of("saliency", samples[1])), Task(misshapen("gradient")), Task(plan_of("saliency", samples[2]))]
    one, failed, other = outcomes(tasks, evaluator)
    assert isinstance(failed, RuntimeError)
    assert isinstance(one, Attribution)
    assert isinstance(other, Attribution)


def test_a_deadline_is_kept_if_the_cost_is_known(samples: list[Sample], evaluator: Counting) -> None:
    run([Task(plan_of("occlusion", samples[0], window=112))], evaluator)
    start = time.monotonic()
    patient, urgent = outcomes(
        [
            Task(plan_of("saliency", samples[1])),
            Task(plan_of("occlusion", samples[0], window=28), deadline=start + 0.5),
        ],
        evaluator,
    )
    assert isinstance(patient, Attribution)
    assert isinstance(urgent, BudgetExceededError)
    assert time.monotonic() - start < 2


def test_neighbours_cost_an_urgent_plan_nothing(samples: list[Sample], evaluator: Counting) -> None:
    """In a batch with 31 other inputs its own would be late, so it goes first and alone."""
    run([Task(plan_of("smoothgrad", samples[0], n_samples=8))], evaluator)
    seconds = evaluator.expected_seconds("gradient", 8)
    evaluator.batches.clear()
    crowd = Task(plan_of("smoothgrad", samples[0], n_samples=MAX_BATCH - 1))
    urgent = Task(plan_of("saliency", samples[1]), deadline=time.monotonic() + 2 * seconds)
    assert all(isinstance(outcome, Attribution) for outcome in outcomes([crowd, urgent], evaluator))
    assert evaluator.batches == [("gradient", 1), ("gradient", MAX_BATCH - 1)]


def test_a_deadline_in_the_past_gives_nothing(samples: list[Sample], evaluator: Counting) -> None:
    (outcome,) = outcomes([Task(plan_of("saliency", samples[1]), deadline=time.monotonic() - 1)], evaluator)
    assert isinstance(outcome, BudgetExceededError)


@pytest.mark.parametrize(("count", "expected"), [(1, [1]), (32, [32]), (33, [32, 1])])
def test_chunks_cover_everything_once(count: int, expected: list[int]) -> None:
    assert [len(chunk) for chunk in chunks(count, 32)] == expected
    assert [index for chunk in chunks(count, 32) for index in chunk] == list(range(count))
