"""Benchmarks of this server beside others: the same weights, the same images, the same client."""
