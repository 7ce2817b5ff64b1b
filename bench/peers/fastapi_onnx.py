"""FastAPI and ONNX Runtime: a plain function per request, which FastAPI runs in its threads. It has no batching."""

import sys
from io import BytesIO
from typing import Annotated

import numpy as np
import onnxruntime
import uvicorn
from fastapi import Depends, FastAPI, Request
from PIL import Image

port, model = int(sys.argv[1]), sys.argv[2]
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
codes = session.get_modelmeta().custom_metadata_map["codes"].split(",")
app = FastAPI()


async def read(request: Request) -> bytes:
    return await request.body()


@app.post("/predict")
def predict(body: Annotated[bytes, Depends(read)]) -> dict[str, float]:
    image = np.asarray(Image.open(BytesIO(body)).convert("RGB"))[None]
    (probabilities,) = session.run(["probabilities"], {"image": image})
    return dict(zip(codes, probabilities[0].tolist(), strict=True))


uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)
