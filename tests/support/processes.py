"""The processes of a server."""

import psutil
import requests

from serving.frontend import FORKS

# By the first word of their names in reports, sorted.
PROCESSES = sorted(["edge", "frontend", "worker", "worker"] + ["forkserver", "proxy", "proxy"] * FORKS)


def worker(management_url: str, pool: str = "pathmnist") -> psutil.Process:
    """The worker process of a pool."""
    described = requests.get(f"{management_url}/models/{pool}", timeout=30).json()
    return psutil.Process(described[0]["workers"][0]["pid"])
