"""Training end to end on generated data, as a user starts it."""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from evaluation.classification import predict_probabilities
from handler.model.checkpoint import CARD, WEIGHTS, load_model
from handler.model.network import build_network
from serving.supervisor import ROOT
from training.data import DataError, read_npz
from training.module import initial_network
from training.synthetic import write_dataset
from training.teachers import SimpleCNN, load_teacher
from training.train import parse_arguments, train


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "generated.npz"
    write_dataset(path, (180, 36, 36), seed=0)
    return path


def run(data: Path, output: Path, *options: str) -> dict[str, Any]:
    fixed = ["--data", str(data), "--output", str(output), "--accelerator", "cpu", "--devices", "1"]
    train(parse_arguments([*fixed, "--input-size", "32", "--batch-size", "30", *options]))
    card: dict[str, Any] = json.loads((output / CARD).read_text())
    return card


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("run")
    run(data, output, "--init", "random", "--no-freeze", "--learning-rate", "1e-3", "--epochs", "8")
    return output


def test_the_classic_recipe_learns_the_textures(trained: Path) -> None:
    card = json.loads((trained / CARD).read_text())
    assert card["evaluation"]["test"]["accuracy"] > 0.5
    assert card["training"]["recipe"]["name"] == "classic"
    assert list(trained.glob("curves/*/metrics.csv"))


def test_a_trained_checkpoint_is_what_the_server_loads(trained: Path, data: Path) -> None:
    model = load_model(trained)
    card = json.loads((trained / CARD).read_text())
    split = read_npz(data).test
    probabilities = predict_probabilities(model.network, split, model.preprocessing)
    accuracy = (probabilities.argmax(axis=1) == split.labels).mean()
    assert card["evaluation"]["test"]["accuracy"] == pytest.approx(accuracy, abs=5e-5)
    assert model.digest == card["digest"]


def test_the_same_seed_gives_the_same_weights(data: Path, tmp_path: Path) -> None:
    options = ("--init", "random", "--no-freeze", "--epochs", "1", "--seed", "3")
    digests = {run(data, tmp_path / name, *options)["digest"] for name in ("a", "b")}
    assert len(digests) == 1
    assert run(data, tmp_path / "c", *options[:-1], "4")["digest"] not in digests


@pytest.mark.parametrize("recipe", ["classic", "strong"])
def test_a_stopped_run_ends_as_an_unbroken_one(recipe: str, data: Path, tmp_path: Path) -> None:
    options = ("--recipe", recipe, "--init", "random", "--no-freeze", "--epochs", "3")
    unbroken = run(data, tmp_path / "unbroken", *options)
    broken = tmp_path / "broken"
    run(data, broken, *options, "--stop-after", "2")
    resumed = run(data, broken, *options, "--resume")
    assert resumed["digest"] == unbroken["digest"]
    first, second = sorted(broken.glob("curves/*/metrics.csv"))
    assert first.read_text().splitlines()[1].startswith("0,")
    assert second.read_text().splitlines()[1].startswith("2,")


def test_frozen_layers_keep_weights_and_statistics(data: Path, trained: Path, tmp_path: Path) -> None:
    start = str(trained / WEIGHTS)
    run(data, tmp_path, "--init", start, "--epochs", "1")
    before, after = load_file(start), load_file(tmp_path / WEIGHTS)
    for name, value in before.items():
        frozen = name.split(".")[0] in {"conv1", "bn1", "layer1", "layer2"}
        if frozen:
            assert torch.equal(after[name], value), name
    assert not torch.equal(after["layer4.1.conv2.weight"], before["layer4.1.conv2.weight"])


def test_a_card_says_what_a_run_was(trained: Path, data: Path) -> None:
    training = json.loads((trained / CARD).read_text())["training"]
    assert training["data_digest"] == read_npz(data).digest
    assert training["recipe"]["init"] == "random"
    assert training["environment"]["packages"]["torch"] == torch.__version__.split("+")[0]
    assert training["environment"]["processes"] == 1


