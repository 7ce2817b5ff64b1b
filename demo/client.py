"""The model server as this page sees it: questions by HTTP, typed answers, every failure one sentence for a person."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

# A refusal for want of room says when to come back (`Retry-After`); it is asked again this often.
RETRIES = 3
PING_SECONDS = 3.0

SENTENCES = {
    "unauthorized": "The model server does not accept this page's token. Whoever runs the page sets PATHMNIST_TOKEN.",
    "forbidden": "The model server does not allow this page to ask. Whoever runs the page sets PATHMNIST_TOKEN.",
    "not_found": "There is a server, but it does not offer the model this page asks for.",
    "overloaded": "The model server has too much to do at the moment. Please try again in a few seconds.",
    "rate_limited": "The model server takes fewer requests a second than this page made. Please wait a moment.",
    "request_timeout": "The image took too long to reach the model server. Please try again.",
    "unavailable": "The model server is starting or stopped. The page tries again by itself when it is back.",
    "timeout": "The model server gave up on this question. Ask for fewer methods, or set a time limit.",
    "out_of_memory": "The model server ran out of memory. Please try again in a few seconds.",
    "internal_error": "The model server failed on this image. Its log says why.",
    "request_too_large": "The file is larger than the model server accepts.",
}
STRANGE = "What answers at the configured address is not the model server this page is made for."


class ServerError(Exception):
    """Why there is no answer, in one sentence for a person; `down` where nobody answers at all."""

    def __init__(self, message: str, down: bool = False) -> None:
        super().__init__(message)
        self.down = down


@dataclass(frozen=True)
class Explanation:
    """One map of an answer.

    `heatmap` is a PNG and `tile` a JPEG of the tile as the model sees it, both base64 and of the same size; None where
    the map was `skipped`, which then says why. `low` and `high` are the map's values at the ends of the colour scale,
    in `unit`; `facts` holds what the method says of its own worth.
    """

    method: str
    target: str
    contrast: str | None
    skipped: str | None = None
    heatmap: str = ""
    tile: str = ""
    unit: str = ""
    low: float = 0.0
    high: float = 0.0
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """What the server says of one tile, and in how many `seconds`.

    `confidence` and `probabilities` are shares of 1; `prediction_set` holds the true class with probability
    `coverage`; it and `in_distribution` are None where the model was not calibrated.
    """

    code: str
    name: str
    confidence: float
    calibrated: bool
    probabilities: Mapping[str, float]
    prediction_set: tuple[str, ...] | None
    coverage: float | None
    in_distribution: bool | None
    risk: str
    disclaimer: str
    model: Mapping[str, str]
    explanations: tuple[Explanation, ...]
    seconds: float


@dataclass(frozen=True)
class Client:
    """Asks one model of one server; `timeout` in seconds, `token` is sent as a bearer token where it is given."""

    url: str
    metrics_url: str
    model: str = "pathmnist"
    token: str | None = None
    timeout: float = 60.0

    def ping(self) -> None:
        """Raise `ServerError` where no server is ready to answer."""
        self._ask("GET", f"{self.url}/ping", timeout=PING_SECONDS)

    def classify(self, image: bytes) -> Answer:
        """Class, confidence and the Grad-CAM map, which costs nothing beyond the prediction."""
        return self._infer("predictions", image, {"explain": "gradcam", "alpha": "0"})

    def explain(self, image: bytes, options: Mapping[str, str]) -> Answer:
        """Maps as `options` ask for; the picture of the tile comes without any map on it."""
        return self._infer("explanations", image, {**options, "alpha": "0"})

    def explain_as_json(self, image: bytes, options: Mapping[str, str]) -> str:
        """The server's answer as it is, with the signed maps in place of pictures."""
        wanted = {**options, "return": "raw", "dtype": "float16"}
        wanted.pop("colormap", None)
        return self._post("explanations", image, wanted).text

    def metrics(self) -> str:
        """The server's metrics in Prometheus' text format."""
        return self._ask("GET", f"{self.metrics_url}/metrics", timeout=PING_SECONDS).text

    def _infer(self, verb: str, image: bytes, options: Mapping[str, str]) -> Answer:
        start = time.perf_counter()
        response = self._post(verb, image, options)
        try:
            return read_answer(response.json(), time.perf_counter() - start)
        except (ValueError, KeyError, TypeError) as error:
            raise ServerError(STRANGE) from error

    def _post(self, verb: str, image: bytes, options: Mapping[str, str]) -> requests.Response:
        url = f"{self.url}/{verb}/{self.model}"
        return self._ask("POST", url, data=image, params=dict(options), timeout=self.timeout, retries=RETRIES)

    def _ask(self, method: str, url: str, timeout: float, retries: int = 0, **content: Any) -> requests.Response:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        refusals = Retry(
            retries, connect=0, read=False, status_forcelist=(503,), allowed_methods=None, raise_on_status=False
        )
        with requests.Session() as session:
            # Proxies and credentials of the environment are not meant for this server.
            session.trust_env = False
            for scheme in ("http://", "https://"):
                session.mount(scheme, HTTPAdapter(max_retries=refusals))
            try:
                response = session.request(method, url, headers=headers, timeout=timeout, **content)
            except requests.Timeout as error:
                message = f"The model server did not answer within {timeout:.0f} seconds."
                raise ServerError(message) from error
            except requests.RequestException as error:
                raise ServerError(f"No model server answers at {self.url}.", down=True) from error
        if response.status_code >= 400:
            raise _refusal(response)
        return response


def _refusal(response: requests.Response) -> ServerError:
    """The server's own words where it names a fault of the request, a sentence of ours otherwise."""
    try:
        found = response.json()["error"]
        code, message = str(found["code"]), str(found["message"])
    except (ValueError, KeyError, TypeError):
        return ServerError(STRANGE)
    return ServerError(SENTENCES.get(code, message), down=code == "unavailable")


def read_answer(body: Mapping[str, Any], seconds: float) -> Answer:
    """The JSON of the server, typed; raises `KeyError` or `TypeError` where it is something else."""
    found, sets = body["prediction"], body["prediction_set"]
    return Answer(
        code=found["code"],
        name=found["name"],
        confidence=found["probability"],
        calibrated=found["calibrated"],
        probabilities=body["probabilities"],
        prediction_set=tuple(sets["codes"]) if sets else None,
        coverage=sets["coverage"] if sets else None,
        in_distribution=body["in_distribution"],
        risk=body["risk"]["level"],
        disclaimer=body["risk"]["disclaimer"],
        model=body["model"],
        explanations=tuple(_explanation(item) for item in body.get("explanations", ())),
        seconds=seconds,
    )


def _explanation(item: Mapping[str, Any]) -> Explanation:
    contrast = item["contrast"]["code"] if "contrast" in item else None
    if "skipped" in item:
        return Explanation(item["method"], item["target"]["code"], contrast, item["skipped"]["message"])
    known = {"method", "target", "contrast", "rendering", "heatmap", "overlay", "unit", "cached"}
    low, high = item["rendering"]["range"]
    return Explanation(
        method=item["method"],
        target=item["target"]["code"],
        contrast=contrast,
        heatmap=item["heatmap"],
        tile=item["overlay"],
        unit=item["unit"],
        low=low,
        high=high,
        facts={name: value for name, value in item.items() if name not in known},
    )
