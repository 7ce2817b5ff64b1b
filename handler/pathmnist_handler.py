"""TorchServe's entry point: bytes in, per-item responses out."""

import os
import tempfile
from http import HTTPStatus
from pathlib import Path
from typing import Any

import orjson
import torch

from handler.api.image import ImageLimits
from handler.api.request import RawRequest
from handler.api.service import Service
from handler.explain.cache import AttributionCache, open_cache
from handler.model.engine import open_engine
from handler.request_ids import REQUEST_ID, log_request_ids

# For the log of the edge, which does not hand it on.
FACTS_HEADER = "X-Facts"


class PathMNISTHandler:
    """Hands TorchServe's batches to `Service` and each answer's own status back.

    The verb is read for every item: TorchServe puts predictions and explanations into one batch.
    """

    def initialize(self, context: Any) -> None:
        """Load the model from the unpacked archive onto the worker's device."""
        self._request_ids = log_request_ids()
        properties = context.system_properties
        settings = context.model_yaml_config.get("handler", {})
        gpu = properties.get("gpu_id")
        device = torch.device("cpu" if gpu is None or not torch.cuda.is_available() else f"cuda:{gpu}")
        pool = settings.get("pools", {}).get(context.model_name, {})
        os.nice(pool.get("niceness", 0))
        # Over gRPC no header says what is asked, so the name does.
        self._explains = pool.get("explains", False)
        engine = open_engine(Path(properties["model_dir"]), device, {**settings, **pool}.get("engine", {}))
        limits = ImageLimits(**settings.get("image_limits", {}))
        self._service = Service(engine, limits, _open_cache(settings.get("cache", {})))

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[bytes]:
        """Answer one batch."""
        requests = [
            RawRequest(fields, self._explains or context.get_request_header(index, "explain") == "True")
            for index, fields in enumerate(data)
        ]
        with self._request_ids.of(context.get_request_header(index, REQUEST_ID) for index in range(len(data))):
            responses = self._service.respond(requests)
        for index, response in enumerate(responses):
            context.set_response_content_type(index, "application/json")
            context.set_response_status(response.status, HTTPStatus(response.status).phrase, index)
            facts = {"outcome": response.outcome, "batch_size": len(responses), **response.facts}
            context.set_response_header(index, FACTS_HEADER, orjson.dumps(facts).decode())
        return [response.body for response in responses]


def _open_cache(settings: dict[str, Any]) -> AttributionCache | None:
    """One folder for all workers of a server: TorchServe's temporary folder is theirs in common."""
    if not settings:
        return None
    folder = Path(settings.get("folder") or Path(tempfile.gettempdir()) / "explanations")
    return open_cache(folder, settings["bytes"])
