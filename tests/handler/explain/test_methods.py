"""Explanations against Captum and the grad-cam package called directly, and against identities in float64."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import InputXGradient, IntegratedGradients, LayerGradCam, Saliency
from pytorch_grad_cam import GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM, XGradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor

from handler.engine import TorchEngine
from handler.explain.attribution import Attribution, Question
from handler.explain.cam import gradcam
from handler.explain.gradient import baseline_input, input_x_gradient, integrated_gradients, saliency
from handler.explain.registry import METHODS
from handler.model import Model
from handler.network import build_network, class_activation, classify, feature_map
from tests.conftest import Pixels
from training.data import PathMNIST

CLOSED_FORM = sorted(name for name, method in METHODS.items() if method.closed_form)
PACKAGE = {
    "gradcam": GradCAM,
    "hirescam": HiResCAM,
    "xgradcam": XGradCAM,
    "layercam": LayerCAM,
    "gradcam_plus_plus": GradCAMPlusPlus,
}


def ask(model: Model, tiles: Pixels, targets: list[int]) -> Question:
    """One tile for each target."""
    forward = TorchEngine(model, torch.device("cpu")).forward(list(tiles))
    coefficients = torch.eye(9)[targets]
    return Question(model.network, model.preprocessing, forward.inputs, forward.features, forward.logits, coefficients)


@pytest.fixture(scope="module")
def question(model: Model, tiles: Pixels) -> Question:
    """Nine tiles, each with another target."""
    return ask(model, tiles[:9], list(range(9)))


def relative_difference(found: Tensor, expected: Tensor) -> float:
    return float(((found - expected).abs().max() / expected.abs().max()).detach())


def test_gradcam_equals_captum_for_every_class(question: Question) -> None:
    expected = LayerGradCam(question.network, question.network.layer4).attribute(
        question.inputs.clone(), target=torch.arange(9)
    )
    assert relative_difference(gradcam(question, {}).values, expected[:, 0]) < 1e-5


@pytest.mark.parametrize("name", CLOSED_FORM)
def test_closed_forms_equal_the_grad_cam_package_on_real_tiles(name: str, model: Model, real_data: PathMNIST) -> None:
    # Large gradients, where the constant that the package adds to a denominator does not count.
    network = build_network().double().eval()
    network.load_state_dict(model.network.state_dict())
    network.fc.weight.data *= 1e6
    layer = network.layer4
    for target in range(9):
        inputs = ask(model, real_data.test.images[target : target + 1], [target]).inputs.double()
        features = feature_map(network, inputs)
        logits = classify(network, features)
        question = Question(
            network, model.preprocessing, inputs, features, logits, torch.eye(9, dtype=torch.float64)[[target]]
        )
        with PACKAGE[name](model=network, target_layers=[layer]) as cam:
            wanted = [ClassifierOutputTarget(target)]
            cam(question.inputs.clone(), wanted)
            activations = cam.activations_and_grads.activations[0].detach().numpy()
            gradients = cam.activations_and_grads.gradients[0].detach().numpy()
            expected = cam.get_cam_image(question.inputs, layer, wanted, activations, gradients, False)
        found = METHODS[name].explain(question, {}).values.detach()
        assert relative_difference(found, torch.from_numpy(expected)) < 1e-5, target


def test_gradcam_is_complete(question: Question) -> None:
    attribution = gradcam(question, {})
    assert attribution.unit == "logit"
    assert max(fact["completeness_residual"] for fact in attribution.facts) < 1e-4


def test_a_contrast_is_the_difference_of_two_maps(question: Question) -> None:
    maps = class_activation(question.network, question.features)
    against_muscle = replace(question, coefficients=torch.eye(9)[[7] * 9] - torch.eye(9)[[5] * 9])
    attribution = gradcam(against_muscle, {})
    assert torch.allclose(attribution.values, maps[:, 7] - maps[:, 5], atol=1e-5)
    difference = question.logits[:, 7] - question.logits[:, 5]
    biases = question.network.fc.bias[7] - question.network.fc.bias[5]
    assert torch.allclose(attribution.values.sum(dim=(1, 2)) + biases, difference, atol=1e-4)


def test_saliency_equals_captum(question: Question) -> None:
    expected = Saliency(question.network).attribute(
        question.inputs.clone().requires_grad_(), target=torch.arange(9), abs=False
    )
    assert relative_difference(saliency(question, {}).values, expected) < 1e-4


def test_input_x_gradient_equals_captum(question: Question) -> None:
    expected = InputXGradient(question.network).attribute(
        question.inputs.clone().requires_grad_(), target=torch.arange(9)
    )
    assert relative_difference(input_x_gradient(question, {}).values, expected) < 1e-4


@pytest.mark.parametrize("baseline", ["black", "white", "mean", "blur"])
def test_integrated_gradients_equals_captum(model: Model, tiles: Pixels, baseline: str) -> None:
    question = ask(model, tiles[:2], [8, 3])
    expected = IntegratedGradients(question.network).attribute(
        question.inputs.clone(),
        baselines=baseline_input(question, baseline),
        target=torch.tensor([8, 3]),
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


def test_the_blurred_baseline_keeps_the_colour_and_loses_the_structure(question: Question) -> None:
    blurred = baseline_input(question, "blur")
    assert torch.allclose(blurred.mean(dim=(2, 3)), question.inputs.mean(dim=(2, 3)), atol=0.1)
    assert blurred.std(dim=(2, 3)).mean() < question.inputs.std(dim=(2, 3)).mean() / 2


def test_integrated_gradients_reports_its_own_residual(model: Model, tiles: Pixels) -> None:
    question = ask(model, tiles[:2], [8, 3])
    attribution = integrated_gradients(question, {"n_steps": 4, "baseline": "white"})
    targets = torch.tensor([[8], [3]])
    with torch.no_grad():
        start = question.network(baseline_input(question, "white")).gather(1, targets)[:, 0]
    end = question.logits.gather(1, targets)[:, 0]
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
        logits = classify(network, features)
        question = Question(network, model.preprocessing, inputs, features, logits, single.coefficients.double())
        residuals = [
            integrated_gradients(question, {"n_steps": steps, "baseline": "black"}).facts[0]["completeness_residual"]
            for steps in (4, 128)
        ]
    finally:
        network.float()
    assert residuals[1] < residuals[0]
    assert residuals[1] < 0.05


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_map_is_the_same_alone_and_in_a_batch(name: str, question: Question, model: Model, tiles: Pixels) -> None:
    parameters: dict[str, Any] = {key: spec.default for key, spec in METHODS[name].parameters.items()}
    if "n_steps" in parameters:
        parameters["n_steps"] = 5
    together = METHODS[name].explain(question, parameters)
    alone: Attribution = METHODS[name].explain(ask(model, tiles[4:5], [4]), parameters)
    assert relative_difference(together.values[4:5], alone.values) < 1e-4
