"""Class activation maps, in closed form."""

from collections.abc import Mapping
from typing import Any

import torch

from handler.explain.attribution import Attribution, Question
from handler.network import class_activation


def gradcam(question: Question, _: Mapping[str, Any]) -> Attribution:
    """Grad-CAM on `layer4` (Selvaraju et al., arXiv 1610.02391), before its ReLU: `[N, h, w]` in logits.

    In a network that ends in average pooling and one linear layer, Grad-CAM's weights (the mean gradient of each
    channel) are that layer's weights over h w, so no backward pass is needed. `completeness_residual` is the
    absolute difference between the map's sum plus the class's bias and the logit.
    """
    chosen = (
        torch.arange(len(question.targets), device=question.targets.device),
        question.targets,
    )
    maps = class_activation(question.network, question.features)[chosen]
    total = maps.sum(dim=(1, 2)) + question.network.fc.bias[question.targets]
    residuals = (total - question.logits[chosen]).abs().tolist()
    facts = [{"layer": "layer4", "completeness_residual": residual} for residual in residuals]
    return Attribution(maps, "logit", facts)
