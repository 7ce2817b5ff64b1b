"""What every bundle is made of: the checkpoint, its ONNX files, its card and its reports."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.reports import read_reports
from export.predictor import CLASSIFYING, EXPLAINING
from handler.model.checkpoint import Model, file_digest, load_model


class BundleError(ValueError):
    """A part of a bundle is missing or of another model, or the output folder is not empty."""


@dataclass(frozen=True)
class Source:
    """A model with its files: `checkpoint` is the folder of the weights, `store` what `python -m export` wrote.

    `onnx_files` are the store's, those of `export.compress` included. `card` is the model card in Markdown, `reports`
    the reports of its evaluation by name.
    """

    model: Model
    checkpoint: Path
    store: Path
    onnx_files: tuple[Path, ...]
    card: str
    reports: dict[str, dict[str, Any]]

    @property
    def classifying(self) -> Path:
        return self.store / CLASSIFYING

    @property
    def explaining(self) -> Path:
        return self.store / EXPLAINING

    @property
    def temperature(self) -> float:
        """What the logits are divided by before softmax; 1 without a calibration."""
        return self.model.confidence.temperature if self.model.confidence else 1.0


def read_source(checkpoint: Path, store: Path, card: Path, reports: Path) -> Source:
    """Read all parts. Raises `BundleError` or `ReportError` if one is missing or of other weights."""
    model = load_model(checkpoint)
    onnx_files = _read_store(store, model)
    text = card.read_text() if card.is_file() else ""
    if model.digest not in text:
        raise BundleError(f"{card} is not the card of the weights {model.digest[:12]}; `make report` writes it")
    return Source(model, checkpoint, store, onnx_files, text, read_reports(reports, model.digest))


def _read_store(store: Path, model: Model) -> tuple[Path, ...]:
    """The ONNX files of a store; each has to be what the manifest says."""
    manifest = json.loads((store / "manifest.json").read_text()) if (store / "manifest.json").is_file() else {}
    if manifest.get("model") != model.identity():
        raise BundleError(f"{store} does not hold the files of this model: run `python -m export` first")
    digests = {store / name: entry["sha256"] for name, entry in manifest["artifacts"].items() if name.endswith(".onnx")}
    for path, digest in digests.items():
        if not path.is_file() or file_digest(path) != digest:
            raise BundleError(f"{path} is not the file that the manifest describes: run `python -m export` again")
    return tuple(digests)
