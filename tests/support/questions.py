"""Questions for the methods under test, and their answers."""

from typing import Any

import torch
from torch import Tensor
from torchvision.models import ResNet

from handler.explain.batching import Task, run
from handler.explain.evaluator import Evaluator
from handler.explain.registry import METHODS
from handler.explain.types import Attribution, Question
from handler.model.checkpoint import Model
from handler.model.engine import Engine
from handler.model.network import build_network, classify, feature_map, load_network
from handler.model.preprocess import Preprocessing
from tests.conftest import Pixels
from training.checkpoint import SHIPPED


def ask(model: Model, tiles: Pixels, targets: list[int]) -> Question:
    """One tile for each target."""
    forward = Engine(model, torch.device("cpu")).forward(list(tiles))
    coefficients = torch.eye(9)[targets]
    return Question(model.network, model.preprocessing, forward.inputs, forward.features, forward.logits, coefficients)


def of_network(network: ResNet, inputs: Tensor, targets: list[int], preprocessing: Preprocessing) -> Question:
    """A question to any network, in its own precision."""
    with torch.no_grad():
        features = feature_map(network, inputs)
        logits = classify(network, features)
    return Question(network, preprocessing, inputs, features, logits, torch.eye(9, dtype=inputs.dtype)[targets])


def double_network() -> ResNet:
    """The shipped network in float64, with its BatchNorm."""
    network = build_network().double().eval().requires_grad_(False)
    network.load_state_dict(load_network(SHIPPED / "pathmnist_resnet18.safetensors").state_dict())
    return network


def row(question: Question, index: int) -> Question:
    part = slice(index, index + 1)
    return Question(
        question.network,
        question.preprocessing,
        question.inputs[part],
        question.features[part],
        question.logits[part],
        question.coefficients[part],
    )


def attributions(name: str, question: Question, **parameters: Any) -> list[Attribution]:
    """What a method answers for each tile, with default parameters but for those named."""
    method = METHODS[name]
    if method.closed_form is not None:
        return method.closed_form(question)
    assert method.plan is not None
    values = {key: spec.default for key, spec in method.parameters.items()} | parameters
    tasks = [Task(method.plan(row(question, index), values)) for index in range(len(question.inputs))]
    outcomes = run(tasks, Evaluator(question.network))
    assert all(isinstance(item, Attribution) for item in outcomes), outcomes
    return [item for item in outcomes if isinstance(item, Attribution)]


def maps(name: str, question: Question, **parameters: Any) -> Tensor:
    return torch.stack([item.values for item in attributions(name, question, **parameters)])


def relative_difference(found: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest expected value."""
    return float(((found - expected).abs().max() / expected.abs().max()).detach())


def map_error(found: Tensor, expected: Tensor) -> float:
    """The norm of the difference, relative to the expected norm."""
    return float(((found - expected).norm() / expected.norm()).detach())
