"""KServe's V1 protocol: `{"instances": [...]}` to images, and answers to `{"predictions": [...]}`."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from serving.gateway.answer import Answer, Question
from serving.gateway.payload import MAX_IMAGES, Payload
from serving.gateway.policy import RefusedError

# The protocol's verbs and ours, which are also the names of the list of answers.
VERBS = {"predict": "predictions", "explain": "explanations"}


def read_instances(verb: str, body: bytes, options: Mapping[str, str]) -> list[Question]:
    """The questions of a request; `verb` is ours. Raises `RefusedError`."""
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RefusedError(400, "The body is not valid JSON.", "json_invalid", "body") from error
    instances = content.get("instances") if isinstance(content, dict) else None
    if not isinstance(instances, list) or not 1 <= len(instances) <= MAX_IMAGES:
        message = f"'instances' must be a list of 1 to {MAX_IMAGES} images."
        raise RefusedError(400, message, "images_invalid", "instances")
    images = [orjson.dumps({"image": _encoded(instance)}) for instance in instances]
    return [Question(verb, Payload(image, dict(options))) for image in images]


def write_predictions(verb: str, answers: Sequence[Answer]) -> bytes:
    """The body of the response."""
    return b'{"' + verb.encode() + b'":[' + b",".join(answer.body for answer in answers) + b"]}"


def _encoded(instance: Any) -> str:
    """Base64 text: `"..."`, `{"b64": "..."}`, or either of them under `image` or `image_bytes`."""
    for name in ("image", "image_bytes"):
        if isinstance(instance, dict) and name in instance:
            instance = instance[name]
    if isinstance(instance, dict):
        instance = instance.get("b64")
    if not isinstance(instance, str):
        message = "An instance must be base64 text, or an object that holds it as 'b64'."
        raise RefusedError(400, message, "base64_invalid", "instances")
    return instance
