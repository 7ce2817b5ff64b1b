"""Explanations against Captum called directly, and against identities in float64."""

from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients, LayerGradCam, Saliency
from torch import Tensor

from handler.engine import TorchEngine
from handler.explain.attribution import Attribution, Question
from handler.explain.cam import gradcam
from handler.explain.gradient import baseline_input, integrated_gradients, saliency
from handler.explain.registry import METHODS
from handler.model import Model
from handler.network import classify, feature_map
from tests.conftest import Pixels


def ask(model: Model, tiles: Pixels, targets: list[int]) -> Question:
    forward = TorchEngine(model, torch.device("cpu")).forward(list(tiles))
    return Question(
        model.network, model.preprocessing, forward.inputs, forward.features, forward.logits, torch.tensor(targets)
    )


@pytest.fixture(scope="module")
def question(model: Model, tiles: Pixels) -> Question:
    return ask(model, tiles[:9], list(range(9)))


def relative_difference(found: Tensor, expected: Tensor) -> float:
    return float(((found - expected).abs().max() / expected.abs().max()).detach())


def test_gradcam_equals_captum_for_every_class(question: Question) -> None:
    expected = LayerGradCam(question.network, question.network.layer4).attribute(
        question.inputs.clone(), target=question.targets
    )
    assert relative_difference(gradcam(question, {}).values, expected[:, 0]) < 1e-4


def test_gradcam_is_complete(question: Question) -> None:
    attribution = gradcam(question, {})
    assert attribution.unit == "logit"
    assert max(fact["completeness_residual"] for fact in attribution.facts) < 1e-4


def test_saliency_equals_captum(question: Question) -> None:
    expected = Saliency(question.network).attribute(
        question.inputs.clone().requires_grad_(), target=question.targets, abs=False
    )
    assert relative_difference(saliency(question, {}).values, expected) < 1e-4


@pytest.mark.parametrize("baseline", ["black", "white", "mean"])
def test_integrated_gradients_equals_captum(model: Model, tiles: Pixels, baseline: str) -> None:
    question = ask(model, tiles[:2], [8, 3])
    expected = IntegratedGradients(question.network).attribute(
        question.inputs.clone(),
        baselines=baseline_input(question, baseline),
        target=question.targets,
        n_steps=20,
        method="gausslegendre",
    )
    found = integrated_gradients(question, {"n_steps": 20, "baseline": baseline})
    assert relative_difference(found.values, expected) < 1e-4


def test_black_and_white_are_pixels_and_mean_is_imagenets(question: Question) -> None:
    mean, std = np.array(question.preprocessing.mean), np.array(question.preprocessing.std)
    for name, pixel in (("black", np.zeros(3)), ("white", np.ones(3)), ("mean", mean)):
        found = baseline_input(question, name)[0, :, 0, 0].numpy() * std + mean
        assert np.allclose(found, pixel, atol=1e-6)


def test_integrated_gradients_reports_its_own_residual(model: Model, tiles: Pixels) -> None:
    question = ask(model, tiles[:2], [8, 3])
    attribution = integrated_gradients(question, {"n_steps": 4, "baseline": "white"})
    with torch.no_grad():
        start = question.network(baseline_input(question, "white")).gather(1, question.targets[:, None])[:, 0]
    end = question.logits.gather(1, question.targets[:, None])[:, 0]
    for row, fact in enumerate(attribution.facts):
        gap = float(attribution.values[row].sum() - (end - start)[row])
        assert fact["completeness_residual"] == pytest.approx(abs(gap / float((end - start)[row])), rel=1e-3)
        assert (fact["n_steps"], fact["baseline"], fact["rule"]) == (4, "white", "gausslegendre")


def test_integrated_gradients_is_complete_in_float64_as_steps_grow(model: Model, tiles: Pixels) -> None:
    single = ask(model, tiles[8:9], [8])
    network = model.network.double()
    try:
        inputs = single.inputs.double()
        features = feature_map(network, inputs)
        question = Question(network, model.preprocessing, inputs, features, classify(network, features), single.targets)
        residuals = [
            integrated_gradients(question, {"n_steps": steps, "baseline": "black"}).facts[0]["completeness_residual"]
            for steps in (4, 64)
        ]
    finally:
        network.float()
    assert residuals[1] < residuals[0]
    assert residuals[1] < 0.02


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_map_is_the_same_alone_and_in_a_batch(name: str, question: Question, model: Model, tiles: Pixels) -> None:
    parameters: dict[str, Any] = {key: spec.default for key, spec in METHODS[name].parameters.items()}
    if "n_steps" in parameters:
        parameters["n_steps"] = 5
    together = METHODS[name].explain(question, parameters)
    alone: Attribution = METHODS[name].explain(ask(model, tiles[4:5], [4]), parameters)
    assert relative_difference(together.values[4:5], alone.values) < 1e-4
