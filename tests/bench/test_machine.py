from pathlib import Path

from bench.machine import this_machine


def test_a_report_is_named_after_processor_and_instruction_sets(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(
        "processor\t: 0\ncpu family\t: 26\nmodel name\t: AMD EPYC\nflags\t\t: fpu avx2 avx512f avx512_bf16\n\n"
    )
    machine = this_machine(cpuinfo)
    assert machine.processor == "AMD EPYC"
    assert machine.instruction_sets == ("avx512_bf16", "avx512f", "avx2")
    assert machine.slug == "amd-epyc-26-bf16"


def test_a_system_without_cpuinfo_has_a_name_too(tmp_path: Path) -> None:
    machine = this_machine(tmp_path / "missing")
    assert machine.instruction_sets == ()
    assert machine.slug
