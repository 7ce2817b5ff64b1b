"""The HTTP API: requests in, JSON and pictures out."""
