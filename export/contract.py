"""The HTTP API as OpenAPI 3.1, and what a server says about its model.

`python -m export.contract --output docs/openapi.json` writes the description, and web/contract.json for the page.
Options, bounds, methods, classes and error codes come from the tables that the server itself uses.
"""

import argparse
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from export.archive import MODEL_NAME
from export.schemas import Schema, object_of, ref, schemas
from handler.api.field import LARGEST, PLAUSIBLE, TILE_MICRONS, TOLERANCE
from handler.api.image import FORMATS, ImageLimits
from handler.api.options import (
    BUDGET,
    COVERAGE,
    DTYPE,
    INCLUDABLE,
    METHOD_PARAMETERS,
    MPP,
    PRESETS,
    RENDERING,
    RETURN,
)
from handler.api.prediction import TRUST
from handler.classes import DISCLAIMER, TISSUES
from handler.explain.registry import DEFAULT_METHOD, METHODS
from handler.explain.types import Method, Parameter
from handler.model.checkpoint import Model
from serving.gateway.jobs import ID
from serving.gateway.kserve_v1 import VERBS as KSERVE_VERBS
from serving.gateway.open_inference_http import HEADER_LENGTH
from serving.gateway.payload import MAX_IMAGES, OCTETS
from serving.gateway.policy import CODES as STATUS_CODES
from serving.gateway.policy import REQUEST_ID, VERBS
from serving.gateway.settings import ROOT, Settings
from training.checkpoint import write_json

VERSION = "1.0"
PAGE = ROOT / "web" / "contract.json"
JSON, GEOJSON, PNG = "application/json", "application/geo+json", "image/png"
BINARY: dict[str, Any] = {"type": "string", "format": "binary"}
REGION_OPTIONS: list[dict[str, Any]] = [
    {
        "name": "mpp",
        "in": "query",
        "description": "micrometres per pixel; default: what the file says",
        "schema": {"type": "number", "exclusiveMinimum": 0, "maximum": 20},
    },
    {
        "name": "slide",
        "in": "query",
        "description": "a slide of the server, instead of a body",
        "schema": {"type": "string"},
    },
    {
        "name": "Prefer",
        "in": "header",
        "description": "`respond-async` for a job, and `wait=SECONDS` (RFC 7240)",
        "schema": {"type": "string"},
    },
]
# What a tile has to show: PathMNIST's are 224 pixels at 0.5 micrometres, reduced to 28.
FIELD_OF_VIEW = {
    "micrometres": TILE_MICRONS,
    "pixels": 224,
    "micrometres_per_pixel": 0.5,
    "tolerance": TOLERANCE,
    "largest": LARGEST,
    "plausible_mpp": list(PLAUSIBLE),
}
CLOSED_FORM = [method.name for method in METHODS.values() if method.closed_form]
# Options of every method.
PLAIN = {"return": RETURN, "dtype": DTYPE, "coverage": COVERAGE, "mpp": MPP, "budget_ms": BUDGET, **RENDERING}
# Options that are not a `Parameter`: description, and schema.
WORDS: dict[str, tuple[str, dict[str, Any]]] = {
    "target": ("a class code, a class id, or `all` for methods without a backward pass", {"type": "string"}),
    "contrast": ("a class whose logit is subtracted", {"type": "string"}),
    "preset": ("a named set of options", {"type": "string", "enum": sorted(PRESETS)}),
    "include": (
        f"parts of the answer: {', '.join(INCLUDABLE)}, several with commas, or none; the default is {','.join(TRUST)}",
        {"type": "string"},
    ),
}


def table() -> dict[str, Any]:
    """What is true of every model of this code: classes in order, methods, options, limits, what a tile has to show."""
    limits = ImageLimits()
    return {
        "classes": [asdict(item) for item in TISSUES],
        "field_of_view": FIELD_OF_VIEW,
        "methods": [_method_json(method) for method in METHODS.values()],
        "options": {name: _described(spec) for name, spec in {"return": RETURN, "dtype": DTYPE, **RENDERING}.items()},
        "limits": {
            "formats": list(FORMATS),
            "min_side": limits.min_side,
            "max_side": limits.max_side,
            "max_pixels": limits.max_pixels,
            "max_request_bytes": Settings().max_request_size,
            "max_images": MAX_IMAGES,
        },
    }


def about(model: Model, card: Mapping[str, Any]) -> dict[str, Any]:
    """What `GET /models/pathmnist` says: the model, its scores, and `table`."""
    return {
        "model": model.identity(),
        "licence": card["licence"],
        "disclaimer": DISCLAIMER,
        **table(),
        "preprocessing": card["preprocessing"],
        "evaluation": {
            split: {name: scores[name] for name in ("images", "accuracy", "balanced_accuracy", "recall")}
            for split, scores in card["evaluation"].items()
        },
    }


