"""Writing a torch module as an ONNX file that says what it is, the same bytes each time."""

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass
from torch import Tensor, nn

from handler.classes import CODES, DISCLAIMER, TISSUES
from handler.model.checkpoint import CARD, Model

OPSET = 18

# Every graph takes images of any number and size.
IMAGE = torch.zeros(2, 40, 50, 3, dtype=torch.uint8)
BATCH = torch.export.Dim("batch")
IMAGE_AXES = {0: BATCH, 1: torch.export.Dim("height"), 2: torch.export.Dim("width")}


def save_onnx(
    graph: nn.Module,
    inputs: dict[str, tuple[Tensor, dict[int, Any]]],
    outputs: tuple[str, ...],
    metadata: dict[str, str],
    path: Path,
) -> None:
    """Export `graph`; `inputs` are, by name, an example and the names of the axes that may vary."""
    for name in ("torch.utils._sympy.interp", "torch.export"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            graph.eval(),
            tuple(example for example, _ in inputs.values()),
            input_names=list(inputs),
            output_names=list(outputs),
            opset_version=OPSET,
            dynamic_shapes=tuple(axes for _, axes in inputs.values()),
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("the ONNX exporter returned nothing")
    RemoveUnusedNodesPass()(program.model)
    proto = program.model_proto
    _strip_traces(proto.graph)
    onnx.helper.set_model_props(proto, metadata)
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)


def _strip_traces(graph: onnx.GraphProto) -> None:
    """Remove the exporter's source locations: they differ between machines and name paths."""
    for item in (graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _strip_traces(attribute.g)


def _runs(training: dict[str, Any]) -> dict[str, Any]:
    """Facts of a run, and of the runs whose weights it continued."""
    facts = {key: training.get(key) for key in ("data", "teacher", "epochs", "commit", "date")}
    before = training.get("continued_from")
    return facts | {"continued_from": _runs(before["training"]) if before else None}


def describe(model: Model, checkpoint: Path) -> dict[str, str]:
    """The metadata of every file: classes, preprocessing, licence, and what the weights are and are worth."""
    card = json.loads((checkpoint / CARD).read_text())
    classes = [{"class_id": t.class_id, "code": t.code, "name": t.name} for t in TISSUES]
    scores = ("images", "accuracy", "balanced_accuracy")
    summary = {
        "training": _runs(card["training"]),
        "evaluation": {split: {key: found[key] for key in scores} for split, found in card["evaluation"].items()},
        "disclaimer": DISCLAIMER,
    }
    return {
        "name": model.name,
        "version": model.version,
        "licence": card["licence"],
        "weights_sha256": model.digest,
        "training_data": model.training_data,
        "classes": json.dumps(classes),
        "codes": ",".join(CODES),
        "preprocessing": json.dumps(model.preprocessing.to_json()),
        "temperature": str(model.confidence.temperature if model.confidence else 1.0),
        # What makes a prediction of logits; null without a calibration.
        "rules": json.dumps(model.confidence.rules_json() if model.confidence else None),
        "card": json.dumps(summary),
    }
