"""Asks a server through KServe's gRPC client: `kserve_grpc_client.py HOST:PORT FILE...`; prints JSON.

The variable TOKEN is the server's token. It runs in .venv-clients, because the client needs other versions than the
server.
"""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from kserve import InferenceGRPCClient, InferInput, InferRequest

MODEL = "pathmnist"


def request(images: list[bytes], raw: bool) -> InferRequest:
    tensor = InferInput("image", [len(images)], "BYTES", data=None if raw else images)
    if raw:
        tensor.set_data_from_numpy(np.array(images, dtype=object), binary_data=True)
    return InferRequest(MODEL, [tensor])


async def main(address: str, *paths: str) -> dict[str, Any]:
    files = [Path(path).read_bytes() for path in paths]
    token = os.environ["TOKEN"]
    headers = (("authorization", f"Bearer {token}"),) if token else ()
    answers = {}
    async with InferenceGRPCClient(address, timeout=300) as client:
        for count in (1, 8, 64):
            for raw in (True, False):
                response = await client.infer(request(files[:count], raw), headers=headers)
                logits = next(output for output in response.outputs if output.name == "logits").as_numpy()
                answers[f"{count} {'raw' if raw else 'typed'}"] = logits.astype(float).tolist()
        try:
            await client.infer(request([b"no image"], True), headers=headers)
            error = ""
        except grpc.RpcError as caught:
            error = f"{caught.code()} {caught.details()}"
        ready = [
            await client.is_server_live(headers=headers),
            await client.is_server_ready(headers=headers),
            await client.is_model_ready(MODEL, headers=headers),
        ]
    return {"ready": ready, "answers": answers, "error": error}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(*sys.argv[1:]))))
