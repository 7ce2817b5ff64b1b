"""One request on its way to its response."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus

import numpy as np
import orjson
from numpy.typing import NDArray

from handler.api.errors import RequestError, error_json
from handler.api.request import RawRequest, TileRequest
from handler.explain.explainer import Job
from handler.model.fit import Fit
from handler.model.prediction import Prediction

INTERNAL_ERROR = orjson.dumps(error_json("internal_error", "The server failed to answer this request.", None))

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Response:
    """An HTTP status, a JSON body, `outcome` (ok, or the error's code), and an entry for the log.

    The entry is a JSON object without image content.
    """

    status: HTTPStatus
    body: bytes
    outcome: str
    log: str


@dataclass(eq=False)
class Exchange:
    """A request, what the stages make of it, and its answer.

    Each stage adds its result. An error in any of them, or in building the answer to an error, becomes the answer to
    this request and does not leave it.
    """

    request: RawRequest
    # By `time.monotonic`.
    received: float = field(default_factory=time.monotonic)
    tile: TileRequest = field(init=False)
    prediction: Prediction = field(init=False)
    fit: Fit = field(init=False)
    # `[512]`, if the request asks for it.
    embedding: NDArray[np.float32] | None = None
    jobs: list[Job] = field(default_factory=list)
    status: HTTPStatus | None = None
    body: bytes = b""
    outcome: str = ""
    log: str = "{}"

    @property
    def unanswered(self) -> bool:
        return self.status is None

    def attempt(self, stage: Callable[["Exchange"], None]) -> None:
        """Run a stage for this request alone."""
        try:
            stage(self)
        except RequestError as error:
            refusal = error
            self.attempt(lambda exchange: exchange._refuse(refusal))
        except Exception as error:
            self.fail(error)

    def answer(self, status: HTTPStatus, body: bytes, outcome: str = "ok") -> None:
        """Set the answer."""
        self.status, self.body, self.outcome = status, body, outcome

    def fail(self, error: Exception) -> None:
        """Answer with an internal error, and log it."""
        logger.error("a request failed", exc_info=error)
        self.answer(HTTPStatus.INTERNAL_SERVER_ERROR, INTERNAL_ERROR, "internal_error")

    def response(self) -> Response:
        """The response, once there is an answer."""
        assert self.status
        return Response(self.status, self.body, self.outcome, self.log)

    def _refuse(self, error: RequestError) -> None:
        body = error_json(error.code, _valid_text(error.message), _valid_text(error.field))
        self.answer(HTTPStatus(error.status), orjson.dumps(body), error.code)


def _valid_text(text: str) -> str:
    """Text that UTF-8 can hold: a client may send half of a surrogate pair, which JSON can name and UTF-8 cannot."""
    return text.encode("utf-8", "backslashreplace").decode()
