"""Checks responses against the description of the API, docs/openapi.json."""

import json
import re
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import jsonschema_rs
import requests

from serving.gateway.policy import JSON, REQUEST_ID
from serving.supervisor import ROOT

METHODS = ("get", "post", "put", "delete", "options", "head")


def require_described(response: requests.Response) -> None:
    """Raise `AssertionError` or `ValidationError` if the description has this operation, and not this response.

    Responses of other servers have no request id; TorchServe's own, of its management, have a `Pragma`.
    """
    operation = _operation(urlsplit(response.url).path, str(response.request.method).lower())
    if REQUEST_ID not in response.headers or "Pragma" in response.headers or operation is None:
        return
    statuses = _operations()[operation]
    assert str(response.status_code) in statuses, f"{operation} has no status {response.status_code}"
    kind = response.headers.get("Content-Type", "").split(";")[0]
    contents = statuses[str(response.status_code)].get("content", {})
    if not contents and not response.content:
        return
    assert kind in contents, f"{operation} has no {kind} with status {response.status_code}"
    if kind == JSON:
        _validator(*operation, str(response.status_code)).validate(response.json())


@cache
def _description() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((ROOT / "docs" / "openapi.json").read_text())
    return content


@cache
def _operations() -> dict[tuple[str, str], dict[str, Any]]:
    """The responses of each operation by status."""
    paths = _description()["paths"].items()
    return {
        (path, method): item["responses"]
        for path, items in paths
        for method, item in items.items()
        if method in METHODS
    }


def _operation(path: str, method: str) -> tuple[str, str] | None:
    """The operation that a path belongs to; one without variables comes first."""
    if (path, method) in _operations():
        return path, method
    matching = (key for key in _operations() if key[1] == method and _pattern(key[0]).fullmatch(path))
    return next(matching, None)


@cache
def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\\{[^/]+?\\\}", "[^/]+", re.escape(template)))


@cache
def _validator(path: str, method: str, status: str) -> Any:
    schema = _operations()[path, method][status]["content"][JSON]["schema"]
    return jsonschema_rs.Draft202012Validator({**schema, "components": _description()["components"]})
