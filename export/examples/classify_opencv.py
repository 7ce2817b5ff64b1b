"""Classify an image with OpenCV 5, which reads it too: `python classify_opencv.py pathmnist.onnx tile.png`."""

import sys

import cv2

network = cv2.dnn.readNetFromONNX(sys.argv[1], cv2.dnn.ENGINE_NEW)
codes = ["ADI", "BACK", "DEB", "LYM", "MUC", "MUS", "NORM", "STR", "TUM"]
image = cv2.imread(sys.argv[2], cv2.IMREAD_COLOR_RGB)
assert image is not None, "OpenCV cannot read this image"
network.setInput(image[None], "image")
probabilities = network.forward("probabilities")
best = probabilities[0].argmax()
print(codes[best], probabilities[0, best])
