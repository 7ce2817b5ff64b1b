"""Asks a server through Triton's gRPC client: `triton_grpc_client.py HOST:PORT FILE...`; prints what it got as JSON.

The variable TOKEN is the server's token. It runs in .venv-clients, because the client needs other versions than the
server.
"""

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from PIL import Image
from tritonclient.utils import InferenceServerException

MODEL = "pathmnist"
OUTPUTS = ("probabilities", "logits", "class", "embedding", "cam")


def main(address: str, *paths: str) -> dict[str, Any]:
    files = [Path(path).read_bytes() for path in paths]
    client = triton.InferenceServerClient(address)
    token = os.environ["TOKEN"]
    headers = {"authorization": f"Bearer {token}"} if token else {}

    def infer(tensor: triton.InferInput, names: tuple[str, ...], **options: Any) -> dict[str, Any]:
        outputs = [triton.InferRequestedOutput(name) for name in names]
        result = client.infer(MODEL, [tensor], outputs=outputs, headers=headers, client_timeout=300, **options)
        arrays = {name: result.as_numpy(name) for name in names}
        return {name: array.astype(str if array.dtype == object else float).tolist() for name, array in arrays.items()}

    def encoded(images: list[bytes]) -> triton.InferInput:
        tensor = triton.InferInput("image", [len(images)], "BYTES")
        tensor.set_data_from_numpy(np.array(images, dtype=object))
        return tensor

    pixels = np.stack([np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files[:8]])
    raw = triton.InferInput("image", list(pixels.shape), "UINT8")
    raw.set_data_from_numpy(pixels)
    try:
        client.infer(MODEL, [encoded([files[0], b"no image"])], headers=headers)
        error = ""
    except InferenceServerException as caught:
        error = f"{caught.status()} {caught.message()}"
    return {
        "ready": [
            client.is_server_live(headers=headers),
            client.is_server_ready(headers=headers),
            client.is_model_ready(MODEL, headers=headers),
        ],
        "server": client.get_server_metadata(headers=headers, as_json=True),
        "metadata": client.get_model_metadata(MODEL, headers=headers, as_json=True),
        "answers": {f"{count} raw": infer(encoded(files[:count]), OUTPUTS) for count in (1, 8, 64)},
        "pixels": infer(raw, ("logits",)),
        "compressed": infer(raw, ("logits",), compression_algorithm="gzip"),
        "explanation": infer(
            encoded(files[:1]), ("explanation", "logits"), parameters={"method": "saliency", "target": "TUM"}
        ),
        "error": error,
    }


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
