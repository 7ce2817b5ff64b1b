import pytest

from serving.gateway.negotiation import LONGEST_WAIT, Preference, choose_type, read_preference
from serving.gateway.policy import RefusedError

OFFERED = ("application/json", "application/geo+json", "image/png")


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("application/geo+json", "application/geo+json"),
        ("image/*", "image/png"),
        ("application/*;q=0.1, image/png", "image/png"),
        ("text/html, application/geo+json;q=0.9, */*;q=0.8", "application/geo+json"),
        ("IMAGE/PNG ; Q=1", "image/png"),
        ("application/json;q=0, */*", "application/geo+json"),
        ("application/json;q=broken, image/png;q=0.1", "image/png"),
    ],
)
def test_the_type_with_the_highest_quality_is_chosen(accept: str, chosen: str) -> None:
    assert choose_type(accept, OFFERED) == chosen


@pytest.mark.parametrize("accept", ["text/html", "image/png;q=0", "application/xml, text/*"])
def test_what_is_not_offered_is_refused_with_what_is(accept: str) -> None:
    with pytest.raises(RefusedError, match="image/png") as caught:
        choose_type(accept, OFFERED)
    assert (caught.value.status, caught.value.code) == (406, "not_acceptable")


@pytest.mark.parametrize(
    ("prefer", "preference"),
    [
        ("", Preference(False, 0)),
        ("respond-async", Preference(True, 0)),
        ("Respond-Async, wait=10", Preference(True, 10)),
        ('wait="5"; foo=bar, respond-async', Preference(True, 5)),
        ("wait=7", Preference(False, 7)),
        ("respond-async, wait=1, wait=9", Preference(True, 1)),
        ("respond-async, wait=99999", Preference(True, LONGEST_WAIT)),
        ("respond-async, wait=-1", Preference(True, 0)),
        ("return=minimal, respond-asynchronously", Preference(False, 0)),
    ],
)
def test_preferences_are_read_as_the_rfc_says(prefer: str, preference: Preference) -> None:
    assert read_preference(prefer) == preference
