import re

from playwright.sync_api import Page, expect

from serving.supervisor import TILE
from tests.web.conftest import Visits, choose, wait_for_map


def compared(visit: Visits, query: str) -> Page:
    page = visit()
    choose(page, TILE)
    wait_for_map(page)
    page.goto(f"{visit.url}/compare?{query}")
    return page


def test_methods_are_compared_side_by_side_with_one_cursor(visit: Visits) -> None:
    page = compared(visit, "methods=gradcam,layercam")
    wait_for_map(page, "gradcam")
    wait_for_map(page, "layercam")
    expect(page.locator(".note")).to_contain_text(re.compile(r"Agreement .* -?\d\.\d\d|Agreement .*\(-?\d\.\d\d\)"))
    box = page.locator("canvas").first.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 50, box["y"] + 60)
    readouts = page.locator(".readout")
    for index in range(2):
        expect(readouts.nth(index)).to_contain_text(re.compile(r"\d"))


def test_a_method_can_be_added_and_the_others_stay(visit: Visits) -> None:
    page = compared(visit, "methods=gradcam")
    wait_for_map(page, "gradcam")
    page.get_by_text("Methods: Grad-CAM").click()
    page.get_by_label("LayerCAM").check()
    wait_for_map(page, "layercam")
    expect(page.locator("article[data-method]")).to_have_count(2)
    expect(page).to_have_url(re.compile("methods=gradcam%2Clayercam"))


def test_the_first_class_is_offered_against_the_second_and_both_are_on_the_legend(visit: Visits) -> None:
    page = compared(visit, "methods=gradcam")
    wait_for_map(page, "gradcam")
    first, second = page.get_by_label("Evidence for").locator("option").all_inner_texts()[:2]
    page.get_by_role("button", name=f"{first} against {second.lower()}").click()
    expect(page.locator(".legend .ends").first).to_have_text(re.compile(f"{second}.*{first}"))
    page.get_by_role("button", name="Swap").click()
    expect(page.locator(".legend .ends").first).to_have_text(re.compile(f"{first}.*{second}"))


def test_an_address_without_a_tile_says_what_it_sets(visit: Visits) -> None:
    page = visit("/compare?methods=gradcam,occlusion&target=STR&contrast=MUS")
    expect(page.locator("main")).to_contain_text("Grad-CAM and Occlusion")
    expect(page.locator("main")).to_contain_text("tumour stroma compared with smooth muscle")
    choose(page, TILE)
    wait_for_map(page, "occlusion")
    expect(page.locator(".legend .ends").first).to_have_text(re.compile("Smooth muscle.*Tumour stroma"))


def test_an_address_can_bring_an_example(visit: Visits) -> None:
    page = visit("/compare?methods=gradcam&example=str")
    wait_for_map(page, "gradcam")


def test_unknown_words_in_an_address_are_left_out(visit: Visits) -> None:
    page = visit("/compare?methods=magic,gradcam&target=XXX&contrast=<b>&example=../x")
    expect(page.locator("main")).to_contain_text("This address selects Grad-CAM.")
