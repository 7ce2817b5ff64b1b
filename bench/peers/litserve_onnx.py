"""LitServe and ONNX Runtime, with batches of up to eight."""

import sys
from io import BytesIO
from typing import Any

import litserve
import numpy as np
import onnxruntime
from fastapi import UploadFile
from numpy.typing import NDArray
from PIL import Image


class Classifier(litserve.LitAPI):
    """decode, batch, predict, unbatch, encode: LitServe's steps."""

    def setup(self, device: str) -> None:
        self.session = onnxruntime.InferenceSession(sys.argv[2], providers=["CPUExecutionProvider"])
        self.codes = self.session.get_modelmeta().custom_metadata_map["codes"].split(",")

    def decode_request(self, request: UploadFile) -> NDArray[np.uint8]:
        return np.asarray(Image.open(BytesIO(request.file.read())).convert("RGB"))

    def batch(self, inputs: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        return np.stack(inputs)

    def predict(self, x: NDArray[np.uint8]) -> Any:
        return self.session.run(["probabilities"], {"image": x})[0]

    def unbatch(self, output: Any) -> list[Any]:
        return list(output)

    def encode_response(self, output: Any) -> dict[str, float]:
        return dict(zip(self.codes, output.tolist(), strict=True))


if __name__ == "__main__":
    server = litserve.LitServer(Classifier(max_batch_size=8, batch_timeout=0.005), accelerator="cpu")
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
