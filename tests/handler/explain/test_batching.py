"""Plans of many requests run together, with a real network underneath."""

import time
from typing import Any

import pytest
import torch

from handler.explain.batching import MAX_BATCH, Task, chunks, run
from handler.explain.evaluator import Evaluator
from handler.explain.registry import METHODS
from handler.explain.types import Attribution, BudgetExceededError, Evaluation, Parameters, Plan, Points, Question
from tests.support.questions import attributions, map_error, row


class Counting(Evaluator):
    """Notes the batches it evaluates."""

    def __init__(self, network: Any) -> None:
        super().__init__(network)
        self.batches: list[tuple[str, int]] = []

    def evaluate(self, points: Points) -> Evaluation:
        self.batches.append((points.kind, len(points.inputs)))
        return super().evaluate(points)


def plan_of(name: str, question: Question, **changes: Any) -> Plan:
    method = METHODS[name]
    assert method.plan is not None
    return method.plan(question, {key: spec.default for key, spec in method.parameters.items()} | changes)


def test_mixed_plans_share_batches_and_answer_as_alone(question: Question) -> None:
    wanted: list[tuple[str, int, dict[str, Any]]] = [
        ("saliency", 0, {}),
        ("integrated_gradients", 1, {"n_steps": 5}),
        ("smoothgrad", 2, {"n_samples": 4}),
        ("integrated_gradients", 3, {"n_steps": 7, "baseline": "white"}),
        ("input_x_gradient", 4, {}),
        ("occlusion", 5, {"window": 112}),
        ("occlusion", 6, {"window": 224}),
    ]
    evaluator = Counting(question.network)
    tasks = [Task(plan_of(name, row(question, index), **changes)) for name, index, changes in wanted]
    outcomes = run(tasks, evaluator)
    assert [size for kind, size in evaluator.batches if kind == "gradient"] == [1 + 5 + 4 + 7 + 1]
    assert len(evaluator.batches) <= 3
    for (name, index, changes), outcome in zip(wanted, outcomes, strict=True):
        (alone,) = attributions(name, row(question, index), **changes)
        assert isinstance(outcome, Attribution)
        assert map_error(outcome.values, alone.values) < 1e-3, name
        assert outcome.facts.keys() == alone.facts.keys()


def test_no_batch_exceeds_the_limit(question: Question) -> None:
    evaluator = Counting(question.network)
    tasks = [Task(plan_of("integrated_gradients", row(question, index), n_steps=MAX_BATCH - 8)) for index in range(2)]
    run(tasks, evaluator)
    assert max(size for _, size in evaluator.batches) <= MAX_BATCH


def broken(question: Question, _: Parameters) -> Plan:
    yield Points("score", question.inputs, question.coefficients)
    raise RuntimeError("this plan is broken")


def test_a_plan_that_fails_fails_alone(question: Question) -> None:
    tasks = [Task(broken(row(question, 0), {})), Task(plan_of("saliency", row(question, 1)))]
    failed, fine = run(tasks, Evaluator(question.network))
    assert isinstance(failed, RuntimeError)
    assert isinstance(fine, Attribution)


def test_points_that_do_not_fit_the_network_fail_their_batch_and_no_other(question: Question) -> None:
    def misshapen() -> Plan:
        yield Points("score", torch.zeros(1, 5, 8, 8), torch.zeros(1, 9))
        raise AssertionError("unreachable")

    failed, fine = run([Task(misshapen()), Task(plan_of("saliency", row(question, 1)))], Evaluator(question.network))
    assert isinstance(failed, RuntimeError)
    assert isinstance(fine, Attribution)


def test_a_deadline_is_kept_where_the_cost_is_known(question: Question) -> None:
    evaluator = Evaluator(question.network)
    run([Task(plan_of("occlusion", row(question, 0), window=112))], evaluator)
    start = time.monotonic()
    patient, hasty = run(
        [
            Task(plan_of("saliency", row(question, 1))),
            Task(plan_of("occlusion", row(question, 0), window=28), deadline=start + 0.5),
        ],
        evaluator,
    )
    assert isinstance(patient, Attribution)
    assert isinstance(hasty, BudgetExceededError)
    assert time.monotonic() - start < 2


def test_neighbours_cost_a_hasty_plan_nothing(question: Question) -> None:
    """Beside 31 other points its own would come too late, so it goes first and alone."""
    evaluator = Counting(question.network)
    run([Task(plan_of("smoothgrad", row(question, 0), n_samples=8))], evaluator)
    seconds = evaluator.expected_seconds("gradient", 8)
    evaluator.batches.clear()
    crowd = Task(plan_of("smoothgrad", row(question, 0), n_samples=MAX_BATCH - 1))
    hasty = Task(plan_of("saliency", row(question, 1)), deadline=time.monotonic() + 2 * seconds)
    outcomes = run([crowd, hasty], evaluator)
    assert all(isinstance(outcome, Attribution) for outcome in outcomes)
    assert evaluator.batches == [("gradient", 1), ("gradient", MAX_BATCH - 1)]


def test_a_deadline_long_gone_gives_nothing(question: Question) -> None:
    task = Task(plan_of("saliency", row(question, 1)), deadline=time.monotonic() - 1)
    (outcome,) = run([task], Evaluator(question.network))
    assert isinstance(outcome, BudgetExceededError)


@pytest.mark.parametrize(("count", "expected"), [(1, [1]), (32, [32]), (33, [32, 1])])
def test_chunks_cover_everything_once(count: int, expected: list[int]) -> None:
    assert [len(chunk) for chunk in chunks(count, 32)] == expected
    assert [index for chunk in chunks(count, 32) for index in chunk] == list(range(count))
