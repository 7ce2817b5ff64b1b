"""Running the plans of many requests together, in few large batches of the network."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from handler.explain.evaluator import Evaluator
from handler.explain.types import Attribution, BudgetExceededError, Evaluation, Plan, Points

# Points that go through the network at once. At 224 pixels one takes about 30 MB in a backward pass, so this bounds
# memory near 1 GB whatever the requests; larger batches are no faster on a CPU.
MAX_BATCH = 32

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """A plan and the time, by `time.monotonic`, at which its answer is due; None for no limit."""

    plan: Plan
    deadline: float | None = None


# What became of a task; the error is `BudgetExceededError` where time ran out with nothing to show.
Outcome = Attribution | Exception


class _Run:
    """The state of one call of `run`: points wanted, by task, and outcomes."""

    def __init__(self, tasks: Sequence[Task], evaluator: Evaluator) -> None:
        self.tasks = tasks
        self.evaluator = evaluator
        self.wanted: dict[int, Points] = {}
        self.outcomes: dict[int, Outcome] = {}
        for index in range(len(tasks)):
            self.advance(index, None)

    def advance(self, index: int, message: Evaluation | BudgetExceededError | None) -> None:
        """Hand a plan what it waits for, and note what it wants next or what it found."""
        plan = self.tasks[index].plan
        self.wanted.pop(index, None)
        try:
            if isinstance(message, BudgetExceededError):
                self.wanted[index] = plan.throw(message)
            else:
                self.wanted[index] = next(plan) if message is None else plan.send(message)
        except StopIteration as end:
            self.outcomes[index] = end.value
        except BudgetExceededError as error:
            self.outcomes[index] = error
        except Exception as error:
            logger.exception("an explanation failed")
            self.outcomes[index] = error

    def next_batch(self) -> list[int]:
        """The oldest wanted points and all others of their kind that fit beside them."""
        members: list[int] = []
        rows = 0
        kind = next(iter(self.wanted.values())).kind
        for index, points in self.wanted.items():
            if points.kind == kind and (not members or rows + len(points.inputs) <= MAX_BATCH):
                members.append(index)
                rows += len(points.inputs)
        return members

    def late(self, members: list[int]) -> list[int]:
        """Those of a batch whose time will be over before it is done."""
        rows = sum(len(self.wanted[index].inputs) for index in members)
        done = time.monotonic() + self.evaluator.expected_seconds(self.wanted[members[0]].kind, rows)
        due = {index: self.tasks[index].deadline for index in members}
        return [index for index, deadline in due.items() if deadline is not None and deadline < done]

    def evaluate(self, members: list[int]) -> None:
        wanted = [self.wanted[index] for index in members]
        points = Points(
            wanted[0].kind,
            torch.cat([item.inputs for item in wanted]),
            torch.cat([item.coefficients for item in wanted]),
        )
        sizes = [len(item.inputs) for item in wanted]
        try:
            evaluation = self.evaluator.evaluate(points)
        except Exception as error:
            logger.exception("the evaluation of %d points failed", sum(sizes))
            for index in members:
                self.wanted.pop(index)
                self.outcomes[index] = error
            return
        parts = zip(members, evaluation.scores.split(sizes), evaluation.slopes.split(sizes), strict=True)
        for index, scores, slopes in parts:
            self.advance(index, Evaluation(scores, slopes))


def run(tasks: Sequence[Task], evaluator: Evaluator) -> list[Outcome]:
    """Finish every task; a plan that fails, or runs out of time, concerns itself alone.

    Points of one kind from different plans share batches. A plan whose next points would come after its deadline, even
    if evaluated at once and alone, receives `BudgetExceededError` instead, and may return what it has.
    """
    state = _Run(tasks, evaluator)
    while state.wanted:
        members = state.next_batch()
        if hasty := state.late(members):
            # Alone it may still be in time.
            members = hasty[:1]
        if state.late(members):
            state.advance(members[0], BudgetExceededError())
        else:
            state.evaluate(members)
    return [state.outcomes[index] for index in range(len(tasks))]


def chunks(count: int, size: int = MAX_BATCH) -> list[range]:
    """The numbers below `count` in consecutive ranges of at most `size`."""
    return [range(start, min(start + size, count)) for start in range(0, count, size)]
