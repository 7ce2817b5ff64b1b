"""Data to checkpoint to evaluation report."""
