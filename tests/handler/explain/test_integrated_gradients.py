"""Integrated Gradients: the fixed rule against Captum, the adaptive one against many more points."""

from collections.abc import Callable
from copy import deepcopy

import numpy as np
import pytest
import torch
from captum.attr import DeepLift, IntegratedGradients
from torch import Tensor, nn
from torchvision.models import ResNet
from torchvision.models.resnet import BasicBlock
from torchvision.transforms.functional import gaussian_blur

from evaluation.quadrature import reference_map
from handler.classifier import Classifier
from handler.explain import secant
from handler.explain.baselines import baseline_input
from handler.explain.batching import MAX_BATCH, Task, run
from handler.explain.evaluator import Evaluator
from handler.explain.secant import secant_forward
from handler.explain.segments import SegmentedPath
from handler.explain.types import Attribution, BudgetExceededError, Sample
from handler.model.checkpoint import Model
from tests.conftest import Pixels
from tests.support.explaining import (
    classifier_of,
    double_network,
    map_error,
    maps,
    network_inputs,
    plan_of,
    relative_difference,
    sample,
)
from training.data import PathMNIST

METHOD = "integrated_gradients"


def captum(model: Model, tiles: Pixels, targets: list[int], baseline: str, n_steps: int) -> Tensor:
    inputs = network_inputs(model, tiles)
    return IntegratedGradients(model.network).attribute(
        inputs,
        baselines=baseline_input(baseline, inputs, model.preprocessing),
        target=torch.tensor(targets),
        n_steps=n_steps,
        method="gausslegendre",
        internal_batch_size=MAX_BATCH,
    )


@pytest.mark.parametrize("baseline", ["black", "white", "mean", "blur"])
def test_a_fixed_number_of_steps_equals_captum(
    model: Model, classifier: Classifier, tiles: Pixels, baseline: str
) -> None:
    actual = maps(classifier.explain(list(tiles[:2]), METHOD, [8, 3], n_steps=20, baseline=baseline))
    assert relative_difference(actual, captum(model, tiles[:2], [8, 3], baseline, 20)) < 1e-4


def test_more_steps_than_a_batch_holds_equal_captum_too(model: Model, classifier: Classifier, tiles: Pixels) -> None:
    actual = maps(classifier.explain([tiles[3]], METHOD, 3, n_steps=MAX_BATCH + 5))
    assert relative_difference(actual, captum(model, tiles[3:4], [3], "black", MAX_BATCH + 5)) < 1e-4


def test_a_fixed_rule_reports_its_residual_and_no_verdict(model: Model, classifier: Classifier, tiles: Pixels) -> None:
    inputs = network_inputs(model, tiles[:2])
    with torch.no_grad():
        change = model.network(inputs) - model.network(baseline_input("white", inputs, model.preprocessing))
    explanations = classifier.explain(list(tiles[:2]), METHOD, [8, 3], n_steps=4, baseline="white")
    for explanation, expected in zip(explanations, (change[0, 8], change[1, 3]), strict=True):
        gap = abs((float(explanation.attribution.sum()) - float(expected)) / float(expected))
        assert explanation.details["completeness_residual"] == pytest.approx(gap, rel=1e-3)
        assert explanation.details["gradient_evaluations"] == 4
        assert explanation.details["converged"] is None


def test_segments_cover_the_path_without_a_gap_however_often_they_are_halved(
    model: Model, samples: list[Sample]
) -> None:
    path = SegmentedPath(samples[0], torch.zeros_like(samples[0].inputs))
    evaluator = Evaluator(model.network)
    steps = path.evaluate_first()
    for _ in range(3):
        request = next(steps)
        with pytest.raises(StopIteration):
            steps.send(evaluator.evaluate(request))
        ends = [segment.end for segment in path.segments]
        assert [segment.start for segment in path.segments] == [0, *ends[:-1]]
        assert sum(segment.length for segment in path.segments) == pytest.approx(1, abs=1e-12)
        steps = path.evaluate(path.halve_worst())
    assert len(path.segments) > 15


