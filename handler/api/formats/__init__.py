"""One reader for each accepted file format: bytes to samples, and what the samples mean."""
