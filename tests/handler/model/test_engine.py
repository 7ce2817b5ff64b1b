from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from export.archive import CONFIG
from handler.model.backends import BACKENDS, BackendError, load_backend
from handler.model.checkpoint import Model
from handler.model.engine import Engine
from tests.conftest import Pixels

CPU = torch.device("cpu")


def open_engine(name: str, model: Model, folder: Path, device: torch.device = CPU) -> Engine:
    try:
        return Engine(model, device, name, folder)
    except BackendError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        ("onnxruntime", 1e-6),
        ("openvino", 1e-6),
        ("mnn", 1e-4),
        ("openvino-bf16", 3e-2),
        ("openvino-int8", 5e-2),
        ("tensorrt", 1e-2),
    ],
)
def test_a_backend_gives_pytorchs_answers_for_batches_of_any_size(
    name: str, tolerance: float, model: Model, engine_files: Path, tiles: Pixels
) -> None:
    engine, reference = open_engine(name, model, engine_files), Engine(model, CPU)
    for size in (1, 5, 2, len(tiles)):
        found, expected = engine.forward(list(tiles[:size])), reference.forward(list(tiles[:size]))
        assert (found.logits - expected.logits).abs().max() <= tolerance * expected.logits.abs().max()
        assert (found.features - expected.features).abs().max() <= 10 * tolerance * expected.features.abs().max()
        # The same class, unless its two best logits are as near to each other as the tolerance allows.
        chosen = expected.logits.gather(1, found.logits.argmax(dim=1, keepdim=True))
        lost = expected.logits.amax(dim=1, keepdim=True) - chosen
        assert lost.max() <= 2 * tolerance * expected.logits.abs().max()


@pytest.mark.parametrize("name", ["mnn", "onnxruntime", "openvino"])
def test_a_later_batch_leaves_an_earlier_answer_as_it_was(
    name: str, model: Model, engine_files: Path, tiles: Pixels
) -> None:
    engine = open_engine(name, model, engine_files)
    first = engine.forward(list(tiles[:2]))
    kept = first.features.clone()
    engine.forward(list(tiles[2:4]))
    assert torch.equal(first.features, kept)


def test_int8_needs_instructions_for_it(model: Model, engine_files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_f": True})
    with pytest.raises(BackendError, match="none of avx512_vnni, avx_vnni, amx_int8"):
        load_backend("openvino-int8", model, engine_files, CPU)


def test_backends_that_cannot_be_had_are_named(model: Model, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="no backend 'abacus', but torch, mnn"):
        load_backend("abacus", model, tmp_path, CPU)
    with pytest.raises(BackendError, match=r"network\.mnn is not in the archive"):
        load_backend("mnn", model, tmp_path, CPU)
    with pytest.raises(BackendError, match="CPU only"):
        load_backend("mnn", model, tmp_path, torch.device("cuda"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["torch", "onnxruntime", "tensorrt"])
def test_a_gpus_backend_gives_the_cpus_answers(name: str, model: Model, engine_files: Path, tiles: Pixels) -> None:
    device = torch.device("cuda", 0)
    on_gpu = replace(model, network=model.network.to(device))
    found = open_engine(name, on_gpu, engine_files, device).forward(list(tiles)).logits.cpu()
    model.network.to(CPU)
    expected = Engine(model, CPU).forward(list(tiles)).logits
    assert (found - expected).abs().max() <= 1e-2 * expected.abs().max()


def test_every_backend_in_the_configuration_exists() -> None:
    settings = yaml.safe_load(CONFIG.read_text())["handler"]["engine"]
    assert {*settings["cpu"], *settings["cuda"]} <= set(BACKENDS)
