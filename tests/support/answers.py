"""Reads responses of the service."""

import base64
import json
from typing import Any

import numpy as np

from handler.api.request import RawRequest
from handler.api.service import Service


def answer(service: Service, fields: dict[str, Any], explain: bool = False) -> dict[str, Any]:
    """The body of a successful response."""
    (response,) = service.respond([RawRequest(fields, explain)])
    assert response.status == 200
    body: dict[str, Any] = json.loads(response.body)
    return body


def raw_map(explanation: dict[str, Any]) -> np.ndarray[Any, Any]:
    """The float32 map of an explanation."""
    attribution = explanation["attribution"]
    return np.frombuffer(base64.b64decode(attribution["data"]), "<f4").reshape(attribution["shape"])
