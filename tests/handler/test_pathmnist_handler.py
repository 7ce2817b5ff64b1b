"""TorchServe's entry point, called as TorchServe calls it."""

import json
from pathlib import Path
from typing import Any

import pytest

from handler.pathmnist_handler import LOG_HEADER, PathMNISTHandler
from tests.conftest import Pixels
from tests.handler.api.test_image import Encode
from training.checkpoint import SHIPPED


class Context:
    """The part of TorchServe's context that the handler uses."""

    model_name = "pathmnist"

    def __init__(self, verbs: list[bool], cache: Path | None = None) -> None:
        self.system_properties = {"model_dir": str(SHIPPED), "gpu_id": None}
        settings: dict[str, Any] = {"engine": {"cpu": ["torch"]}, "image_limits": {"min_side": 20}}
        if cache:
            settings["cache"] = {"bytes": 10_000_000, "folder": str(cache)}
        self.model_yaml_config = {"handler": settings}
        self._verbs = verbs
        self.statuses: dict[int, tuple[int, str]] = {}
        self.headers: dict[int, dict[str, str]] = {}

    def get_request_header(self, index: int, name: str) -> str | None:
        return "True" if name == "explain" and self._verbs[index] else None

    def set_response_content_type(self, index: int, value: str) -> None:
        self.headers.setdefault(index, {})["Content-Type"] = value

    def set_response_header(self, index: int, name: str, value: str) -> None:
        self.headers.setdefault(index, {})[name] = value

    def set_response_status(self, code: int, phrase: str, index: int) -> None:
        self.statuses[index] = (code, phrase)


@pytest.fixture(scope="module")
def handler(tmp_path_factory: pytest.TempPathFactory) -> PathMNISTHandler:
    loaded = PathMNISTHandler()
    loaded.initialize(Context([], tmp_path_factory.mktemp("cache")))
    return loaded


def test_every_request_of_a_batch_has_its_own_verb_status_and_headers(
    handler: PathMNISTHandler, tiles: Pixels, encode: Encode
) -> None:
    context = Context([False, True, False, True])
    png = encode(tiles[0])
    bodies = handler.handle(
        [{"body": png}, {"body": png}, {"data": b'{"image": "", "\\ud800": 1}'}, {"body": encode(tiles[0][:18])}],
        context,
    )
    prediction, explanation, surrogate, small = (json.loads(body) for body in bodies)
    assert "explanations" not in prediction
    assert explanation["explanations"][0]["method"] == "gradcam"
    assert surrogate["error"]["code"] == "option_unknown"
    assert small["error"]["code"] == "image_too_small"
    assert context.statuses == {0: (200, "OK"), 1: (200, "OK"), 2: (400, "Bad Request"), 3: (400, "Bad Request")}
    assert {headers["Content-Type"] for headers in context.headers.values()} == {"application/json"}
    entries = [json.loads(context.headers[index][LOG_HEADER]) for index in range(4)]
    assert [entry["outcome"] for entry in entries] == ["ok", "ok", "option_unknown", "image_too_small"]
    assert {entry["batch_size"] for entry in entries} == {4}


def test_settings_without_a_cache_answer_too(tiles: Pixels, encode: Encode) -> None:
    handler = PathMNISTHandler()
    handler.initialize(Context([]))
    context = Context([True])
    (body,) = handler.handle([{"body": encode(tiles[0]), "method": "saliency"}], context)
    assert "cached" not in json.loads(body)["explanations"][0]
