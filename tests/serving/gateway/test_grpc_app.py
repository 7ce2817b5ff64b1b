"""The edge's gRPC side has the rules of its HTTP side. test_kserve.py runs the clients that people have."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import requests
from grpc_health.v1 import health_pb2, health_pb2_grpc

from serving.gateway.app import Edge
from serving.gateway.open_inference_grpc import messages, services
from serving.gateway.settings import Settings
from serving.ports import free_ports
from serving.supervisor import TILE, TorchServe
from tests.support.answers import raw_map
from tests.support.edge import running, settings_for

Code = grpc.StatusCode
TOKEN = (("authorization", "Bearer secret"),)


@contextmanager
def channel(address: str) -> Iterator[Any]:
    """A stub of the inference service, and its channel as `.channel`."""
    with grpc.insecure_channel(address) as opened:
        stub = services.GRPCInferenceServiceStub(opened)
        stub.channel = opened
        yield stub


@pytest.fixture(scope="module")
def stub(server: TorchServe) -> Iterator[Any]:
    with channel(server.open_inference_address) as opened:
        yield opened


@contextmanager
def another_edge(
    server: TorchServe, model_store: Path, token: str = "", **changes: Any
) -> Iterator[tuple[str, Any, Settings]]:
    """An edge with other settings before the running TorchServe: its URL and a stub."""
    settings = settings_for(server, edge_grpc_port=free_ports(1)[0], **changes)
    edge = Edge(settings, token, model_store / "manifest.json")
    with running(edge, settings) as url, channel(f"127.0.0.1:{settings.edge_grpc_port}") as opened:
        yield url, opened, settings


def request(images: tuple[bytes, ...] = (TILE.read_bytes(),), **changes: Any) -> Any:
    """A typed request, or a changed one."""
    tensor = {"name": "image", "datatype": "BYTES", "shape": [len(images)], "contents": {"bytes_contents": images}}
    return messages.ModelInferRequest(**{"model_name": "pathmnist", "inputs": [tensor], **changes})


def pixels(*values: int) -> dict[str, Any]:
    """An input of one pixel."""
    return {"name": "image", "datatype": "UINT8", "shape": [1, 1, 1, 3], "contents": {"uint_contents": values}}


def refusal(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    """The status of a failed call, the code at the start of its message, and its trailing metadata."""
    with pytest.raises(grpc.RpcError) as failure:
        call()
    trailer = dict(failure.value.trailing_metadata())
    code = failure.value.details().partition(":")[0]
    assert trailer.get("error-code", code) == code
    return failure.value.code(), code, trailer


def line(server: TorchServe, identity: str) -> list[dict[str, Any]]:
    entries = [json.loads(text) for text in server.request_log.read_text().splitlines()]
    return [entry for entry in entries if entry["request_id"] == identity]


def test_a_typed_request_gets_a_typed_answer_and_a_raw_one_raw_bytes(stub: Any, server: TorchServe) -> None:
    expected = requests.post(f"{server.url}/predictions/pathmnist", data=TILE.read_bytes(), timeout=60).json()
    answer = stub.ModelInfer(request(id="slide"), timeout=60)
    tensors = {tensor.name: tensor for tensor in answer.outputs}
    assert (answer.id, answer.model_name, list(answer.raw_output_contents)) == ("slide", "pathmnist", [])
    assert list(tensors["logits"].contents.fp32_contents) == pytest.approx(expected["logits"], abs=1e-6)
    assert list(tensors["class"].contents.bytes_contents) == [expected["prediction"]["code"].encode()]
    outputs = [{"name": "logits", "parameters": {"binary_data": {"bool_param": True}}}]
    raw = stub.ModelInfer(request(outputs=outputs), timeout=60)
    assert len(raw.raw_output_contents[0]) == 9 * 4
    assert not raw.outputs[0].HasField("contents")


def test_options_are_parameters_of_every_type(stub: Any, server: TorchServe) -> None:
    parameters = {
        "method": {"string_param": "integrated_gradients"},
        "target": {"int64_param": 8},
        "tolerance": {"double_param": 0.2},
        "max_evaluations": {"uint64_param": 32},
    }
    answer = stub.ModelInfer(request(parameters=parameters, outputs=[{"name": "explanation"}]), timeout=120)
    options: dict[str, Any] = {"method": "integrated_gradients", "target": 8, "tolerance": 0.2, "max_evaluations": 32}
    expected = requests.post(
        f"{server.url}/explanations/pathmnist", params={**options, "return": "raw"}, data=TILE.read_bytes(), timeout=120
    ).json()
    (tensor,) = answer.outputs
    assert list(tensor.contents.fp32_contents) == pytest.approx(
        raw_map(expected["explanations"][0]).ravel().tolist(), abs=1e-5
    )


REFUSED: dict[str, tuple[dict[str, Any], grpc.StatusCode, str]] = {
    "no input": ({"inputs": []}, Code.INVALID_ARGUMENT, "tensor_invalid"),
    "raw and typed": ({"raw_input_contents": [b"x"]}, Code.INVALID_ARGUMENT, "tensor_invalid"),
    "no image": ({"images": (b"no image",)}, Code.INVALID_ARGUMENT, "image_unreadable"),
    "an empty parameter": ({"parameters": {"method": {}}}, Code.INVALID_ARGUMENT, "parameter_invalid"),
    "large pixels": ({"inputs": [pixels(1, 2, 300)]}, Code.INVALID_ARGUMENT, "tensor_invalid"),
    "an unknown output": ({"outputs": [{"name": "mask"}]}, Code.INVALID_ARGUMENT, "parameter_invalid"),
    "another model": ({"model_name": "other"}, Code.NOT_FOUND, "not_found"),
    "another version": ({"model_version": "0.1"}, Code.NOT_FOUND, "not_found"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_error_has_a_status_and_the_servers_code(name: str, stub: Any) -> None:
    changes, status, code = REFUSED[name]
    found = refusal(lambda: stub.ModelInfer(request(**changes), timeout=60))
    assert found[:2] == (status, code)


def test_a_call_keeps_its_id_and_has_a_line_for_each_image(stub: Any, server: TorchServe) -> None:
    tile = TILE.read_bytes()
    _, call = stub.ModelInfer.with_call(request((tile, tile)), timeout=60, metadata=(("x-request-id", "rpc-1"),))
    assert dict(call.trailing_metadata())["x-request-id"] == "rpc-1"
    assert [(entry["verb"], entry["status"], entry["outcome"]) for entry in line(server, "rpc-1")] == [
        ("predictions", 200, "ok")
    ] * 2
    _, _, trailer = refusal(lambda: stub.ModelInfer(request(model_name="x"), metadata=(("x-request-id", "rpc-2"),)))
    assert trailer["x-request-id"] == "rpc-2"
    assert [(entry["status"], entry["outcome"]) for entry in line(server, "rpc-2")] == [(404, "not_found")]
    _, call = stub.ServerLive.with_call(messages.ServerLiveRequest(), metadata=(("x-request-id", "a b"),))
    assert dict(call.trailing_metadata())["x-request-id"] != "a b"


def test_without_the_token_only_health_is_told(server: TorchServe, model_store: Path) -> None:
    with another_edge(server, model_store, token="secret") as (_, stub, _settings):
        calls = [
            lambda metadata: stub.ServerReady(messages.ServerReadyRequest(), metadata=metadata),
            lambda metadata: stub.ModelMetadata(messages.ModelMetadataRequest(name="pathmnist"), metadata=metadata),
            lambda metadata: stub.ModelInfer(request(), timeout=60, metadata=metadata),
        ]
        for call in calls:
            for metadata in ((), (("authorization", "Bearer wrong"),)):
                assert refusal(lambda: call(metadata))[:2] == (Code.UNAUTHENTICATED, "unauthorized")  # noqa: B023
            call(TOKEN)
        health = health_pb2_grpc.HealthStub(stub.channel)
        assert health.Check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.SERVING


def test_http_and_grpc_share_a_clients_rate(server: TorchServe, model_store: Path) -> None:
    with another_edge(server, model_store, edge_rate_limit=0.1, edge_rate_burst=2) as (url, stub, _settings):
        assert requests.post(f"{url}/predictions/pathmnist", data=TILE.read_bytes(), timeout=60).ok
        assert stub.ServerLive(messages.ServerLiveRequest()).live
        status, code, trailer = refusal(lambda: stub.ServerLive(messages.ServerLiveRequest()))
        assert (status, code) == (Code.RESOURCE_EXHAUSTED, "rate_limited")
        assert 0 < int(trailer["retry-after"]) <= 10


@pytest.mark.parametrize("compression", [None, grpc.Compression.Gzip])
def test_a_message_above_the_size_limit_is_refused(
    server: TorchServe, model_store: Path, compression: grpc.Compression | None
) -> None:
    with another_edge(server, model_store, max_request_size=50_000) as (_, stub, _settings):
        with pytest.raises(grpc.RpcError) as failure:
            stub.ModelInfer(request((bytes(60_000),)), timeout=60, compression=compression)
        assert failure.value.code() == Code.RESOURCE_EXHAUSTED
        assert refusal(lambda: stub.ModelInfer(request((bytes(40_000),)), timeout=60))[1] == "image_unreadable"


def test_without_a_model_the_server_lives_and_is_not_ready(model_store: Path) -> None:
    settings = Settings(inference_address="http://127.0.0.1:1", edge_grpc_port=free_ports(1)[0])
    edge = Edge(settings, manifest=model_store / "manifest.json")
    with running(edge, settings), channel(f"127.0.0.1:{settings.edge_grpc_port}") as stub:
        assert stub.ServerLive(messages.ServerLiveRequest()).live
        assert not stub.ServerReady(messages.ServerReadyRequest()).ready
        health = health_pb2_grpc.HealthStub(stub.channel)
        assert health.Check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        status, code, trailer = refusal(lambda: stub.ModelInfer(request(), timeout=60))
        assert (status, code, trailer["retry-after"]) == (Code.UNAVAILABLE, "unavailable", "1")


def test_health_is_told_by_name_and_as_it_changes(stub: Any) -> None:
    health, kinds = health_pb2_grpc.HealthStub(stub.channel), health_pb2.HealthCheckResponse
    for name in ("", "inference.GRPCInferenceService", "pathmnist"):
        assert health.Check(health_pb2.HealthCheckRequest(service=name)).status == kinds.SERVING
        watched = health.Watch(health_pb2.HealthCheckRequest(service=name), timeout=60)
        assert next(watched).status == kinds.SERVING
        watched.cancel()
    assert refusal(lambda: health.Check(health_pb2.HealthCheckRequest(service="other")))[0] == Code.NOT_FOUND
    assert (
        next(health.Watch(health_pb2.HealthCheckRequest(service="other"), timeout=60)).status == kinds.SERVICE_UNKNOWN
    )


def test_it_answers_by_the_certificate_of_the_edge(
    server: TorchServe, model_store: Path, certificate: dict[str, Path]
) -> None:
    files: dict[str, Any] = {"edge_certificate_file": certificate["chain"], "edge_private_key_file": certificate["key"]}
    with another_edge(server, model_store, edge_address="https://127.0.0.1:1", **files) as (_, plain, settings):
        trust = grpc.ssl_channel_credentials(certificate["authority"].read_bytes())
        with grpc.secure_channel(f"127.0.0.1:{settings.edge_grpc_port}", trust) as opened:
            assert services.GRPCInferenceServiceStub(opened).ServerLive(messages.ServerLiveRequest(), timeout=30).live
        with pytest.raises(grpc.RpcError):
            plain.ServerLive(messages.ServerLiveRequest(), timeout=5)


def test_an_answer_that_the_audit_trail_cannot_hold_is_not_given(server: TorchServe, model_store: Path) -> None:
    with another_edge(server, model_store, edge_audit_file=Path("/dev/full")) as (_, stub, _settings):
        assert refusal(lambda: stub.ModelInfer(request(), timeout=60))[:2] == (Code.UNAVAILABLE, "audit_failed")
