"""Metrics of a running server."""

import requests
from prometheus_client.parser import text_string_to_metric_families


def counted(url: str, name: str, **labels: str) -> float:
    """The sum of all samples of a metric with these labels."""
    text = requests.get(f"{url}/metrics", timeout=30).text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return sum(sample.value for sample in samples if sample.name == name and labels.items() <= sample.labels.items())
