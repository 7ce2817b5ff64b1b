"""The machine of a benchmark: processor, instruction sets, cores."""

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
# By falling speed of inference; the first that a processor has names its kind. Flags as Linux gives them.
KINDS = {"amx_bf16": "amx", "avx512_bf16": "bf16", "avx512_vnni": "vnni", "avx512f": "avx512", "avx2": "avx2"}


@dataclass(frozen=True)
class Machine:
    """`family` is the processor's generation as its maker numbers it, if the system tells. `instruction_sets` are those
    of `KINDS` that it has."""

    processor: str
    family: str
    instruction_sets: tuple[str, ...]
    cores: int | None
    system: str

    @property
    def slug(self) -> str:
        """Processor and kind as a file name, such as `amd-epyc-26-bf16`."""
        kind = next((KINDS[name] for name in self.instruction_sets), platform.machine())
        name = f"{self.processor} {self.family}".lower()
        return f"{re.sub('[^a-z0-9]+', '-', name).strip('-')}-{kind}"


def this_machine(cpuinfo: Path = CPUINFO) -> Machine:
    """This machine, as far as its system tells."""
    processor = _field(cpuinfo, "model name") or platform.processor() or platform.machine()
    flags = _field(cpuinfo, "flags").split()
    known = tuple(name for name in KINDS if name in flags)
    return Machine(processor, _field(cpuinfo, "cpu family"), known, os.cpu_count(), platform.platform())


def _field(cpuinfo: Path, name: str) -> str:
    """A value of the first processor; empty if the system does not give it."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.split("\t")[0].strip() == name), "")
