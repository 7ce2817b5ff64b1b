"""Integrated Gradients: the fixed rule against Captum, the adaptive one against many more points."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import DeepLift, IntegratedGradients
from torch import nn
from torchvision.models import ResNet
from torchvision.models.resnet import BasicBlock

from evaluation.quadrature import reference_map
from handler.explain import secant
from handler.explain.baselines import baseline_input
from handler.explain.batching import MAX_BATCH, Task, run
from handler.explain.evaluator import Evaluator
from handler.explain.integrated_gradients import FIRST_NODES, integrated_gradients
from handler.explain.secant import secant_forward
from handler.explain.types import Attribution, BudgetExceededError, Question
from handler.model.checkpoint import Model
from tests.conftest import Pixels
from tests.support.questions import (
    ask,
    attributions,
    double_network,
    map_error,
    maps,
    of_network,
    relative_difference,
    row,
)
from training.data import PathMNIST

DEFAULTS = {"n_steps": 0, "tolerance": 0.07, "max_evaluations": 128, "baseline": "black"}


def captum(question: Question, baseline: str, n_steps: int) -> torch.Tensor:
    return IntegratedGradients(question.network).attribute(
        question.inputs.clone(),
        baselines=baseline_input(question, baseline),
        target=question.coefficients.argmax(dim=1),
        n_steps=n_steps,
        method="gausslegendre",
        internal_batch_size=MAX_BATCH,
    )


@pytest.mark.parametrize("baseline", ["black", "white", "mean", "blur"])
def test_a_fixed_number_of_steps_equals_captum(model: Model, tiles: Pixels, baseline: str) -> None:
    question = ask(model, tiles[:2], [8, 3])
    found = maps("integrated_gradients", question, n_steps=20, baseline=baseline)
    assert relative_difference(found, captum(question, baseline, 20)) < 1e-4


def test_more_steps_than_a_batch_holds_equal_captum_too(model: Model, tiles: Pixels) -> None:
    question = ask(model, tiles[3:4], [3])
    found = maps("integrated_gradients", question, n_steps=MAX_BATCH + 5)
    assert relative_difference(found, captum(question, "black", MAX_BATCH + 5)) < 1e-4


def test_a_fixed_rule_reports_its_residual_and_no_verdict(model: Model, tiles: Pixels) -> None:
    question = ask(model, tiles[:2], [8, 3])
    with torch.no_grad():
        start = question.network(baseline_input(question, "white"))
    for index, target in enumerate((8, 3)):
        attribution = attributions("integrated_gradients", question, n_steps=4, baseline="white")[index]
        change = float(question.logits[index, target] - start[index, target])
        gap = abs((float(attribution.values.sum()) - change) / change)
        assert attribution.facts["completeness_residual"] == pytest.approx(gap, rel=1e-3)
        assert attribution.facts["gradient_evaluations"] == 4
        assert attribution.facts["converged"] is None


def test_the_first_segments_cover_the_path() -> None:
    assert (FIRST_NODES[0], FIRST_NODES[-1], len(FIRST_NODES)) == (0, 1, 16)
    assert np.all(np.diff(FIRST_NODES) > 0)


def test_one_segment_is_deeplift(model: Model, tiles: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    """Captum shares a max-pool's slope out in another way, so the network has none here."""
    network = double_network()
    inputs = ask(model, tiles[:1], [0]).inputs.double()
    baseline = torch.zeros_like(inputs)
    ends = torch.cat([baseline, inputs]).requires_grad_()
    network.maxpool = nn.Identity()
    monkeypatch.setattr(secant._PoolMaximum, "apply", lambda values, exact: values)
    (slopes,) = torch.autograd.grad(secant_forward(network, ends)[0, 4], ends)
    found = slopes[0] * (inputs - baseline)[0]
    expected = DeepLift(with_own_relus(network)).attribute(inputs.clone(), baseline, target=4)
    assert map_error(found, expected[0].detach()) < 1e-6


