"""Classify an image with OpenVINO: `python classify_openvino.py pathmnist.onnx tile.png`."""

import sys

import numpy as np
import openvino
from PIL import Image

# Left to itself, OpenVINO computes in bfloat16 where the processor can.
model = openvino.Core().compile_model(sys.argv[1], "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
codes = ["ADI", "BACK", "DEB", "LYM", "MUC", "MUS", "NORM", "STR", "TUM"]
image = np.asarray(Image.open(sys.argv[2]).convert("RGB"))
probabilities = model({"image": image[None]})["probabilities"]
best = probabilities[0].argmax()
print(codes[best], probabilities[0, best])
