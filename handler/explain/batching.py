"""Runs the plans of many requests together, in few large batches of the network."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import torch

from handler.explain.evaluator import Evaluator
from handler.explain.types import Attribution, BudgetExceededError, Evaluation, EvaluationRequest, Plan
from handler.isolation import together_or_alone

# Inputs in one pass of the network. At 224 pixels an input takes about 30 MB in a backward pass, so this bounds memory
# near half a GB whatever the requests; larger batches are no faster on a CPU.
MAX_BATCH = 16

# The error is `BudgetExceededError` if time ran out before there was any map.
Outcome = Attribution | Exception


@dataclass(eq=False)
class Task:
    """A plan and the time (`time.monotonic`) at which its map is due; `run` fills in the outcome."""

    plan: Plan
    deadline: float = math.inf
    outcome: Outcome | None = None
    # What a running plan waits for.
    request: EvaluationRequest = field(init=False)

    def advance(self, reply: Evaluation | BudgetExceededError | None = None) -> None:
        """Start the plan, or give it what it waits for; note its next request or its outcome."""
        try:
            if isinstance(reply, Exception):
                self.request = self.plan.throw(reply)
            else:
                self.request = next(self.plan) if reply is None else self.plan.send(reply)
        except StopIteration as end:
            self.outcome = end.value
        except Exception as error:
            self.outcome = error

    def fail(self, error: Exception) -> None:
        self.outcome = error


def run(tasks: Sequence[Task], evaluator: Evaluator) -> None:
    """Run every task to its outcome. A plan that fails or runs out of time does not affect the others.

    Requests of one kind share batches. If a plan's next evaluation would end after its deadline even when it starts at
    once and alone, the plan receives `BudgetExceededError` instead, and may return what it has.
    """
    for task in tasks:
        task.advance()
    waiting = [task for task in tasks if task.outcome is None]
    while waiting:
        advanced = _advance_oldest(waiting, evaluator)
        others = [task for task in waiting if task not in advanced]
        waiting = others + [task for task in advanced if task.outcome is None]


def _advance_oldest(waiting: list[Task], evaluator: Evaluator) -> list[Task]:
    """Advance the task that has waited longest, or one that is urgent beside it; returns all that advanced."""
    batch = _oldest_and_fitting(waiting)
    late = _late(batch, evaluator)
    if not late:
        together_or_alone(batch, partial(_evaluate, evaluator), Task.fail)
        return batch
    # Alone it may be in time.
    urgent = late[:1]
    if _late(urgent, evaluator):
        urgent[0].advance(BudgetExceededError())
    else:
        together_or_alone(urgent, partial(_evaluate, evaluator), Task.fail)
    return urgent


def _oldest_and_fitting(waiting: list[Task]) -> list[Task]:
    """The first request and all others of its kind that fit into a batch with it."""
    batch = waiting[:1]
    size = len(batch[0].request.inputs)
    for task in waiting[1:]:
        more = len(task.request.inputs)
        if task.request.kind == batch[0].request.kind and size + more <= MAX_BATCH:
            batch.append(task)
            size += more
    return batch


def _late(batch: list[Task], evaluator: Evaluator) -> list[Task]:
    """The tasks of a batch whose deadline is before its expected end."""
    size = sum(len(task.request.inputs) for task in batch)
    end = time.monotonic() + evaluator.expected_seconds(batch[0].request.kind, size)
    return [task for task in batch if task.deadline < end]


def _evaluate(evaluator: Evaluator, batch: Sequence[Task]) -> None:
    requests = [task.request for task in batch]
    inputs = torch.cat([request.inputs for request in requests])
    coefficients = torch.cat([request.coefficients for request in requests])
    evaluation = evaluator.evaluate(EvaluationRequest(requests[0].kind, inputs, coefficients))
    sizes = [len(request.inputs) for request in requests]
    parts = zip(batch, evaluation.scores.split(sizes), evaluation.gradients.split(sizes), strict=True)
    for task, scores, gradients in parts:
        task.advance(Evaluation(scores, gradients))


def chunks(count: int, size: int = MAX_BATCH) -> list[range]:
    """The numbers below `count` in consecutive ranges of at most `size`."""
    return [range(start, min(start + size, count)) for start in range(0, count, size)]
