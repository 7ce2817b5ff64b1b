"""Classify an image with ONNX Runtime: `python classify_onnxruntime.py pathmnist.onnx tile.png`."""

import sys

import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
codes = session.get_modelmeta().custom_metadata_map["codes"].split(",")
image = np.asarray(Image.open(sys.argv[2]).convert("RGB"))
(probabilities,) = session.run(["probabilities"], {"image": image[None]})
best = probabilities[0].argmax()
print(codes[best], probabilities[0, best])
