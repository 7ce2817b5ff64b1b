"""Other servers with the same ONNX file, each configured as its own documentation advises.

Each is run as `python FILE PORT MODEL.onnx` in an environment of its own, so none imports anything of this project.
"""
