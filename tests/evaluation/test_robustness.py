import json
from pathlib import Path

from evaluation.changes import CHANGES
from evaluation.robustness import markdown, plot, report
from handler.model.checkpoint import Model
from training.synthetic import generate


def test_a_report_holds_every_change(model: Model, tmp_path: Path) -> None:
    split = generate(18, seed=3)
    chosen = {kind: dict(list(strengths.items())[:1]) for kind, strengths in CHANGES.items()}
    result = report(model, split, 7180, chosen)
    assert set(result["changes"]) == {"unchanged", *chosen}
    for strengths in result["changes"].values():
        for row in strengths.values():
            assert row["interval"][0] <= row["accuracy"] <= row["interval"][1]
            assert 0 <= row["in_distribution"] <= 1
    assert "18 of 7180 tiles" in markdown(result)
    json.dumps(result, allow_nan=False)
    assert markdown(result).count("\n| ") == 2 + len(chosen)
    plot(result, tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").stat().st_size > 1000
