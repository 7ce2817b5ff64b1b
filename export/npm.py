"""The npm packages of export/package.json."""

from pathlib import Path

PACKAGES = Path(__file__).parent / "node_modules"


class MissingRuntimeError(RuntimeError):
    """A runtime that is not on this machine; the message says what is missing."""
