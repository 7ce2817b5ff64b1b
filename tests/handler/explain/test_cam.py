"""Class activation maps against Captum and the grad-cam package, and by their identities."""

from dataclasses import replace

import pytest
import torch
from captum.attr import LayerGradCam
from pytorch_grad_cam import GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM, XGradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from handler.explain.registry import METHODS
from handler.explain.types import Question
from handler.model.checkpoint import Model
from handler.model.network import class_activation
from tests.support.questions import ask, attributions, double_network, maps, of_network, relative_difference
from training.data import PathMNIST

CLOSED_FORM = sorted(name for name, method in METHODS.items() if method.closed_form)
PACKAGE = {
    "gradcam": GradCAM,
    "hirescam": HiResCAM,
    "xgradcam": XGradCAM,
    "layercam": LayerCAM,
    "gradcam_plus_plus": GradCAMPlusPlus,
}


def test_gradcam_equals_captum_for_every_class(model: Model, real_data: PathMNIST) -> None:
    question = ask(model, real_data.test.images[:9], list(range(9)))
    expected = LayerGradCam(question.network, question.network.layer4).attribute(
        question.inputs.clone(), target=torch.arange(9)
    )
    assert relative_difference(maps("gradcam", question), expected[:, 0]) < 1e-5


@pytest.mark.parametrize("name", CLOSED_FORM)
def test_closed_forms_equal_the_grad_cam_package_on_real_tiles(name: str, model: Model, real_data: PathMNIST) -> None:
    # Large gradients, where the constant that the package adds to a denominator does not count.
    network = double_network()
    network.fc.weight.data *= 1e6
    layer = network.layer4
    # The package needs gradients at the layer's end, and no further down.
    layer[-1].requires_grad_(True)
    for target in range(9):
        inputs = ask(model, real_data.test.images[target : target + 1], [target]).inputs.double()
        question = of_network(network, inputs, [target], model.preprocessing)
        with PACKAGE[name](model=network, target_layers=[layer]) as cam:
            wanted = [ClassifierOutputTarget(target)]
            cam(question.inputs.clone(), wanted)
            activations = cam.activations_and_grads.activations[0].detach().numpy()
            gradients = cam.activations_and_grads.gradients[0].detach().numpy()
            expected = cam.get_cam_image(question.inputs, layer, wanted, activations, gradients, False)
        assert relative_difference(maps(name, question).detach(), torch.from_numpy(expected)) < 1e-5, target


def test_gradcam_is_complete(question: Question) -> None:
    for attribution in attributions("gradcam", question):
        assert attribution.unit == "logit"
        assert attribution.facts["completeness_residual"] < 1e-4


def test_the_residual_is_what_the_map_misses(question: Question) -> None:
    for attribution, score, bias in zip(
        attributions("layercam", question), question.scores, question.network.fc.bias, strict=True
    ):
        gap = abs(float(attribution.values.sum() + bias - score))
        assert attribution.facts["completeness_residual"] == pytest.approx(gap, abs=1e-4)
        assert gap > 0.1


def test_a_contrast_is_the_difference_of_two_maps(question: Question) -> None:
    all_maps = class_activation(question.network, question.features)
    against_muscle = replace(question, coefficients=torch.eye(9)[[7] * 9] - torch.eye(9)[[5] * 9])
    found = maps("gradcam", against_muscle)
    assert torch.allclose(found, all_maps[:, 7] - all_maps[:, 5], atol=1e-5)
    difference = question.logits[:, 7] - question.logits[:, 5]
    biases = question.network.fc.bias[7] - question.network.fc.bias[5]
    assert torch.allclose(found.sum(dim=(1, 2)) + biases, difference, atol=1e-4)
