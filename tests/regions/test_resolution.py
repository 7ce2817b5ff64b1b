"""The size of a pixel is what the user or the file says, if that can be; it is never guessed."""

import pytest

from regions.errors import RegionError
from regions.resolution import Mpp, mpp_of_density, mpp_of_tiff, require_mpp


def test_the_user_overrides_the_file() -> None:
    assert require_mpp(Mpp(0.25, 0.25), 0.5) == Mpp(0.5, 0.5)
    assert require_mpp(Mpp(0.25, 0.26), None) == Mpp(0.25, 0.26)


@pytest.mark.parametrize(
    ("stated", "given", "code"),
    [
        (None, None, "mpp_missing"),
        (Mpp(25400 / 72, 25400 / 72), None, "mpp_implausible"),
        (Mpp(25400 / 300, 25400 / 300), None, "mpp_implausible"),
        (Mpp(0.5, 1.0), None, "mpp_implausible"),
        (Mpp(float("nan"), 0.5), None, "mpp_implausible"),
        (None, 0.0, "mpp_implausible"),
        (None, -1.0, "mpp_implausible"),
        (None, 4.7, "mpp_too_coarse"),
    ],
)
def test_what_cannot_be_is_refused(stated: Mpp | None, given: float | None, code: str) -> None:
    with pytest.raises(RegionError) as error:
        require_mpp(stated, given)
    assert error.value.code == code


@pytest.mark.parametrize(("unit", "density"), [(3, (20000, 1)), (2, (50800, 1)), (3, (40000, 2))])
def test_tiff_states_pixels_per_inch_or_centimetre(unit: int, density: tuple[int, int]) -> None:
    assert mpp_of_tiff(density, density, unit) == Mpp(0.5, 0.5)


def test_a_density_without_unit_or_of_zero_says_nothing() -> None:
    assert mpp_of_tiff((20000, 1), (20000, 1), 1) is None
    assert mpp_of_tiff((20000, 0), (20000, 1), 3) is None
    assert mpp_of_tiff(None, None, 3) is None
    assert mpp_of_density(0, 0, 25400) is None
