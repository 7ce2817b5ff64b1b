"""Measures the shipped weights and writes the reports."""
