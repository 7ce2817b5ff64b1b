"""Gradient methods against Captum called directly."""

import pytest
import torch
from captum.attr import GuidedBackprop, InputXGradient, NoiseTunnel, Saliency
from torch import nn
from torchvision.models.resnet import BasicBlock

from handler.explain.evaluator import Evaluator
from handler.explain.gradients import SEED, smoothgrad
from handler.explain.types import BudgetExceededError, Question
from tests.support.questions import attributions, maps, relative_difference, row

TARGETS = torch.arange(9)


def test_saliency_equals_captum(question: Question) -> None:
    inputs = question.inputs.clone().requires_grad_()
    expected = Saliency(question.network).attribute(inputs, target=TARGETS, abs=False)
    assert relative_difference(maps("saliency", question), expected) < 1e-4


def test_input_x_gradient_equals_captum(question: Question) -> None:
    inputs = question.inputs.clone().requires_grad_()
    expected = InputXGradient(question.network).attribute(inputs, target=TARGETS)
    assert relative_difference(maps("input_x_gradient", question), expected) < 1e-4


class GuidedReLU(torch.autograd.Function):
    """Guided backpropagation as its paper states it, with no hooks."""

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


def test_guided_backprop_is_the_papers_rule_and_captums(question: Question) -> None:
    network = question.network
    inputs = question.inputs.clone().requires_grad_()
    features = network.maxpool(GuidedReLU.apply(network.bn1(network.conv1(inputs))))
    for layer in (network.layer1, network.layer2, network.layer3, network.layer4):
        for block in layer:
            features = guided_block(block, features)
    logits = network.fc(features.mean(dim=(2, 3)))
    (expected,) = torch.autograd.grad(logits.gather(1, TARGETS[:, None]).sum(), inputs)
    found = maps("guided_backprop", question)
    assert relative_difference(found, expected) < 1e-4
    captum = GuidedBackprop(network).attribute(question.inputs.clone(), target=TARGETS)
    assert relative_difference(found, captum) < 1e-4


def test_guided_backprop_leaves_no_hook_behind(question: Question) -> None:
    before = maps("saliency", question)
    maps("guided_backprop", question)
    assert torch.equal(maps("saliency", question), before)
    relus = [module for module in question.network.modules() if isinstance(module, nn.ReLU)]
    assert not any(module._backward_hooks or module._forward_hooks for module in relus)


def test_smoothgrad_is_captums_noise_tunnel_with_the_same_noise(question: Question) -> None:
    single = row(question, 8)
    spread = float(single.inputs.max() - single.inputs.min())
    torch.manual_seed(SEED)
    expected = NoiseTunnel(Saliency(single.network)).attribute(
        single.inputs.clone(), nt_samples=6, nt_type="smoothgrad", stdevs=0.1 * spread, target=8, abs=False
    )
    (found,) = attributions("smoothgrad", single, n_samples=6, noise=0.1)
    assert relative_difference(found.values, expected[0]) < 1e-4
    assert (found.facts["n_samples"], found.facts["gradient_evaluations"]) == (6, 6)


def test_smoothgrad_without_noise_is_the_gradient_with_no_error(question: Question) -> None:
    single = row(question, 4)
    (found,) = attributions("smoothgrad", single, n_samples=3, noise=0.0)
    assert relative_difference(found.values, maps("saliency", single)[0]) < 1e-4
    assert found.facts["standard_error"] < 1e-2


def test_smoothgrads_standard_error_is_the_samples_own(question: Question) -> None:
    single = row(question, 4)
    (found,) = attributions("smoothgrad", single, n_samples=4, noise=0.2)
    generator = torch.Generator().manual_seed(SEED)
    noise = torch.randn((4, *single.inputs.shape[1:]), generator=generator)
    scale = 0.2 * (single.inputs.max() - single.inputs.min())
    inputs = (single.inputs + scale * noise).requires_grad_()
    samples = Saliency(single.network).attribute(inputs, target=4, abs=False)
    expected = (samples.var(dim=0) / 4).sum().sqrt() / samples.mean(dim=0).norm()
    assert found.facts["standard_error"] == pytest.approx(float(expected), rel=1e-3)


def test_smoothgrad_out_of_time_gives_what_it_has_and_says_so(question: Question) -> None:
    single = row(question, 4)
    plan = smoothgrad(single, {"n_samples": 64, "noise": 0.1})
    points = next(plan)
    plan.send(Evaluator(single.network).evaluate(points))
    with pytest.raises(StopIteration) as end:
        plan.throw(BudgetExceededError())
    assert end.value.value.facts["n_samples"] == len(points.inputs) < 64
    assert not end.value.value.complete