def test_a_recipe_from_a_teacher_asks_for_it(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--teacher"):
        run(data, tmp_path, "--recipe", "distilled")


def test_make_train_goes_from_data_to_a_checkpoint_that_exports(data: Path, tmp_path: Path) -> None:
    if not (ROOT / ".venv" / "test.stamp").is_file():
        pytest.skip("no environment made by make (.venv/test.stamp)")
    options = "--init random --no-freeze --epochs 2 --input-size 32 --batch-size 30 --accelerator cpu --devices 1"
    checkpoint = tmp_path / "run"

    def make(target: str, *variables: str) -> None:
        command = ["make", "--old-file", ".venv/test.stamp", "--old-file", ".venv/serve.stamp", target, *variables]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)

    make("train", f"DATA={data}", f"ARGS={options} --output {checkpoint}")
    make("evaluate", f"DATA={data}", f"ARGS=--checkpoint {checkpoint} --output {tmp_path / 'report'}")
    make("export", f"ARGS=--checkpoint {checkpoint} --output {tmp_path / 'store'}")
    assert json.loads((tmp_path / "report" / "evaluation.json").read_text())["splits"]["test"]["images"] == 36
    assert (tmp_path / "store" / "pathmnist.mar").is_file()


def test_the_strong_recipe_distils_from_a_teacher(data: Path, tmp_path: Path) -> None:
    teacher = SimpleCNN((4, 4, 4), hidden=8)
    save_file(teacher.state_dict(), tmp_path / "teacher.safetensors")
    teacher_file = str(tmp_path / "teacher.safetensors")
    options = ("--recipe", "strong", "--init", "random", "--epochs", "2", "--teacher", teacher_file)
    card = run(data, tmp_path / "out", *options)
    assert card["training"]["teacher"] == "teacher.safetensors"
    assert card["training"]["recipe"]["augmentation"] == "strong"


def test_a_distilled_compact_network_becomes_a_resnet(data: Path, tmp_path: Path) -> None:
    save_file(SimpleCNN((4, 4, 4), hidden=8).state_dict(), tmp_path / "teacher.safetensors")
    options = ["--recipe", "distilled", "--epochs", "1", "--teacher", str(tmp_path / "teacher.safetensors")]
    fixed = ["--data", str(data), "--output", str(tmp_path / "out"), "--accelerator", "cpu", "--devices", "1"]
    train(parse_arguments([*fixed, *options]))
    model = load_model(tmp_path / "out")
    assert model.preprocessing.input_size == 224
    found = predict_probabilities(model.network, read_npz(data).val, model.preprocessing)
    assert found.shape == (36, 9)


def test_the_public_teacher_loads_and_scores_as_published(shared: Path) -> None:
    teacher = load_teacher(shared / "teacher" / "pathmnist_simple_cnn.safetensors")
    split = read_npz(shared / "pathmnist.npz").test
    with torch.no_grad():
        logits = teacher(torch.from_numpy(split.images).permute(0, 3, 1, 2).float() / 255)
    assert (logits.argmax(dim=1).numpy() == split.labels).mean() == pytest.approx(0.918, abs=0.001)


def test_an_npz_of_imagenet_weights_initialises_all_but_the_last_layer(shared: Path) -> None:
    path = shared / "imagenet_resnet18" / "resnet18_ktb_small_decoded_fp32.npz"
    network = initial_network(str(path))
    with np.load(path) as arrays:
        assert np.array_equal(network.conv1.weight.detach().numpy(), arrays["conv1.weight"])
    assert network.fc.weight.shape == (9, 512)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    state = build_network().state_dict()
    del state["layer3.0.conv1.weight"]
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"layer3\.0\.conv1\.weight"):
        initial_network(str(tmp_path / "other.safetensors"))
