"""The tables of README.md and docs/api.md are what the project does."""

import ast
import json
import re

from handler.api.options import OPTIONS
from handler.explain.registry import METHODS
from serving.gateway.policy import CODES
from serving.supervisor import ROOT
from training.checkpoint import SHIPPED

README = (ROOT / "README.md").read_text()
API = (ROOT / "docs" / "api.md").read_text()


# The errors' classes and functions, each with the position of the code among its arguments.
CODE_ARGUMENT = {"RequestError": 0, "error_json": 0, "RegionError": 0, "RefusedError": 2}


def raised() -> set[str]:
    """The code of every error that is written down in the handler, at the edge and for regions."""
    codes = set()
    for path in (path for folder in ("handler", "serving", "regions") for path in (ROOT / folder).rglob("*.py")):
        for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
            position = CODE_ARGUMENT.get(call.func.id) if isinstance(call.func, ast.Name) else None
            if position is not None and len(call.args) > position and isinstance(call.args[position], ast.Constant):
                codes.add(ast.literal_eval(call.args[position]))
    return codes


def test_every_error_code_is_listed_and_no_other() -> None:
    rows = [line for line in API.splitlines() if re.match(r"\| (\d|5xx)", line)]
    listed = {code for row in rows for code in re.findall(r"`([a-z0-9]+_[a-z0-9_]+|[a-z]{6,})`", row)}
    assert listed == raised() | set(CODES.values())


def test_every_option_and_method_is_listed() -> None:
    for name in (*OPTIONS, *METHODS):
        assert f"`{name}`" in API, name


def test_the_accuracy_table_is_the_cards() -> None:
    test = json.loads((SHIPPED / "pathmnist_resnet18.json").read_text())["evaluation"]["test"]
    assert f"| accuracy | {test['accuracy']:.4f} |" in README
    assert f"| balanced accuracy | {test['balanced_accuracy']:.4f} |" in README
    recalls = re.findall(r"\b([A-Z]{3,4}) (0\.\d{4}|1\.0000)", README)
    assert {code: float(recall) for code, recall in recalls} == test["recall"]
