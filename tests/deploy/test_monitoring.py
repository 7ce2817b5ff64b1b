"""The rules by promtool, and every metric they and the dashboard name by a real Prometheus on a real server."""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
import yaml

from serving.ports import free_ports
from serving.supervisor import ROOT, TorchServe

FOLDER = ROOT / "deploy" / "monitoring"
CASES = Path(__file__).parent / "monitoring_cases.yml"
# What a healthy server does not show: a status counter has no value before the first such answer.
ONLY_AFTER_A_FAULT = {"Requests5XX"}
WORDS = {"by", "on", "or", "and", "bool", "group_left"}
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
    """The metrics a PromQL expression names: what is no selector, duration, label list, function or word."""
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
    """A Prometheus with the shipped configuration, but the test's server, and a second for a quarter of a minute."""
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
    """Whether a query has a value; raises where Prometheus refuses it."""
    answer = requests.get(f"{url}/api/v1/query", params={"query": expression}, timeout=10)
    answer.raise_for_status()
    return bool(answer.json()["data"]["result"])


def wait_ready(url: str, deadline: float) -> None:
    while time.monotonic() < deadline:
        try:
            if requests.get(f"{url}/-/ready", timeout=5).ok:
                return
        except requests.ConnectionError:
            pass
        time.sleep(0.2)
    pytest.fail("Prometheus does not become ready")


def ask(server: TorchServe, image: bytes) -> None:
    """One of everything that is counted: a prediction, a map for the cache and one from it, another, a refusal."""
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
    deadline = time.monotonic() + 60
    wait_ready(prometheus, deadline)
    expressions = dashboard_expressions()
    named = set().union(*(metrics_of(text) for text in [*(rule["expr"] for rule in rules()), *expressions]))
    missing = {name for name in named if name not in ONLY_AFTER_A_FAULT} | set(expressions)
    # A rate needs two scrapes with requests between them, so they are made until nothing is missing.
    while missing and time.monotonic() < deadline:
        ask(server, image)
        time.sleep(1)
        missing = {expression for expression in missing if not has_data(prometheus, expression)}
    assert missing == set()
    declared = requests.get(f"{server.metrics_url}/metrics", timeout=30).text
    assert all(f"# TYPE {name} counter" in declared for name in ONLY_AFTER_A_FAULT)


@needs_prometheus
def test_the_counts_are_the_servers(server: TorchServe, prometheus: str) -> None:
    """Prometheus sees the refusal as one of the clients' mistakes and all pools by their names."""
    wait_ready(prometheus, time.monotonic() + 30)
    ask(server, (ROOT / "docs" / "tile.png").read_bytes())
    deadline = time.monotonic() + 20
    pools = "count(count by (model_name) (ts_inference_requests_total)) == 2"
    while time.monotonic() < deadline and not has_data(prometheus, f"{pools} and on () Requests4XX >= 1"):
        time.sleep(0.5)
    assert has_data(prometheus, pools)
    assert has_data(prometheus, "Requests4XX >= 1")
