"""Explanations: one module per family, one registry."""
