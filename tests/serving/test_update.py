"""Updates and rollbacks of a running server under load: no request fails, and each response comes from one model."""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from safetensors.numpy import load_file, save_file

from export.__main__ import export
from export.archive import write_archive
from export.golden import golden_answer
from export.sign import sign
from handler.model.checkpoint import CARD, WEIGHTS, file_digest, load_model
from serving.gateway.settings import ROOT, read_properties, write_properties
from serving.ports import free_addresses
from serving.supervisor import TILE, TorchServe
from serving.update import POOLS
from tests.conftest import pool_settings
from tests.support.keys import write_keys
from tests.support.shipped import VERSION
from tests.support.waiting import wait_for
from training.checkpoint import SHIPPED
from training.options import parse_arguments
from training.synthetic import generate, write_dataset
from training.train import train

SHIFT = 3.0
VERBS = ("predictions", "explanations")


def export_shifted(checkpoint: Path, folder: Path, version: str) -> None:
    """Export another version: the shipped network with a changed bias, so that its results are known and different.

    ONNX files are omitted, because no server reads them."""
    checkpoint.mkdir()
    weights = load_file(SHIPPED / WEIGHTS)
    weights["fc.bias"] = weights["fc.bias"] + np.float32(SHIFT)
    save_file(weights, checkpoint / WEIGHTS)
    card = json.loads((SHIPPED / CARD).read_text())
    card |= {"version": version, "digest": file_digest(checkpoint / WEIGHTS)}
    (checkpoint / CARD).write_text(json.dumps(card))
    folder.mkdir()
    model = load_model(checkpoint)
    write_archive(checkpoint, model.version, folder / "pathmnist.mar")
    manifest = {
        "model": model.identity(),
        "artifacts": {"pathmnist.mar": {"sha256": file_digest(folder / "pathmnist.mar")}},
        "golden": golden_answer(model),
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture(scope="module")
def exports(model_store: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of two versions, and of a third whose archive does not match the golden tile in its manifest."""
    folder = tmp_path_factory.mktemp("exports")
    export_shifted(folder / "checkpoint-2", folder / "second", "3.0")
    export_shifted(folder / "checkpoint-3", folder / "wrong", "4.0")
    (folder / "first").mkdir()
    for file in ("manifest.json", *json.loads((model_store / "manifest.json").read_text())["artifacts"]):
        shutil.copy(model_store / file, folder / "first")
    manifest = json.loads((folder / "wrong" / "manifest.json").read_text())
    manifest["golden"]["logits"][0] += 2 * manifest["golden"]["tolerance"]
    (folder / "wrong" / "manifest.json").write_text(json.dumps(manifest))
    return {name: folder / name for name in ("first", "second", "wrong")}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = read_properties(ROOT / "config.properties") | free_addresses()
    settings |= {"models": pool_settings(), "engine": "exact", "enable_model_api": "true"}
    path = tmp_path_factory.mktemp("update") / "config.properties"
    write_properties(settings, path)
    return path


@pytest.fixture(scope="module")
def store(exports: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("store")
    for file in exports["first"].iterdir():
        (store / file.name).write_bytes(file.read_bytes())
    return store


@pytest.fixture(scope="module")
def updatable(config: Path, store: Path) -> Iterator[TorchServe]:
    with TorchServe(config, store, config.parent / "run") as running:
        running.wait_until_ready()
        yield running


def update(config: Path, store: Path, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "serving", "update", str(folder), "--config", str(config)]
    command += ["--model-store", str(store), *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)


def all_answer(answers: list[tuple[str, requests.Response]], version: str) -> bool:
    """Whether the last response of each verb comes from a version."""
    return all(versions(answers, verb)[-1] == version for verb in VERBS)


@contextmanager
def load(url: str) -> Iterator[list[tuple[str, requests.Response]]]:
    """Run two clients for predictions and one for explanations until the context exits."""
    answers: list[tuple[str, requests.Response]] = []
    done = threading.Event()

    def ask(verb: str) -> None:
        while not done.is_set():
            answers.append((verb, requests.post(f"{url}/{verb}/pathmnist", data=TILE.read_bytes(), timeout=120)))

    with ThreadPoolExecutor(3) as pool:
        running = [pool.submit(ask, verb) for verb in ("predictions", "predictions", "explanations")]
        try:
            yield answers
        finally:
            done.set()
    for user in running:
        user.result()


def answer_of(server: TorchServe) -> Any:
    return requests.post(f"{server.url}/predictions/pathmnist", data=TILE.read_bytes(), timeout=60).json()


def versions(answers: list[tuple[str, requests.Response]], verb: str) -> list[str]:
    """The model versions of the responses to a verb, in order."""
    return [response.json()["model"]["version"] for asked, response in answers if asked == verb]


# Workers load their model under load, which takes minutes on a busy machine.
@pytest.mark.timeout(600)
def test_an_update_and_a_rollback_under_load_fail_no_request(
    updatable: TorchServe, exports: dict[str, Path], config: Path, store: Path
) -> None:
    logits = {VERSION: np.array(answer_of(updatable)["logits"])}
    logits["3.0"] = logits[VERSION] + SHIFT
    for version, folder in (("3.0", "second"), (VERSION, "first")):
        with load(updatable.url) as answers:
            wait_for(lambda: all(versions(answers, verb) for verb in VERBS))
            finished = update(config, store, exports[folder])
            assert finished.stdout == f"serving {version}\n", finished.stderr
            wait_for(partial(all_answer, answers, version))
        assert {response.status_code for _, response in answers} == {200}
        for _, response in answers:
            body = response.json()
            assert np.allclose(body["logits"], logits[body["model"]["version"]], atol=1e-3)
        for verb in VERBS:
            assert set(versions(answers, verb)) == {VERSION, "3.0"}
        assert answer_of(updatable)["model"]["version"] == version
        assert requests.get(f"{updatable.url}/ready", timeout=30).status_code == 200
        assert file_digest(store / "pathmnist.mar") == file_digest(exports[folder] / "pathmnist.mar")


def test_a_model_that_answers_otherwise_than_at_export_is_not_activated(
    updatable: TorchServe, exports: dict[str, Path], config: Path, store: Path
) -> None:
    def loaded() -> list[Any]:
        urls = [f"{updatable.management_url}/models/{pool}/all" for pool in ("pathmnist", "pathmnist-explain")]
        return [[item["modelVersion"] for item in requests.get(url, timeout=30).json()] for url in urls]

    before, versions_before = answer_of(updatable)["model"], loaded()
    finished = update(config, store, exports["wrong"])
    assert finished.returncode == 1
    assert "is not the exported model" in finished.stderr
    assert answer_of(updatable)["model"] == before
    assert loaded() == versions_before
    assert requests.get(f"{updatable.url}/ready", timeout=30).status_code == 200
    assert [path.name for path in store.glob("*.mar")] == ["pathmnist.mar"]


def test_a_changed_archive_is_no_update(
    updatable: TorchServe, exports: dict[str, Path], config: Path, store: Path, tmp_path: Path
) -> None:
    for name in ("pathmnist.mar", "manifest.json"):
        (tmp_path / name).write_bytes((exports["second"] / name).read_bytes())
    with (tmp_path / "pathmnist.mar").open("ab") as archive:
        archive.write(b"x")
    finished = update(config, store, tmp_path)
    assert finished.returncode == 1
    assert "pathmnist.mar was changed after its export" in finished.stderr


def test_no_archive_comes_from_another_host(updatable: TorchServe) -> None:
    for url in ("http://127.0.0.1:1/other.mar", "file:///other.mar", "../other.mar"):
        response = requests.post(f"{updatable.management_url}/models", params={"url": url}, timeout=30)
        assert response.status_code in (400, 403, 404), url


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export of a model trained for one epoch on generated tiles."""
    folder = tmp_path_factory.mktemp("trained")
    write_dataset(folder / "tiles.npz", (60, 18, 18), seed=0)
    options = [
        "--data",
        str(folder / "tiles.npz"),
        "--output",
        str(folder / "run"),
        "--epochs",
        "1",
        "--init",
        "random",
    ]
    options += ["--no-freeze", "--input-size", "32", "--batch-size", "30", "--accelerator", "cpu", "--devices", "1"]
    train(parse_arguments(options))
    export(folder / "run", folder / "export", generate(18, seed=2).images)
    return folder / "export"


def batch_sizes(server: TorchServe, version: str) -> list[int]:
    urls = [f"{server.management_url}/models/{pool}/{version}" for pool in POOLS]
    return [requests.get(url, timeout=30).json()[0]["batchSize"] for url in urls]


def test_an_update_without_the_demanded_signature_is_refused(
    updatable: TorchServe, exports: dict[str, Path], config: Path, store: Path, tmp_path: Path
) -> None:
    ours, others = write_keys(tmp_path, "ours"), write_keys(tmp_path, "others")
    folder = shutil.copytree(exports["second"], tmp_path / "signed")
    before = answer_of(updatable)["model"]
    for reason, sign_folder in (("is not signed", None), ("does not match its signature", others)):
        if sign_folder:
            sign(folder, sign_folder.private)
        finished = update(config, store, folder, "--public-key", str(ours.public))
        assert finished.returncode == 1
        assert reason in finished.stderr
        assert "Traceback" not in finished.stderr
    assert answer_of(updatable)["model"] == before
    assert not (store / "model.sig").exists()


@pytest.mark.timeout(600)
def test_a_new_training_run_replaces_the_model_and_keeps_its_batching(
    trained: Path, exports: dict[str, Path], tmp_path: Path
) -> None:
    """The server demands signatures, at both starts and for the update."""
    keys = write_keys(tmp_path)
    settings = read_properties(ROOT / "config.properties") | free_addresses()
    settings |= {"models": pool_settings(batchSize=3), "engine": "exact", "enable_model_api": "true"}
    settings |= {"model_public_key_file": str(keys.public)}
    config, store = tmp_path / "config.properties", tmp_path / "store"
    write_properties(settings, config)
    shutil.copytree(exports["first"], store)
    sign(store, keys.private)
    sign(trained, keys.private)
    model = json.loads((trained / "manifest.json").read_text())["model"]
    with TorchServe(config, store, tmp_path / "run") as server:
        before = server.wait_until_ready()
        with load(server.url) as answers:
            finished = update(config, store, trained)
            assert finished.stdout == f"serving {model['version']}\n", finished.stderr
            wait_for(partial(all_answer, answers, model["version"]))
        assert {response.status_code for _, response in answers} == {200}
        updated = answer_of(server)
        assert batch_sizes(server, model["version"]) == [3, 3]
    with TorchServe(config, store, tmp_path / "run") as server:
        restarted = server.wait_until_ready()
        assert batch_sizes(server, model["version"]) == [3, 3]
    assert before["model"]["version"] != model["version"] == f"{VERSION}-{model['digest'][:8]}"
    assert updated["model"]["digest"] == restarted["model"]["digest"] == model["digest"]
    assert np.allclose(updated["logits"], restarted["logits"], atol=1e-4)


def test_by_default_a_server_takes_no_update(server: TorchServe, exports: dict[str, Path], tmp_path: Path) -> None:
    config = tmp_path / "config.properties"
    settings = read_properties(ROOT / "config.properties")
    settings |= {"management_address": server.management_url, "inference_address": server.inference_url}
    write_properties(settings, config)
    finished = update(config, tmp_path, exports["second"])
    assert finished.returncode == 1
    assert "start the server with enable_model_api=true" in finished.stderr
