"""Training in several processes gives the same result as in one."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from handler.model.checkpoint import WEIGHTS
from serving.supervisor import ROOT
from training.checkpoint import save_weights
from training.networks import initial_network
from training.synthetic import write_dataset

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def losses(output: Path) -> list[float]:
    with next(output.glob("curves/*/metrics.csv")).open() as file:
        return [float(row["train_loss"]) for row in csv.DictReader(file) if row["train_loss"]]


def test_two_processes_follow_the_curve_of_one_with_the_doubled_batch(tmp_path: Path) -> None:
    data, start = tmp_path / "generated.npz", tmp_path / WEIGHTS
    write_dataset(data, (96, 12, 12), seed=0)
    save_weights(initial_network("random"), start)
    # Random augmentation and batch statistics differ between processes.
    options = ["--data", str(data), "--init", str(start), "--no-freeze", "--freeze-batchnorm", "--augmentation", "none"]
    options += ["--input-size", "32", "--epochs", "4", "--accelerator", "cpu"]

    def train(launcher: tuple[str, ...], output: Path, *more: str) -> list[float]:
        command = [sys.executable, *launcher, "-m", "training.train", *options, "--output", str(output), *more]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=240)
        return losses(output)

    one = train((), tmp_path / "one", "--batch-size", "16", "--devices", "1")
    two = train(TORCHRUN, tmp_path / "two", "--batch-size", "8", "--devices", "2", "--strategy", "ddp")
    assert one[-1] < 0.9 * one[0]
    # The order of sums differs, so float32 rounding grows during training.
    assert two == pytest.approx(one, rel=5e-3)
