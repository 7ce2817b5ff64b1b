"""Classify a JPEG or PNG with OpenCV 5, which reads it too: `python classify_opencv.py pathmnist.onnx tile.png`."""

import sys
from pathlib import Path

import cv2

file = Path(sys.argv[2]).read_bytes()
# OpenCV ignores what these say; the server converts colours to sRGB and lays transparency on white.
foreign = [b"ICC_PROFILE", b"iCCP", b"cICP", b"tRNS", b"acTL"] + ([] if b"sRGB" in file else [b"gAMA", b"cHRM"])
stored, pixels = (cv2.imread(sys.argv[2], flags) for flags in (cv2.IMREAD_UNCHANGED, cv2.IMREAD_COLOR_RGB))
plain = file.startswith((b"\xff\xd8", b"\x89PNG")) and not any(mark in file for mark in foreign)
if not plain or stored is None or pixels is None or stored.dtype != "uint8" or stored.shape[2:] not in ((), (3,)):
    sys.exit("This example reads one JPEG or PNG: grey or RGB in sRGB, 8 bits a channel, no transparency.")

network = cv2.dnn.readNetFromONNX(sys.argv[1], cv2.dnn.ENGINE_NEW)
codes = ["ADI", "BACK", "DEB", "LYM", "MUC", "MUS", "NORM", "STR", "TUM"]
network.setInput(pixels[None], "image")
probabilities = network.forward("probabilities")
best = probabilities[0].argmax()
print(codes[best], probabilities[0, best])
