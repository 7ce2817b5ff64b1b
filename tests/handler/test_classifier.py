"""The core in Python: arrays in, values out."""

from typing import Any

import numpy as np
import pytest
import torch

from handler.api.service import Service
from handler.classifier import Classifier
from handler.explain.batching import MAX_BATCH
from handler.explain.registry import METHODS
from handler.model.checkpoint import Model
from tests.conftest import Pixels
from tests.handler.api.test_image import Encode
from tests.support.answers import answer, raw_map
from tests.support.explaining import maps, network_inputs
from training.checkpoint import SHIPPED


def test_a_prediction_is_the_servers_answer(
    classifier: Classifier, service: Service, tiles: Pixels, encode: Encode
) -> None:
    (prediction,) = classifier.predict([tiles[0]])
    body = answer(service, {"body": encode(tiles[0])})
    assert prediction.logits.tolist() == body["logits"]
    assert prediction.probabilities.tolist() == list(body["probabilities"].values())
    assert prediction.tissue.code == body["prediction"]["code"]
    assert prediction.probability == body["confidence"] == prediction.probabilities.max()
    assert (prediction.ood_score, prediction.in_distribution) == (body["ood_score"], body["in_distribution"])


def test_an_explanation_is_the_servers_map(
    classifier: Classifier, service: Service, tiles: Pixels, encode: Encode
) -> None:
    for method in ("gradcam", "saliency"):
        (explanation,) = classifier.explain([tiles[0]], method, target=7, contrast=5)
        options = {"method": method, "target": "7", "contrast": "5", "return": "raw"}
        (answered,) = answer(service, {"body": encode(tiles[0]), **options}, explain=True)["explanations"]
        assert np.array_equal(explanation.attribution, raw_map(answered))
        assert explanation.unit == answered["unit"]
        assert explanation.details.items() <= answered.items()


def test_images_of_any_number_and_size_are_classified(classifier: Classifier, tiles: Pixels) -> None:
    large = np.kron(tiles[1], np.ones((2, 2, 1), dtype=np.uint8))
    images = [*[tiles[0]] * MAX_BATCH, large]
    predictions = classifier.predict(images)
    assert len(predictions) == len(images)
    assert np.allclose(predictions[-1].logits, classifier.predict([large])[0].logits, atol=1e-4)
    assert classifier.predict([]) == []


def test_a_folder_is_loaded_with_its_calibration(model: Model, classifier: Classifier, tiles: Pixels) -> None:
    loaded = Classifier.load(SHIPPED)
    assert loaded.model.digest == model.digest
    (prediction,), (expected,) = loaded.predict([tiles[0]]), classifier.predict([tiles[0]])
    assert np.allclose(prediction.logits, expected.logits, atol=1e-4)
    assert prediction.calibrated
    assert set(prediction.prediction_sets) == {"0.9", "0.95"}


def test_inputs_of_the_network_are_explained_like_their_images(
    model: Model, classifier: Classifier, tiles: Pixels
) -> None:
    from_images = maps(classifier.explain(list(tiles[:2]), "saliency", [3, 8]))
    from_inputs = maps(classifier.explain_inputs(network_inputs(model, tiles[:2]), "saliency", [3, 8]))
    assert torch.equal(from_images, from_inputs)


def test_the_default_target_is_each_images_predicted_class(classifier: Classifier, tiles: Pixels) -> None:
    explanations = classifier.explain(list(tiles))
    predicted = [prediction.tissue.class_id for prediction in classifier.predict(list(tiles))]
    assert [explanation.target for explanation in explanations] == predicted
    assert len(set(predicted)) > 1


def test_wrong_arguments_are_errors(classifier: Classifier, tiles: Pixels) -> None:
    with pytest.raises(KeyError, match="no_such_method"):
        classifier.explain([tiles[0]], "no_such_method")
    with pytest.raises(ValueError, match="no parameter 'n_steps'"):
        classifier.explain([tiles[0]], "gradcam", n_steps=4)
    wrong: list[dict[str, Any]] = [
        {"n_steps": 1000},
        {"n_steps": -1},
        {"baseline": "pink"},
        {"tolerance": float("nan")},
    ]
    for parameters in wrong:
        with pytest.raises(ValueError, match="cannot be"):
            classifier.explain([tiles[0]], "integrated_gradients", **parameters)
    with pytest.raises(ValueError, match="zip"):
        classifier.explain(list(tiles[:2]), "gradcam", [1, 2, 3])


def test_the_defaults_of_every_method_are_accepted() -> None:
    for method in METHODS.values():
        defaults = method.complete({})
        assert method.complete(defaults) == defaults
