"""Which engine serves: those that keep the gate are timed, and the fastest serves.

A selection is kept in a folder, by processor, threads, library versions, weights and candidates. A later start under
the same conditions measures nothing. A first start measures in the process `python -m handler.model.selection`.
"""

import hashlib
import json
import logging
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from handler.model.backends import BACKENDS, REDUCED
from handler.model.checkpoint import Model, load_model
from handler.model.engine import Engine
from handler.model.gate import NOISE, PROBE_TILES, Gate, open_within, require_answers
from handler.model.preprocess import preprocess

logger = logging.getLogger(__name__)

REFERENCE = "torch"
AUTO, EXACT = "auto", "exact"
BATCH_SIZES = (1, 8)
ROUNDS = 5
# Seconds after which no further round of timing begins: TorchServe ends a worker that starts for too long.
BUDGET = 15.0
# An engine that takes so many times as long as the fastest is not timed with larger batches.
SLOW = 4.0
STDERR = 2
LIBRARIES = ("torch", "onnxruntime", "openvino", "mnn")


@dataclass(frozen=True)
class Candidate:
    """An engine's images per second by batch size, or why it may not serve."""

    name: str
    images_per_second: dict[str, float]
    left_out: str = ""

    @property
    def speed(self) -> float:
        """The geometric mean over the batch sizes; 0 if it may not serve."""
        rates = self.images_per_second.values()
        return math.exp(statistics.fmean(math.log(rate) for rate in rates)) if rates else 0.0


@dataclass(frozen=True)
class Selection:
    """The engine that serves under `conditions`, and what was measured."""

    conditions: dict[str, Any]
    engine: str
    candidates: tuple[Candidate, ...]

    def describe(self) -> str:
        rates = (
            f"{item.name} {', '.join(f'{rate:.0f}' for rate in item.images_per_second.values()) or item.left_out}"
            for item in self.candidates
        )
        sizes = " and ".join(map(str, BATCH_SIZES))
        return f"images a second in batches of {sizes}: {'; '.join(rates)}"


def select_engine(
    model: Model,
    device: torch.device,
    folder: Path,
    settings: dict[str, Any],
    choice: str = AUTO,
    kept: Path | None = None,
) -> Engine:
    """The engine that serves a model, with its backends' files in `folder`.

    `settings` has the candidates by kind of device and the numbers of the `gate`. `choice` is `auto`, `exact` (float32
    only) or the name of one candidate. `kept` is the folder of kept selections. PyTorch serves if nothing else
    can.
    """
    reference = Engine(model, device)
    names = candidates(settings.get(device.type, [REFERENCE]), choice)
    if names == [REFERENCE]:
        return reference
    gate = Gate(**settings.get("gate", {}))
    conditions = conditions_of(model, device, names, gate)
    known = read_selection(kept, conditions)
    if known is not None:
        engines, _ = open_engines([known.engine], reference, folder, gate)
        if engines:
            logger.info("the engine %s serves, as measured before: %s", known.engine, known.describe())
            return engines[known.engine]
    engines, unusable = open_engines(names, reference, folder, gate)
    timed, slow = measure(engines)
    engine, wrong = fastest_within(gate, timed, engines, reference, folder)
    left_out = {**unusable, **slow, **wrong}
    measured = [item for item in timed if item.name not in wrong]
    selection = Selection(
        conditions, engine.backend, (*measured, *(Candidate(name, {}, why) for name, why in left_out.items()))
    )
    logger.info("the engine %s serves; %s", selection.engine, selection.describe())
    keep_selection(selection, kept)
    return engine


