import numpy as np
import pytest

from demo.upload import FORMATS, MAX_BYTES, UploadError, check
from handler.api.image import FORMATS as SERVER_FORMATS
from serving.gateway.settings import ROOT, read_properties
from tests.conftest import Pixels
from tests.support.images import Encode
from tests.support.tiff_files import Layout, write_tiff


def test_the_limits_are_the_servers() -> None:
    assert FORMATS == SERVER_FORMATS
    assert int(read_properties(ROOT / "config.properties")["max_request_size"]) == MAX_BYTES


@pytest.mark.parametrize("file_format", FORMATS)
def test_every_format_of_the_server_may_be_sent(file_format: str, tiles: Pixels, encode: Encode) -> None:
    check(encode(tiles[0], file_format))


def test_a_layout_that_the_server_reads_may_be_sent() -> None:
    check(write_tiff(np.zeros((20, 20, 1), np.uint16), Layout(bits=12, order=">", big=True)))


def test_refusals_say_why() -> None:
    for data, message in (
        (b"\0" * (MAX_BYTES + 1), "at most 16 MB"),
        (b"", "not an image"),
        (b"GIF89a", "not an image"),
    ):
        with pytest.raises(UploadError, match=message):
            check(data)
