"""Asks a server through Triton's client: `triton_client.py HOST:PORT FILE...`; prints what it got as JSON.

The variable TOKEN is the server's token. It runs in .venv-clients, because the client needs other versions than the
server.
"""

import base64
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.http as triton
from PIL import Image
from tritonclient.utils import InferenceServerException

OUTPUTS = ("probabilities", "logits", "class", "embedding", "cam")


def main(address: str, *paths: str) -> dict[str, Any]:
    files = [Path(path).read_bytes() for path in paths]
    client = triton.InferenceServerClient(address, network_timeout=300, connection_timeout=300)
    token = os.environ["TOKEN"]
    # The client writes into the headers of a request.
    headers = {"Authorization": f"Bearer {token}"} if token else {}

    def infer(tensor: triton.InferInput, names: tuple[str, ...], binary: bool = True, **options: Any) -> dict[str, Any]:
        outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in names]
        result = client.infer("pathmnist", [tensor], outputs=outputs, headers=dict(headers), **options)
        arrays = {name: result.as_numpy(name) for name in names}
        return {name: array.astype(str if array.dtype == object else float).tolist() for name, array in arrays.items()}

    def encoded(images: list[bytes], binary: bool) -> triton.InferInput:
        tensor = triton.InferInput("image", [len(images)], "BYTES")
        data = images if binary else [base64.b64encode(image) for image in images]
        tensor.set_data_from_numpy(np.array(data, dtype=object), binary_data=binary)
        return tensor

    pixels = np.stack([np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files[:8]])
    raw = triton.InferInput("image", list(pixels.shape), "UINT8")
    raw.set_data_from_numpy(pixels)
    method = {"method": "saliency", "target": "TUM"}
    try:
        client.infer("pathmnist", [encoded([files[0], b"no image"], True)], headers=dict(headers))
        error = ""
    except InferenceServerException as caught:
        error = f"{caught.status()} {caught.message()}"
    return {
        "ready": [
            client.is_server_live(headers=headers),
            client.is_server_ready(headers=headers),
            client.is_model_ready("pathmnist", headers=headers),
        ],
        "metadata": client.get_model_metadata("pathmnist", headers=headers),
        "answers": {
            f"{count} {'binary' if binary else 'JSON'}": infer(encoded(files[:count], binary), OUTPUTS, binary)
            for count in (1, 8, 64)
            for binary in (True, False)
        },
        "pixels": infer(raw, ("logits",)),
        "compressed": infer(raw, ("logits",), request_compression_algorithm="gzip"),
        "explanation": infer(encoded(files[:1], True), ("explanation", "logits"), parameters=method),
        "error": error,
    }


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
