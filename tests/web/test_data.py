"""The page's modules agree with the server and the reports."""

import shutil
import subprocess
from typing import Any

import numpy as np
import pytest
import requests
from playwright.sync_api import Page, expect
from prometheus_client.parser import text_string_to_metric_families
from scipy.stats import spearmanr

from handler.api.options import INCLUDABLE
from handler.classes import TISSUES, TUMOUR_RELATED
from handler.explain.registry import METHODS
from serving.supervisor import ROOT, TILE, TorchServe
from tests.web.conftest import Visits

TYPES = ROOT / "tests" / "web" / "types"
# These give the same map as Grad-CAM in this network.
SAME_AS_GRADCAM = {"hirescam", "xgradcam"}


@pytest.fixture
def page(visit: Visits) -> Page:
    return visit()


def test_the_tissues_are_the_networks_in_its_order(page: Page) -> None:
    tissues = page.evaluate("import('/tissues.js').then((module) => module.TISSUES)")
    assert [(item["code"], item["fullName"]) for item in tissues] == [(item.code, item.name) for item in TISSUES]
    assert {item["code"] for item in tissues if item["group"] == "tumour"} == set(TUMOUR_RELATED)
    sources = page.evaluate("import('/tissues.js').then((module) => module.SOURCES)")
    assert all(item["sources"] for item in tissues)
    assert {source for item in tissues for source in item["sources"]} == set(sources)


def test_the_methods_are_the_servers(page: Page) -> None:
    methods = page.evaluate("import('/methods.js').then((module) => module.METHODS)")
    assert {item["name"] for item in methods} == set(METHODS) - SAME_AS_GRADCAM
    assert len(methods) <= 9
    options = page.evaluate("import('/api.js').then((module) => module.predictionOptions())")
    assert set(options["include"].split(",")) <= set(INCLUDABLE)


def test_pixel_methods_are_those_with_a_value_for_each_pixel(page: Page) -> None:
    question = "({{method: '{}', target: 'TUM', contrast: ''}})"
    for name in set(METHODS) - SAME_AS_GRADCAM:
        script = f"import('/api.js').then((module) => module.explanationOptions{question.format(name)})"
        assert ("percentile" in page.evaluate(script)) == (METHODS[name].display == "magnitude"), name


def test_the_servers_figures_are_read_as_prometheus_reads_them(page: Page, server: TorchServe) -> None:
    requests.post(f"{server.url}/predictions/pathmnist", data=TILE.read_bytes(), timeout=60)
    text = requests.get(f"{server.url}/metrics", timeout=30).text
    samples = page.evaluate("text => import('/metrics.js').then((module) => module.parse(text))", text)
    expected = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    names = {(item["name"], *sorted(item["labels"].items())): item["value"] for item in samples}
    for sample in expected:
        if sample.name.startswith("pathmnist_"):
            assert names[(sample.name, *sorted(sample.labels.items()))] == sample.value


def test_a_quantile_lies_in_its_bucket_in_proportion(page: Page) -> None:
    """Compares with the quantiles of values that are uniform in each bucket."""
    bounds, counts = [0.1, 0.25, 0.5, 1.0], [40, 30, 20, 10]
    edges = [0.0, *bounds]
    values = np.concatenate(
        [np.linspace(low, high, 1000 * n) for low, high, n in zip(edges, bounds, counts, strict=False)]
    )
    buckets = [*zip(bounds, np.cumsum(counts).tolist(), strict=True), ("Infinity", 100)]
    script = """([buckets, share]) => import("/metrics.js").then((module) =>
        module.quantile(new Map(buckets.map(([bound, count]) => [Number(bound), count])), share))"""
    for share in (0.1, 0.5, 0.8, 0.95):
        assert page.evaluate(script, [buckets, share]) == pytest.approx(np.quantile(values, share), rel=1e-3)


def test_agreement_is_spearmans_correlation(page: Page) -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 14 * 14)).round(1)
    script = """maps => import("/evidence.js").then((module) => {
        const [one, other] = maps.map((values) => ({ values, width: 14, height: 14 }));
        return module.agreement(one, other);
    })"""
    correlation = page.evaluate(script, [one.tolist(), other.tolist()])
    assert correlation == pytest.approx(spearmanr(one, other).statistic, abs=1e-9)


def test_the_model_screen_shows_the_reports(visit: Visits, server: TorchServe) -> None:
    def read(name: str) -> Any:
        return requests.get(f"{server.url}/reports/{name}.json", timeout=10).json()

    page = visit("/model")
    test = read("evaluation")["splits"]["test"]
    expect(page.locator("main h1")).to_contain_text(f"Right on {round(100 * test['accuracy']['value'])} of 100")
    recalls = page.locator(".rows").first
    for entry in test["classes"].values():
        expect(recalls).to_contain_text(f"{100 * entry['recall']['value']:.1f} % of {entry['images']}")
    matrix = np.array(test["confusion_matrix"])
    cells = page.locator(".cell").all_inner_texts()
    assert [0 if text == "·" else int(text) for text in cells] == matrix.ravel().tolist()
    expect(page.locator(".multiples figure")).to_have_count(len(read("robustness")["changes"]) - 1)
    costs = read("verdict")["test"]
    expect(page.locator("main")).to_contain_text(f"{costs['missed']} of {costs['tumour_tiles']}")


@pytest.mark.parametrize("screen", ["/", "/model", "/tissues"])
def test_a_screen_without_reports_says_so_or_leaves_them_out(screen: str, visit: Visits) -> None:
    page = visit("/server")
    page.route("**/reports/**", lambda route: route.fulfill(status=404))
    page.goto(visit.url + screen)
    expect(page.locator("main h1").first).to_be_visible()
    expect(page.locator(".skeleton")).to_have_count(0)


@pytest.mark.skipif(
    not (TYPES / "node_modules").is_dir(), reason="npm ci --prefix tests/web/types installs the compiler"
)
def test_the_types_in_the_comments_fit() -> None:
    node = shutil.which("node")
    assert node is not None
    compiler = TYPES / "node_modules" / "typescript" / "bin" / "tsc"
    checked = subprocess.run([node, str(compiler), "-p", str(TYPES)], capture_output=True, text=True, timeout=120)
    assert checked.returncode == 0, checked.stdout
