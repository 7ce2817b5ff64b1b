"""Commands in the documentation run, and the modules, targets and files that it names exist."""

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from serving.supervisor import ROOT, TorchServe
from training.synthetic import write_dataset

DOCUMENTS = sorted(
    path
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "evaluation").glob("*.md"))
    if path.name != "MODEL_CARD.md"
)
SHELL = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")
FILE = re.compile(r"`((?:handler|training|evaluation|export|serving|bench|deploy|tests)/[\w./-]+\.\w+)`")


def commands(document: Path) -> list[str]:
    """The lines of a document's shell blocks, continued lines joined, comments dropped."""
    blocks = "".join(SHELL.findall(document.read_text())).replace("\\\n", " ")
    return [line for line in (re.sub(r"\s+# .*", "", line).strip() for line in blocks.splitlines()) if line]


README_COMMANDS = commands(ROOT / "README.md")


@pytest.mark.parametrize("command", README_COMMANDS)
def test_a_command_of_the_readme_runs(command: str, server: TorchServe, tmp_path: Path) -> None:
    if command == "make serve":
        assert server.url
        return
    write_dataset(tmp_path / "tiles.npz", (9, 9, 9), seed=0)
    replaced = command.replace("http://127.0.0.1:8080", server.url).replace("FILE.npz", str(tmp_path / "tiles.npz"))
    finished = subprocess.run(["bash", "-c", replaced], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stderr
    assert '"error"' not in finished.stdout


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_a_document_names_modules_targets_and_files_that_exist(document: Path) -> None:
    text = document.read_text()
    for module in re.findall(r"python -m ((?:handler|training|evaluation|export|serving|loadtest|bench)[\w.]*)", text):
        assert importlib.util.find_spec(module), module
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)", text)) <= targets
    for name in LINK.findall(text):
        assert (document.parent / name).exists(), name
    for name in re.findall(
        r"`((?:handler|training|evaluation|export|serving|bench|deploy|tests)/[\w./-]+\.\w+)`", text
    ):
        assert (ROOT / name).exists(), name


def test_make_alone_prints_help() -> None:
    printed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {"serve", "test-quick", "check"} <= {line.split()[0] for line in printed.splitlines()}


def test_no_test_module_imports_another() -> None:
    imports = re.compile(r"^from (tests\.[\w.]*test_\w+) import", re.MULTILINE)
    found = {str(path): imports.findall(path.read_text()) for path in (ROOT / "tests").rglob("*.py")}
    assert not {path: names for path, names in found.items() if names}


def test_contracts_between_rooms_are_kept() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    finished = subprocess.run(shlex.split(f"{linter} --no-logo --no-cache"), cwd=ROOT, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout
