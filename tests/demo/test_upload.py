import numpy as np
import pytest

from demo.upload import FORMATS, MAX_BYTES, MIN_SIDE, UploadError, check
from handler.api.image import FORMATS as SERVER_FORMATS
from handler.api.image import ImageLimits
from serving.gateway.settings import ROOT, read_properties
from tests.conftest import Pixels
from tests.handler.api.test_image import Encode


def test_the_limits_are_the_servers() -> None:
    assert FORMATS == SERVER_FORMATS
    assert ImageLimits().min_side == MIN_SIDE
    assert int(read_properties(ROOT / "config.properties")["max_request_size"]) == MAX_BYTES


@pytest.mark.parametrize("file_format", FORMATS)
def test_every_format_of_the_server_may_be_sent(file_format: str, tiles: Pixels, encode: Encode) -> None:
    check(encode(tiles[0], file_format))


def test_refusals_say_why(encode: Encode) -> None:
    for data, message in (
        (b"\0" * (MAX_BYTES + 1), "at most 16 MB"),
        (b"", "not an image"),
        (b"GIF89a", "not an image"),
        (encode(np.zeros((28, MIN_SIDE - 1, 3), np.uint8)), "15 x 28 pixels"),
    ):
        with pytest.raises(UploadError, match=message):
            check(data)
