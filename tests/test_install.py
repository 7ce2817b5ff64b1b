"""`make serve` works with Python 3.11, 3.12 and 3.13, and without CUDA where PyTorch's CPU wheels can be reached."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from serving.install import CPU_PACKAGES, cpu_lock, suitable_build
from serving.supervisor import ROOT

pytestmark = pytest.mark.slow

VERSIONS = ("3.11", "3.12", "3.13")
ENVIRONMENT = ROOT / "serving" / "environment.sh"
LOCK = ROOT / "serve.lock"
UV = Path(sys.executable).with_name("uv")
PYTHON = Path(sys.executable).resolve()
# Python under another name, complete and without the module venv.
SHIM = '#!/bin/sh\nexec {python} "$@"\n'
WITHOUT_VENV = '#!/bin/sh\ncase "$*" in *ensurepip*) exit 1;; esac\nexec {python} "$@"\n'


def run(*words: str | Path, **options: Any) -> str:
    """The output of a command that has to succeed."""
    options = {"check": True, "timeout": 300, **options}
    result: subprocess.CompletedProcess[str] = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, **options
    )
    return result.stdout


def interpreter(version: str) -> Path:
    """An interpreter of a version on this machine, on PATH or from pyenv; skips the test if there is none."""
    pyenv = sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python"))
    for candidate in (shutil.which(f"python{version}"), *pyenv):
        if candidate and not subprocess.run([candidate, "-c", "import ensurepip"], capture_output=True).returncode:
            return Path(candidate)
    pytest.skip(f"Python {version} is not installed")


def programs(folder: Path, **scripts: str) -> dict[str, str]:
    """An environment whose PATH has only some programs, by their shell scripts, and basic tools."""
    folder.mkdir()
    for tool in ("sh", "mkdir", "dirname"):
        (folder / tool).symlink_to(str(shutil.which(tool)))
    for name, script in scripts.items():
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    return {**os.environ, "PATH": str(folder), "PYTHON": ""}


def create(target: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = ["/bin/sh", str(ENVIRONMENT), str(target)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)


def version_in(environment: Path) -> str:
    return run(environment / "bin" / "python", "-m", "pip", "--version")


def test_a_name_without_an_interpreter_is_passed_over(tmp_path: Path) -> None:
    """As pyenv's `python3.11` if another version is active."""
    scripts = {"python3.11": "#!/bin/sh\nexit 127\n", "python3.12": SHIM.format(python=PYTHON)}
    environment = programs(tmp_path / "bin", **scripts)
    result = create(tmp_path / "venv", environment)
    assert result.returncode == 0, result.stderr
    assert version_in(tmp_path / "venv").startswith("pip 26.3 ")


def test_without_venv_uv_makes_the_environment(tmp_path: Path) -> None:
    """As on Debian without python3-venv."""
    scripts = {"python3": WITHOUT_VENV.format(python=PYTHON), "uv": f'#!/bin/sh\nexec {UV} "$@"\n'}
    environment = programs(tmp_path / "bin", **scripts)
    result = create(tmp_path / "venv", environment)
    assert result.returncode == 0, result.stderr
    assert "no Python 3.11, 3.12 or 3.13 with venv was found: uv provides one\n" in result.stdout
    assert version_in(tmp_path / "venv").startswith("pip 26.3 ")


def test_where_there_is_no_python_it_says_so_in_one_sentence(tmp_path: Path) -> None:
    old = "#!/bin/sh\nexit 1\n"
    result = create(tmp_path / "venv", programs(tmp_path / "bin", python3=old))
    assert result.returncode == 1
    assert re.fullmatch(r"no Python 3\.11, 3\.12 or 3\.13 with venv was found, nor uv: [^.\n]+\n", result.stderr)
    assert not (tmp_path / "venv").exists()
    named = create(tmp_path / "venv", programs(tmp_path / "other") | {"PYTHON": "python3.14"})
    assert "was found under the name python3.14, nor uv" in named.stderr


def uv_finds_wheels(version: str, target: Path, *options: str) -> None:
    """Raise unless every package of the lock has a wheel, with its digest, for a version of Python."""
    command: list[str | Path] = [
        UV,
        "pip",
        "install",
        "--dry-run",
        "--require-hashes",
        "--only-binary",
        ":all:",
        "--no-deps",
    ]
    command += ["--python-version", version, "--target", target, "--requirement", LOCK, *options]
    # ONNX Runtime needs macOS 14, but uv assumes 13.
    run(*command, env={**os.environ, "MACOSX_DEPLOYMENT_TARGET": "14.0"})


@pytest.mark.parametrize("platform", ["x86_64-unknown-linux-gnu", "aarch64-apple-darwin"])
@pytest.mark.parametrize("version", VERSIONS)
def test_every_locked_package_has_a_wheel(version: str, platform: str, tmp_path: Path) -> None:
    uv_finds_wheels(version, tmp_path, "--python-platform", platform)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("version", VERSIONS[1:])