def with_own_relus(network: ResNet) -> ResNet:
    """The same network with a module for each ReLU, as Captum's hooks need."""

    def forward_of(block: BasicBlock) -> Callable[[torch.Tensor], torch.Tensor]:
        inner, outer = nn.ReLU(), nn.ReLU()
        block.inner, block.outer = inner, outer

        def forward(maps: torch.Tensor) -> torch.Tensor:
            shortcut = maps if block.downsample is None else block.downsample(maps)
            result: torch.Tensor = outer(block.bn2(block.conv2(inner(block.bn1(block.conv1(maps))))) + shortcut)
            return result

        return forward

    network.relu = nn.ReLU()
    for layer in (network.layer1, network.layer2, network.layer3, network.layer4):
        for block in layer:
            block.forward = forward_of(block)
    return network


def test_any_segments_are_complete(model: Model, real_data: PathMNIST) -> None:
    """In float64 to rounding: each segment's products sum to the score's change over it."""
    network = double_network()
    inputs = ask(model, real_data.test.images[5:6], [0]).inputs.double()
    nodes = torch.tensor([0, 0.1, 0.5, 1], dtype=torch.float64)[:, None, None, None]
    points = (nodes * inputs).requires_grad_()
    scores = secant_forward(network, points)[:, 7]
    assert torch.allclose(scores, network(points)[:, 7], atol=1e-12)
    (slopes,) = torch.autograd.grad(scores[:-1].sum(), points)
    products = (slopes[:-1] * (points[1:] - points[:-1])).sum(dim=(1, 2, 3))
    assert torch.allclose(products, scores.diff(), atol=1e-10)


def test_a_segment_without_length_has_the_gradient(model: Model, real_data: PathMNIST) -> None:
    network = double_network()
    inputs = ask(model, real_data.test.images[6:7], [0]).inputs.double()
    points = inputs.repeat(2, 1, 1, 1).requires_grad_()
    (slopes,) = torch.autograd.grad(secant_forward(network, points)[0, 2], points)
    leaf = inputs.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(network(leaf)[0, 2], leaf)
    assert map_error(slopes[:1], gradient) < 1e-9


@pytest.fixture(scope="module")
def reference(model: Model, real_data: PathMNIST) -> tuple[Question, torch.Tensor]:
    """A real tile and its map by 128 points, which are themselves about 0.01 of it away from more."""
    question = ask(model, real_data.test.images[1:2], [6])
    return question, reference_map(question, 128)


def test_the_adaptive_rule_keeps_its_tolerance(reference: tuple[Question, torch.Tensor]) -> None:
    question, expected = reference
    for tolerance in (0.07, 0.04):
        (found,) = attributions("integrated_gradients", question, tolerance=tolerance)
        assert found.facts["converged"] is True
        assert found.facts["completeness_residual"] < 1e-3
        assert found.facts["map_error_estimate"] <= tolerance
        assert map_error(found.values, expected) <= tolerance
        assert found.complete


def test_adaptive_comes_as_near_as_captum_with_a_third_of_the_gradients(
    reference: tuple[Question, torch.Tensor],
) -> None:
    question, expected = reference
    (found,) = attributions("integrated_gradients", question)
    assert found.facts["gradient_evaluations"] == 16
    assert map_error(found.values, expected) < 1.1 * map_error(captum(question, "black", 50)[0], expected)


def test_rounding_decides_little(model: Model, real_data: PathMNIST) -> None:
    """A pale tile: where float32 cannot tell neighbours apart, Captum's map moves by a tenth and more."""
    question = ask(model, real_data.test.images[600:601], [0])
    double = of_network(deepcopy(question.network).double(), question.inputs.double(), [0], question.preprocessing)

    def change(**parameters: Any) -> float:
        single, exact = (maps("integrated_gradients", item, **parameters)[0] for item in (question, double))
        return map_error(single.double(), exact)

    assert change(tolerance=1.0) < 0.02
    assert change(n_steps=16) > 0.1


def test_completeness_alone_is_not_enough(reference: tuple[Question, torch.Tensor]) -> None:
    """A cap of sixteen evaluations leaves a complete map that is not converged, and is said not to be."""
    question, _ = reference
    (found,) = attributions("integrated_gradients", question, tolerance=0.001, max_evaluations=16)
    assert found.facts["completeness_residual"] < 1e-3
    assert found.facts["converged"] is False
    assert found.facts["stopped_by"] == "max_evaluations"
    assert found.facts["gradient_evaluations"] <= 16


