"""The classifying graph: a raw image in, all that an answer without further passes of the network needs out."""

from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor, nn

from export.onnx_file import IMAGE, IMAGE_AXES, save_onnx
from handler.model.checkpoint import Model
from handler.model.network import class_activation, classify, embedding, feature_map
from handler.model.preprocess import Preprocessing, normalise, reduce, reducing_matrix, resampling_matrix, triangle

OUTPUTS = ("logits", "probabilities", "cam", "embedding")
# Of a calibrated model: the squared Mahalanobis distance to the nearest class of the training tiles, `[N]`.
OOD_SCORE = "ood_score"


class NetworkInput(nn.Module):
    """Preprocessing as a part of a graph, so that a runtime needs nothing but decoded pixels."""

    def __init__(self, spec: Preprocessing) -> None:
        super().__init__()
        self.spec = spec
        enlarge = resampling_matrix(spec.canonical_size, spec.input_size, triangle)
        self.register_buffer("enlarge", enlarge)

    def forward(self, image: Tensor) -> Tensor:
        """`image` is uint8 `[N, H, W, 3]`, any size; returns the network's input, `[N, 3, I, I]`.

        The same steps as `handler.model.preprocess`. An exporter must not see its cached matrices: here the graph
        computes the reducing matrices from the image's own size.
        """
        rows = reducing_matrix(image.shape[1], self.spec.canonical_size)
        columns = reducing_matrix(image.shape[2], self.spec.canonical_size)
        tiles = reduce(image.permute(0, 3, 1, 2).float(), rows, columns) / 255
        enlarge = self.get_buffer("enlarge")
        return normalise(enlarge @ tiles @ enlarge.T, self.spec)


class Graph(nn.Module):
    """Preprocessing and network. `precision` is that of the convolutions; all else is float32."""

    def __init__(self, model: Model, precision: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.network_input = NetworkInput(model.preprocessing)
        self.network = deepcopy(model.network).to(precision)
        self.network.fc.float()
        self.precision = precision
        self.confidence = model.confidence

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """`image` is uint8 `[N, H, W, 3]`, any size; outputs are named in `OUTPUTS`, then `OOD_SCORE`."""
        features = feature_map(self.network, self.network_input(image).to(self.precision)).float()
        logits = classify(self.network, features)
        point = embedding(features)
        maps = class_activation(self.network, features)
        if self.confidence is None:
            return logits, logits.softmax(dim=1), maps, point
        probabilities = (logits / self.confidence.temperature).softmax(dim=1)
        return logits, probabilities, maps, point, self.confidence.ood_scores(point)


def write_onnx(model: Model, metadata: dict[str, str], path: Path, precision: torch.dtype = torch.float32) -> None:
    """Export the classifying graph."""
    outputs = (*OUTPUTS, OOD_SCORE) if model.confidence else OUTPUTS
    save_onnx(Graph(model, precision), {"image": (IMAGE, IMAGE_AXES)}, outputs, metadata, path)
