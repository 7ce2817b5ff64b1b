"""The ONNX graph: a raw image in, logits, probabilities, class activation maps and embedding out."""

import json
import logging
import warnings
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from handler.model import Model
from handler.network import class_activation, classify, embedding, feature_map
from handler.preprocess import area_matrix, normalise, resampling_matrix, triangle
from handler.tissue import CODES, TISSUES

OPSET = 18
OUTPUTS = ("logits", "probabilities", "cam", "embedding")


class Graph(nn.Module):
    """Preprocessing and network as one graph, so that a runtime needs nothing but decoded pixels."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.network = model.network
        self.spec = model.preprocessing
        self.temperature = model.confidence.temperature if model.confidence else 1.0
        enlarge = resampling_matrix(self.spec.canonical_size, self.spec.input_size, triangle)
        self.register_buffer("enlarge", enlarge)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`image` is uint8 `[N, H, W, 3]`, any size; outputs are named in `OUTPUTS`.

        The same steps as `handler.preprocess`, whose cached matrices an exporter must not see: here the reducing
        matrices are computed by the graph from the image's own size.
        """
        rows = area_matrix(image.shape[1], self.spec.canonical_size)
        columns = area_matrix(image.shape[2], self.spec.canonical_size)
        pixels = image.permute(0, 3, 1, 2).float()
        tiles = rows @ pixels @ columns.T / 255
        enlarge = self.get_buffer("enlarge")
        features = feature_map(self.network, normalise(enlarge @ tiles @ enlarge.T, self.spec))
        logits = classify(self.network, features)
        return (
            logits,
            (logits / self.temperature).softmax(dim=1),
            class_activation(self.network, features),
            embedding(features),
        )


def write_onnx(model: Model, path: Path) -> None:
    """Export with dynamic batch, height and width; the metadata names classes, preprocessing and weights."""
    example = torch.zeros(2, 40, 50, 3, dtype=torch.uint8)
    dynamic = {"image": {axis: torch.export.Dim(name) for axis, name in enumerate(("batch", "height", "width"))}}
    logging.getLogger("torch.utils._sympy.interp").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            Graph(model).eval(),
            (example,),
            input_names=["image"],
            output_names=list(OUTPUTS),
            opset_version=OPSET,
            dynamic_shapes=dynamic,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("the ONNX exporter returned nothing")
    proto = program.model_proto
    _strip_traces(proto)
    onnx.helper.set_model_props(proto, _metadata(model))
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)


def _strip_traces(proto: onnx.ModelProto) -> None:
    """Remove the exporter's source locations: they differ between machines and name paths."""
    for item in (
        *proto.graph.node,
        *proto.graph.value_info,
        *proto.graph.input,
        *proto.graph.output,
    ):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
    for item in proto.graph.initializer:
        item.ClearField("metadata_props")
    proto.graph.ClearField("metadata_props")
    proto.graph.ClearField("doc_string")


def _metadata(model: Model) -> dict[str, str]:
    classes = [{"class_id": t.class_id, "code": t.code, "name": t.name} for t in TISSUES]
    return {
        "name": model.name,
        "version": model.version,
        "weights_sha256": model.digest,
        "training_data": model.training_data,
        "classes": json.dumps(classes),
        "codes": ",".join(CODES),
        "preprocessing": json.dumps(model.preprocessing.to_json()),
        "temperature": str(model.confidence.temperature if model.confidence else 1.0),
    }
