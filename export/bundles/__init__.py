"""Folders in which other programs find the model as they expect it."""