def open_engine(folder: Path, device: torch.device, settings: dict[str, Any], kept: Path | None) -> Engine:
    """The engine that serves the model in a folder, `select_engine`'s under the choice in PATHMNIST_ENGINE.

    On a CPU, engines are measured in a process of their own if it can write to `kept`: what they leave in memory, a
    quarter of a gigabyte, ends with it. If one crashes that process, PyTorch serves. Raises what `load_model` raises.
    """
    model = load_model(folder, device)
    choice = os.environ.get("PATHMNIST_ENGINE", AUTO)
    writable = kept if kept and os.access(kept, os.W_OK) else None
    if writable and device.type == "cpu" and not _is_selected(model, settings, choice, writable):
        status = _select_apart(folder, settings, writable)
        if status != 0:
            logger.error("PyTorch serves: the process that measures the engines ended with status %d", status)
            return Engine(model, device)
    engine = select_engine(model, device, folder, settings, choice, kept)
    if device.type == "cpu" and engine.backend != REFERENCE:
        # The backend has the cores. Threads of PyTorch's own would spin between its operations and take them away.
        torch.set_num_threads(1)
    return engine


def _is_selected(model: Model, settings: dict[str, Any], choice: str, kept: Path) -> bool:
    """Whether the engine for the CPU is known without a measurement."""
    device = torch.device("cpu")
    names = candidates(settings.get(device.type, [REFERENCE]), choice)
    if names == [REFERENCE]:
        return True
    conditions = conditions_of(model, device, names, Gate(**settings.get("gate", {})))
    return read_selection(kept, conditions) is not None


def _select_apart(folder: Path, settings: dict[str, Any], kept: Path) -> int:
    """Select an engine for the CPU in another process, which keeps the selection; returns its exit status."""
    command = [sys.executable, "-m", __name__, str(folder.resolve()), str(kept.resolve()), str(torch.get_num_threads())]
    # In that folder this package is found, also if it is an archive's.
    package = Path(__file__).parents[2]
    # Runtimes print; to the standard error, because this process's standard output may be an answer.
    return subprocess.run(command, input=json.dumps(settings), text=True, cwd=package, stdout=STDERR).returncode


def main() -> None:
    logging.basicConfig(level=logging.INFO)
    folder, kept, threads = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(threads)
    device = torch.device("cpu")
    choice = os.environ.get("PATHMNIST_ENGINE", AUTO)
    select_engine(load_model(folder, device), device, folder, json.load(sys.stdin), choice, kept)


def open_engines(
    names: Sequence[str], reference: Engine, folder: Path, gate: Gate
) -> tuple[dict[str, Engine], dict[str, str]]:
    """The engines whose logits on noise keep the gate, and why the others do not."""
    engines, left_out = {}, {}
    for name in names:
        try:
            engines[name] = reference if name == REFERENCE else open_within(gate, name, reference, folder)
        except Exception as error:  # each runtime has its own types, and none may keep the model from serving
            left_out[name] = _leave_out(name, str(error) or type(error).__name__)
    return engines, left_out


def fastest_within(
    gate: Gate, timed: Sequence[Candidate], engines: dict[str, Engine], reference: Engine, folder: Path
) -> tuple[Engine, dict[str, str]]:
    """The fastest engine whose answers keep the gate, and why faster ones do not; PyTorch if there is none."""
    left_out = {}
    for candidate in sorted(timed, key=lambda candidate: candidate.speed, reverse=True):
        engine = engines[candidate.name]
        try:
            require_answers(engine, reference, folder / PROBE_TILES, gate)
        except Exception as error:  # as in `open_engines`
            left_out[candidate.name] = _leave_out(candidate.name, str(error) or type(error).__name__)
        else:
            return engine, left_out
    return reference, left_out


def _leave_out(name: str, reason: str) -> str:
    logger.warning("the engine %s is left out: %s", name, reason)
    return reason


def candidates(names: Sequence[str], choice: str) -> list[str]:
    """The engines to compare, PyTorch always among them unless one is chosen by name."""
    if choice in names:
        return [choice]
    if choice not in (AUTO, EXACT, *BACKENDS):
        logger.warning("there is no engine %r; the choice is %s", choice, AUTO)
    allowed = [name for name in names if choice != EXACT or name not in REDUCED]
    return allowed if REFERENCE in allowed else [*allowed, REFERENCE]


