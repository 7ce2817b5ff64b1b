"""gRPC on TorchServe's own port, with stubs generated from the `.proto` files in TorchServe's package."""

import json
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import requests
import ts

from serving.supervisor import TILE, TorchServe

FRONTEND = Path(ts.__file__).parent / "frontend" / "model-server.jar"
INTERFACES = ("inference.proto", "google/rpc/status.proto")
Predict = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Any]]:
    """Messages and services of TorchServe's inference API."""
    folder = tmp_path_factory.mktemp("proto")
    with zipfile.ZipFile(FRONTEND) as jar:
        for name in INTERFACES:
            jar.extract(name, folder)
    sys.path.insert(0, str(folder))
    yield grpc.protos_and_services("inference.proto")
    sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def predict(server: TorchServe, stubs: tuple[Any, Any]) -> Iterator[Predict]:
    messages, services = stubs
    with grpc.insecure_channel(server.grpc_address) as channel:
        stub = services.InferenceAPIsServiceStub(channel)

        def predict(model: str, **fields: bytes) -> dict[str, Any]:
            answer = stub.Predictions(messages.PredictionsRequest(model_name=model, input=fields), timeout=60)
            body: dict[str, Any] = json.loads(answer.prediction)
            return body

        yield predict


def test_a_prediction_is_the_one_of_http(predict: Predict, server: TorchServe) -> None:
    tile = TILE.read_bytes()
    expected = requests.post(f"{server.url}/predictions/pathmnist", data=tile, timeout=60).json()
    result = predict("pathmnist", data=tile)
    assert result.keys() == expected.keys()
    assert np.allclose(result["logits"], expected["logits"], atol=1e-4)


def test_options_are_input_fields(predict: Predict) -> None:
    (explanation,) = predict("pathmnist", data=TILE.read_bytes(), explain=b"gradcam", target=b"LYM")["explanations"]
    assert (explanation["method"], explanation["target"]["code"]) == ("gradcam", "LYM")


def test_the_explaining_model_explains(predict: Predict) -> None:
    body = predict("pathmnist-explain", data=TILE.read_bytes(), method=b"saliency", target=b"TUM")
    assert (body["explanations"][0]["method"], body["explanations"][0]["target"]["code"]) == ("saliency", "TUM")
    assert predict("pathmnist-explain", data=TILE.read_bytes())["explanations"][0]["method"] == "gradcam"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"data": b"no image"}, "image_unreadable"),
        ({"data": b""}, "image_missing"),
        ({"data": b"", "target": b"9"}, "option_misplaced"),
        ({"explain": b"gradcam"}, "image_missing"),
    ],
)
def test_an_error_is_in_the_body(fields: dict[str, bytes], code: str, predict: Predict) -> None:
    assert predict("pathmnist", **fields)["error"]["code"] == code


def test_an_unknown_model_is_a_status(predict: Predict) -> None:
    with pytest.raises(grpc.RpcError) as failure:
        predict("other", data=TILE.read_bytes())
    assert failure.value.code() == grpc.StatusCode.INTERNAL
    assert "Model not found" in failure.value.details()
