"""TorchServe's entry point: a batch of requests in, a response for each out."""

import os
import tempfile
from pathlib import Path
from typing import Any

import torch

from handler.api.image import ImageLimits
from handler.api.metrics import ENGINE
from handler.api.request import RawRequest
from handler.api.service import Service
from handler.classifier import Classifier
from handler.explain.cache import AttributionCache, open_cache
from handler.memory import Trim
from handler.model.selection import open_engine
from handler.request_ids import REQUEST_ID, log_request_ids

# An entry for the edge's log. The edge removes it from the response.
LOG_HEADER = "X-Facts"


class PathMNISTHandler:
    """Passes TorchServe's batches to `Service`, and each response with its own status back.

    The verb is read for each request, because TorchServe puts predictions and explanations into one batch.
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
        # Over gRPC there is no header with the verb, so the model's name decides.
        self._explains = pool.get("explains", False)
        # The server's settings name the folder (serving/supervisor.py).
        kept = os.environ.get("PATHMNIST_SELECTIONS")
        allowed = {**settings, **pool}.get("engine", {})
        engine = open_engine(Path(properties["model_dir"]), device, allowed, Path(kept) if kept else None)
        ENGINE.labels(engine.backend).set(1)
        classifier = Classifier(engine, _open_cache(settings.get("cache", {})))
        self._service = Service(classifier, ImageLimits(**settings.get("image_limits", {})))
        self._trim = Trim()
        self._trim.touch()

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
            context.set_response_status(response.status, response.status.phrase, index)
            context.set_response_header(index, LOG_HEADER, response.log)
        self._trim.touch()
        return [response.body for response in responses]


def _open_cache(settings: dict[str, Any]) -> AttributionCache | None:
    """One folder for all workers of a server, by default in TorchServe's temporary folder, which they share."""
    if not settings:
        return None
    folder = Path(settings.get("folder") or Path(tempfile.gettempdir()) / "explanations")
    return open_cache(folder, settings["bytes"])
