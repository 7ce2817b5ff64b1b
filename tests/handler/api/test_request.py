import base64
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pytest

from handler.api.errors import RequestError
from handler.api.image import ImageLimits
from handler.api.options import ExplanationRequest, Options
from handler.api.render import Rendering
from handler.api.request import RawRequest, TileRequest, decode_base64, parse_request
from handler.explain.registry import METHODS
from tests.conftest import Pixels
from tests.support.images import Encode

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
        assert request.options == Options()


def test_the_explain_verb_defaults_to_gradcam_of_the_predicted_class(png: bytes) -> None:
    plain = ExplanationRequest(METHODS["gradcam"], (), None, None, Rendering(), images=True, raw=None)
    assert parse({"body": png}, explain=True).options.explanations == (plain,)


def test_several_explanations_may_be_asked_at_once(png: bytes) -> None:
    fields = {"body": png, "method": b"gradcam,integrated_gradients", "target": b"tum", "n_steps": b"8"}
    request = parse(fields, explain=True)
    assert [item.method.name for item in request.options.explanations] == ["gradcam", "integrated_gradients"]
    assert {item.target for item in request.options.explanations} == {8}
    parameters = dict(request.options.explanations[1].parameters)
    assert (parameters["baseline"], parameters["n_steps"]) == ("black", 8)


def test_a_prediction_takes_the_methods_that_cost_nothing(png: bytes) -> None:
    for name, method in METHODS.items():
        fields = {"body": png, "explain": name.encode()}
        if method.closed_form:
            assert [item.method for item in parse(fields).options.explanations] == [method]
        else:
            assert error_of(fields).code == "method_misplaced"


def test_what_an_answer_says_of_itself_can_be_chosen(png: bytes) -> None:
    every = {"verdict", "confidence", "prediction_set", "ood", "risk", "field", "fit"}
    assert parse({"body": png}).options.include == every
    assert parse({"body": png, "include": b"canonical"}).options.include == {"canonical"}
    assert parse({"body": png, "include": b"risk,ood"}, explain=True).options.include == {"risk", "ood"}
    assert parse({"body": png, "include": b"none"}).options.include == set()
    assert parse({"body": png, "coverage": b"0.95"}).options.coverage == "0.95"


def test_a_budget_is_in_milliseconds(png: bytes) -> None:
    assert parse({"body": png, "budget_ms": b"1500"}, explain=True).options.budget == 1.5
    assert parse({"body": png}, explain=True).options.budget is None


def test_the_raw_map_comes_in_the_number_type_asked(png: bytes) -> None:
    for options, expected in (
        ({}, None),
        ({"return": b"raw"}, "float32"),
        ({"return": b"raw", "dtype": b"float16"}, "float16"),
    ):
        (explanation,) = parse({"body": png, **options}, explain=True).options.explanations
        assert explanation.raw == expected
        assert explanation.images is (expected is None)
    (both,) = parse({"body": png, "return": b"both"}, explain=True).options.explanations
    assert (both.images, both.raw) == (True, "float32")


def test_options_may_come_in_json(png: bytes) -> None:
    body = {"image": base64.b64encode(png).decode(), "method": "saliency", "target": 3, "alpha": 0.25}
    (explanation,) = parse({"body": body, "size": b"64"}, explain=True).options.explanations
    assert (explanation.method.name, explanation.target, explanation.rendering.alpha) == ("saliency", 3, 0.25)
    assert explanation.rendering.size == 64


@pytest.mark.parametrize("prefix", [b"", b"\xef\xbb\xbf", b"\n", b" \t\r\n", b"\xef\xbb\xbf\r\n"])
@pytest.mark.parametrize("colon", [b":", b" : ", b":\n"])
def test_json_is_known_by_its_first_bracket(prefix: bytes, colon: bytes, png: bytes, tiles: Pixels) -> None:
    body = prefix + b'{"image"' + colon + b'"' + base64.b64encode(png) + b'"}'
    assert (parse({"body": body}).image == tiles[0]).all()
    assert (parse({"body": body.decode()}).image == tiles[0]).all()


