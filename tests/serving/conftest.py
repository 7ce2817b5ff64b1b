import hashlib
import json
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from serving.ports import free_addresses
from serving.supervisor import ROOT, TorchServe
from tests.conftest import pool_settings

BATCH = 2
QUEUE = 8
RESPONSE_TIMEOUT = 8
READ_TIMEOUT = 3


@pytest.fixture(scope="package")
def short_tempered(model_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TorchServe]:
    """A server with small batches, short queues and timeouts, and a cache on a disk of half a megabyte."""
    store, run = tmp_path_factory.mktemp("short_store"), tmp_path_factory.mktemp("short_run")
    settings = free_addresses() | {
        "models": pool_settings(batchSize=BATCH),
        "engine": "exact",
        "job_queue_size": str(QUEUE),
        "edge_read_timeout": str(READ_TIMEOUT),
    }
    copy_store(
        model_store, store, lambda text: text.replace("responseTimeout: 300", f"responseTimeout: {RESPONSE_TIMEOUT}")
    )
    cache = run / "tmp" / "explanations"
    cache.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(cache)], capture_output=True)
    try:
        with TorchServe(ROOT / "config.properties", store, run, settings) as running:
            running.wait_until_ready()
            yield running
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", str(cache)], check=True)


def copy_store(source: Path, target: Path, edit: Callable[[str], str]) -> None:
    """Copy a model store, with a changed model-config.yaml in the archive and the new digest in the manifest."""
    with zipfile.ZipFile(source / "pathmnist.mar") as old, zipfile.ZipFile(target / "pathmnist.mar", "w") as new:
        for entry in old.infolist():
            data = old.read(entry)
            new.writestr(entry, edit(data.decode()) if entry.filename.endswith("model-config.yaml") else data)
    manifest = json.loads((source / "manifest.json").read_text())
    digest = hashlib.sha256((target / "pathmnist.mar").read_bytes()).hexdigest()
    manifest["artifacts"]["pathmnist.mar"]["sha256"] = digest
    (target / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture(scope="package")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of a certificate for 127.0.0.1, its key, and its certificate authority."""
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    paths = {"chain": folder / "chain.pem", "key": folder / "key.pem", "authority": folder / "authority.pem"}
    issued.private_key_pem.write_to_path(str(paths["key"]))
    for blob in issued.cert_chain_pems:
        blob.write_to_path(str(paths["chain"]), append=True)
    authority.cert_pem.write_to_path(str(paths["authority"]))
    return paths
