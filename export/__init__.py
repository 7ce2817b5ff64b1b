"""Checkpoint to `.mar`, ONNX and manifest."""
