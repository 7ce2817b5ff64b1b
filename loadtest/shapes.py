"""How the number of users changes over a run, as shares of --users over --run-time."""

import math
from abc import abstractmethod
from typing import ClassVar

from locust import LoadTestShape

DEFAULT_SECONDS = 60
# Locust warns if one process starts more users per second.
FASTEST_SPAWN = 100


class Shape(LoadTestShape):
    """The number of users over a run, from its start (0) to its end (1)."""

    abstract: ClassVar[bool] = True
    use_common_options: ClassVar[bool] = True

    @abstractmethod
    def share(self, moment: float) -> float:
        """The share of active users at this moment."""

    def tick(self) -> tuple[int, float] | None:
        assert self.runner is not None
        options = self.runner.environment.parsed_options
        assert options is not None
        peak = options.num_users or 1
        moment = self.get_run_time() / (options.run_time or DEFAULT_SECONDS)
        if moment >= 1:
            return None
        return max(1, round(peak * self.share(moment))), min(peak, FASTEST_SPAWN)


class Constant(Shape):
    """All users from the start."""

    def share(self, moment: float) -> float:
        return 1


class Ramp(Shape):
    """A linear increase: shows at which load the latency rises."""

    def share(self, moment: float) -> float:
        return moment


class Step(Shape):
    """Five steps, each long enough to reach a steady state."""

    stairs = 5

    def share(self, moment: float) -> float:
        return math.ceil(self.stairs * moment) / self.stairs


class Spike(Shape):
    """A tenth of the users, all of them for the middle fifth, then a tenth: shows whether the queue drains."""

    def share(self, moment: float) -> float:
        return 1 if 0.4 <= moment < 0.6 else 0.1


class Soak(Shape):
    """All users after a short ramp, for runs of hours: shows whether memory or latency grow."""

    ramp = 0.05

    def share(self, moment: float) -> float:
        return min(1, moment / self.ramp)


SHAPES: dict[str, type[Shape]] = {
    "constant": Constant,
    "ramp": Ramp,
    "step": Step,
    "spike": Spike,
    "soak": Soak,
}
