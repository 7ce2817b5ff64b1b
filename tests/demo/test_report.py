import json
import shutil
from pathlib import Path

import pytest

from demo.charts import confusion
from demo.report import ReportError, read_report, summary, trust
from serving.supervisor import ROOT

REPORTS = ROOT / "docs" / "evaluation"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("evaluation", "confidence", "robustness"):
        shutil.copy(REPORTS / f"{name}.json", tmp_path)
    return tmp_path


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_figures_follow_their_file(folder: Path) -> None:
    evaluation = json.loads((folder / "evaluation.json").read_text())
    evaluation["splits"]["test"]["accuracy"]["value"] = 0.1234
    evaluation["splits"]["test"]["classes"]["STR"]["recall"]["value"] = 0.4321
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    found = summary(read_report(folder), "test")
    assert "0.1234" in found
    assert "0.4321" in found


def test_every_split_of_the_report_can_be_shown() -> None:
    report = read_report(REPORTS)
    for split in report.splits:
        images = report.evaluation["splits"][split]["images"]
        assert f"Measured on {images} " in summary(report, split)
        assert sum(map(sum, report.confusion(split))) == images
    assert report.confidence["calibrated_on"] in trust(report)


def test_shares_of_a_confusion_matrix_add_up_by_row() -> None:
    figure = confusion([[3, 1], [0, 0]], shares=True)
    assert [list(row) for row in figure.data[0].z] == [[0.75, 0.25], [0, 0]]
    assert list(figure.data[0].text[0]) == ["75", "25"]


def test_a_missing_or_broken_report_is_named(folder: Path) -> None:
    (folder / "confidence.json").write_text("{")
    with pytest.raises(ReportError, match=r"confidence\.json.*make report"):
        read_report(folder)
    (folder / "evaluation.json").unlink()
    with pytest.raises(ReportError, match=r"evaluation\.json.*make report"):
        read_report(folder)


def test_reports_of_different_models_are_not_mixed(folder: Path) -> None:
    digest = json.loads((folder / "robustness.json").read_text())["model"]
    change(folder / "robustness.json", digest, "0" * 64)
    with pytest.raises(ReportError, match="different models"):
        read_report(folder)
