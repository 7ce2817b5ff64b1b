"""For the Hugging Face Hub: weights, ONNX files, preprocessing and calibration as data, and a card that programs read.

The card's `model-index` holds the figures of the reports, each with its 95 % interval.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from export.bundles.documents import write_documents
from export.bundles.source import Source
from handler.classes import CODES, TISSUES
from handler.model.checkpoint import CARD, WEIGHTS
from training.checkpoint import write_json

# The hub counts parameters in a file of this name.
HUB_WEIGHTS = "model.safetensors"
TASK = {"type": "image-classification", "name": "nine tissues of colorectal histology"}
SCORES = {"accuracy": "accuracy", "balanced_accuracy": "balanced_accuracy", "auc": "roc_auc"}
LEVEL = 0.95


def write_hub(source: Source, folder: Path) -> None:
    """Write a folder to upload."""
    checkpoint = json.loads((source.checkpoint / CARD).read_text())
    shutil.copy(source.checkpoint / WEIGHTS, folder / HUB_WEIGHTS)
    (folder / "onnx").mkdir()
    for file in source.onnx_files:
        shutil.copy(file, folder / "onnx")
    write_json(folder / "config.json", config(source))
    write_json(folder / "preprocessing.json", source.model.preprocessing.to_json())
    if source.model.confidence:
        write_json(folder / "calibration.json", source.model.confidence.rules_json())
    write_documents(source, folder, "hub", metadata=metadata(source, checkpoint["licence"]))


def config(source: Source) -> dict[str, Any]:
    """`config.json`: what the outputs mean, in the keys that the hub's own libraries use."""
    return {
        "architecture": "resnet18",
        "num_classes": len(CODES),
        "id2label": {str(tissue.class_id): tissue.code for tissue in TISSUES},
        "label2id": {tissue.code: tissue.class_id for tissue in TISSUES},
        "label_descriptions": {tissue.code: tissue.name for tissue in TISSUES},
        **source.model.identity(),
    }


def metadata(source: Source, licence: str) -> dict[str, Any]:
    """The card's YAML."""
    return {
        "license": licence.lower(),
        "pipeline_tag": TASK["type"],
        "library_name": "onnx",
        "tags": ["onnx", "safetensors", "resnet18", "histology", "pathology", "colorectal", "pathmnist", "medmnist"],
        "metrics": ["accuracy", "roc_auc", "recall"],
        "model-index": [{"name": source.model.name, "results": results(source.reports)}],
    }


def results(reports: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The results of the `model-index`: validation and test tiles, prediction sets, and changed test tiles."""
    splits = reports["evaluation"]["splits"]
    changed = [
        _result(
            "test", [_metric("accuracy", "accuracy", row["accuracy"], row["interval"])], f"{kind} {strength}".strip()
        )
        for kind, strengths in reports["robustness"]["changes"].items()
        for strength, row in strengths.items()
    ]
    return [
        _result("validation", _scores(splits["val"])),
        _result("test", _scores(splits["test"]) + _recalls(splits["test"]) + _coverages(reports["confidence"])),
        *changed,
    ]


def _result(split: str, metrics: list[dict[str, Any]], change: str | None = None) -> dict[str, Any]:
    dataset = {"name": "PathMNIST (MedMNIST v2)", "type": "pathmnist", "split": split}
    return {"task": dict(TASK), "dataset": dataset | ({"config": change} if change else {}), "metrics": metrics}


def _scores(split: dict[str, Any]) -> list[dict[str, Any]]:
    return [_metric(kind, name, split[name]["value"], split[name]["interval"]) for name, kind in SCORES.items()]


def _recalls(split: dict[str, Any]) -> list[dict[str, Any]]:
    rows = {code: row["recall"] for code, row in split["classes"].items()}
    return [_metric("recall", f"recall, {code}", row["value"], row["interval"]) for code, row in rows.items()]


def _coverages(confidence: dict[str, Any]) -> list[dict[str, Any]]:
    rows = {promise: sets["LAC"] for promise, sets in confidence["sets"].items()}
    return [
        _metric(
            "coverage", f"coverage of prediction sets that promise {promise}", row["share"], [row["low"], row["high"]]
        )
        for promise, row in rows.items()
    ]


def _metric(kind: str, name: str, value: float, interval: list[float]) -> dict[str, Any]:
    return {"type": kind, "name": name, "value": value, "args": {"interval": interval, "level": LEVEL}}
