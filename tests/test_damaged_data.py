"""Every command ends with one line if its data cannot be used."""

import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from training.synthetic import write_dataset

# What a command is given besides its data.
COMMANDS: dict[str, tuple[str, ...]] = {
    "evaluation.calibrate": ("--output", "report"),
    "evaluation.classification": (),
    "evaluation.contact_sheet": (),
    "evaluation.explanations": ("--output", "report"),
    "evaluation.explore": ("--output", "report"),
    "evaluation.gallery": ("--output", "sheet.png"),
    "evaluation.memorising": ("--samples", "samples"),
    "evaluation.quadrature": (),
    "evaluation.resolution": (),
    "evaluation.robustness": (),
    "export.__main__": (),
    "export.attribution": (),
    "export.compress": (),
    "export.runtimes": (),
    "training.train": (),
}


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("damaged")
    write_dataset(folder / "whole.npz", (18, 9, 9), seed=0)
    content = (folder / "whole.npz").read_bytes()
    (folder / "short.npz").write_bytes(content[: len(content) // 2])
    (folder / "flipped.npz").write_bytes(content[:5000] + b"\x00" * 64 + content[5064:])
    np.save(folder / "array.npy", np.zeros(3))
    with np.load(folder / "whole.npz") as arrays:
        np.savez(folder / "classes.npz", **{**arrays, "test_labels": arrays["test_labels"] % 4})
    names = ("absent.npz", "short.npz", "flipped.npz", "array.npy", "classes.npz")
    return {name: folder / name for name in names}


@pytest.mark.parametrize("command", COMMANDS)
def test_damaged_data_end_a_command_with_one_line(
    command: str, damaged: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    main = import_module(command).main
    for name, path in damaged.items():
        monkeypatch.setattr(sys, "argv", [command, "--data", str(path), *COMMANDS[command]])
        with pytest.raises(SystemExit) as ended:
            main()
        message = str(ended.value.code)
        assert message.startswith("data: "), name
        assert "\n" not in message, name
