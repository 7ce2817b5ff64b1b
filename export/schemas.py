"""The JSON of requests and responses as JSON schemas, for export/contract.py."""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from handler.classes import CODES, NUM_CLASSES
from handler.explain.registry import METHODS
from handler.model.fit import REASONS, VERDICTS, Quality
from serving.gateway.open_inference import OUTPUTS
from serving.gateway.payload import MAX_IMAGES

Schema = dict[str, Any]

# What `include`, the image or the request decides.
OPTIONAL_PARTS = (
    "verdict",
    "confidence",
    "prediction_set",
    "ood_score",
    "in_distribution",
    "risk",
    "field",
    "fit",
    "canonical",
    "embedding",
    "notes",
    "explanations",
)


def ref(name: str) -> Schema:
    """A reference to one of `schemas`."""
    return {"$ref": f"#/components/schemas/{name}"}


def object_of(properties: Mapping[str, Schema], optional: Iterable[str] = (), **others: Any) -> Schema:
    """An object whose properties are required but for the optional ones."""
    required = [name for name in properties if name not in set(optional)]
    return {"type": "object", "properties": dict(properties), "required": required, **others}


def _or_null(schema: Schema) -> Schema:
    return {"oneOf": [schema, {"type": "null"}]}


def schemas() -> dict[str, Schema]:
    """All schemas by name."""
    text, number, count = {"type": "string"}, {"type": "number"}, {"type": "integer", "minimum": 0}
    share = {"type": "number", "minimum": 0, "maximum": 1}
    length = {"type": "number", "exclusiveMinimum": 0}
    encoded = {"type": "string", "contentEncoding": "base64"}
    code = {"type": "string", "enum": list(CODES)}
    class_id = {"type": "integer", "minimum": 0, "maximum": NUM_CLASSES - 1}
    one_class = object_of({"class_id": class_id, "code": code})
    numbers = {"type": "array", "items": number}
    logits = {**numbers, "minItems": NUM_CLASSES, "maxItems": NUM_CLASSES}
    strict: dict[str, Any] = {"additionalProperties": False}
    return {
        "EncodedImages": object_of(
            {
                "image": encoded,
                "images": {"type": "array", "items": encoded, "minItems": 1, "maxItems": MAX_IMAGES},
            },
            ("image", "images"),
            description="One image or several, base64, and the options of the query, if they are not there.",
        ),
        "Error": object_of(
            {"error": object_of({"code": text, "message": text, "field": {"type": ["string", "null"]}}, **strict)},
            **strict,
        ),
        "ProtocolError": object_of({"error": text}, **strict),
        "Results": object_of(
            {"results": {"type": "array", "items": {"oneOf": [ref("Answer"), ref("Error")]}}}, **strict
        ),
        "Answer": object_of(
            {
                "model": ref("Model"),
                "prediction": object_of(
                    {**one_class["properties"], "name": text, "probability": share, "calibrated": {"type": "boolean"}}
                ),
                "probabilities": object_of(dict.fromkeys(CODES, share), **strict),
                "logits": logits,
                "verdict": ref("Verdict"),
                "confidence": _or_null(share),
                "prediction_set": _or_null(object_of({"coverage": share, "codes": {"type": "array", "items": code}})),
                "ood_score": _or_null({"type": "number", "minimum": 0}),
                "in_distribution": {"type": ["boolean", "null"]},
                "risk": _or_null(object_of({"level": {"enum": ["high", "unknown"]}, "disclaimer": text})),
                "field": ref("Field"),
                "fit": ref("Fit"),
                "canonical": object_of({"size": count, "image": text}),
                "embedding": {**numbers, "minItems": 512, "maxItems": 512},
                "notes": {"type": "array", "items": text},
                "explanations": {"type": "array", "items": ref("Explanation")},
            },
            OPTIONAL_PARTS,
            **strict,
        ),
        "Model": object_of(
            {"name": text, "version": text, "digest": text, "training_data": text, "engine": text}, ("engine",)
        ),
        "Verdict": object_of(
            {
                "state": {"enum": ["confident", "uncertain", "unreliable"]},
                "classes": {"type": "array", "items": code},
                "tumour_share": share,
                "tumour_related": {"type": ["boolean", "null"]},
                "tumour_threshold": _or_null(share),
                "share_right": _or_null(share),
                "test_tiles": _or_null(object_of({"low": share, "high": share, "tiles": count, "right": count})),
            },
            **strict,
        ),
        "Field": object_of(
            {
                "microns": _or_null(length),
                "assumed": _or_null(length),
                "mpp": _or_null(length),
                "source": {"enum": ["request", "tiff", "ome", "png", None]},
                "plausible_mpp": {**numbers, "minItems": 2, "maxItems": 2},
                "ignored": _or_null(object_of({"mpp": length, "source": {"enum": ["tiff", "ome", "png"]}}, **strict)),
                "cut": _or_null(object_of(dict.fromkeys(("left", "top", "width", "height"), count), **strict)),
            },
            **strict,
        ),
        "Fit": object_of(
            {
                "verdict": {"enum": [*VERDICTS, None]},
                "reasons": {"type": "array", "items": {"enum": list(REASONS)}},
                **{field.name: {"type": "number", "minimum": 0} for field in fields(Quality)},
            },
            **strict,
        ),
        "Explanation": object_of(
            {
                "method": {"enum": list(METHODS)},
                "target": one_class,
                "contrast": one_class,
                "unit": text,
                "cached": {"type": "boolean"},
                "heatmap": text,
                "overlay": text,
                "rendering": {"type": "object"},
                "attribution": object_of(
                    {
                        "dtype": text,
                        "shape": {"type": "array", "items": count},
                        "scale": number,
                        "range": numbers,
                        "data": text,
                    }
                ),
                "skipped": object_of({"code": {"const": "budget_exceeded"}, "message": text}),
            },
            ("contrast", "unit", "cached", "heatmap", "overlay", "rendering", "attribution", "skipped"),
            description="Besides, the method's own figures, such as `completeness_residual`.",
        ),
        "About": object_of(
            {
                "model": ref("Model"),
                "licence": text,
                "disclaimer": text,
                "classes": {"type": "array", "items": {"type": "object"}},
                "field_of_view": {"type": "object"},
                "preprocessing": {"type": "object"},
                "methods": {"type": "array", "items": {"type": "object"}},
                "limits": {"type": "object"},
                "evaluation": {"type": "object"},
            },
            **strict,
        ),
        "Map": object_of(
            {
                "image": {"type": "object"},
                "grid": {"type": "object"},
                "classes": {"type": "array", "items": {"type": "object"}},
                "model": {"type": "object"},
                "composition": {"type": "object"},
                "tiles": {"type": "array", "items": ref("MapTile")},
                "disclaimer": text,
            },
            description="The tissues of a region; docs/regions.md describes every field.",
        ),
        "MapTile": object_of(
            {
                "row": count,
                "column": count,
                "x": count,
                "y": count,
                "class": code,
                "probabilities": {**numbers, "minItems": NUM_CLASSES, "maxItems": NUM_CLASSES},
                "prediction_set": {"type": "array", "items": code},
                "in_distribution": {"type": "boolean"},
                "ood_score": _or_null({"type": "number", "minimum": 0}),
                "state": {"enum": ["confident", "uncertain", "unreliable"]},
                "abstained": {"type": "boolean"},
            }
        ),
        "FeatureCollection": object_of(
            {"type": {"const": "FeatureCollection"}, "features": {"type": "array", "items": {"type": "object"}}}
        ),
        "Job": object_of(
            {
                "id": text,
                "state": {"enum": ["queued", "running", "done", "failed"]},
                "created": text,
                "finished": _or_null(text),
                "progress": object_of({"done": count, "total": count}),
                "error": _or_null(object_of({"code": text, "message": text, "field": _or_null(text)})),
                "slide": _or_null(text),
                "options": object_of({"mpp": text}, ("mpp",)),
                "links": {"type": "object", "additionalProperties": text},
            },
            **strict,
        ),
        "Picture": object_of(
            {
                "width": count,
                "height": count,
                "mpp": _or_null(number),
                "tile_size": count,
                "min_level": count,
                "max_level": count,
            },
            **strict,
        ),
        "ServerMetadata": object_of({"name": text, "version": text, "extensions": {"type": "array", "items": text}}),
        "ModelMetadata": object_of(
            {
                "name": text,
                "versions": {"type": "array", "items": text},
                "platform": text,
                "inputs": {"type": "array", "items": ref("TensorMetadata")},
                "outputs": {"type": "array", "items": ref("TensorMetadata")},
            }
        ),
        "TensorMetadata": object_of(
            {"name": text, "datatype": text, "shape": {"type": "array", "items": {"type": "integer"}}}
        ),
        "InferRequest": object_of(
            {
                "id": text,
                "parameters": {"type": "object"},
                "inputs": {"type": "array", "items": {"type": "object"}, "minItems": 1, "maxItems": 1},
                "outputs": {"type": "array", "items": object_of({"name": {"enum": list(OUTPUTS)}})},
            },
            ("id", "parameters", "outputs"),
        ),
        "Tensors": object_of(
            {
                "model_name": text,
                "model_version": text,
                "id": text,
                "outputs": {"type": "array", "items": ref("TensorMetadata")},
            },
            ("id",),
        ),
    }
