"""The gateway: the HTTP front in front of TorchServe."""
