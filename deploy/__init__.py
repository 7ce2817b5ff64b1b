"""Deployment on clusters: manifests for Kubernetes, commands for Ray."""