BASE64: dict[str, Callable[[bytes], str]] = {
    "standard": lambda data: base64.b64encode(data).decode(),
    "wrapped as by base64(1)": lambda data: base64.encodebytes(data).decode(),
    "wrapped as in MIME": lambda data: base64.encodebytes(data).decode().replace("\n", "\r\n"),
    "URL-safe": lambda data: base64.urlsafe_b64encode(data).decode(),
    "unpadded": lambda data: base64.b64encode(data).decode().rstrip("="),
    "URL-safe and unpadded": lambda data: base64.urlsafe_b64encode(data).decode().rstrip("="),
    "data URL": lambda data: f"data:image/png;base64,{base64.b64encode(data).decode()}",
    "wrapped data URL": lambda data: f" DATA:image/png;base64,\n{base64.encodebytes(data).decode()}",
}


@pytest.mark.parametrize("way", BASE64)
def test_base64_is_read_in_all_its_ways(way: str) -> None:
    for length in range(60, 70):
        data = np.random.default_rng(length).bytes(length) + b"\xfb\xff\xfe"
        assert decode_base64(BASE64[way](data)) == data


@pytest.mark.parametrize("text", ["%%%", "a", "aGVsbG8====", "aGV=sbG8=", "aGVs,bG8=", "\ud800", "\u0663AAA"])
def test_base64_that_is_damaged_is_refused(text: str) -> None:
    with pytest.raises(RequestError) as caught:
        decode_base64(text)
    assert caught.value.code == "base64_invalid"


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"body": b'{"image": "", "target": 1, "target": 2}'}, "option_repeated", "target"),
        ({"body": b'{"image": "", "target": 1, "target": 1}'}, "option_repeated", "target"),
        ({"body": b'{"image": "", "nested": {"a": 1, "a": 2}}'}, "option_repeated", "a"),
        ({"body": b'{"image": "", "image": ""}'}, "image_repeated", "image"),
        ({"body": b'{"image": "", "target": 1}', "target": b"2"}, "option_repeated", "target"),
        ({"body": {"image": "", "target": 1}, "target": b"1"}, "option_repeated", "target"),
        ({"data": b"one", "body": b"two"}, "image_repeated", "body"),
        ({"data": b"one", "image": b"one"}, "image_repeated", "image"),
    ],
)
def test_what_is_said_twice_is_refused(fields: dict[str, Any], code: str, field: str) -> None:
    error = error_of(fields, explain=True)
    assert (error.status, error.code, error.field) == (400, code, field)


@pytest.mark.parametrize(
    "fields",
    [
        {"body": b'{"image": "", "\\ud800": 1}'},
        {"body": b'{"image": "", "target": "\\udfff"}'},
        {"body": b'{"image": "\\ud800"}'},
        {"body": b'{"image": "", "method": "\\ud800"}'},
        {"data": b"", "\ud800": b"1"},
        {"data": b"", "\udcff": b"\xff"},
        {"data": b"", "\udcff": [1]},
    ],
)
def test_every_error_is_utf8(fields: dict[str, Any]) -> None:
    error = error_of(fields, explain=True)
    assert orjson.loads(orjson.dumps(error.to_json())) == error.to_json()


def test_all_targets_are_nine_explanations(png: bytes) -> None:
    explanations = parse({"body": png, "target": b"all", "contrast": b"MUS"}, explain=True).options.explanations
    assert [item.target for item in explanations] == list(range(9))
    assert {item.contrast for item in explanations} == {5}


def test_the_classic_preset_fills_in_what_is_not_said(png: bytes) -> None:
    fields = {"body": png, "method": b"gradcam,integrated_gradients", "preset": b"classic", "baseline": b"white"}
    gradcam, gradients = parse(fields, explain=True).options.explanations
    assert gradcam.rendering == Rendering()
    assert gradients.rendering == Rendering(sigma=2.0)
    parameters = dict(gradients.parameters)
    assert (parameters["baseline"], parameters["n_steps"]) == ("white", 200)


