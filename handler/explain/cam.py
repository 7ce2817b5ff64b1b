"""Class activation maps of `layer4`, in closed form.

The network ends in average pooling and one linear layer, so the gradient of a logit with respect to channel k is the
same in every cell: W[c,k] / (h w). The maps that these methods compute by a backward pass are therefore weighted sums
of the feature map, and Grad-CAM, HiResCAM and XGrad-CAM are the same map. Each map is `[h, w]` in logits; a complete
one sums with the bias to the logit.
"""

import torch
from torch import Tensor

from handler.explain.types import Activations, Attribution


def gradcam(activations: Activations) -> list[Attribution]:
    """Grad-CAM before its ReLU (Selvaraju et al., arXiv 1610.02391).

    Here it equals HiResCAM (Draelos and Carin, arXiv 2011.08891), whose gradients are Grad-CAM's means, and XGrad-CAM
    (Fu et al., arXiv 2008.02312), whose weights `sum(g A) / sum(A)` are g. The maps are those of Zhou et al. (arXiv
    1512.04150).
    """
    return _attributions(activations, _gradient(activations))


def layercam(activations: Activations) -> list[Attribution]:
    """LayerCAM (Jiang et al., doi 10.1109/TIP.2021.3089943): only positive gradients count."""
    return _attributions(activations, _gradient(activations).clamp(min=0))


def gradcam_plus_plus(activations: Activations) -> list[Attribution]:
    """Grad-CAM++ (Chattopadhay et al., arXiv 1710.11063), equation 19 without its exponential, as is usual.

    Channel weights are `sum_ij relu(g) g^2 / (2 g^2 + g^3 sum(A))`. With the same g in all cells that is
    `h w relu(g) / (2 + g sum(A))`, which never divides by zero. (The grad-cam package adds 1e-6 to the first form's
    denominator, which for this network's gradients outweighs `2 g^2`.)
    """
    gradient = _gradient(activations).clamp(min=0)
    features = activations.features
    return _attributions(activations, _cells(features) * gradient / (2 + gradient * features.sum(dim=(2, 3))))


def _cells(features: Tensor) -> int:
    return features.shape[2] * features.shape[3]


def _gradient(activations: Activations) -> Tensor:
    """The score's gradient with respect to any cell of each channel, `[N, 512]`."""
    return activations.coefficients @ activations.fc.weight / _cells(activations.features)


def _attributions(activations: Activations, channel_weights: Tensor) -> list[Attribution]:
    """The weighted sums of the feature maps; the residual is the gap between their sum plus the bias and the score."""
    maps = torch.einsum("nk,nkhw->nhw", channel_weights, activations.features)
    total = maps.sum(dim=(1, 2)) + activations.coefficients @ activations.fc.bias
    residuals = (total - activations.scores).abs().tolist()
    return [
        Attribution(values, "logit", {"layer": "layer4", "completeness_residual": residual})
        for values, residual in zip(maps, residuals, strict=True)
    ]
