import pytest

from demo.view import BUDGETS, COLORMAPS, METHODS, View, read_view
from handler.api.options import RENDERING, parse_options
from handler.explain.registry import METHODS as REGISTRY

COINCIDE_WITH_GRADCAM = {"hirescam", "xgradcam"}


def test_the_page_offers_every_method_and_colour_map_of_the_server() -> None:
    assert set(METHODS) | COINCIDE_WITH_GRADCAM == set(REGISTRY)
    assert {REGISTRY[name].closed_form for name in COINCIDE_WITH_GRADCAM} == {REGISTRY["gradcam"].closed_form}
    assert set(COLORMAPS) == set(RENDERING["colormap"].choices)


@pytest.mark.parametrize("name", METHODS)
def test_the_server_takes_every_view(name: str) -> None:
    view = View((name,), "STR", "MUS", "magma", 0.3, BUDGETS[0])
    options = parse_options(view.options(), verb_explain=True)
    assert [item.method.name for item in options.explanations] == [name]
    assert options.budget == BUDGETS[0] / 1000


def test_a_view_comes_back_from_its_address() -> None:
    view = View(("layercam", "saliency"), "STR", "MUS", "vik", 0.25, 2000)
    query = {name: str(value) for name, value in vars(view).items()} | {"methods": "layercam,saliency"}
    assert read_view(query) == view


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"methods": "gradcam", "target": "", "opacity": "0.5"},
        {"methods": "none,<script>", "target": "9", "contrast": "tum", "colormap": "jet", "budget": "-1"},
        {"opacity": "2"},
        {"opacity": "nan"},
        {"opacity": "wide"},
    ],
)
def test_what_an_address_says_wrongly_is_left_at_its_default(query: dict[str, str]) -> None:
    assert read_view(query) == View()
