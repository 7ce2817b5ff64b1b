"""Training: from the data to a checkpoint with its card."""
