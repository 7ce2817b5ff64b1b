import io
import logging
from collections.abc import Iterator

import pytest

from handler.request_ids import RequestIds, log_request_ids


@pytest.fixture
def log() -> Iterator[tuple[RequestIds, io.StringIO]]:
    """The root logger with one handler, as TorchServe's worker sets it up."""
    root, stream = logging.getLogger(), io.StringIO()
    before, handler = root.handlers, logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(message)s"))
    root.handlers = [handler]
    yield log_request_ids(), stream
    root.handlers = before


def test_every_line_has_the_ids_of_its_batch(log: tuple[RequestIds, io.StringIO]) -> None:
    ids, stream = log
    with ids.of(["slide-7", None]):
        try:
            raise ValueError("first\nsecond")
        except ValueError:
            logging.getLogger("handler.api.service").exception("a request failed")
    lines = stream.getvalue().splitlines()
    assert len(lines) >= 5
    assert lines[0] == "[slide-7 -] a request failed"
    assert all(line.startswith("[slide-7 -] ") for line in lines)


def test_between_batches_there_are_none(log: tuple[RequestIds, io.StringIO]) -> None:
    ids, stream = log
    logging.warning("before")
    with ids.of(["slide-7"]):
        pass
    with pytest.raises(RuntimeError), ids.of(["slide-8"]):
        raise RuntimeError
    logging.warning("after")
    assert stream.getvalue() == "before\nafter\n"
