"""Installs the server's packages into this environment: `python -m serving.install` (standard library only).

pip installs only files whose digest is in serve.lock. The lock has PyPI's build of PyTorch, which on Linux needs 4 GB
of CUDA's libraries. Without an NVIDIA GPU, PyTorch's CPU build is installed instead, if PyTorch's own index can be
reached. That build is not on PyPI, so pip requires the digests that the index publishes for its wheels.
"""

import argparse
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

LOCK = Path(__file__).parents[1] / "serve.lock"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
# torchvision's compiled operators load only into the build of PyTorch that they were compiled for.
CPU_PACKAGES = ("torch", "torchvision")
CUDA_PACKAGES = re.compile(r"(nvidia|cuda)-.+|triton")
# In seconds, for one page of the index.
PATIENCE = 10


class IndexUnavailableError(RuntimeError):
    """PyTorch's index cannot be reached, or does not have the locked version."""


def suitable_build() -> str:
    """`cpu` on Linux without an NVIDIA GPU, otherwise `cuda`, which is PyPI's build: on macOS it has no CUDA."""
    has_gpu = shutil.which("nvidia-smi") or Path("/proc/driver/nvidia").exists()
    return "cpu" if sys.platform == "linux" and not has_gpu else "cuda"


def cpu_lock(lock: str, index: str) -> str:
    """The text of a lock with PyTorch's CPU build and without CUDA's libraries.

    Raises `IndexUnavailableError`.
    """
    entries = re.split(r"\n(?=\S)", lock.strip())
    return "\n".join(filter(None, (_cpu_entry(entry, index) for entry in entries))) + "\n"


def _cpu_entry(entry: str, index: str) -> str:
    """One package's lines, which are empty for CUDA's libraries."""
    name, version = re.split(r"==|[\s;]", entry, maxsplit=2)[:2]
    if name in CPU_PACKAGES:
        digests = published_digests(index, name, f"{version}+cpu")
        return " \\\n    ".join([f"{name}=={version}+cpu", *(f"--hash=sha256:{digest}" for digest in digests)])
    return "" if CUDA_PACKAGES.fullmatch(name) else entry


def published_digests(index: str, name: str, version: str) -> list[str]:
    """The SHA-256 of each wheel of a version in a package index (PEP 503); raises `IndexUnavailableError`."""
    try:
        with urllib.request.urlopen(f"{index}/{name}/", timeout=PATIENCE) as response:
            page = response.read().decode()
    except (OSError, ValueError) as error:
        raise IndexUnavailableError(f"{index} cannot be reached: {error}") from error
    wheel = rf'{name}-{re.escape(version)}-[^"/#]+\.whl#sha256=([0-9a-f]{{64}})"'
    digests = re.findall(wheel, page.replace("%2B", "+"))
    if not digests:
        raise IndexUnavailableError(f"{index} has no digests for {name} {version}")
    return sorted(set(digests))


def install(lock: Path, build: str, index: str) -> None:
    """Run pip; raises `CalledProcessError` if it fails, and `IndexUnavailableError`."""
    requirements, source = lock, []
    if build == "cpu":
        requirements, source = Path(sys.prefix, "serve-cpu.lock"), ["--extra-index-url", index]
        requirements.write_text(cpu_lock(lock.read_text(), index))
        print(f"install: PyTorch's CPU build from {index}", flush=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    # The lock is complete, so there is nothing to resolve.
    options = ["--require-hashes", "--no-deps", *source, "--requirement", str(requirements)]
    subprocess.run([*command, *options], check=True)


def install_suitable(lock: Path, index: str) -> None:
    """As `install`, with the build that suits this machine, or PyPI's if the index cannot provide it."""
    try:
        install(lock, suitable_build(), index)
    except IndexUnavailableError as error:
        print(f"install: {error}; PyTorch comes from PyPI, with 4 GB of CUDA's libraries", flush=True)
        install(lock, "cuda", index)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--torch", choices=("auto", "cpu", "cuda"), default="auto", help="the build of PyTorch")
    parser.add_argument("--lock", type=Path, default=LOCK, help="packages with their versions and digests")
    parser.add_argument("--index", default=CPU_INDEX, help="package index with PyTorch's CPU build")
    arguments = parser.parse_args()
    try:
        if arguments.torch == "auto":
            install_suitable(arguments.lock, arguments.index)
        else:
            install(arguments.lock, arguments.torch, arguments.index)
    except IndexUnavailableError as error:
        sys.exit(f"install: {error}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"install: pip failed with status {error.returncode}")


if __name__ == "__main__":
    main()
