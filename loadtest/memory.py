"""Resident memory of the server's processes, which are children of this process."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil

MIB = 2**20
WARM_UP = 0.2
# A part of each process's command line, and its name in the report, to which workers add their number. If several fit,
# the first counts.
PROCESSES = {
    "serving/worker_proxy.py": "proxy",
    "ts/model_service_worker.py": "worker",
    "serving/forkserver.py": "forkserver",
    "org.pytorch.serve.ModelServer": "frontend",
    "serving.gateway": "edge",
}


def resident() -> dict[str, float]:
    """MiB of each process of the server, by name."""
    return {name: process.memory_info().rss / MIB for name, process in _processes()}


def _processes() -> Iterator[tuple[str, psutil.Process]]:
    for process in psutil.Process().children(recursive=True):
        command = " ".join(process.cmdline())
        for part, name in PROCESSES.items():
            if part in command:
                number = command.partition(".ts.sock.")[2][:4]
                yield f"{name} {number}".strip(), process
                break


@dataclass
class Memory:
    """Readings, each with the number of requests answered so far."""

    requests: list[int] = field(default_factory=list)
    sizes: dict[str, list[float]] = field(default_factory=dict)

    def read(self, answered: int) -> None:
        self.requests.append(answered)
        for name, size in resident().items():
            self.sizes.setdefault(name, []).append(size)

    def to_json(self) -> dict[str, Any]:
        """For each process: MiB at the start, after the warm-up and at the end, and the slope after that in MiB per
        thousand requests."""
        first = sum(moment < WARM_UP * self.requests[-1] for moment in self.requests)
        report = {}
        for name, sizes in sorted(self.sizes.items()):
            slope = np.polyfit(self.requests[first:], sizes[first:], 1)[0] * 1000
            report[name] = {
                "start_mib": round(sizes[0], 1),
                "warm_mib": round(sizes[first], 1),
                "end_mib": round(sizes[-1], 1),
                "slope_mib_per_1000": round(float(slope), 3),
            }
        return report
