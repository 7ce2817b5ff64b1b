import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# A thread of Ray Serve that outlives the tests' cluster must not connect to it again while it is stopped.
os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"

import deploy.ray  # noqa: F401  (Ray reads its settings when it is imported)

# isort: split
import ray
from ray.cluster_utils import Cluster


@pytest.fixture(scope="session")
def archive(model_store: Path) -> Path:
    return model_store / "pathmnist.mar"


@pytest.fixture(scope="package")
def cluster() -> Iterator[Cluster]:
    """Two nodes of two cores each, on loopback, with this process as a client.

    Engines are in float32, so that responses can be compared on every processor.
    """
    os.environ["PATHMNIST_ENGINE"] = "exact"
    node = {"num_cpus": 2, "node_ip_address": "127.0.0.1", "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    try:
        cluster.add_node(num_cpus=2, node_ip_address="127.0.0.1")
        ray.init(cluster.address, logging_level=logging.WARNING, log_to_driver=False)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()
        del os.environ["PATHMNIST_ENGINE"]
