"""Classify a JPEG or PNG with OpenVINO: `python classify_openvino.py pathmnist.onnx tile.png`."""

import sys

import numpy as np
import openvino
from PIL import Image, ImageOps

image = Image.open(sys.argv[2])
# The server lays transparency on white and converts colours to sRGB; unconverted, this would be another picture.
foreign = {"icc_profile", "transparency"} | (set() if "srgb" in image.info else {"gamma", "chromaticity"})
plain = image.format in ("JPEG", "PNG") and image.mode in ("L", "RGB") and not foreign & set(image.info)
if not plain or getattr(image, "is_animated", False):
    sys.exit("This example reads one JPEG or PNG: grey or RGB in sRGB, 8 bits a channel, no transparency.")
pixels = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))

# By default OpenVINO computes in bfloat16 on processors that have it.
model = openvino.Core().compile_model(sys.argv[1], "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
codes = ["ADI", "BACK", "DEB", "LYM", "MUC", "MUS", "NORM", "STR", "TUM"]
probabilities = model({"image": pixels[None]})["probabilities"]
best = probabilities[0].argmax()
print(codes[best], probabilities[0, best])
