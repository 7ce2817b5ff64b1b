"""The container files, as far as they can be tried without a container engine."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from serving.ports import free_addresses
from serving.supervisor import ROOT

STAGE = re.compile(r"^FROM \S+ AS (\S+)$", re.MULTILINE)
COPY = re.compile(r"^COPY (?!--from)(.+) (\S+)$", re.MULTILINE)


def stages() -> dict[str, str]:
    """The Dockerfile's text by stage."""
    names_and_texts = STAGE.split((ROOT / "Dockerfile").read_text())[1:]
    return dict(zip(names_and_texts[::2], names_and_texts[1::2], strict=True))


def copied(stage: str) -> list[str]:
    return [source for sources, _ in COPY.findall(stages()[stage]) for source in sources.split()]


def proofs() -> list[list[str]]:
    """The arguments of Python's commands that deploy/prove-image.sh runs within the image."""
    script = (ROOT / "deploy" / "prove-image.sh").read_text()
    return [line.split() for line in re.findall(r"^ *within /opt/venv/bin/python (.+)$", script, re.MULTILINE)]


@pytest.fixture
def compose() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return content


def test_everything_copied_exists_and_reaches_the_builder() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    admitted = {line.removeprefix("!") for line in lines}
    for stage in stages():
        for source in copied(stage):
            assert (ROOT / source).exists(), source
            assert admitted & {source, *map(str, Path(source).parents)}, source


def test_images_do_not_run_as_root() -> None:
    assert "USER 10001" in stages()["server"]


