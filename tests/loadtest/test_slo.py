"""Objectives are read from a file and compared with the measurements of a run."""

from pathlib import Path

import pytest

from loadtest.slo import Measured, Objective, SloError, Verdict, judge, read_objectives

OBJECTIVE = Objective(p50=10, p95=20, p99=30, failure_ratio=0.01, min_requests=100)
LINES = "p50 = 10\np95 = 20\np99 = 30\nfailure_ratio = 0.01\nmin_requests = 100\n"


def missed(measured: Measured) -> list[str]:
    return [verdict.quantity for verdict in judge({"predict": OBJECTIVE}, {"predict": measured}) if not verdict.kept]


def test_limits_themselves_are_kept() -> None:
    assert missed(Measured(10, 20, 30, 0.01, 100)) == []


@pytest.mark.parametrize(
    ("measured", "quantity"),
    [
        (Measured(11, 20, 30, 0, 100), "p50"),
        (Measured(10, 21, 30, 0, 100), "p95"),
        (Measured(10, 20, 31, 0, 100), "p99"),
        (Measured(10, 20, 30, 0.011, 100), "failure_ratio"),
        (Measured(10, 20, 30, 0, 99), "min_requests"),
    ],
)
def test_each_quantity_is_judged(measured: Measured, quantity: str) -> None:
    assert missed(measured) == [quantity]


def test_a_name_never_asked_for_misses_its_least_requests() -> None:
    verdicts = judge({"predict": OBJECTIVE}, {"other": Measured(1, 1, 1, 0, 1000)})
    assert [verdict.quantity for verdict in verdicts if not verdict.kept] == ["min_requests"]


def test_a_verdict_says_what_was_found_and_what_was_promised() -> None:
    assert str(Verdict("predict", "p95", 20, 31)).split() == ["MISSED", "predict", "p95", "31", "<=", "20"]


def test_the_shipped_objectives_cover_the_mix() -> None:
    path = Path(__file__).parents[2] / "loadtest" / "slo.toml"
    assert set(read_objectives(path)) == {"predict", "gradcam", "integrated_gradients"}


@pytest.mark.parametrize("text", ["", "x", "[a]\n", f"[a]\n{LINES}p90 = 3\n", "a = 3\n"])
def test_a_file_that_is_not_objectives_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "slo.toml"
    path.write_text(text)
    with pytest.raises(SloError, match=r"slo\.toml"):
        read_objectives(path)
    with pytest.raises(SloError):
        read_objectives(tmp_path / "missing.toml")