@pytest.mark.parametrize("limit", [16, 40, 90])
def test_the_cap_is_never_exceeded(limit: int, reference: tuple[Question, torch.Tensor]) -> None:
    question, _ = reference
    (found,) = attributions("integrated_gradients", question, tolerance=0.001, max_evaluations=limit)
    assert found.facts["gradient_evaluations"] <= limit


def test_out_of_time_it_gives_the_last_map_and_says_so(reference: tuple[Question, torch.Tensor]) -> None:
    question, expected = reference
    plan = integrated_gradients(question, {**DEFAULTS, "tolerance": 0.001})
    plan.send(Evaluator(question.network).evaluate(next(plan)))
    with pytest.raises(StopIteration) as end:
        plan.throw(BudgetExceededError())
    found: Attribution = end.value.value
    assert not found.complete
    assert (found.facts["converged"], found.facts["stopped_by"]) == (False, "budget_ms")
    assert map_error(found.values, expected) < 0.15


def test_a_tile_equal_to_its_baseline_has_an_empty_converged_map(model: Model) -> None:
    question = ask(model, np.zeros((1, 28, 28, 3), dtype=np.uint8), [0])
    (found,) = attributions("integrated_gradients", question)
    assert found.values.abs().max() < 1e-5
    assert found.facts["converged"] is True


@pytest.mark.parametrize("shade", [0, 90, 255])
def test_a_constant_tile_has_a_finite_map(shade: int, model: Model) -> None:
    question = ask(model, np.full((1, 28, 28, 3), shade, dtype=np.uint8), [3])
    (found,) = attributions("integrated_gradients", question, baseline="mean")
    assert found.values.isfinite().all()
    assert found.facts["completeness_residual"] < 1e-3


def test_black_and_white_are_pixels_and_mean_is_imagenets(question: Question) -> None:
    mean, std = np.array(question.preprocessing.mean), np.array(question.preprocessing.std)
    for name, pixel in (("black", np.zeros(3)), ("white", np.ones(3)), ("mean", mean)):
        found = baseline_input(question, name)[0, :, 0, 0].numpy() * std + mean
        assert np.allclose(found, pixel, atol=1e-6)


def test_the_blurred_baseline_keeps_the_colour_and_loses_the_structure(question: Question) -> None:
    blurred = baseline_input(question, "blur")
    assert torch.allclose(blurred.mean(dim=(2, 3)), question.inputs.mean(dim=(2, 3)), atol=0.1)
    assert blurred.std(dim=(2, 3)).mean() < question.inputs.std(dim=(2, 3)).mean() / 2


def test_a_contrast_is_the_difference_of_two_maps(model: Model, tiles: Pixels) -> None:
    stroma, muscle = (maps("integrated_gradients", ask(model, tiles[:1], [c]), n_steps=6) for c in (7, 5))
    question = ask(model, tiles[:1], [7])
    contrast = replace(question, coefficients=question.coefficients - torch.eye(9)[[5]])
    found = maps("integrated_gradients", contrast, n_steps=6)
    assert relative_difference(found, stroma - muscle) < 1e-3


def test_neighbours_in_a_batch_change_nothing(question: Question) -> None:
    """Chains of different tiles stand row by row in one batch."""
    parts = [row(question, index) for index in (1, 5)]
    together = run([Task(integrated_gradients(part, DEFAULTS)) for part in parts], Evaluator(question.network))
    for part, found in zip(parts, together, strict=True):
        (alone,) = attributions("integrated_gradients", part)
        assert isinstance(found, Attribution)
        assert map_error(found.values, alone.values) < 2e-3
        assert found.facts["gradient_evaluations"] == alone.facts["gradient_evaluations"]


def test_the_rule_works_in_float64_with_batch_normalisation(model: Model, tiles: Pixels) -> None:
    network = double_network()
    inputs = ask(model, tiles[:1], [0]).inputs.double()
    question = of_network(network, inputs, [4], model.preprocessing)
    (found,) = attributions("integrated_gradients", question)
    assert found.values.dtype == torch.float64
    assert found.facts["completeness_residual"] < 1e-9
