"""Gradient methods against Captum called directly."""

import warnings

import pytest
import torch
from captum.attr import GuidedBackprop, InputXGradient, NoiseTunnel, Saliency
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from handler.classifier import Classifier
from handler.explain.evaluator import Evaluator
from handler.explain.gradients import SEED
from handler.explain.types import BudgetExceededError, Sample
from handler.model.checkpoint import Model
from tests.conftest import Pixels
from tests.support.explaining import maps, network_inputs, plan_of, relative_difference

TARGETS = torch.arange(9)


@pytest.fixture
def inputs(model: Model, tiles: Pixels) -> Tensor:
    """Nine tiles, for gradients."""
    return network_inputs(model, tiles[:9]).requires_grad_()


def test_saliency_equals_captum(model: Model, classifier: Classifier, tiles: Pixels, inputs: Tensor) -> None:
    expected = Saliency(model.network).attribute(inputs, target=TARGETS, abs=False)
    actual = maps(classifier.explain(list(tiles[:9]), "saliency", range(9)))
    assert relative_difference(actual, expected) < 1e-4


def test_input_x_gradient_equals_captum(model: Model, classifier: Classifier, tiles: Pixels, inputs: Tensor) -> None:
    expected = InputXGradient(model.network).attribute(inputs, target=TARGETS)
    actual = maps(classifier.explain(list(tiles[:9]), "input_x_gradient", range(9)))
    assert relative_difference(actual, expected) < 1e-4


class GuidedReLU(torch.autograd.Function):
    """Guided backpropagation as in its paper, without hooks."""

    @staticmethod
    def forward(context: torch.autograd.function.FunctionCtx, values: torch.Tensor) -> torch.Tensor:
        context.save_for_backward(values)
        return values.relu()

    @staticmethod
    def backward(context: torch.autograd.function.FunctionCtx, gradient: torch.Tensor) -> torch.Tensor:
        (values,) = context.saved_tensors  # type: ignore[attr-defined]
        return gradient * (values > 0) * (gradient > 0)


def guided_block(block: BasicBlock, maps: torch.Tensor) -> torch.Tensor:
    shortcut = maps if block.downsample is None else block.downsample(maps)
    inner = GuidedReLU.apply(block.bn1(block.conv1(maps)))
    result: torch.Tensor = GuidedReLU.apply(block.bn2(block.conv2(inner)) + shortcut)
    return result


def test_guided_backprop_is_the_papers_rule_and_captums(
    model: Model, classifier: Classifier, tiles: Pixels, inputs: Tensor
) -> None:
    network = model.network
    features = network.maxpool(GuidedReLU.apply(network.bn1(network.conv1(inputs))))
    for block in network.blocks():
        features = guided_block(block, features)
    logits = network.fc(features.mean(dim=(2, 3)))
    (expected,) = torch.autograd.grad(logits.gather(1, TARGETS[:, None]).sum(), inputs)
    actual = maps(classifier.explain(list(tiles[:9]), "guided_backprop", range(9)))
    assert relative_difference(actual, expected) < 1e-4
    captum = GuidedBackprop(network).attribute(inputs, target=TARGETS)
    assert relative_difference(actual, captum) < 1e-4


def test_guided_backprop_leaves_no_hook_and_no_warning(model: Model, classifier: Classifier, tiles: Pixels) -> None:
    before = maps(classifier.explain([tiles[0]], "saliency"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        classifier.explain([tiles[0]], "guided_backprop")
    assert torch.equal(maps(classifier.explain([tiles[0]], "saliency")), before)
    relus = [module for module in model.network.modules() if isinstance(module, nn.ReLU)]
    assert not any(module._backward_hooks or module._forward_hooks for module in relus)


def test_smoothgrad_is_captums_noise_tunnel_with_the_same_noise(
    model: Model, classifier: Classifier, tiles: Pixels
) -> None:
    inputs = network_inputs(model, tiles[8:9])
    spread = float(inputs.max() - inputs.min())
    torch.manual_seed(SEED)
    expected = NoiseTunnel(Saliency(model.network)).attribute(
        inputs, nt_samples=6, nt_type="smoothgrad", stdevs=0.1 * spread, target=8, abs=False
    )
    (actual,) = classifier.explain([tiles[8]], "smoothgrad", 8, n_samples=6, noise=0.1)
    assert relative_difference(maps([actual]), expected) < 1e-4
    assert (actual.details["n_samples"], actual.details["gradient_evaluations"]) == (6, 6)


def test_smoothgrad_without_noise_is_the_gradient_with_no_error(classifier: Classifier, tiles: Pixels) -> None:
    smooth = classifier.explain([tiles[4]], "smoothgrad", 4, n_samples=3, noise=0.0)
    assert relative_difference(maps(smooth), maps(classifier.explain([tiles[4]], "saliency", 4))) < 1e-4
    assert smooth[0].details["standard_error"] < 1e-2


def test_smoothgrads_standard_error_is_that_of_its_samples(model: Model, classifier: Classifier, tiles: Pixels) -> None:
    (smooth,) = classifier.explain([tiles[4]], "smoothgrad", 4, n_samples=4, noise=0.2)
    tile = network_inputs(model, tiles[4:5])
    noise = torch.randn((4, *tile.shape[1:]), generator=torch.Generator().manual_seed(SEED))
    noisy = (tile + 0.2 * (tile.max() - tile.min()) * noise).requires_grad_()
    samples = Saliency(model.network).attribute(noisy, target=4, abs=False)
    expected = (samples.var(dim=0) / 4).sum().sqrt() / samples.mean(dim=0).norm()
    assert smooth.details["standard_error"] == pytest.approx(float(expected), rel=1e-3)


def test_smoothgrad_out_of_time_returns_the_samples_it_has(model: Model, samples: list[Sample]) -> None:
    plan = plan_of("smoothgrad", samples[4], n_samples=64, noise=0.1)
    request = next(plan)
    plan.send(Evaluator(model.network).evaluate(request))
    with pytest.raises(StopIteration) as end:
        plan.throw(BudgetExceededError())
    assert end.value.value.details["n_samples"] == len(request.inputs) < 64
    assert not end.value.value.complete
