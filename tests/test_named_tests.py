"""Threats and faults are documented with the tests that show them; these tests exist."""

import re

import pytest

from serving.supervisor import ROOT

NAME = re.compile(r"`(test_\w+)`")
DEFINED = {
    name
    for path in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
}


def table(document: str) -> list[str]:
    """The rows of a document's first table, without its head and rule."""
    lines = (ROOT / "docs" / document).read_text().partition("\n## ")[0].splitlines()
    return [
        line
        for line, above in zip(lines, ["", *lines], strict=False)
        if line.startswith("|") and not line.startswith("|---") and above.startswith("|")
    ]


@pytest.mark.parametrize("document", ["faults.md", "security.md"])
def test_every_row_names_a_test_that_exists(document: str) -> None:
    rows = table(document)
    assert len(rows) > 8
    for row in rows:
        names = set(NAME.findall(row))
        assert names, row
        assert names <= DEFINED, names - DEFINED


def test_every_fault_test_is_in_the_table() -> None:
    source = (ROOT / "tests" / "serving" / "test_faults.py").read_text()
    tests = set(re.findall(r"^def (test_\w+)", source, re.MULTILINE)) - {"test_after_all_that_the_server_is_ready"}
    assert tests <= set(NAME.findall("\n".join(table("faults.md"))))
