"""Starts, stops and updates TorchServe on this machine."""
