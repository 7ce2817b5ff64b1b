"""For OpenVINO and its model server: both graphs as OpenVINO's IR, in float32 from file to answer."""

from pathlib import Path

import openvino

from export.archive import MODEL_NAME
from export.bundles.documents import write_documents
from export.bundles.source import Source
from training.checkpoint import write_json

CONFIG = "config.json"
# By default OpenVINO computes in bfloat16 or float16 on devices that have it.
PRECISION = {"INFERENCE_PRECISION_HINT": "f32"}


def write_openvino(source: Source, folder: Path) -> None:
    """Write a model repository."""
    files = {MODEL_NAME: source.classifying, f"{MODEL_NAME}_explain": source.explaining}
    for name, file in files.items():
        version = folder / name / "1"
        version.mkdir(parents=True)
        model = openvino.Core().read_model(file)
        name_nodes(model)
        openvino.save_model(model, version / "model.xml", compress_to_fp16=False)
    write_json(folder / CONFIG, config(list(files)))
    write_documents(source, folder, "openvino")


def config(names: list[str]) -> dict[str, object]:
    """The model server's `config.json`; paths are relative to it."""
    models = [{"config": {"name": name, "base_path": name, "plugin_config": PRECISION}} for name in names]
    return {"model_config_list": models}


def name_nodes(model: openvino.Model, prefix: str = "") -> None:
    """Name the nodes without a name by their place, so that the file is the same each time: OpenVINO numbers them on
    through all models of a process."""
    for index, node in enumerate(model.get_ordered_ops()):
        kind = node.get_type_name()
        if node.get_friendly_name() == node.get_name():
            node.set_friendly_name(f"{prefix}{kind}_{index}")
        if kind == "Loop":
            name_nodes(node.get_function(), f"{prefix}{index}.")
