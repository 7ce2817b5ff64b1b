"""Classifiers, samples and maps for tests of explanations."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.models import ResNet

from handler.classifier import Classifier
from handler.explain.explainer import Explanation
from handler.explain.registry import METHODS
from handler.explain.types import Plan, Sample
from handler.model.checkpoint import WEIGHTS, Model
from handler.model.engine import Engine
from handler.model.network import build_network, load_network
from handler.model.preprocess import preprocess
from tests.conftest import Pixels
from training.checkpoint import SHIPPED


def classifier_of(model: Model, network: ResNet | None = None) -> Classifier:
    """A classifier of a model, optionally with another network."""
    return Classifier(Engine(replace(model, network=network or model.network), torch.device("cpu")))


def double_network() -> ResNet:
    """The shipped network in float64, with its BatchNorm."""
    network = build_network().double().eval().requires_grad_(False)
    network.load_state_dict(load_network(SHIPPED / WEIGHTS).state_dict())
    return network


def network_inputs(model: Model, tiles: Pixels) -> Tensor:
    """Tiles as inputs of the network, `[N, 3, I, I]`."""
    return preprocess([torch.from_numpy(tile) for tile in tiles], model.preprocessing)


def sample(model: Model, tile: Pixels, target: int) -> Sample:
    """A sample: one tile and the class whose logit is explained."""
    forward = Engine(model, torch.device("cpu")).forward([tile])
    return Sample(model.preprocessing, forward.inputs, torch.eye(9)[[target]], forward.logits[:, target])


def plan_of(name: str, sample: Sample, **parameters: Any) -> Plan:
    """A method's plan, with default parameters except those given."""
    method = METHODS[name]
    assert method.plan is not None
    return method.plan(sample, method.complete(parameters))


def maps(explanations: Iterable[Explanation]) -> Tensor:
    """All maps in one tensor."""
    return torch.from_numpy(np.stack([explanation.attribution for explanation in explanations]))


def relative_difference(actual: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest expected value."""
    return float(((actual - expected).abs().max() / expected.abs().max()).detach())


def map_error(actual: Tensor, expected: Tensor) -> float:
    """The norm of the difference, relative to the expected norm."""
    return float(((actual - expected).norm() / expected.norm()).detach())
