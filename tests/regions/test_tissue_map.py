"""A map says of each tile what `/predictions` says, and its cells and areas add up."""

import json

import numpy as np
import pytest

from handler.api.verdict import verdict_of
from handler.classes import CODES
from handler.classifier import Classifier
from regions.resolution import Mpp
from regions.tissue_map import TissueMap
from tests.conftest import Pixels


def test_every_tile_has_the_answer_of_the_classifier(
    tissue_map: TissueMap, classifier: Classifier, tiles: Pixels
) -> None:
    predictions = classifier.predict(list(tiles))
    for row, fit in zip(tissue_map.rows, classifier.fits(list(tiles), predictions), strict=True):
        assert (row["fit"], row["fit_reasons"]) == (fit.verdict, list(fit.reasons))
    for row, prediction in zip(tissue_map.rows, predictions, strict=True):
        assert row["class"] == prediction.tissue.code
        assert row["probabilities"] == pytest.approx(prediction.probabilities.tolist(), abs=1e-5)
        assert row["in_distribution"] == prediction.in_distribution
        assert row["ood_score"] == pytest.approx(prediction.ood_score, rel=1e-3)
        verdict = verdict_of(prediction, classifier.model.confidence)
        assert (row["state"], row["abstained"]) == (verdict.state, verdict.state != "confident")
        members = prediction.prediction_sets["0.9"] if prediction.in_distribution else []
        assert row["prediction_set"] == [CODES[class_id] for class_id in sorted(members)]


def test_maps_of_a_tile_are_grad_cams_of_all_classes(
    tissue_map: TissueMap, classifier: Classifier, tiles: Pixels
) -> None:
    assert tissue_map.answers is not None
    for class_id in range(len(CODES)):
        explanations = classifier.explain(list(tiles[:3]), "gradcam", class_id)
        for index, explanation in enumerate(explanations):
            difference = tissue_map.answers.cams[index, class_id] - explanation.attribution
            assert np.abs(difference).max() < 1e-4


def test_the_mean_of_a_tiles_cells_is_its_logit(tissue_map: TissueMap) -> None:
    assert tissue_map.answers is not None
    cells = tissue_map.cells()
    assert cells.shape == (9, 4 * 7, 5 * 7)
    blocks = cells.reshape(9, 4, 7, 5, 7)
    for index, tile in enumerate(tissue_map.tiles):
        means = blocks[:, tile.row, :, tile.column].mean(axis=(1, 2))
        assert means == pytest.approx(tissue_map.answers.logits[index], abs=1e-3)
    assert np.isnan(blocks[:, 3, :, 3:]).all()


def test_the_composition_is_exact(tissue_map: TissueMap) -> None:
    composition = tissue_map.composition()
    assert composition.tissue.tiles == 18
    assert composition.tissue.mm2 == pytest.approx(18 * 0.112**2)
    parts = [*composition.classes.values(), composition.abstained]
    assert sum(part.tiles for part in parts) == 18
    assert sum(part.share for part in parts) == pytest.approx(1)
    assert composition.glass_mm2 == pytest.approx(2 * 0.112**2, abs=1e-6)
    assert composition.outside_mm2 == 0
    for code in CODES:
        rows = [row for row in tissue_map.rows if row["class"] == code and not row["abstained"]]
        assert composition.classes[code].tiles == len(rows)


def test_a_map_without_tissue_is_a_map(tissue_map: TissueMap) -> None:
    size, grid = (tissue_map.width, tissue_map.height), tissue_map.grid
    empty = TissueMap("glass.png", *size, Mpp(4, 4), (0, 0), grid, (), None, {})
    assert empty.composition().tissue.tiles == 0
    assert empty.composition().glass_mm2 == pytest.approx(20 * 0.112**2, abs=1e-6)
    assert json.loads(json.dumps(empty.to_json()))["tiles"] == []
    assert np.isnan(empty.cells()).all()


def test_a_map_is_json(tissue_map: TissueMap) -> None:
    content = json.loads(json.dumps(tissue_map.to_json(), allow_nan=False))
    assert content["image"]["mpp"] == {"x": pytest.approx(4.0, rel=1e-3), "y": pytest.approx(4.0, rel=1e-3)}
    assert len(content["tiles"]) == 18
    assert [item["code"] for item in content["classes"]] == list(CODES)
