"""A running server, over HTTP: its predictions, with the class activation maps of all classes."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import requests

from client import Answer, Client, ServerError
from handler.classes import CODES
from regions.answers import STATES, Answers
from regions.errors import RegionError
from regions.source import Pixels

# A request has as many tiles as the server's batch, and few are under way, so that other clients wait for one batch.
TILES = 8
IN_FLIGHT = 2
OPTIONS = {"explain": "gradcam", "target": "all", "return": "raw", "include": "verdict,prediction_set,ood,fit"}


class ServerBackend:
    """Classifies with a server; the token is in PATHMNIST_TOKEN, if it wants one."""

    def __init__(self, url: str) -> None:
        """Ask the server for its model. Raises `RegionError` `server_unavailable` or the server's own code."""
        self._url = url
        # One client for each thread: a session of requests is not made for several.
        token = os.environ.get("PATHMNIST_TOKEN", "")
        self._clients = [Client(url, token) for _ in range(IN_FLIGHT)]
        self._threads = ThreadPoolExecutor(IN_FLIGHT)
        (answer,) = self._ask(self._clients[0], np.zeros((1, 28, 28, 3), np.uint8))
        self._model: dict[str, Any] = answer.content["model"]

    def identity(self) -> dict[str, Any]:
        return {"backend": "server", **self._model}

    def classify(self, tiles: Pixels) -> Answers:
        parts = [tiles[start : start + TILES] for start in range(0, len(tiles), TILES)]
        lanes = [self._threads.submit(self._lane, number, parts) for number in range(IN_FLIGHT)]
        found: dict[int, list[Answer]] = {}
        for lane in lanes:
            found |= lane.result()
        answers = [answer for index in sorted(found) for answer in found[index]]
        self._require_model(answers)
        return _answers(answers)

    def _lane(self, number: int, parts: Sequence[Pixels]) -> dict[int, list[Answer]]:
        """Every `IN_FLIGHT`-th part, one after the other."""
        mine = range(number, len(parts), IN_FLIGHT)
        return {index: self._ask(self._clients[number], parts[index]) for index in mine}

    def _ask(self, client: Client, tiles: Pixels) -> list[Answer]:
        try:
            return client.classify(list(tiles), **OPTIONS)
        except ServerError as error:
            raise RegionError(error.code, f"The server at {self._url} refuses: {error}") from error
        except requests.RequestException as error:
            raise RegionError("server_unavailable", f"The server at {self._url} does not answer.") from error

    def _require_model(self, answers: Sequence[Answer]) -> None:
        """A map is of one model, but a server can get another one at any time."""
        if any(answer.content["model"] != self._model for answer in answers):
            raise RegionError("model_changed", f"The server at {self._url} got another model; give the command again.")


def _answers(answers: Sequence[Answer]) -> Answers:
    contents = [answer.content for answer in answers]
    sets = [(content["prediction_set"] or {}).get("codes", ()) for content in contents]
    scores = [content["ood_score"] for content in contents]
    maps = [[explanation.attribution for explanation in answer.explanations] for answer in answers]
    return Answers(
        np.stack([answer.logits for answer in answers]),
        np.array([[answer.probabilities[code] for code in CODES] for answer in answers]),
        np.array([[code in codes for code in CODES] for codes in sets]),
        np.array([np.nan if score is None else score for score in scores]),
        np.array([content["in_distribution"] is not False for content in contents]),
        np.array([STATES.index(content["verdict"]["state"]) for content in contents], np.int8),
        np.array([content["fit"]["verdict"] or "" for content in contents]),
        np.array([",".join(content["fit"]["reasons"]) for content in contents]),
        np.array(maps, np.float32),
    )
