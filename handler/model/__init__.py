"""The model: preprocessing, network, weights, engines."""