def openapi() -> dict[str, Any]:
    """The description of every address, OpenAPI 3.1."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "PathMNIST XAI",
            "version": VERSION,
            "description": "Classifies colorectal histology tiles and explains each answer. " + DISCLAIMER,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "security": [{}, {"token": []}],
        "paths": {
            **{f"/{verb}/{MODEL_NAME}": _model_path(verb) for verb in VERBS},
            f"/models/{MODEL_NAME}": {"get": _operation("describeModel", "The model", ref("About"), 503)},
            "/ping": {"get": _operation("ping", "Liveness", object_of({"status": {"type": "string"}}), 503)},
            "/ready": {"get": _operation("ready", "Readiness", object_of({"status": {"const": "ready"}}), 503)},
            "/metrics": {
                "get": _operation("metrics", "Prometheus metrics", {"type": "string"}, 503, kind="text/plain")
            },
            **_region_paths(),
            **_kserve_paths(),
        },
        "components": {
            "schemas": schemas(),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def options(verb: str) -> list[dict[str, Any]]:
    """The query parameters of a verb."""
    field = "method" if verb == "explanations" else "explain"
    names = list(METHODS) if verb == "explanations" else CLOSED_FORM
    default = f"; the default is {DEFAULT_METHOD}" if verb == "explanations" else ""
    items = {field: (f"methods, several with commas: {', '.join(names)}{default}", {"type": "string"}), **WORDS}
    own = dict(PLAIN)
    if verb == "explanations":
        own |= {name: spec for method in METHODS.values() for name, spec in method.parameters.items()}
    items |= {name: (_meaning(name, spec), _parameter_schema(spec)) for name, spec in own.items()}
    return [
        {"name": name, "in": "query", "description": text, "schema": schema} for name, (text, schema) in items.items()
    ]


def _meaning(name: str, spec: Parameter) -> str:
    """In words. The default too, since a client that sends it for another method would be refused."""
    users = [method.name for method in METHODS.values() if name in method.parameters]
    meaning = f"of {', '.join(users)}" if name in METHOD_PARAMETERS else "see docs/api.md"
    return f"{meaning}; the default is {spec.default}" if _is_given(spec) else meaning


def _parameter_schema(spec: Parameter) -> Schema:
    if spec.choices:
        return {"type": "string", "enum": list(spec.choices)}
    kind = "integer" if isinstance(spec.default, int) else "number"
    return {"type": kind, "minimum": spec.minimum, "maximum": spec.maximum}


def _is_given(spec: Parameter) -> bool:
    """Whether the default is a value that a client could send."""
    if isinstance(spec.default, str):
        return bool(spec.default)
    return spec.minimum <= spec.default <= spec.maximum


def _described(spec: Parameter) -> Schema:
    return _parameter_schema(spec) | ({"default": spec.default} if _is_given(spec) else {})


def _method_json(method: Method) -> dict[str, Any]:
    """`shows` is what becomes visible: positive evidence, or the magnitude at each pixel."""
    return {
        "name": method.name,
        "verbs": list(VERBS) if method.closed_form else ["explanations"],
        "cost": "none beyond the prediction" if method.closed_form else "further passes of the network",
        "shows": method.display,
        "same_as": _first_alike(method),
        "parameters": {name: _described(spec) for name, spec in method.parameters.items()},
    }


def _first_alike(method: Method) -> str | None:
    """The earlier method that gives the same maps in this network, if any."""
    alike = (other.name for other in METHODS.values() if other.closed_form and other.closed_form is method.closed_form)
    first = next(alike, method.name)
    return None if first == method.name else first


def _model_path(verb: str) -> dict[str, Any]:
    name = {"predictions": "classify", "explanations": "explain"}[verb]
    summary = {"predictions": "Classify images", "explanations": "Classify and explain images"}[verb]
    answer = {"oneOf": [ref("Answer"), ref("Results")]}
    operation = {
        **_operation(name, summary, answer, 400, 408, 413, 415, 429, 500, 503, 504, 507),
        "parameters": options(verb),
        "requestBody": {"required": True, "content": _image_content()},
    }
    return {"post": operation, "put": {**operation, "operationId": f"{name}ByPut"}}


def _region_paths() -> dict[str, Any]:
    """Regions, their jobs, and the slides of the server."""
    classify = _operation(
        "mapRegion", "Map the tissues of a region", ref("Map"), 400, 404, 406, 408, 413, 415, 503, 504
    )
    results = classify["responses"]["200"]["content"]
    results[GEOJSON] = {"schema": ref("FeatureCollection")}
    results[PNG] = {"schema": BINARY}
    location = {"Location": {"description": "The job's address", "schema": {"type": "string"}}}
    classify["responses"]["202"] = {
        "description": "A job",
        "content": {JSON: {"schema": ref("Job")}},
        "headers": _headers() | location,
    }
    shape = _operation("describeSlide", "Size and levels of a slide", ref("Picture"), 400, 404, 504)
    job = _operation("describeJob", "State of a job, or its result", ref("Job"), 400, 404, 406, 409, 413, 415, 503)
    job["responses"]["200"]["content"] |= {GEOJSON: results[GEOJSON], PNG: results[PNG]}
    identity, slide = _path_parameter("id", ID), _path_parameter("slide", "[^/]+")
    deleted = {"204": {"description": "Deleted", "headers": _headers()}}
    delete = _operation("deleteJob", "End a job and delete it", {}, 404)
    delete["responses"] = deleted | {name: item for name, item in delete["responses"].items() if name != "200"}
    slides = object_of({"slides": {"type": "array", "items": {"type": "string"}}})
    return {
        f"/regions/{MODEL_NAME}": {
            "post": {**classify, "parameters": REGION_OPTIONS, "requestBody": {"content": {OCTETS: {"schema": BINARY}}}}
        },
        "/jobs/{id}": {"parameters": [identity], "get": job, "delete": delete},
        "/slides": {"get": _operation("listSlides", "The slides of the server", slides)},
        "/slides/{slide}": {"parameters": [slide], "get": shape},
    }


def _path_parameter(name: str, pattern: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "pattern": f"^{pattern}$"}}


def _image_content() -> dict[str, Any]:
    image = {"type": "string", "format": "binary"}
    return {
        "application/octet-stream": {"schema": image},
        "multipart/form-data": {
            "schema": object_of({"data": {"type": "array", "items": image, "minItems": 1, "maxItems": MAX_IMAGES}})
        },
        JSON: {"schema": ref("EncodedImages")},
    }


def _operation(name: str, summary: str, schema: Schema, *statuses: int, kind: str = JSON) -> dict[str, Any]:
    """An operation whose errors have the project's form. 401, 403 and 429 may come from everywhere."""
    errors = sorted({401, 403, 429, 500, *statuses})
    return {
        "operationId": name,
        "summary": summary,
        "responses": {
            "200": {"description": "OK", "content": {kind: {"schema": schema}}, "headers": _headers()},
            **{str(status): _error_response(status, ref("Error")) for status in errors},
        },
    }


