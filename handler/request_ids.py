"""The ids of a batch's requests before every line of a worker's log, so that a traceback can be matched to requests."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

REQUEST_ID = "X-Request-Id"


class RequestIds(logging.Formatter):
    """Formats as another formatter, and puts the current ids before each line, also of a traceback.

    A worker computes one batch at a time, so all its threads log for the same requests.
    """

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner
        self._ids: list[str] = []

    def format(self, record: logging.LogRecord) -> str:
        text = self._inner.format(record)
        if not self._ids:
            return text
        prefix = f"[{' '.join(self._ids)}] "
        return "\n".join(prefix + line for line in text.splitlines())

    @contextmanager
    def of(self, ids: Iterable[str | None]) -> Iterator[None]:
        """Log for these requests as long as the context lasts; None is a request without an id."""
        self._ids = [identity or "-" for identity in ids]
        try:
            yield
        finally:
            self._ids = []


def log_request_ids() -> RequestIds:
    """Make all handlers of the root logger write the ids that the result is given."""
    handlers = logging.getLogger().handlers
    formatter = RequestIds((handlers[0].formatter if handlers else None) or logging.Formatter())
    for handler in handlers:
        handler.setFormatter(formatter)
    return formatter
