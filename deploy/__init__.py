"""Running on clusters: Kubernetes by files, Ray by commands."""