def test_other_pythons_run_the_gateway_and_classify(version: str, model_store: Path, tmp_path: Path) -> None:
    """In a new environment from the lock without PyTorch, which would take minutes; `INSTALL=1` runs all of it."""
    python = interpreter(version)
    lock = tmp_path / "light.lock"
    entries = re.split(r"\n(?=\S)", LOCK.read_text().strip())
    heavy = re.compile(r"(torch|torchvision|captum|triton|openvino|mnn|scipy|(nvidia|cuda)-[^=]+)==")
    lock.write_text("\n".join(entry for entry in entries if not heavy.match(entry)) + "\n")
    venv = tmp_path / "venv"
    run(UV, "venv", "--quiet", "--no-project", "--python", python, venv)
    install = (UV, "pip", "install", "--quiet", "--require-hashes", "--no-deps", "--requirement", lock)
    run(*install, env={**os.environ, "VIRTUAL_ENV": str(venv)})
    modules = "serving.__main__, serving.update, serving.signature, serving.gateway.__main__, export.sign"
    run(venv / "bin" / "python", "-c", f"import {modules}", cwd=ROOT)
    answer = run(venv / "bin" / "python", "-m", "export.predict", "docs/tile.png", "--models", model_store, cwd=ROOT)
    assert json.loads(answer)["prediction"]["code"] == "TUM"
    # Compilation warns of syntax that a later version refuses.
    sources = [ROOT / folder for folder in ("handler", "serving", "export")]
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path / "cache")}
    run(venv / "bin" / "python", "-W", "error", "-m", "compileall", "-q", "-f", *sources, env=environment)