def measure(engines: dict[str, Engine]) -> tuple[list[Candidate], dict[str, str]]:
    """The speed of each engine, and why the slow ones were not timed to the end."""
    deadline = time.monotonic() + BUDGET
    rates: dict[str, dict[str, float]] = {name: {} for name in engines}
    slow: dict[str, str] = {}
    for size in BATCH_SIZES:
        racing = {name: engine for name, engine in engines.items() if name not in slow}
        seconds = batch_seconds(racing, size, deadline)
        for name, value in seconds.items():
            rates[name][str(size)] = round(size / value, 2)
            factor = value / min(seconds.values())
            if factor > SLOW:
                slow[name] = _leave_out(name, f"it takes {factor:.0f} times as long as the fastest")
    return [Candidate(name, rates[name]) for name in engines if name not in slow], slow


def batch_seconds(engines: dict[str, Engine], size: int, deadline: float) -> dict[str, float]:
    """The median of interleaved rounds, each after an untimed batch that brings back an engine's memory and threads.

    The first round is always completed; no other begins after `deadline`, by `time.monotonic`.
    """
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for number in range(ROUNDS):
        if number > 0 and time.monotonic() > deadline:
            break
        for name, engine in engines.items():
            inputs = preprocess([torch.from_numpy(NOISE[1]).to(engine.device)] * size, engine.model.preprocessing)
            _timed(engine, inputs)
            seconds[name].append(_timed(engine, inputs))
    return {name: statistics.median(values) for name, values in seconds.items()}


def _timed(engine: Engine, inputs: Tensor) -> float:
    start = time.perf_counter()
    engine.run(inputs).logits.cpu()
    return time.perf_counter() - start


def conditions_of(model: Model, device: torch.device, names: Sequence[str], gate: Gate) -> dict[str, Any]:
    """What a selection depends on."""
    return {
        "processor": processor() if device.type == "cpu" else torch.cuda.get_device_name(device),
        "threads": torch.get_num_threads(),
        "versions": {name: version for name in LIBRARIES if (version := _version(name))},
        "model": model.digest,
        "candidates": list(names),
        "gate": asdict(gate),
    }


def processor() -> str:
    """The processor's name and widest instruction set."""
    lines: Sequence[str] = ()
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    values: dict[str, str] = {}
    for key, _, value in (line.partition(":") for line in lines):
        values.setdefault(key.strip(), value.strip())
    name = values.get("model name") or platform.processor() or platform.machine()
    family = f" family {values['cpu family']} model {values['model']}" if "cpu family" in values else ""
    reduced = "".join(
        f", {flag}" for flag in ("avx512_vnni", "avx512_bf16", "amx_bf16") if flag in values.get("flags", "")
    )
    return f"{name}{family}, {torch.backends.cpu.get_cpu_capability()}{reduced}"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def read_selection(folder: Path | None, conditions: dict[str, Any]) -> Selection | None:
    """The kept selection, if it is whole and of the same conditions."""
    if folder is None:
        return None
    path = _file_of(folder, conditions)
    try:
        content = json.loads(path.read_text())
        measured = tuple(Candidate(**values) for values in content["candidates"])
        selection = Selection(content["conditions"], content["engine"], measured)
        fastest = max(measured, key=lambda candidate: candidate.speed).name
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        logger.warning("%s is not used: %s", path.name, error)
        return None
    if selection.conditions != conditions or selection.engine not in conditions["candidates"]:
        logger.warning("%s is not used: it is of other conditions", path.name)
        return None
    if selection.engine != fastest:
        logger.warning("%s is not used: by its own measurements %s is faster", path.name, fastest)
        return None
    return selection


def keep_selection(selection: Selection, folder: Path | None) -> None:
    """Write a selection, if there is a folder that can be written."""
    if folder is None:
        return
    path = _file_of(folder, selection.conditions)
    temporary = path.with_suffix(f".{os.getpid()}")
    try:
        temporary.write_text(json.dumps(asdict(selection), indent=2) + "\n")
        temporary.replace(path)
    except OSError as error:
        logger.warning("the selection of an engine is not kept: %s", error)


def _file_of(folder: Path, conditions: dict[str, Any]) -> Path:
    key = hashlib.sha256(json.dumps(conditions, sort_keys=True).encode()).hexdigest()
    return folder / f"engines-{key[:12]}.json"


if __name__ == "__main__":
    main()
