import pytest
import torch
from captum.attr import Occlusion

from handler.classifier import Classifier
from handler.explain.baselines import baseline_input
from handler.model.checkpoint import Model
from tests.conftest import Pixels
from tests.support.explaining import maps, network_inputs, relative_difference


@pytest.mark.parametrize(("window", "baseline"), [(112, "mean"), (100, "white")])
def test_occlusion_equals_captum(
    window: int, baseline: str, model: Model, classifier: Classifier, tiles: Pixels
) -> None:
    inputs = network_inputs(model, tiles[8:9])
    expected = Occlusion(model.network).attribute(
        inputs,
        sliding_window_shapes=(3, window, window),
        strides=(3, window // 2, window // 2),
        baselines=baseline_input(baseline, inputs, model.preprocessing),
        target=8,
        perturbations_per_eval=8,
    )
    actual = maps(classifier.explain([tiles[8]], "occlusion", 8, window=window, baseline=baseline))
    assert relative_difference(actual[0], expected[0, 0]) < 1e-3
    assert torch.equal(expected[0, 0], expected[0, 2])


def test_covering_the_whole_tile_loses_the_whole_difference(
    model: Model, classifier: Classifier, tiles: Pixels
) -> None:
    (explanation,) = classifier.explain([tiles[3]], "occlusion", 3, window=224)
    inputs = network_inputs(model, tiles[3:4])
    with torch.no_grad():
        drop = model.network(inputs)[0, 3] - model.network(torch.zeros_like(inputs))[0, 3]
    assert torch.allclose(maps([explanation]), drop, atol=1e-4)
    assert explanation.details["score_evaluations"] == 1
