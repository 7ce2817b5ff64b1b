"""The model card holds the reports' figures, and no other model's."""

import json
from pathlib import Path
from typing import Any

import pytest

from evaluation.card import write_card
from evaluation.reports import ReportError, read_reports
from handler.model.checkpoint import CARD
from serving.supervisor import ROOT
from training.checkpoint import SHIPPED

REPORTS = ROOT / "docs" / "evaluation"


@pytest.fixture
def checkpoint() -> dict[str, Any]:
    card: dict[str, Any] = json.loads((SHIPPED / CARD).read_text())
    return card


def test_the_card_in_the_repository_is_what_the_reports_give(checkpoint: dict[str, Any]) -> None:
    assert (ROOT / "MODEL_CARD.md").read_text() == write_card(checkpoint, read_reports(REPORTS, checkpoint["digest"]))


def test_the_card_holds_the_figures_of_the_reports(checkpoint: dict[str, Any]) -> None:
    reports = read_reports(REPORTS, checkpoint["digest"])
    text = write_card(checkpoint, reports)
    test = reports["evaluation"]["splits"]["test"]
    assert f"| test | {test['images']} | {test['accuracy']['value']:.4f}" in text
    assert checkpoint["digest"] in text
    stroma = test["confusion_matrix"][7]
    assert f"- STR taken for MUS: {stroma[5]} of {sum(stroma)}" in text
    assert "not for clinical use" in text


def test_the_checkpoints_card_and_the_report_agree(checkpoint: dict[str, Any]) -> None:
    test = read_reports(REPORTS, checkpoint["digest"])["evaluation"]["splits"]["test"]
    assert test["accuracy"]["value"] == checkpoint["evaluation"]["test"]["accuracy"]
    assert test["confusion_matrix"] == checkpoint["evaluation"]["test"]["confusion_matrix"]


def test_reports_of_other_weights_are_refused(tmp_path: Path, checkpoint: dict[str, Any]) -> None:
    with pytest.raises(ReportError, match="weights"):
        read_reports(REPORTS, "0" * 64)
    with pytest.raises(ReportError, match="no report"):
        read_reports(tmp_path, checkpoint["digest"])
