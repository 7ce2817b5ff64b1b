"""Updates the model of a running server without downtime: `python -m serving update FOLDER`.

TorchServe's management API loads the new version beside the old one. Requests are switched over when the new version
has reproduced its golden tile. A rollback is an update to the earlier folder.
"""

import json
import os
import shutil
import urllib.error
import urllib.parse
import urllib.request
from http import HTTPStatus
from pathlib import Path
from typing import Any

from serving.gateway.readiness import GoldenTile, NotReadyError, read_golden
from serving.gateway.settings import Settings
from serving.supervisor import ARCHIVE, ServerError, require_trusted

# One archive under two names, see config.properties.
POOLS = ("pathmnist", "pathmnist-explain")
# The files of an export. The signature is last, because it covers the others.
EXPORTED = ("*.onnx", ARCHIVE, "manifest.json", "model.sig")
# In seconds. The management API responds when the new workers have loaded their model.
PATIENCE = 300


def update(settings: Settings, model_store: Path, folder: Path) -> str:
    """Serve the export in `folder`, also after a restart. Returns its version.

    The previous version stays loaded, so that its last requests are answered; older ones are unloaded. Raises
    `ServerError` and leaves the server unchanged if the new model does not load, differs from its export, or lacks a
    signature that the settings demand.
    """
    version = str(require_trusted(folder, settings.model_public_key_file)["model"]["version"])
    try:
        golden = read_golden(folder / "manifest.json")
    except NotReadyError as error:
        raise ServerError(str(error)) from error
    staged = model_store / f"pathmnist-{version}.mar"
    shutil.copy(folder / ARCHIVE, staged)
    try:
        _load(settings, staged, version, golden)
    finally:
        staged.unlink()
    _activate(settings.management_address, version)
    _replace_all(folder, model_store)
    return version


def _load(settings: Settings, archive: Path, version: str, golden: GoldenTile) -> None:
    """Load a version into all pools or none."""
    management = settings.management_address
    loaded = []
    try:
        for pool in POOLS:
            if _register(management, archive, pool, settings.models[pool]):
                loaded.append(pool)
            _require_golden(settings.inference_address, pool, version, golden)
    except ServerError:
        for pool in loaded:
            _call("DELETE", f"{management}/models/{pool}/{version}")
        raise


def _activate(management: str, version: str) -> None:
    replaced = {pool: _default_version(management, pool) for pool in POOLS}
    for pool in POOLS:
        _call("PUT", f"{management}/models/{pool}/{version}/set-default")
    for pool in POOLS:
        _drop_all_but(management, pool, {version, replaced[pool]})


def _register(management: str, archive: Path, pool: str, versions: dict[str, Any]) -> bool:
    """Load an archive with the config file's batching and workers. Returns False if its version is already loaded."""
    (limits,) = versions.values()
    options = {
        "url": archive.name,
        "model_name": pool,
        "initial_workers": limits["minWorkers"],
        "batch_size": limits["batchSize"],
        "max_batch_delay": limits["maxBatchDelay"],
        "synchronous": "true",
    }
    url = f"{management}/models?{urllib.parse.urlencode(options)}"
    return _call("POST", url, accept=HTTPStatus.CONFLICT) is not None


def _require_golden(inference: str, pool: str, version: str, golden: GoldenTile) -> None:
    try:
        golden.require(_call("POST", f"{inference}/predictions/{pool}/{version}", golden.image))
    except NotReadyError as error:
        raise ServerError(
            f"{pool} {version} is not the exported model; the previous version stays active: {error}"
        ) from error


def _default_version(management: str, pool: str) -> str:
    (described,) = _call("GET", f"{management}/models/{pool}")
    return str(described["modelVersion"])


def _drop_all_but(management: str, pool: str, kept: set[str]) -> None:
    for described in _call("GET", f"{management}/models/{pool}/all"):
        if described["modelVersion"] not in kept:
            _call("DELETE", f"{management}/models/{pool}/{described['modelVersion']}")


def _replace_all(source: Path, folder: Path) -> None:
    """Replace an export by another one: archive, ONNX files, manifest and signature."""
    files = [path for pattern in EXPORTED for path in source.glob(pattern)]
    for path in [path for pattern in EXPORTED for path in folder.glob(pattern)]:
        if not (source / path.name).is_file():
            path.unlink()
    for path in files:
        _replace(path, folder)


def _replace(source: Path, folder: Path) -> None:
    """Replace a file atomically: readers see either the old or the new file."""
    if source.resolve() == (folder / source.name).resolve():
        return
    scratch = folder / f".{source.name}"
    shutil.copy(source, scratch)
    os.replace(scratch, folder / source.name)


def _call(method: str, url: str, body: bytes | None = None, accept: HTTPStatus | None = None) -> Any:
    """The JSON of a response; None if its status is the accepted error status."""
    request = urllib.request.Request(url, data=body, method=method)
    if body is not None:
        request.add_header("Content-Type", "application/octet-stream")
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.loads(answer.read())
    except urllib.error.HTTPError as error:
        if error.status == accept:
            return None
        if error.status == HTTPStatus.METHOD_NOT_ALLOWED:
            message = "the management API cannot register models: start the server with enable_model_api=true"
            raise ServerError(message) from error
        raise ServerError(f"{method} {url}: {error.read().decode(errors='replace')}") from error
    except OSError as error:
        raise ServerError(f"{method} {url}: {error}") from error
