"""Checks the rules with promtool, and every metric in rules and dashboard with a real Prometheus and server."""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
import yaml

from serving.ports import free_ports
from serving.supervisor import ROOT, TorchServe
from tests.support.waiting import wait_for

FOLDER = ROOT / "deploy" / "monitoring"
CASES = Path(__file__).parent / "monitoring_cases.yml"
# A healthy server does not export these: a status counter has no value before the first such response.
ONLY_AFTER_A_FAULT = {"Requests5XX"}
WORDS = {"by", "on", "or", "and", "unless", "bool", "group_left"}
needs_prometheus = pytest.mark.skipif(
    not (shutil.which("promtool") and shutil.which("prometheus")), reason="Prometheus and promtool are not installed"
)


def rules() -> list[dict[str, Any]]:
    files = [yaml.safe_load((FOLDER / name).read_text()) for name in ("recording.yml", "alerts.yml")]
    return [rule for content in files for group in content["groups"] for rule in group["rules"]]


def dashboard_expressions() -> list[str]:
    panels = json.loads((FOLDER / "dashboard.json").read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def metrics_of(expression: str) -> set[str]:
    """The metrics in a PromQL expression: names other than selectors, durations, labels, functions and keywords."""
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]|\b(by|on)\s*\([^)]*\)", " ", expression)
    return set(re.findall(r"(?<![\w.:])[a-zA-Z_][\w:]*\b(?!\s*\()", bare)) - WORDS


def test_metrics_are_read_off_an_expression() -> None:
    expression = 'sum by (job) (rate(a_total{x="y"}[5m])) / on (job) group_left up > bool 1e6 and job:b:c[1h] * 14.4'
    assert metrics_of(expression) == {"a_total", "up", "job:b:c"}


def test_rules_read_recorded_series_that_exist() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    named = set().union(*(metrics_of(text) for text in [*(rule["expr"] for rule in rules()), *dashboard_expressions()]))
    assert {name for name in named if ":" in name} <= recorded


def test_panels_have_their_own_place_and_source() -> None:
    panels = json.loads((FOLDER / "dashboard.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert len(set(places)) == len(panels)
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in panels)


@needs_prometheus
@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", str(FOLDER / "prometheus.yml")),
        ("check", "rules", str(FOLDER / "recording.yml"), str(FOLDER / "alerts.yml")),
        ("test", "rules", str(CASES)),
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_promtool_finds_no_fault(arguments: tuple[str, ...]) -> None:
    result = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_alert_has_a_case_in_which_it_fires() -> None:
    cases = [case for test in yaml.safe_load(CASES.read_text())["tests"] for case in test.get("alert_rule_test", [])]
    fired = {case["alertname"] for case in cases if case.get("exp_alerts")}
    assert fired == {rule["alert"] for rule in rules() if "alert" in rule}


@pytest.fixture(scope="module")
def prometheus(server: TorchServe, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus with the shipped configuration, but with the test's server and an interval of one second."""
    folder = tmp_path_factory.mktemp("prometheus")
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    config["global"] = dict.fromkeys(config["global"], "1s")
    config["rule_files"] = [str(FOLDER / name) for name in config["rule_files"]]
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [urlsplit(server.metrics_url).netloc]
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_ports(1)[0]}"
    command = ["prometheus", f"--config.file={path}", f"--storage.tsdb.path={folder / 'data'}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, f"--web.listen-address={address}"], stdout=log, stderr=log)
    try:
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(30)


def has_data(url: str, expression: str) -> bool:
    """Whether a query has a result. Raises `HTTPError` if Prometheus refuses it."""
    answer = requests.get(f"{url}/api/v1/query", params={"query": expression}, timeout=10)
    answer.raise_for_status()
    return bool(answer.json()["data"]["result"])


def is_ready(url: str) -> bool:
    try:
        return requests.get(f"{url}/-/ready", timeout=5).ok
    except requests.ConnectionError:
        return False


def ask(server: TorchServe, image: bytes) -> None:
    """Send one request of each kind: a prediction, a cache miss and hit, a gradient method, and an invalid image."""
    post = requests.Session().post
    assert post(f"{server.url}/predictions/pathmnist", data=image, timeout=60).status_code == 200
    for _ in range(2):
        target = f"{server.url}/explanations/pathmnist?method=saliency&target=DEB&contrast=MUC"
        assert post(target, data=image, timeout=60).status_code == 200
    target = f"{server.url}/explanations/pathmnist?method=integrated_gradients&n_steps=2"
    assert post(target, data=image, timeout=60).status_code == 200
    assert post(f"{server.url}/predictions/pathmnist", data=b"no image", timeout=60).status_code >= 400


@needs_prometheus
def test_every_metric_named_has_data(server: TorchServe, prometheus: str) -> None:
    image = (ROOT / "docs" / "tile.png").read_bytes()
    wait_for(partial(is_ready, prometheus))
    expressions = dashboard_expressions()
    named = set().union(*(metrics_of(text) for text in [*(rule["expr"] for rule in rules()), *expressions]))
    missing = {name for name in named if name not in ONLY_AFTER_A_FAULT} | set(expressions)
    # A rate needs two scrapes with requests in between, so the test sends requests until all metrics have data.
    deadline = time.monotonic() + 60
    while missing and time.monotonic() < deadline:
        ask(server, image)
        missing = {expression for expression in missing if not has_data(prometheus, expression)}
    assert missing == set()
    declared = requests.get(f"{server.metrics_url}/metrics", timeout=30).text
    assert all(f"# TYPE {name} counter" in declared for name in ONLY_AFTER_A_FAULT)


@needs_prometheus
def test_the_counts_are_the_servers(server: TorchServe, prometheus: str) -> None:
    """Prometheus counts the invalid image as a 4xx response, and each pool under its name."""
    wait_for(partial(is_ready, prometheus))
    ask(server, (ROOT / "docs" / "tile.png").read_bytes())
    pools = "count(count by (model_name) (ts_inference_requests_total)) == 2"
    wait_for(lambda: has_data(prometheus, pools) and has_data(prometheus, "Requests4XX >= 1"), 20)
