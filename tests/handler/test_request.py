import base64
from typing import Any

import pytest

from handler.errors import RequestError
from handler.explain.registry import METHODS
from handler.image import ImageLimits
from handler.request import ExplanationRequest, RawRequest, TileRequest, parse_request
from tests.conftest import Pixels
from tests.handler.test_image import Encode

LIMITS = ImageLimits()


@pytest.fixture(scope="module")
def png(tiles: Pixels, encode: Encode) -> bytes:
    return encode(tiles[0])


def parse(fields: dict[str, Any], explain: bool = False) -> TileRequest:
    return parse_request(RawRequest(fields, explain), LIMITS)


def error_of(fields: dict[str, Any], explain: bool = False) -> RequestError:
    with pytest.raises(RequestError) as caught:
        parse(fields, explain)
    assert 400 <= caught.value.status < 500
    return caught.value


def test_an_image_comes_as_body_field_or_base64(png: bytes, tiles: Pixels) -> None:
    encoded = base64.b64encode(png).decode()
    forms: list[dict[str, Any]] = [
        {"body": bytearray(png)},
        {"data": png},
        {"body": {"image": encoded}},
        {"body": {"image": f"data:image/png;base64,{encoded}"}},
        {"body": b'{"image": "' + encoded.encode() + b'"}'},
    ]
    for fields in forms:
        request = parse(fields)
        assert (request.image == tiles[0]).all()
        assert request.explanations == ()


def test_the_explain_verb_defaults_to_gradcam_of_the_predicted_class(png: bytes) -> None:
    assert parse({"body": png}, explain=True).explanations == (ExplanationRequest("gradcam", (), None, raw=False),)


def test_a_prediction_may_ask_for_several_explanations(png: bytes) -> None:
    request = parse({"body": png, "explain": b"gradcam,integrated_gradients", "target": b"tum", "n_steps": b"8"})
    assert [item.method for item in request.explanations] == ["gradcam", "integrated_gradients"]
    assert {item.target for item in request.explanations} == {8}
    assert dict(request.explanations[1].parameters) == {"baseline": "black", "n_steps": 8}


def test_options_may_stand_in_json_and_the_query_wins(png: bytes) -> None:
    body = {"image": base64.b64encode(png).decode(), "method": "saliency", "target": 3}
    (explanation,) = parse({"body": body, "target": b"TUM"}, explain=True).explanations
    assert (explanation.method, explanation.target) == ("saliency", 8)


@pytest.mark.parametrize(
    ("options", "explain", "code", "field"),
    [
        ({"method": b"lime"}, True, "method_unknown", "method"),
        ({"explain": b"lime"}, False, "method_unknown", "explain"),
        ({"explain": b"gradcam,gradcam"}, False, "parameter_invalid", "explain"),
        ({"target": b"9"}, True, "target_invalid", "target"),
        ({"target": b"-1"}, True, "target_invalid", "target"),
        ({"target": b"XYZ"}, True, "target_invalid", "target"),
        ({"target": b"\xff"}, True, "parameter_invalid", "target"),
        ({"target": [1]}, True, "parameter_invalid", "target"),
        ({"method": b"integrated_gradients", "n_steps": b"1000000000"}, True, "parameter_invalid", "n_steps"),
        ({"method": b"integrated_gradients", "n_steps": b"9" * 5000}, True, "parameter_invalid", "n_steps"),
        ({"method": b"integrated_gradients", "n_steps": b"0"}, True, "parameter_invalid", "n_steps"),
        ({"method": b"integrated_gradients", "n_steps": b"many"}, True, "parameter_invalid", "n_steps"),
        ({"method": b"integrated_gradients", "baseline": b"pink"}, True, "parameter_invalid", "baseline"),
        ({"method": b"gradcam", "n_steps": b"5"}, True, "option_misplaced", "n_steps"),
        ({"return": b"everything"}, True, "parameter_invalid", "return"),
        ({"target": b"TUM"}, False, "option_misplaced", "target"),
        ({"method": b"gradcam"}, False, "option_misplaced", "method"),
        ({"explain": b"gradcam"}, True, "option_misplaced", "explain"),
        ({"colour": b"red"}, False, "option_unknown", "colour"),
    ],
)
def test_a_bad_option_is_named(options: dict[str, Any], explain: bool, code: str, field: str, png: bytes) -> None:
    error = error_of({"body": png, **options}, explain)
    assert (error.code, error.field) == (code, field)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, "image_missing"),
        ({"body": b""}, "image_missing"),
        ({"body": "plain text"}, "image_unreadable"),
        ({"body": b"{not json"}, "json_invalid"),
        ({"body": b"[" * 100_000}, "json_invalid"),
        ({"body": [1, 2]}, "json_invalid"),
        ({"body": {}}, "image_missing"),
        ({"body": {"image": "%%%"}}, "base64_invalid"),
        ({"body": {"image": 5}}, "base64_invalid"),
        ({"body": {"image": "aGVsbG8="}}, "image_unreadable"),
    ],
)
def test_a_bad_body_is_named(fields: dict[str, Any], code: str) -> None:
    assert error_of(fields).code == code


def test_naming_a_default_changes_nothing(png: bytes) -> None:
    for name, method in METHODS.items():
        plain = parse({"body": png, "method": name.encode()}, explain=True).explanations
        for parameter, spec in method.parameters.items():
            fields = {"body": png, "method": name.encode(), parameter: str(spec.default).encode()}
            assert parse(fields, explain=True).explanations == plain
