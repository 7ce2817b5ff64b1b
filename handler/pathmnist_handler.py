"""TorchServe's entry point: bytes in, per-item responses out."""

from http import HTTPStatus
from pathlib import Path
from typing import Any

import torch

from handler.image import ImageLimits
from handler.model import load_model
from handler.request import RawRequest
from handler.service import Service


class PathMNISTHandler:
    """Hands TorchServe's batches to `Service` and each answer's own status back.

    The verb is read for every item: TorchServe puts predictions and explanations into one batch.
    """

    def initialize(self, context: Any) -> None:
        """Load the model from the unpacked archive onto the worker's device."""
        properties = context.system_properties
        settings = context.model_yaml_config.get("handler", {})
        gpu = properties.get("gpu_id")
        device = torch.device("cpu" if gpu is None or not torch.cuda.is_available() else f"cuda:{gpu}")
        if "threads" in settings:
            torch.set_num_threads(settings["threads"])
        model = load_model(Path(properties["model_dir"]), device)
        self._service = Service(model, device, ImageLimits(**settings.get("image_limits", {})))

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[bytes]:
        """Answer one batch."""
        requests = [
            RawRequest(fields, context.get_request_header(index, "explain") == "True")
            for index, fields in enumerate(data)
        ]
        responses = self._service.respond(requests)
        for index, response in enumerate(responses):
            context.set_response_content_type(index, "application/json")
            context.set_response_status(response.status, HTTPStatus(response.status).phrase, index)
        return [response.body for response in responses]
