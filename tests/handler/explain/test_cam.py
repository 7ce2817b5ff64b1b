"""Class activation maps against Captum and the grad-cam package, and by their identities."""

import pytest
import torch
from captum.attr import LayerGradCam
from pytorch_grad_cam import GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM, XGradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from handler.classifier import Classifier
from handler.explain.registry import METHODS
from handler.model.checkpoint import Model
from handler.model.network import class_activation
from tests.conftest import Pixels
from tests.support.explaining import classifier_of, double_network, maps, network_inputs, relative_difference
from training.data import PathMNIST

CLOSED_FORM = sorted(name for name, method in METHODS.items() if method.closed_form)
PACKAGE = {
    "gradcam": GradCAM,
    "hirescam": HiResCAM,
    "xgradcam": XGradCAM,
    "layercam": LayerCAM,
    "gradcam_plus_plus": GradCAMPlusPlus,
}


def test_gradcam_equals_captum_for_every_class(model: Model, classifier: Classifier, real_data: PathMNIST) -> None:
    tiles = real_data.test.images[:9]
    inputs = network_inputs(model, tiles)
    expected = LayerGradCam(model.network, model.network.layer4).attribute(inputs, target=torch.arange(9))
    actual = maps(classifier.explain(list(tiles), "gradcam", range(9)))
    assert relative_difference(actual, expected[:, 0]) < 1e-5


@pytest.mark.parametrize("name", CLOSED_FORM)
def test_closed_forms_equal_the_grad_cam_package_on_real_tiles(name: str, model: Model, real_data: PathMNIST) -> None:
    # With large gradients the constant that the package adds to a denominator does not count.
    network = double_network()
    network.fc.weight.data *= 1e6
    layer = network.layer4
    # The package needs gradients at the end of the layer only.
    layer[-1].requires_grad_(True)
    classifier = classifier_of(model, network)
    for target in range(9):
        inputs = network_inputs(model, real_data.test.images[target : target + 1]).double()
        with PACKAGE[name](model=network, target_layers=[layer]) as cam:
            targets = [ClassifierOutputTarget(target)]
            cam(inputs.clone(), targets)
            activations = cam.activations_and_grads.activations[0].detach().numpy()
            gradients = cam.activations_and_grads.gradients[0].detach().numpy()
            expected = cam.get_cam_image(inputs, layer, targets, activations, gradients, False)
        actual = maps(classifier.explain_inputs(inputs, name, target))
        assert relative_difference(actual, torch.from_numpy(expected)) < 1e-5, target


def test_gradcam_is_complete(classifier: Classifier, tiles: Pixels) -> None:
    for explanation in classifier.explain(list(tiles[:9]), "gradcam", range(9)):
        assert explanation.unit == "logit"
        assert explanation.details["completeness_residual"] < 1e-4


def test_the_residual_is_the_gap_between_map_and_logit(model: Model, classifier: Classifier, tiles: Pixels) -> None:
    images = list(tiles[:9])
    pairs = zip(classifier.explain(images, "layercam", range(9)), classifier.predict(images), strict=True)
    for target, (explanation, prediction) in enumerate(pairs):
        total = explanation.attribution.sum() + float(model.network.fc.bias[target])
        gap = abs(total - prediction.logits[target])
        assert explanation.details["completeness_residual"] == pytest.approx(gap, abs=1e-4)
        assert gap > 0.1


def test_a_contrast_is_the_difference_of_two_maps(model: Model, classifier: Classifier, tiles: Pixels) -> None:
    images = list(tiles[:9])
    forward = classifier.engine.forward(images)
    class_maps = class_activation(model.network, forward.features)
    actual = maps(classifier.explain(images, "gradcam", target=7, contrast=5))
    assert torch.allclose(actual, class_maps[:, 7] - class_maps[:, 5], atol=1e-5)
    difference = forward.logits[:, 7] - forward.logits[:, 5]
    biases = model.network.fc.bias[7] - model.network.fc.bias[5]
    assert torch.allclose(actual.sum(dim=(1, 2)) + biases, difference, atol=1e-4)