def test_rendering_choices_are_taken(png: bytes) -> None:
    fields = {"body": png, "colormap": b"viridis", "alpha": b"0.3", "size": b"512", "sigma": b"1.5"}
    assert parse(fields, explain=True).options.explanations[0].rendering == Rendering("viridis", 0.3, 512, 1.5)


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
        ({"method": b"integrated_gradients", "n_steps": b"-3"}, True, "parameter_invalid", "n_steps"),
        ({"method": b"integrated_gradients", "n_steps": b"1_6"}, True, "parameter_invalid", "n_steps"),
        ({"method": b"integrated_gradients", "n_steps": "\u0663"}, True, "parameter_invalid", "n_steps"),
        ({"method": b""}, True, "method_unknown", "method"),
        ({"explain": b""}, False, "method_unknown", "explain"),
        ({"method": b"integrated_gradients", "baseline": b"pink"}, True, "parameter_invalid", "baseline"),
        ({"method": b"gradcam", "n_steps": b"5"}, True, "option_misplaced", "n_steps"),
        (
            {"method": b"integrated_gradients", "n_steps": b"5", "tolerance": b"0.1"},
            True,
            "option_misplaced",
            "tolerance",
        ),
        (
            {"method": b"integrated_gradients", "preset": b"classic", "max_evaluations": b"50"},
            True,
            "option_misplaced",
            "max_evaluations",
        ),
        ({"method": b"integrated_gradients", "tolerance": b"0"}, True, "parameter_invalid", "tolerance"),
        ({"method": b"smoothgrad", "noise": b"-0.1"}, True, "parameter_invalid", "noise"),
        ({"method": b"smoothgrad", "n_samples": b"0"}, True, "parameter_invalid", "n_samples"),
        ({"method": b"occlusion", "window": b"4"}, True, "parameter_invalid", "window"),
        ({"method": b"saliency", "window": b"32"}, True, "option_misplaced", "window"),
        ({"budget_ms": b"0"}, True, "parameter_invalid", "budget_ms"),
        ({"budget_ms": b"-5"}, True, "parameter_invalid", "budget_ms"),
        ({"budget_ms": b"100"}, False, "option_misplaced", "budget_ms"),
        ({"dtype": b"float16"}, True, "option_misplaced", "dtype"),
        ({"return": b"raw", "dtype": b"float8"}, True, "parameter_invalid", "dtype"),
        ({"target": b"all", "method": b"saliency"}, True, "target_invalid", "target"),
        ({"target": b"TUM", "contrast": b"8"}, True, "target_invalid", "contrast"),
        ({"contrast": b"nothing"}, True, "target_invalid", "contrast"),
        ({"alpha": b"1.5"}, True, "parameter_invalid", "alpha"),
        ({"alpha": b"nan"}, True, "parameter_invalid", "alpha"),
        ({"sigma": b"inf"}, True, "parameter_invalid", "sigma"),
        ({"size": b"100000"}, True, "parameter_invalid", "size"),
        ({"size": b"64.5"}, True, "parameter_invalid", "size"),
        ({"colormap": b"jet"}, True, "parameter_invalid", "colormap"),
        ({"preset": b"modern"}, True, "parameter_invalid", "preset"),
        ({"return": b"everything"}, True, "parameter_invalid", "return"),
        ({"target": b"TUM"}, False, "option_misplaced", "target"),
        ({"method": b"gradcam"}, False, "option_misplaced", "method"),
        ({"explain": b"gradcam"}, True, "option_misplaced", "explain"),
        ({"colour": b"red"}, False, "option_unknown", "colour"),
        ({"include": b"everything"}, False, "parameter_invalid", "include"),
        ({"include": b"risk,none"}, False, "parameter_invalid", "include"),
        ({"coverage": b"0.99"}, False, "parameter_invalid", "coverage"),
        ({"coverage": b"0.95", "include": b"risk"}, True, "option_misplaced", "coverage"),
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
        plain = parse({"body": png, "method": name.encode()}, explain=True).options.explanations
        for parameter, spec in method.parameters.items():
            if not spec.choices and not spec.minimum <= float(spec.default) <= spec.maximum:
                continue
            fields = {"body": png, "method": name.encode(), parameter: str(spec.default).encode()}
            assert parse(fields, explain=True).options.explanations == plain


def test_an_error_does_not_echo_a_long_request(png: bytes) -> None:
    error = error_of({"body": png, "x" * 100_000: b"1"})
    assert error.code == "option_unknown"
    assert len(error.message) + len(error.field) < 1000
