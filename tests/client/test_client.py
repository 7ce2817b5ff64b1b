"""The Python client, on the running server."""

from io import BytesIO

import numpy as np
import pytest
import requests
from PIL import Image

from client import Client, Field, ServerError
from handler.classes import CODES
from serving.gateway.app import Edge
from serving.supervisor import TILE, TorchServe
from tests.conftest import Pixels
from tests.support.answers import raw_map
from tests.support.edge import running, settings_for
from tests.support.mosaic import mosaic
from training.data import PathMNIST


@pytest.fixture(scope="module")
def client(server: TorchServe) -> Client:
    return Client(server.url)


def test_a_file_its_path_and_its_pixels_have_one_answer(client: Client, server: TorchServe) -> None:
    pixels = np.asarray(Image.open(TILE).convert("RGB"))
    answers = client.classify([TILE.read_bytes(), TILE, pixels])
    expected = requests.post(f"{server.url}/predictions/pathmnist", data=TILE.read_bytes(), timeout=60).json()
    for answer in answers:
        assert answer.code == expected["prediction"]["code"]
        assert np.abs(answer.logits - expected["logits"]).max() < 1e-3
        assert list(answer.probabilities) == list(CODES)
        assert answer.in_distribution is expected["in_distribution"]
        assert answer.fit is not None
        assert (answer.fit.verdict, list(answer.fit.reasons)) == (
            expected["fit"]["verdict"],
            expected["fit"]["reasons"],
        )
        assert answer.fit.figures["focus"] == expected["fit"]["focus"]


def test_the_field_of_view_is_told_and_refused(client: Client) -> None:
    (told,) = client.classify([TILE], mpp=4)
    (unknown,) = client.classify([TILE])
    (left_out,) = client.classify([TILE], include="none")
    assert told.field == Field(112, 4, "request")
    assert unknown.field == Field(None, None, None)
    assert (left_out.field, left_out.fit) == (None, None)
    with pytest.raises(ServerError) as caught:
        client.classify([TILE], mpp=0.5)
    assert (caught.value.code, caught.value.field) == ("field_too_small", "mpp")


@pytest.mark.parametrize("width", [16, 17, 18, 19])
def test_pixels_of_any_width_are_sent_as_they_are(width: int, client: Client) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, width, 3), dtype=np.uint8)
    as_file, as_pixels = client.classify([png(Image.fromarray(pixels)), pixels], include="canonical")
    assert as_file.content["canonical"] == as_pixels.content["canonical"]


def png(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_more_images_than_a_request_holds_are_answered_in_order(client: Client, real_data: PathMNIST) -> None:
    tiles = list(real_data.test.spread(100))
    together = client.classify(tiles)
    assert len(together) == 100
    for index in (0, 63, 64, 99):
        (alone,) = client.classify([tiles[index]])
        assert np.abs(alone.logits - together[index].logits).max() < 1e-3


def test_maps_are_arrays_in_their_unit(client: Client, server: TorchServe) -> None:
    options = {"method": "saliency", "target": "STR", "return": "raw"}
    (answer,) = client.explain([TILE], "saliency", target="STR")
    response = requests.post(
        f"{server.url}/explanations/pathmnist", data=TILE.read_bytes(), params=options, timeout=60
    ).json()
    (explanation,) = answer.explanations
    assert (explanation.method, explanation.target) == ("saliency", "STR")
    assert explanation.attribution is not None
    assert np.array_equal(explanation.attribution, raw_map(response["explanations"][0]))
    (half,) = client.explain([TILE], "saliency", target="STR", dtype="float16")
    assert half.explanations[0].attribution is not None
    gap = half.explanations[0].attribution - explanation.attribution
    assert 0 < np.abs(gap).max() < 1e-3 * np.abs(explanation.attribution).max()


def test_errors_have_the_servers_codes(client: Client) -> None:
    with pytest.raises(ServerError) as caught:
        client.classify([TILE, b"no image"])
    assert caught.value.code == "image_unreadable"
    with pytest.raises(ServerError) as caught:
        client.explain([TILE], "magic")
    assert (caught.value.status, caught.value.code, caught.value.field) == (400, "method_unknown", "method")
    with pytest.raises(ValueError, match="uint8"):
        client.classify([np.zeros((28, 28))])  # type: ignore[list-item]


def test_a_busy_server_is_asked_again_when_it_says(server: TorchServe) -> None:
    with running(Edge(settings_for(server, edge_rate_limit=1, edge_rate_burst=1))) as url:
        patient, hasty = Client(url), Client(url, attempts=1)
        assert [patient.classify([TILE])[0].code for _ in range(3)] == ["TUM"] * 3
        with pytest.raises(ServerError) as caught:
            hasty.classify([TILE])
    assert (caught.value.status, caught.value.code) == (429, "rate_limited")


def test_a_token_is_sent(server: TorchServe) -> None:
    with running(Edge(settings_for(server), token="secret")) as url:
        assert Client(url, token="secret").classify([TILE])[0].code == "TUM"
        with pytest.raises(ServerError) as caught:
            Client(url).classify([TILE])
    assert caught.value.code == "unauthorized"


def test_a_region_is_mapped_and_nothing_stays_on_the_server(client: Client, server: TorchServe, tiles: Pixels) -> None:
    jobs = server.log.parent / "jobs"
    before = set(jobs.iterdir())
    found = client.classify_region(mosaic(tiles, 2, 3), mpp=4)
    assert (found["grid"]["rows"], found["grid"]["columns"]) == (2, 3)
    with pytest.raises(ServerError) as caught:
        client.classify_region(mosaic(tiles, 2, 3))
    assert (caught.value.status, caught.value.code) == (400, "mpp_missing")
    assert set(jobs.iterdir()) <= before
