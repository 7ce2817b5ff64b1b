"""Classify a JPEG or PNG with ONNX Runtime: `python classify_onnxruntime.py pathmnist.onnx tile.png`."""

import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

image = Image.open(sys.argv[2])
# The server lays transparency on white and converts colours to sRGB; unconverted, this would be another picture.
foreign = {"icc_profile", "transparency"} | (set() if "srgb" in image.info else {"gamma", "chromaticity"})
plain = image.format in ("JPEG", "PNG") and image.mode in ("L", "RGB") and not foreign & set(image.info)
if not plain or getattr(image, "is_animated", False):
    sys.exit("This example reads one JPEG or PNG: grey or RGB in sRGB, 8 bits a channel, no transparency.")
pixels = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
codes = session.get_modelmeta().custom_metadata_map["codes"].split(",")
(probabilities,) = session.run(["probabilities"], {"image": pixels[None]})
best = probabilities[0].argmax()
print(codes[best], probabilities[0, best])