def _error_response(status: int, schema: Schema) -> dict[str, Any]:
    code = STATUS_CODES.get(status, "internal_error" if status >= 500 else "request_invalid")
    return {
        "description": f"An error, such as `{code}`",
        "content": {JSON: {"schema": schema}},
        "headers": _headers(),
    }


def _headers() -> dict[str, Any]:
    return {REQUEST_ID: {"description": "The request's id", "schema": {"type": "string"}}}


def _kserve_paths() -> dict[str, Any]:
    """KServe's protocols, whose own descriptions say more."""
    model, first = f"/v2/models/{MODEL_NAME}", f"/v1/models/{MODEL_NAME}"

    def kserve(name: str, summary: str, schema: Schema, *statuses: int, body: Schema | None = None) -> dict[str, Any]:
        operation = _operation(name, summary, schema, *statuses)
        for status, response in operation["responses"].items():
            if status != "200":
                response["content"] = {JSON: {"schema": ref("ProtocolError")}}
        if body is not None:
            operation["requestBody"] = {"required": True, "content": {JSON: {"schema": body}}}
        return operation

    sent = (400, 404, 408, 413, 415, 503, 504, 507)
    instances = {"type": "array", "items": {"type": ["string", "object"]}, "minItems": 1, "maxItems": MAX_IMAGES}
    answers = {"type": "array", "items": ref("Answer")}
    infer = kserve("inferTensors", "Classify and explain tensors", ref("Tensors"), *sent, body=ref("InferRequest"))
    infer["responses"]["200"]["content"]["application/octet-stream"] = {
        "schema": {"type": "string", "format": "binary", "description": f"JSON up to {HEADER_LENGTH}, then tensors"}
    }
    ready = object_of({"name": {"const": MODEL_NAME}, "ready": {"type": "boolean"}})
    return {
        "/v2": {"get": kserve("describeServer", "The server", ref("ServerMetadata"), 503)},
        "/v2/health/live": {"get": kserve("serverLive", "Liveness", object_of({"live": {"const": True}}))},
        "/v2/health/ready": {"get": kserve("serverReady", "Readiness", ready, 503)},
        model: {"get": kserve("describeTensors", "The model's tensors", ref("ModelMetadata"), 503)},
        f"{model}/ready": {"get": kserve("modelReady", "Readiness of the model", ready, 503)},
        f"{model}/infer": {"post": infer},
        "/v1/models": {
            "get": kserve(
                "listModels", "The models", object_of({"models": {"type": "array", "items": {"type": "string"}}})
            )
        },
        first: {"get": kserve("modelStatus", "Readiness of the model", ready)},
        **{
            f"{first}:{verb}": {
                "post": kserve(
                    f"{verb}Instances",
                    "The answers to several images",
                    object_of({key: answers}),
                    *sent,
                    body=object_of({"instances": instances}),
                )
            }
            for verb, key in KSERVE_VERBS.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="the description, docs/openapi.json")
    parser.add_argument("--page", type=Path, default=PAGE, help="the table that the web page reads")
    arguments = parser.parse_args()
    write_json(arguments.output, openapi())
    write_json(arguments.page, table())


if __name__ == "__main__":
    main()