def test_one_segment_is_deeplift(model: Model, tiles: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the max-pool, whose gradient Captum splits in another way."""
    network = double_network()
    inputs = network_inputs(model, tiles[:1]).double()
    baseline = torch.zeros_like(inputs)
    ends = torch.cat([baseline, inputs]).requires_grad_()
    network.maxpool = nn.Identity()
    monkeypatch.setattr(secant._MaxPool, "apply", lambda values, *_: values)
    (gradients,) = torch.autograd.grad(secant_forward(network, ends)[0, 4], ends)
    actual = gradients[0] * (inputs - baseline)[0]
    expected = DeepLift(with_own_relus(network)).attribute(inputs.clone(), baseline, target=4)
    assert map_error(actual, expected[0].detach()) < 1e-6


def with_own_relus(network: ResNet) -> ResNet:
    """The same network with a module for each ReLU, for Captum's hooks."""

    def forward_of(block: BasicBlock) -> Callable[[torch.Tensor], torch.Tensor]:
        inner, outer = nn.ReLU(), nn.ReLU()
        block.inner, block.outer = inner, outer

        def forward(maps: torch.Tensor) -> torch.Tensor:
            shortcut = maps if block.downsample is None else block.downsample(maps)
            result: torch.Tensor = outer(block.bn2(block.conv2(inner(block.bn1(block.conv1(maps))))) + shortcut)
            return result

        return forward

    network.relu = nn.ReLU()
    for block in network.blocks():
        block.forward = forward_of(block)
    return network


def test_any_segments_are_complete(model: Model, real_data: PathMNIST) -> None:
    """In float64 to rounding: each segment's products sum to the score's change over it."""
    network = double_network()
    inputs = network_inputs(model, real_data.test.images[5:6]).double()
    nodes = torch.tensor([0, 0.1, 0.5, 1], dtype=torch.float64)[:, None, None, None]
    points = (nodes * inputs).requires_grad_()
    scores = secant_forward(network, points)[:, 7]
    assert torch.allclose(scores, network(points)[:, 7], atol=1e-12)
    (gradients,) = torch.autograd.grad(scores[:-1].sum(), points)
    products = (gradients[:-1] * (points[1:] - points[:-1])).sum(dim=(1, 2, 3))
    assert torch.allclose(products, scores.diff(), atol=1e-10)


def test_a_segment_without_length_has_the_gradient(model: Model, real_data: PathMNIST) -> None:
    network = double_network()
    inputs = network_inputs(model, real_data.test.images[6:7]).double()
    points = inputs.repeat(2, 1, 1, 1).requires_grad_()
    (actual,) = torch.autograd.grad(secant_forward(network, points)[0, 2], points)
    leaf = inputs.clone().requires_grad_()
    (expected,) = torch.autograd.grad(network(leaf)[0, 2], leaf)
    assert map_error(actual[:1], expected) < 1e-9


@pytest.fixture(scope="module")
def tile(real_data: PathMNIST) -> Pixels:
    return real_data.test.images[1]


@pytest.fixture(scope="module")
def reference(model: Model, tile: Pixels) -> Tensor:
    """The tile's map for class 6 by 128 points, which is about 0.01 of its norm away from that of more points."""
    return reference_map(model, network_inputs(model, tile[None]), 6, 128)


def test_the_adaptive_rule_keeps_its_tolerance(classifier: Classifier, tile: Pixels, reference: Tensor) -> None:
    for tolerance in (0.07, 0.04):
        (explanation,) = classifier.explain([tile], METHOD, 6, tolerance=tolerance)
        assert explanation.details["converged"] is True
        assert explanation.details["completeness_residual"] < 1e-3
        assert explanation.details["map_error_estimate"] <= tolerance
        assert map_error(maps([explanation])[0], reference) <= tolerance
        assert explanation.complete


def test_adaptive_is_nearer_than_captum_with_as_many_gradients(
    model: Model, classifier: Classifier, tile: Pixels, reference: Tensor
) -> None:
    (explanation,) = classifier.explain([tile], METHOD, 6)
    evaluations = explanation.details["gradient_evaluations"]
    # Captum takes 50 points by default.
    assert evaluations < 35
    with_as_many = captum(model, tile[None], [6], "black", evaluations)[0]
    assert map_error(maps([explanation])[0], reference) < 0.5 * map_error(with_as_many, reference)


def test_rounding_decides_little(model: Model, classifier: Classifier, real_data: PathMNIST) -> None:
    """Pale tiles too, in which float32 can hardly tell neighbours apart."""
    inputs = network_inputs(model, real_data.test.images[600:680:20])
    targets = model.network(inputs).argmax(dim=1).tolist()
    double = classifier_of(model, deepcopy(model.network).double())
    single = maps(classifier.explain_inputs(inputs, METHOD, targets, tolerance=1.0)).double()
    exact = maps(double.explain_inputs(inputs.double(), METHOD, targets, tolerance=1.0))
    for found, expected in zip(single, exact, strict=True):
        assert map_error(found, expected) < 0.02


def test_completeness_alone_is_not_enough(classifier: Classifier, tile: Pixels) -> None:
    """Sixteen evaluations give a complete map that is not converged, and the answer says so."""
    (explanation,) = classifier.explain([tile], METHOD, 6, tolerance=0.001, max_evaluations=16)
    assert explanation.details["completeness_residual"] < 1e-3
    assert explanation.details["converged"] is False
    assert explanation.details["stopped_by"] == "max_evaluations"
    assert explanation.details["gradient_evaluations"] <= 16


@pytest.mark.parametrize("limit", [16, 40, 90])
def test_the_limit_of_evaluations_is_never_exceeded(limit: int, classifier: Classifier, tile: Pixels) -> None:
    (explanation,) = classifier.explain([tile], METHOD, 6, tolerance=0.001, max_evaluations=limit)
    assert explanation.details["gradient_evaluations"] <= limit


def test_out_of_time_it_returns_the_last_map_and_says_so(model: Model, tile: Pixels, reference: Tensor) -> None:
    plan = plan_of(METHOD, sample(model, tile, 6), tolerance=0.001)
    plan.send(Evaluator(model.network).evaluate(next(plan)))
    with pytest.raises(StopIteration) as end:
        plan.throw(BudgetExceededError())
    attribution: Attribution = end.value.value
    assert not attribution.complete
    assert (attribution.details["converged"], attribution.details["stopped_by"]) == (False, "budget_ms")
    assert map_error(attribution.values, reference) < 0.15


def test_a_tile_equal_to_its_baseline_has_an_empty_converged_map(classifier: Classifier) -> None:
    (explanation,) = classifier.explain([np.zeros((28, 28, 3), dtype=np.uint8)], METHOD, 0)
    assert np.abs(explanation.attribution).max() < 1e-5
    assert explanation.details["converged"] is True


@pytest.mark.parametrize("shade", [0, 90, 255])
def test_a_constant_tile_has_a_finite_map(shade: int, classifier: Classifier) -> None:
    constant = np.full((28, 28, 3), shade, dtype=np.uint8)
    (explanation,) = classifier.explain([constant], METHOD, 3, baseline="mean")
    assert np.isfinite(explanation.attribution).all()
    assert explanation.details["completeness_residual"] < 1e-3


def test_black_and_white_are_pixels_and_mean_is_imagenets(model: Model, tiles: Pixels) -> None:
    mean, std = np.array(model.preprocessing.mean), np.array(model.preprocessing.std)
    inputs = network_inputs(model, tiles[:1])
    for name, pixel in (("black", np.zeros(3)), ("white", np.ones(3)), ("mean", mean)):
        baseline = baseline_input(name, inputs, model.preprocessing)
        assert np.allclose(baseline[0, :, 0, 0].numpy() * std + mean, pixel, atol=1e-6)


def test_the_blurred_baseline_keeps_the_colour_and_loses_the_structure(model: Model, tiles: Pixels) -> None:
    inputs = network_inputs(model, tiles[:9])
    blurred = baseline_input("blur", inputs, model.preprocessing)
    assert torch.allclose(blurred.mean(dim=(2, 3)), inputs.mean(dim=(2, 3)), atol=0.1)
    assert blurred.std(dim=(2, 3)).mean() < inputs.std(dim=(2, 3)).mean() / 2
    assert torch.allclose(blurred, gaussian_blur(inputs, [97, 97], [16.0, 16.0]), atol=1e-5)


def test_a_contrast_is_the_difference_of_two_maps(classifier: Classifier, tiles: Pixels) -> None:
    stroma, muscle = (maps(classifier.explain([tiles[0]], METHOD, target, n_steps=6)) for target in (7, 5))
    contrast = maps(classifier.explain([tiles[0]], METHOD, 7, contrast=5, n_steps=6))
    assert relative_difference(contrast, stroma - muscle) < 1e-3


def test_neighbours_in_a_batch_change_nothing(
    model: Model, classifier: Classifier, tiles: Pixels, samples: list[Sample]
) -> None:
    """Chains of different tiles follow one another in the rows of a batch."""
    tasks = [Task(plan_of(METHOD, samples[index])) for index in (1, 5)]
    run(tasks, Evaluator(model.network))
    for index, task in zip((1, 5), tasks, strict=True):
        (alone,) = classifier.explain([tiles[index]], METHOD, index)
        assert isinstance(task.outcome, Attribution)
        assert map_error(task.outcome.values, maps([alone])[0]) < 2e-3
        assert task.outcome.details["gradient_evaluations"] == alone.details["gradient_evaluations"]


def test_the_rule_works_in_float64_with_batch_normalisation(model: Model, tiles: Pixels) -> None:
    classifier = classifier_of(model, double_network())
    (explanation,) = classifier.explain_inputs(network_inputs(model, tiles[:1]).double(), METHOD, 4)
    assert explanation.attribution.dtype == np.float64
    assert explanation.details["completeness_residual"] < 1e-9
