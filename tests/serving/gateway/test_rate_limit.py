import pytest

from serving.gateway.rate_limit import RateLimit


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_then_the_rate() -> None:
    clock = Clock()
    limit = RateLimit(2, burst=3, clock=clock)
    assert [limit.wait("a") for _ in range(3)] == [0, 0, 0]
    assert limit.wait("a") == pytest.approx(0.5)
    clock.now += 0.4
    assert limit.wait("a") == pytest.approx(0.1)
    clock.now += 0.1
    assert limit.wait("a") == 0
    assert limit.wait("a") == pytest.approx(0.5)


def test_over_a_minute_the_rate_is_kept() -> None:
    clock = Clock()
    limit = RateLimit(2, burst=3, clock=clock)
    passed = 0
    for _ in range(6000):
        passed += limit.wait("a") == 0
        clock.now += 0.01
    assert 60 * 2 + 1 <= passed <= 60 * 2 + 3


def test_a_rested_client_has_its_burst_again() -> None:
    clock = Clock()
    limit = RateLimit(2, burst=3, clock=clock)
    for _ in range(3):
        limit.wait("a")
    clock.now += 60
    assert [limit.wait("a") for _ in range(3)] == [0, 0, 0]
    assert limit.wait("a") > 0


def test_clients_do_not_share() -> None:
    limit = RateLimit(1, burst=1, clock=Clock())
    assert limit.wait("a") == 0
    assert limit.wait("a") > 0
    assert limit.wait("b") == 0


def test_rested_clients_are_forgotten() -> None:
    clock = Clock()
    limit = RateLimit(10, burst=10, clock=clock)
    for number in range(10_000):
        limit.wait(f"{number}")
        clock.now += 0.01
    assert limit.clients < 400
