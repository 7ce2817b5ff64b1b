"""Checks responses against the description of the API."""

import json
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator

from serving.supervisor import ROOT


@cache
def _validator(name: str) -> Draft202012Validator:
    description = json.loads((ROOT / "docs" / "openapi.json").read_text())
    return Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": description["components"]})


def require_described(content: Any, name: str) -> None:
    """Raise `jsonschema.ValidationError` unless the JSON is what `docs/openapi.json` calls by this name."""
    _validator(name).validate(content)