@pytest.mark.skipif("INSTALL" not in os.environ, reason="INSTALL=1 installs the server with every Python, in minutes")
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("version", VERSIONS)
def test_make_serve_answers_with_every_python(version: str, tmp_path: Path) -> None:
    """In a copy of the files, without an environment and a model; prints a row of the table in docs/serving.md."""
    python = interpreter(version)
    for name in run("git", "ls-files", cwd=ROOT).splitlines():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    make = ["make", f"PYTHON={python}"]
    started = time.monotonic()
    subprocess.run([*make, ".venv/serve.stamp"], cwd=tmp_path, check=True)
    installed = time.monotonic()
    subprocess.run([*make, "model_store/manifest.json"], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    exported = time.monotonic()
    serve = [*make, "--silent", "serve", "ARGS=--free-ports"]
    with subprocess.Popen(serve, cwd=tmp_path, stdout=subprocess.PIPE, text=True, process_group=0) as process:
        try:
            assert process.stdout is not None
            ready = process.stdout.readline()
            assert ready.startswith("ready: "), ready
            answering = time.monotonic()
            url = ready.removeprefix("ready: ").strip() + "?explain=gradcam"
            tile = (ROOT / "docs" / "tile.png").read_bytes()
            with urllib.request.urlopen(urllib.request.Request(url, data=tile, method="POST"), timeout=60) as response:
                answer = json.loads(response.read())
        finally:
            os.killpg(process.pid, signal.SIGINT)
            process.communicate(timeout=60)
    assert answer["prediction"]["code"] == "TUM"
    assert answer["explanations"][0]["method"] == "gradcam"
    log = (tmp_path / ".run" / "torchserve.log").read_text()
    assert f"Python runtime: {version}." in log
    size = run("du", "-sm", tmp_path / ".venv").split()[0]
    seconds = [installed - started, exported - installed, answering - exported]
    print(f"\n| {version} | {int(size) / 1000:.1f} GB | {' | '.join(f'{item:.0f} s' for item in seconds)} |")


def wheel(folder: Path, name: str, version: str) -> Path:
    """A wheel without modules."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")
    return path


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_page(folder: Path) -> None:
    """The page of a package index (PEP 503), in the form of PyTorch's."""
    links = (f'<a href="{p.name.replace("+", "%2B")}#sha256={digest(p)}">{p.name}</a>' for p in folder.glob("*.whl"))
    (folder / "index.html").write_text(f"<!DOCTYPE html><html><body>{'<br/>'.join(links)}</body></html>")


class Indexes:
    """Two package indexes on this machine, as PyPI and PyTorch's CPU index, and a lock of the former."""

    def __init__(self, folder: Path, address: str) -> None:
        self.pypi, self.cpu = f"{address}/pypi", f"{address}/cpu"
        self.cpu_folder = folder / "cpu"
        entries = []
        for name in (*CPU_PACKAGES, "nvidia_cublas"):
            file = wheel(folder / "pypi" / name.replace("_", "-"), name, "1.0")
            write_page(file.parent)
            marker = " ; sys_platform == 'linux'" if name == "nvidia_cublas" else ""
            entries.append(f"{file.parent.name}==1.0{marker} \\\n    --hash=sha256:{digest(file)}\n")
        for name in CPU_PACKAGES:
            write_page(wheel(self.cpu_folder / name, name, "1.0+cpu").parent)
            # As on PyTorch's own index, other versions and builds are on the same page.
            write_page(wheel(self.cpu_folder / name, name, "1.0").parent)
        self.lock = folder / "test.lock"
        self.lock.write_text("".join(entries))


@pytest.fixture
def indexes(tmp_path: Path) -> Iterator[Indexes]:
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "indexes"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        (tmp_path / "indexes").mkdir()
        yield Indexes(tmp_path / "indexes", f"http://127.0.0.1:{server.server_port}")
        server.shutdown()


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("install") / "venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=120)
    return folder


@pytest.fixture
def installed(venv: Path) -> Path:
    """A virtual environment without the packages of `Indexes`."""
    run(venv / "bin" / "python", "-m", "pip", "uninstall", "--yes", *CPU_PACKAGES, "nvidia-cublas")
    return venv


def install(venv: Path, indexes: Indexes, index: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [str(venv / "bin" / "python"), "-m", "serving.install", "--lock", str(indexes.lock), "--index", index]
    # pip's own settings name other sources.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    environment |= {"PIP_INDEX_URL": indexes.pypi, "PIP_CONFIG_FILE": os.devnull, "PIP_NO_CACHE_DIR": "1"}
    return subprocess.run([*command, *options], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)


def packages(venv: Path) -> dict[str, str]:
    rows = json.loads(run(venv / "bin" / "python", "-m", "pip", "list", "--format", "json"))
    return {row["name"].replace("_", "-"): row["version"] for row in rows if row["name"] not in ("pip", "setuptools")}


def test_the_cpu_build_is_installed_by_the_indexs_digests_and_without_cuda(installed: Path, indexes: Indexes) -> None:
    result = install(installed, indexes, indexes.cpu, "--torch", "cpu")
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"install: PyTorch's CPU build from {indexes.cpu}\n"
    assert packages(installed) == {"torch": "1.0+cpu", "torchvision": "1.0+cpu"}


def test_a_wheel_that_is_not_what_the_index_says_is_refused(installed: Path, indexes: Indexes) -> None:
    with (indexes.cpu_folder / "torch" / "torch-1.0+cpu-py3-none-any.whl").open("ab") as file:
        file.write(b"\0")
    result = install(installed, indexes, indexes.cpu, "--torch", "cpu")
    assert result.returncode == 1
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in result.stderr
    assert packages(installed) == {}


@pytest.mark.skipif(suitable_build() != "cpu", reason="this machine takes PyPI's build anyway")
@pytest.mark.parametrize("fault", ["unreachable", "without this version", "without digests"])
def test_without_cpu_wheels_pypis_build_is_installed_and_it_says_so(
    fault: str, installed: Path, indexes: Indexes
) -> None:
    index, page = indexes.cpu, indexes.cpu_folder / "torchvision" / "index.html"
    match fault:
        case "unreachable":
            # Nothing listens on the discard port.
            index = "http://127.0.0.1:9/whl/cpu"
        case "without this version":
            page.write_text(page.read_text().replace("1.0%2Bcpu", "1.1%2Bcpu"))
        case "without digests":
            page.write_text(re.sub("#sha256=[0-9a-f]+", "", page.read_text()))
    result = install(installed, indexes, index)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"install: {index} ")
    assert result.stdout.endswith("; PyTorch comes from PyPI, with 4 GB of CUDA's libraries\n")
    expected = {"torch": "1.0", "torchvision": "1.0"}
    assert packages(installed) == expected | ({"nvidia-cublas": "1.0"} if sys.platform == "linux" else {})


def test_demanded_cpu_wheels_are_not_replaced(installed: Path, indexes: Indexes) -> None:
    """As in the image, whose CPU variant holds no CUDA."""
    result = install(installed, indexes, "http://127.0.0.1:9/whl/cpu", "--torch", "cpu")
    assert result.returncode == 1
    assert result.stderr.startswith("install: http://127.0.0.1:9/whl/cpu cannot be reached: ")
    assert packages(installed) == {}


def test_the_cpu_lock_is_the_lock_without_cuda(tmp_path: Path, indexes: Indexes) -> None:
    """Of the real lock: all packages but CUDA's, each with its digests."""
    name = re.compile(r"^([a-z0-9._-]+)==(\S+)", re.MULTILINE)
    locked = dict(name.findall(LOCK.read_text()))
    for package in CPU_PACKAGES:
        write_page(wheel(indexes.cpu_folder / package, package, f"{locked[package]}+cpu").parent)
    text = cpu_lock(LOCK.read_text(), indexes.cpu)
    cuda = {item for item in locked if item.startswith(("nvidia-", "cuda-"))} | {"triton"}
    assert len(cuda) > 10
    expected = {item: version for item, version in locked.items() if item not in cuda}
    assert dict(name.findall(text)) == expected | {item: f"{locked[item]}+cpu" for item in CPU_PACKAGES}
    for entry in re.split(r"\n(?=\S)", text.strip()):
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry
