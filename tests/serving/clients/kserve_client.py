"""Asks a server through KServe's client, both protocols: `kserve_client.py URL FILE...`; prints JSON.

The variable TOKEN is the server's token. It runs in .venv-clients, because the client needs other versions than the
server.
"""

import asyncio
import base64
import json
import os
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

MODEL = "pathmnist"


def request(images: list[bytes], binary: bool) -> InferRequest:
    tensor = InferInput("image", [len(images)], "BYTES")
    data = images if binary else [base64.b64encode(image) for image in images]
    tensor.set_data_from_numpy(np.array(data, dtype=object), binary_data=binary)
    return InferRequest(MODEL, [tensor], parameters={"binary_data_output": binary})


async def main(url: str, *paths: str) -> dict[str, Any]:
    files = [Path(path).read_bytes() for path in paths]
    second = InferenceRESTClient(RESTConfig(protocol="v2", timeout=300))
    first = InferenceRESTClient(RESTConfig(protocol="v1", timeout=300))
    token = os.environ["TOKEN"]
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    answers = {}
    for count in (1, 8, 64):
        for binary in (True, False):
            response = await second.infer(url, request(files[:count], binary), model_name=MODEL, headers=dict(headers))
            logits = next(output for output in response.outputs if output.name == "logits").as_numpy()
            answers[f"{count} {'binary' if binary else 'JSON'}"] = logits.astype(float).tolist()
    try:
        await second.infer(url, request([b"no image"], True), model_name=MODEL, headers=dict(headers))
        error = ""
    except httpx.HTTPStatusError as caught:
        error = str(caught)
    instances = [{"b64": base64.b64encode(file).decode()} for file in files[:8]]
    predictions = await first.infer(url, {"instances": instances}, model_name=MODEL, headers=dict(headers))
    explanations = await first.explain(url, MODEL, {"instances": [{"image": instances[0]}]}, headers=headers)
    return {
        "ready": [
            await second.is_server_ready(url, headers=headers),
            await second.is_model_ready(url, MODEL, headers=headers),
        ],
        "ready by the first protocol": await first.is_model_ready(url, MODEL, headers=headers),
        "answers": answers,
        "error": error,
        "predictions": [item["logits"] for item in predictions["predictions"]],
        "explanations": [item["explanations"][0]["method"] for item in explanations["explanations"]],
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(*sys.argv[1:]))))
