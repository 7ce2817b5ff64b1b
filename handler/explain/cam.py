"""Class activation maps of `layer4`, in closed form.

The network ends in average pooling and one linear layer, so the gradient of a logit with respect to channel k is the
same in every cell: W[c,k] / (h w). What these methods compute by a backward pass is therefore a weighted sum of the
feature map, and Grad-CAM, HiResCAM and XGrad-CAM are one and the same map. Each map is `[h, w]` in logits and, where
it is complete, sums with the bias to the logit.
"""

import torch
from torch import Tensor

from handler.explain.types import Attribution, Question


def gradcam(question: Question) -> list[Attribution]:
    """Grad-CAM before its ReLU (Selvaraju et al., arXiv 1610.02391).

    Here also HiResCAM (Draelos and Carin, arXiv 2011.08891), whose gradients are Grad-CAM's means, and XGrad-CAM (Fu
    et al., arXiv 2008.02312), whose weights `sum(g A) / sum(A)` are g. The maps are those of Zhou et al. (arXiv
    1512.04150).
    """
    return _attributions(question, _gradient(question))


def layercam(question: Question) -> list[Attribution]:
    """LayerCAM (Jiang et al., doi 10.1109/TIP.2021.3089943): only gradients above zero count."""
    return _attributions(question, _gradient(question).clamp(min=0))


def gradcam_plus_plus(question: Question) -> list[Attribution]:
    """Grad-CAM++ (Chattopadhay et al., arXiv 1710.11063), equation 19 with its exponential left out, as is usual.

    Channel weights are `sum_ij relu(g) g^2 / (2 g^2 + g^3 sum(A))`; with g the same in all cells that is
    `h w relu(g) / (2 + g sum(A))`, with nothing to divide by zero. (The grad-cam package adds 1e-6 to the first
    form's denominator, which at this network's gradients outweighs `2 g^2`.)
    """
    gradient = _gradient(question).clamp(min=0)
    cells = question.features.shape[2] * question.features.shape[3]
    return _attributions(question, cells * gradient / (2 + gradient * question.features.sum(dim=(2, 3))))


def _gradient(question: Question) -> Tensor:
    """The score's gradient with respect to any cell of each channel, `[N, 512]`."""
    cells = question.features.shape[2] * question.features.shape[3]
    return question.coefficients @ question.network.fc.weight / cells


def _attributions(question: Question, channel_weights: Tensor) -> list[Attribution]:
    """The weighted sum of the feature map, and by how much its sum plus the bias misses the score."""
    maps = torch.einsum("nk,nkhw->nhw", channel_weights, question.features)
    total = maps.sum(dim=(1, 2)) + question.coefficients @ question.network.fc.bias
    residuals = (total - question.scores).abs().tolist()
    return [
        Attribution(values, "logit", {"layer": "layer4", "completeness_residual": residual})
        for values, residual in zip(maps, residuals, strict=True)
    ]