def test_the_server_image_holds_what_the_server_needs(model_store: Path, tmp_path: Path) -> None:
    """Started as in the image, from a folder that holds nothing else."""
    application = tmp_path / "app"
    for source in copied("server"):
        (application / source).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
        copy(ROOT / source, application / source)
    addresses = free_addresses()
    config = application / "config.properties"
    lines = [line for line in config.read_text().splitlines() if line.split("=")[0] not in addresses]
    config.write_text("\n".join([*lines, *(f"{name}={value}" for name, value in addresses.items())]))
    serving = [sys.executable, "-m", "serving"]
    environment = {**os.environ, "PATHMNIST_TOKEN": "token", "PYTHONPATH": str(application)}
    options = ["--run-folder", str(tmp_path / "run"), "--model-store", str(model_store)]
    with subprocess.Popen(
        [*serving, "start", *options], cwd=application, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("ready: ")
            check = [*serving, "check", "--edge-address", addresses["edge_address"]]
            assert subprocess.run(check, cwd=application, env=environment, timeout=60).returncode == 0
            for command in proofs():
                proof = subprocess.run(
                    [sys.executable, *command, "--edge-address", addresses["edge_address"]],
                    cwd=application,
                    env=environment,
                    timeout=60,
                    capture_output=True,
                    text=True,
                )
                assert proof.stdout.split()[-1] == "gradcam", proof.stderr
            stranger = subprocess.run(
                check, cwd=application, env={**environment, "PATHMNIST_TOKEN": ""}, timeout=60, capture_output=True
            )
            assert stranger.returncode == 1
            page = requests.get(addresses["edge_address"], timeout=10)
            assert (page.status_code, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
            assert requests.get(f"{addresses['edge_address']}/reports/evaluation.json", timeout=10).json()["splits"]
        finally:
            process.terminate()


def test_the_proof_of_the_image_asks_for_an_explanation() -> None:
    assert proofs() == [["-m", "serving", "check", "--explain"]]
    subprocess.run(["bash", "-n", str(ROOT / "deploy" / "prove-image.sh")], check=True)


def test_the_image_installs_by_digest() -> None:
    """By `serving.install`, which tests/test_install.py tries with wheels that have another digest."""
    commands = re.findall(r"^RUN (.+?)(?<!\\)\n", stages()["build-server"], re.MULTILINE | re.DOTALL)
    assert '/opt/venv/bin/python -m serving.install --torch "$VARIANT" && /opt/venv/bin/pip check' in commands
    assert re.findall(r"pip install (.+)", "\n".join(commands)) == ["pip==26.3"]


def test_services_have_a_read_only_root_and_no_capabilities(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == {"server", "prometheus", "grafana"}
    for name, service in compose["services"].items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), name


def test_images_of_others_are_named_exactly(compose: dict[str, Any]) -> None:
    for name in ("prometheus", "grafana"):
        assert re.fullmatch(r"\S+:v?\d+\.\d+\.\d+", compose["services"][name]["image"])


def test_what_is_mounted_exists_and_cannot_be_written(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for volume in service.get("volumes", []):
            source, _, *mode = volume.split(":")
            if source.startswith("./"):
                assert (ROOT / source).exists(), source
                assert mode == ["ro"], volume
            else:
                assert source in compose["volumes"], volume


def test_prometheus_scrapes_the_server_of_its_composition(compose: dict[str, Any]) -> None:
    """As the one of `make serve`, but through the edge with the token."""
    alone = yaml.safe_load((ROOT / "deploy" / "monitoring" / "prometheus.yml").read_text())
    composed = yaml.safe_load((ROOT / "deploy" / "monitoring" / "prometheus-compose.yml").read_text())
    (job,) = composed["scrape_configs"]
    assert job.pop("authorization") == {"credentials_file": "/tmp/token"}
    assert job["static_configs"] == [{"targets": ["server:8080"]}]
    job["static_configs"] = alone["scrape_configs"][0]["static_configs"]
    assert composed == alone
    prometheus = compose["services"]["prometheus"]
    assert "> /tmp/token" in prometheus["entrypoint"][2]
    assert "--config.file=/etc/prometheus/prometheus-compose.yml" in prometheus["command"]
    assert "PATHMNIST_TOKEN" in prometheus["environment"]


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
def test_promtool_accepts_the_composed_prometheus(tmp_path: Path) -> None:
    folder = shutil.copytree(ROOT / "deploy" / "monitoring", tmp_path / "monitoring")
    config = folder / "prometheus-compose.yml"
    (tmp_path / "token").write_text("token")
    config.write_text(config.read_text().replace("/tmp/token", str(tmp_path / "token")))
    result = subprocess.run(["promtool", "check", "config", str(config)], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_token_reaches_prometheus_in_a_file_of_its_own(compose: dict[str, Any], tmp_path: Path) -> None:
    """The container's start, with `cat` as Prometheus and another place for the file."""
    shell, option, script, name = compose["services"]["prometheus"]["entrypoint"]
    script = script.replace("$$", "$").replace("/tmp/token", str(tmp_path / "token")).replace("/bin/prometheus", "cat")
    (tmp_path / "argument").write_text("given")
    result = subprocess.run(
        [shell, option, script, name, str(tmp_path / "argument")],
        env={"PATHMNIST_TOKEN": "a$ecret'", "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=10,
    )
    assert result.stdout == "given"
    assert (tmp_path / "token").read_text() == "a$ecret'"
    assert (tmp_path / "token").stat().st_mode & 0o077 == 0


def test_grafana_finds_its_source_and_its_dashboard(compose: dict[str, Any]) -> None:
    provisioning = ROOT / "deploy" / "monitoring" / "grafana"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert compose["services"]["prometheus"]["ports"] == ["127.0.0.1:9090:9090"]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "pathmnist.yml").read_text())["providers"]
    grafana = compose["services"]["grafana"]
    shown = next(
        volume.split(":")[1] for volume in grafana["volumes"] if volume.startswith("./deploy/monitoring/dashboard.json")
    )
    assert Path(shown).parent == Path(provider["options"]["path"])
    assert grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == shown


def test_nobody_logs_into_grafana(compose: dict[str, Any]) -> None:
    environment = compose["services"]["grafana"]["environment"]
    assert environment["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert environment["GF_AUTH_BASIC_ENABLED"] == "false"
    assert "PATHMNIST_TOKEN" not in environment
