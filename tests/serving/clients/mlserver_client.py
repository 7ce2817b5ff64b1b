"""Asks a server with MLServer's types and codecs: `mlserver_client.py URL FILE...`; prints what it got as JSON.

It runs in .venv-mlserver, because MLServer needs other versions than the other clients.
"""

import json
import sys
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from mlserver.codecs import Base64Codec, NumpyCodec, StringCodec
from mlserver.types import (
    InferenceErrorResponse,
    InferenceRequest,
    InferenceResponse,
    MetadataModelResponse,
    MetadataServerResponse,
    Parameters,
    RequestInput,
    RequestOutput,
)

MODEL = "v2/models/pathmnist"


def send(address: str, body: bytes | None = None) -> bytes:
    request = urllib.request.Request(address, data=body, headers={"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=300) as response:
            return bytes(response.read())
    except urllib.error.HTTPError as error:
        return bytes(error.read())


def main(url: str, *paths: str) -> dict[str, Any]:
    files = [Path(path).read_bytes() for path in paths]

    def infer(tensor: RequestInput, parameters: Parameters | None = None, *outputs: str) -> InferenceResponse:
        asked = [RequestOutput(name=name) for name in outputs] or None
        request = InferenceRequest(id="slide", inputs=[tensor], outputs=asked, parameters=parameters)
        body = request.model_dump_json(exclude_none=True).encode()
        return InferenceResponse.model_validate_json(send(f"{url}/{MODEL}/infer", body))

    def encoded(images: list[bytes]) -> RequestInput:
        return Base64Codec.encode_input("image", images, use_bytes=False)

    def decoded(response: InferenceResponse) -> dict[str, Any]:
        outputs = {output.name: output for output in response.outputs}
        logits = NumpyCodec.decode_output(outputs["logits"])
        return {"id": response.id, "logits": logits.tolist(), "class": StringCodec.decode_output(outputs["class"])}

    pixels = np.full((2, 32, 32, 3), 200, np.uint8)
    explained = infer(encoded(files[:1]), Parameters(method="saliency", target="TUM"), "explanation")
    broken = InferenceRequest(inputs=[encoded([b"no image"])]).model_dump_json(exclude_none=True).encode()
    return {
        "server": MetadataServerResponse.model_validate_json(send(f"{url}/v2")).name,
        "model": MetadataModelResponse.model_validate_json(send(f"{url}/{MODEL}")).versions,
        "answers": {str(count): decoded(infer(encoded(files[:count]))) for count in (1, 8, 64)},
        "pixels": NumpyCodec.decode_output(infer(NumpyCodec.encode_input("image", pixels)).outputs[1]).shape,
        "explanation": NumpyCodec.decode_output(explained.outputs[0]).shape,
        "error": InferenceErrorResponse.model_validate_json(send(f"{url}/{MODEL}/infer", broken)).error,
    }


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
