"""Correct responses pass the checks; each wrong one fails for a single reason."""

import base64
import copy
import uuid
from io import BytesIO
from typing import Any

import pytest
from PIL import Image

from handler.api.render import display_size
from handler.classes import CODES
from loadtest.answers import Expected, Ledger, fault, map_size, read_expected, refusal
from serving.supervisor import TorchServe

REQUEST_ID = str(uuid.UUID(int=1))
EXPECTED, SIZE = Expected(CODES, 224), (224, 224)


def picture(width: int = 224, height: int = 224) -> str:
    buffer = BytesIO()
    Image.new("L", (width, height)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.fixture
def answer() -> dict[str, Any]:
    shares = dict.fromkeys(CODES, 0.05) | {"TUM": 0.6}
    explanation = {"method": "gradcam", "target": {"code": "TUM"}, "heatmap": picture(), "overlay": picture()}
    prediction = {"class_id": 8, "code": "TUM", "probability": 0.6}
    return {"probabilities": shares, "prediction": prediction, "explanations": [explanation]}


def test_what_is_expected_is_the_servers_own_word(server: TorchServe) -> None:
    assert read_expected(server.url) == EXPECTED


def test_a_right_answer_has_no_fault(answer: dict[str, Any]) -> None:
    assert fault(EXPECTED, answer, REQUEST_ID, "gradcam", SIZE) is None
    del answer["explanations"]
    assert fault(EXPECTED, answer, REQUEST_ID, None, SIZE) is None


@pytest.mark.parametrize(
    ("size", "pictures"), [((300, 200), (224, 149)), ((200, 300), (149, 224)), ((16, 4096), (1, 224))]
)
def test_pictures_have_the_aspect_of_their_tile(
    answer: dict[str, Any], size: tuple[int, int], pictures: tuple[int, int]
) -> None:
    assert fault(EXPECTED, answer, REQUEST_ID, "gradcam", size) == "heatmap has another size"
    for name in ("heatmap", "overlay"):
        answer["explanations"][0][name] = picture(*pictures)
    assert fault(EXPECTED, answer, REQUEST_ID, "gradcam", size) is None


@pytest.mark.parametrize("size", [(224, 224), (300, 200), (28, 28), (16, 4096), (1000, 999), (333, 224)])
def test_the_expected_size_is_the_servers(size: tuple[int, int]) -> None:
    assert map_size(size, 224) == display_size(*size, 224)


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [
        (("probabilities", "TUM"), 0.7, "probabilities do not sum to 1"),
        (("probabilities", "XYZ"), 0.0, "classes are not the server's"),
        (("prediction", "class_id"), 7, "classes are not the server's"),
        (("prediction", "probability"), 0.5, "predicted class has another probability"),
        (
            ("prediction",),
            {"class_id": 0, "code": "ADI", "probability": 0.05},
            "predicted class is not the most probable",
        ),
        (("explanations", 0, "method"), "saliency", "explanation is of another method"),
        (("explanations", 0, "target"), {"code": "STR"}, "explanation is of another class"),
        (("explanations", 0, "heatmap"), picture(112, 112), "heatmap has another size"),
        (("explanations", 0, "overlay"), "no picture", "answer is malformed"),
        (("explanations",), [], "answer is malformed"),
        (("probabilities",), None, "answer is malformed"),
    ],
)
def test_each_fault_has_its_reason(answer: dict[str, Any], place: tuple[Any, ...], value: Any, reason: str) -> None:
    changed: Any = copy.deepcopy(answer)
    inner = changed
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    assert fault(EXPECTED, changed, REQUEST_ID, "gradcam", SIZE) == reason


def test_an_answer_without_a_request_id_is_wrong(answer: dict[str, Any]) -> None:
    for identity in (None, "abc"):
        assert fault(EXPECTED, answer, identity, "gradcam", SIZE) == "request id is missing"


def test_a_map_nobody_asked_for_is_wrong(answer: dict[str, Any]) -> None:
    assert fault(EXPECTED, answer, REQUEST_ID, None, SIZE) == "explanation was not requested"


def test_a_refusal_is_named_by_status_and_code() -> None:
    assert refusal(503, {"error": {"code": "overloaded", "message": "43 waiting"}}) == "503 overloaded"
    assert refusal(502, ["x"]) == "502 without an error code"


def test_the_first_class_of_a_tile_binds_every_process() -> None:
    master, one, other = Ledger(), Ledger(), Ledger()
    assert one.agrees("tile", "TUM")
    assert one.agrees("tile", "TUM")
    assert not one.agrees("tile", "STR")
    assert other.agrees("tile", "STR")
    assert master.merge(one.take_unsent()) == 0
    assert master.merge(other.take_unsent()) == 1
    assert master.merge(other.take_unsent()) == 0
    assert master.conflicts == 1
