"""The client against the real server, and every failure as a sentence."""

import base64
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import pytest
import requests
from PIL import Image

from demo.client import SENTENCES, STRANGE, Client, ServerError
from demo.view import View
from serving.gateway.policy import CODES
from serving.ports import free_addresses
from serving.supervisor import TILE, TorchServe
from tests.demo.conftest import Edge

IMAGE = TILE.read_bytes()


@pytest.fixture(scope="module")
def client(server: TorchServe) -> Client:
    return Client(server.url, server.metrics_url)


def test_an_answer_is_the_servers(client: Client, server: TorchServe) -> None:
    body = requests.post(f"{server.url}/predictions/pathmnist", data=IMAGE, timeout=60).json()
    answer = client.classify(IMAGE)
    assert (answer.code, answer.name) == (body["prediction"]["code"], body["prediction"]["name"])
    assert list(answer.probabilities) == list(body["probabilities"])
    assert answer.confidence == pytest.approx(body["confidence"], abs=1e-5)
    assert answer.prediction_set == tuple(body["prediction_set"]["codes"])
    assert (answer.coverage, answer.in_distribution) == (body["prediction_set"]["coverage"], body["in_distribution"])
    assert (answer.risk, answer.disclaimer) == (body["risk"]["level"], body["risk"]["disclaimer"])
    assert answer.model == body["model"]
    assert answer.seconds > 0


def test_a_guarded_server_opens_to_the_token(edge: Edge) -> None:
    edge.stop()
    edge.token = "secret"
    edge.start()
    guarded = Client(edge.url, edge.url, token="secret")
    wait_for(guarded)
    assert guarded.classify(IMAGE).code
    assert "pathmnist_predicted_class_total" in guarded.metrics()
    for asked in (lambda client: client.classify(IMAGE), lambda client: client.metrics()):
        with pytest.raises(ServerError, match="token"):
            asked(Client(edge.url, edge.url, token="wrong"))


def wait_for(client: Client, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            return client.ping()
        except ServerError:
            time.sleep(0.1)
    raise TimeoutError


def test_a_view_is_asked_as_it_is_chosen(client: Client) -> None:
    view = View(("saliency", "gradcam"), "STR", "MUS", "viridis", budget=10_000)
    answer = client.explain(IMAGE, view.options())
    assert [(item.method, item.target, item.contrast) for item in answer.explanations] == [
        ("saliency", "STR", "MUS"),
        ("gradcam", "STR", "MUS"),
    ]
    for item in answer.explanations:
        sizes = {Image.open(BytesIO(base64.b64decode(data))).size for data in (item.heatmap, item.tile)}
        assert sizes == {(224, 224)}
    assert answer.explanations[0].facts == {"gradient_evaluations": 1}
    assert answer.explanations[1].facts["completeness_residual"] < 1e-4


def test_the_tile_comes_without_a_map_on_it(client: Client) -> None:
    found = client.classify(IMAGE).explanations[0].tile
    picture = np.asarray(Image.open(BytesIO(base64.b64decode(found))).convert("RGB")).astype(float)
    tile = np.asarray(Image.open(TILE).convert("RGB").resize((224, 224), Image.Resampling.BILINEAR)).astype(float)
    # JPEG, so not to the digit.
    assert np.abs(picture - tile).mean() < 5


def test_nobody_there(client: Client) -> None:
    address = free_addresses()["edge_address"]
    with pytest.raises(ServerError, match=f"No model server answers at {address}") as caught:
        Client(address, address).classify(IMAGE)
    assert caught.value.down


def test_a_silent_server_is_named_with_the_time_it_had() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ServerError, match="did not answer within 1 seconds") as caught:
            Client(address, address, timeout=1).classify(IMAGE)
    assert not caught.value.down


def test_the_token_goes_with_the_question_and_nowhere_else() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        client = Client(address, address, token="secret", timeout=1)
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(client.classify, IMAGE)
            connection, _ = listener.accept()
            with connection:
                head = connection.recv(65536).split(b"\r\n\r\n")[0]
            with pytest.raises(ServerError) as caught:
                asked.result(10)
    assert b"Authorization: Bearer secret" in head.split(b"\r\n")
    assert b"secret" not in head.split(b"\r\n")[0]
    assert "secret" not in str(caught.value)


def test_another_server_and_another_model_are_noticed(server: TorchServe) -> None:
    with pytest.raises(ServerError, match="not the model server"):
        Client(server.management_url, server.metrics_url).classify(IMAGE)
    with pytest.raises(ServerError, match="does not offer the model"):
        Client(server.url, server.metrics_url, model="other").classify(IMAGE)


def test_a_fault_of_the_request_is_told_in_the_servers_words(client: Client, server: TorchServe) -> None:
    options = View(target="STR", contrast="STR").options()
    refused = requests.post(
        f"{server.url}/explanations/pathmnist", data=IMAGE, params={**options, "alpha": "0"}, timeout=60
    )
    with pytest.raises(ServerError) as caught:
        client.explain(IMAGE, options)
    assert str(caught.value) == refused.json()["error"]["message"]


def test_every_code_that_is_not_the_visitors_fault_has_a_sentence() -> None:
    faults_of_the_request = {"request_invalid", "method_not_allowed"}
    assert set(CODES.values()) | {"unavailable", "internal_error"} == set(SENTENCES) | faults_of_the_request
    assert all(sentence.endswith(".") for sentence in (*SENTENCES.values(), STRANGE))
