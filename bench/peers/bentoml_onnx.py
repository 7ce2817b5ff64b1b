"""BentoML and ONNX Runtime, with adaptive batches of up to eight: `bentoml serve` runs it, MODEL names the file."""

import os

import bentoml
import numpy as np
import onnxruntime
from PIL.Image import Image


@bentoml.service(workers=1, traffic={"timeout": 120})
class Classifier:
    """One worker, whose runtime uses all cores."""

    def __init__(self) -> None:
        self.session = onnxruntime.InferenceSession(os.environ["MODEL"], providers=["CPUExecutionProvider"])
        self.codes = self.session.get_modelmeta().custom_metadata_map["codes"].split(",")

    @bentoml.api(batchable=True, max_batch_size=8, max_latency_ms=60_000)
    def predict(self, images: list[Image]) -> list[dict[str, float]]:
        pixels = np.stack([np.asarray(image.convert("RGB")) for image in images])
        (probabilities,) = self.session.run(["probabilities"], {"image": pixels})
        return [dict(zip(self.codes, row.tolist(), strict=True)) for row in probabilities]
