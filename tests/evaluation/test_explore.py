import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from evaluation.explore import colour_shift, colours, explore, markdown, sample_sheet
from handler.classes import CODES
from serving.supervisor import ROOT
from training.data import PathMNIST, Split
from training.synthetic import generate


def painted(*shades: tuple[int, int, int]) -> Split:
    """One tile of one colour per class."""
    images = np.stack([np.full((28, 28, 3), shade, dtype=np.uint8) for shade in shades])
    return Split(images, np.arange(len(shades)))


def test_colours_are_means_over_tiles() -> None:
    images = np.concatenate([painted((10, 20, 30)).images, painted((30, 20, 10)).images])
    found = colours(Split(images, np.zeros(2, dtype=int)))
    assert found["ADI"] == {"mean": [20, 20, 20], "deviation": [10, 0, 10]}
    assert found["TUM"] is None


def test_a_shift_is_the_distance_of_mean_colours() -> None:
    found = colour_shift(colours(painted((0, 0, 0))), colours(painted((3, 0, 4))))
    assert found["ADI"] == 5
    assert found["TUM"] is None


def test_the_report_counts_every_image() -> None:
    splits = {name: generate(count, seed=count) for name, count in (("train", 27), ("val", 9), ("test", 18))}
    result = explore(PathMNIST(**splits, digest="generated"))
    for name, split in splits.items():
        assert sum(result["classes"]["images"][name].values()) == len(split)
    assert all(f"| {code} | 3 | 1 | 2 |" in markdown(result) for code in CODES)
    assert sample_sheet(splits["train"]).height == 9 * 56


def test_the_command_writes_its_files(shared: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "evaluation.explore", "--data", str(shared / "pathmnist.npz")]
    subprocess.run([*command, "--output", str(tmp_path)], cwd=ROOT, check=True, capture_output=True)
    names = {"exploration.json", "exploration.md", "classes.svg", "colours.svg", "samples.png"}
    assert {path.name for path in tmp_path.iterdir()} == names
    counts = json.loads((tmp_path / "exploration.json").read_text())["classes"]["images"]
    assert sum(counts["test"].values()) == 718


def test_missing_data_is_said_plainly(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "evaluation.explore", "--data", "nowhere.npz", "--output", str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.strip().endswith("no such file: nowhere.npz")
