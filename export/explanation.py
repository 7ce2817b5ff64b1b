"""The explaining ONNX graph: saliency and Integrated Gradients in plain operators, for any runtime."""

from pathlib import Path

import numpy as np
import torch
from numpy.polynomial.legendre import leggauss
from torch import Tensor, nn
from torch._higher_order_ops.while_loop import while_loop

from export.gradients import logits_and_gradient
from export.graph import NetworkInput
from export.onnx_file import BATCH, IMAGE, IMAGE_AXES, save_onnx
from handler.explain.integrated_gradients import SMALLEST_CHANGE
from handler.explain.registry import METHODS
from handler.model.checkpoint import Model
from handler.model.network import classify, feature_map
from handler.model.preprocess import normalise

MAX_STEPS = int(METHODS["integrated_gradients"].parameters["n_steps"].maximum)
OUTPUTS = ("logits", "saliency", "integrated_gradients", "completeness_residual")


class ExplanationGraph(nn.Module):
    """The same maps as `handler.explain` for `saliency` and, with `n_steps`, for `integrated_gradients`."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.network_input = NetworkInput(model.preprocessing)
        self.network = model.network
        rules = [leggauss(n_steps) for n_steps in range(1, MAX_STEPS + 1)]
        self.register_buffer("nodes", _table([(abscissae + 1) / 2 for abscissae, _ in rules]))
        self.register_buffer("weights", _table([weights / 2 for _, weights in rules]))

    def forward(self, image: Tensor, target: Tensor, n_steps: Tensor, baseline: Tensor) -> tuple[Tensor, ...]:
        """Explain the logits `target` (int64 `[N]`) of `image` (uint8 `[N, H, W, 3]`, any size).

        `n_steps` (int64 scalar) is the number of Gauss-Legendre points, 1 to 256; with 0, Integrated Gradients are not
        computed and zero. `baseline` (float32 `[3]`) is the colour at the start of the path, RGB in [0, 1].

        Returns `logits` `[N, 9]`; `saliency` `[N, 3, I, I]` in logits per unit of the network's input and
        `integrated_gradients` `[N, 3, I, I]` in logits, both signed; `completeness_residual` `[N]`, the gap between
        the map's sum and the change of the logit from baseline to image, relative to that change.
        """
        inputs = self.network_input(image)
        start = normalise(baseline[:, None, None].expand_as(inputs[0]), self.network_input.spec)[None]
        path = inputs - start
        logits, saliency = logits_and_gradient(self.network, inputs, target)
        maps = path * self._mean_gradient(start, path, target, n_steps)
        change = logits - classify(self.network, feature_map(self.network, start))
        change = change.gather(1, target[:, None])[:, 0]
        residual = (maps.sum(dim=(1, 2, 3)) - change).abs() / change.abs().clamp(min=SMALLEST_CHANGE)
        return logits, saliency, maps, residual

    def _mean_gradient(self, start: Tensor, path: Tensor, target: Tensor, n_steps: Tensor) -> Tensor:
        """The points of the path one by one, so that memory does not grow with their number."""
        nodes = self.get_buffer("nodes").index_select(0, n_steps.reshape(1))[0]
        weights = self.get_buffer("weights").index_select(0, n_steps.reshape(1))[0]

        def more(step: Tensor, total: Tensor) -> Tensor:
            return step < n_steps

        def add(step: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
            inputs = start + nodes.index_select(0, step.reshape(1)) * path
            _, gradient = logits_and_gradient(self.network, inputs, target)
            return step + 1, total + weights.index_select(0, step.reshape(1)) * gradient

        _, mean = while_loop(more, add, (torch.zeros((), dtype=torch.int64), torch.zeros_like(path)))
        return mean


def _table(rows: list[np.ndarray]) -> Tensor:
    """Row n holds the n numbers of the rule with n points."""
    table = torch.zeros(MAX_STEPS + 1, MAX_STEPS)
    for row in rows:
        table[len(row), : len(row)] = torch.from_numpy(row)
    return table


def write_explanation(model: Model, metadata: dict[str, str], path: Path) -> None:
    """Export the explaining graph."""
    inputs = {
        "image": (IMAGE, IMAGE_AXES),
        "target": (torch.tensor([1, 2]), {0: BATCH}),
        "n_steps": (torch.tensor(3), {}),
        "baseline": (torch.zeros(3), {}),
    }
    save_onnx(ExplanationGraph(model), inputs, OUTPUTS, metadata, path)
