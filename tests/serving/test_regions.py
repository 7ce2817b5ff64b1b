"""Regions over HTTP, before the running TorchServe: answers, jobs, and what can go wrong with them."""

import base64
import gzip
import http.client
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np
import psutil
import pytest
import requests
from PIL import Image

from serving.gateway.app import Edge
from serving.gateway.settings import ROOT, write_properties
from serving.ports import free_addresses
from serving.supervisor import TILE, TorchServe
from tests.conftest import Pixels
from tests.support.edge import running, settings_for
from tests.support.metrics import counted
from tests.support.mosaic import SIDE
from tests.support.mosaic import mosaic as mosaic_of
from tests.support.waiting import wait_for

Encode = Callable[..., bytes]

ASYNC = {"Prefer": "respond-async"}
ROWS, COLUMNS = 3, 4


@pytest.fixture(scope="module")
def mosaic(tiles: Pixels) -> Pixels:
    return mosaic_of(tiles, ROWS, COLUMNS)


@pytest.fixture(scope="module")
def region(mosaic: Pixels, encode: Encode) -> bytes:
    return encode(mosaic)


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    return tmp_path / "jobs"


@pytest.fixture
def url(server: TorchServe, jobs: Path) -> Iterator[str]:
    """An edge with a folder of jobs of its own."""
    with running(Edge(settings_for(server, edge_jobs_folder=jobs))) as address:
        yield address


def post(url: str, body: bytes, headers: dict[str, str] | None = None, **options: str) -> requests.Response:
    return requests.post(f"{url}/regions/pathmnist", data=body, params=options, headers=headers, timeout=240)


def error(response: requests.Response) -> tuple[int, str, str | None]:
    content = response.json()
    return response.status_code, content["error"]["code"], content["error"]["field"]


def started(url: str, body: bytes, **options: str) -> str:
    """The address of a new job."""
    response = post(url, body, ASYNC, **{"mpp": "4", **options})
    assert response.status_code == 202, response.text
    return url + response.headers["Location"]


def finished(job: str) -> dict[str, Any]:
    def is_finished() -> bool:
        return requests.get(job, timeout=30).json()["state"] in ("done", "failed")

    wait_for(is_finished, 240)
    content: dict[str, Any] = requests.get(job, timeout=30).json()
    return content


def state_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "job.json").read_text())
    return content


def suspended(jobs: Path) -> psutil.Process:
    """The process of the one job at work, which then does nothing more by itself."""

    def pids() -> list[int]:
        return [pid for folder in jobs.glob("*") if (pid := state_of(folder)["pid"])]

    wait_for(lambda: bool(pids()))
    process = psutil.Process(pids()[0])
    process.suspend()
    return process


def test_a_region_is_answered_in_the_form_that_is_accepted(
    server: TorchServe, url: str, jobs: Path, mosaic: Pixels, region: bytes
) -> None:
    response = post(url, region, mpp="4")
    assert response.status_code == 200, response.text
    found = response.json()
    assert (found["grid"]["rows"], found["grid"]["columns"]) == (ROWS, COLUMNS)
    crops = [mosaic[tile["y"] : tile["y"] + SIDE, tile["x"] : tile["x"] + SIDE] for tile in found["tiles"]]
    images = [base64.b64encode(png(crop)).decode() for crop in crops]
    answers = requests.post(f"{server.url}/predictions/pathmnist", json={"images": images}, timeout=120).json()
    assert len(found["tiles"]) >= ROWS * COLUMNS // 2
    for tile, answer in zip(found["tiles"], answers["results"], strict=True):
        assert tile["class"] == answer["prediction"]["code"]
        assert tile["probabilities"] == pytest.approx(list(answer["probabilities"].values()), abs=1e-4)
    # Nothing of a request is left after it.
    assert list(jobs.iterdir()) == []


def png(pixels: Pixels) -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_job_shows_its_progress_and_keeps_its_results(url: str, jobs: Path, region: bytes) -> None:
    response = requests.post(
        f"{url}/regions/pathmnist?mpp=4", files={"data": region}, headers={**ASYNC, "Accept": "image/png"}, timeout=60
    )
    assert response.headers["Preference-Applied"] == "respond-async"
    job = url + response.headers["Location"]
    early = requests.get(f"{job}/map.json", timeout=30)
    assert early.status_code == 200 or error(early) == (409, "job_unfinished", None)
    last = finished(job)
    assert (last["state"], last["progress"]) == ("done", {"done": ROWS * COLUMNS, "total": ROWS * COLUMNS})
    shapes = requests.get(job, headers={"Accept": "application/geo+json"}, timeout=30)
    assert shapes.headers["Content-Type"] == "application/geo+json"
    assert shapes.json()["type"] == "FeatureCollection"
    picture = requests.get(job, headers={"Accept": "image/*"}, timeout=30)
    assert Image.open(BytesIO(picture.content)).format == "PNG"
    for name, path in last["links"].items():
        result = requests.get(url + path, headers={"Accept-Encoding": "identity"}, timeout=30)
        assert result.status_code == 200, name
        assert "Content-Encoding" not in result.headers
    (stored,) = jobs.glob("*/results/*/map.geojson.gz")
    assert json.loads(gzip.decompress(stored.read_bytes())) == shapes.json()
    assert requests.delete(job, timeout=30).status_code == 204
    assert error(requests.get(job, timeout=30))[:2] == (404, "not_found")
    assert list(jobs.iterdir()) == []


def test_an_answer_in_time_is_preferred_to_a_job(url: str, region: bytes) -> None:
    response = post(url, region, {"Prefer": "respond-async, wait=60"}, mpp="4")
    assert response.status_code in (200, 202)
    if response.status_code == 200:
        assert response.headers["Content-Location"].startswith("/jobs/")


def test_what_cannot_be_mapped_is_refused_with_its_reason(url: str, jobs: Path, region: bytes, encode: Encode) -> None:
    assert error(post(url, region)) == (400, "mpp_missing", "mpp")
    assert error(post(url, region, mpp="300")) == (400, "mpp_implausible", "mpp")
    assert error(post(url, region, mpp="zebra")) == (400, "parameter_invalid", "mpp")
    assert error(post(url, region, mpp="nan")) == (400, "parameter_invalid", "mpp")
    assert error(post(url, region, mpp="4", scale="2")) == (400, "option_unknown", "scale")
    assert error(post(url, region, {"Accept": "text/html"}, mpp="4")) == (406, "not_acceptable", "Accept")
    assert error(post(url, b"", mpp="4")) == (400, "image_missing", "body")
    assert error(post(url, b'{"image": ""}', mpp="4")) == (415, "image_unreadable", "body")
    assert error(post(url, b"not an image", mpp="4"))[:2] == (415, "format_unsupported")
    damaged = error(post(url, region[: len(region) // 2], mpp="4"))
    assert damaged[:2] in ((400, "image_truncated"), (400, "image_corrupt"), (400, "file_unreadable"))
    large = encode(Image.new("L", (16000, 16000), 255))
    assert error(post(url, large, mpp="4"))[:2] == (413, "image_too_large")
    assert error(post(url, encode(Image.new("RGB", (20, 20))), mpp="4"))[:2] == (400, "region_too_small")
    assert error(post(url, b"", mpp="4", slide="../config.properties")) == (404, "slide_unknown", "slide")
    assert list(jobs.iterdir()) == []


def test_a_job_that_fails_says_why_and_keeps_no_image(url: str, jobs: Path) -> None:
    job = started(url, b"not an image")
    assert finished(job)["error"]["code"] == "format_unsupported"
    assert error(requests.get(f"{job}/map.json", timeout=30))[:2] == (415, "format_unsupported")
    assert not list(jobs.rglob("image"))


def test_a_body_above_the_limit_is_refused(server: TorchServe, jobs: Path) -> None:
    settings = settings_for(server, edge_jobs_folder=jobs, edge_region_size=1000)
    with running(Edge(settings)) as url:
        assert error(post(url, b"x" * 1001, mpp="4"))[:2] == (413, "request_too_large")


def test_a_client_that_hangs_up_ends_its_work(url: str, jobs: Path, region: bytes) -> None:
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port)
    connection.request("POST", "/regions/pathmnist?mpp=4", region)
    process = suspended(jobs)
    connection.close()
    wait_for(lambda: not process.is_running() and not list(jobs.iterdir()))


def test_a_full_queue_refuses_at_once_and_deleting_makes_room(server: TorchServe, jobs: Path, region: bytes) -> None:
    settings = settings_for(server, edge_jobs_folder=jobs, edge_regions_queue=1)
    with running(Edge(settings)) as url:
        first = started(url, region)
        process = suspended(jobs)
        second = started(url, region)
        assert requests.get(second, timeout=30).json()["state"] == "queued"
        refused = post(url, region, mpp="4")
        assert error(refused)[:2] == (503, "overloaded")
        assert int(refused.headers["Retry-After"]) > 0
        assert requests.delete(first, timeout=60).status_code == 204
        assert not process.is_running()
        assert finished(second)["state"] == "done"


def test_the_oldest_result_makes_room(server: TorchServe, jobs: Path, region: bytes) -> None:
    with running(Edge(settings_for(server, edge_jobs_folder=jobs, edge_jobs=1))) as url:
        first = started(url, region)
        assert finished(first)["state"] == "done"
        second = started(url, region)
        assert requests.get(first, timeout=30).status_code == 404
        refused = post(url, region, ASYNC, mpp="4")
        if requests.get(second, timeout=30).json()["state"] != "done":
            assert error(refused)[:2] == (503, "jobs_full")
        finished(second)


def test_jobs_need_the_token(server: TorchServe, jobs: Path, region: bytes) -> None:
    bearer = {"Authorization": "Bearer secret"}
    with running(Edge(settings_for(server, edge_jobs_folder=jobs), token="secret")) as url:
        assert error(post(url, region, mpp="4"))[:2] == (401, "unauthorized")
        response = post(url, region, {**ASYNC, **bearer}, mpp="4")
        job = url + response.headers["Location"]
        for path in ("", "/map.json", "/image"):
            assert error(requests.get(job + path, timeout=30))[:2] == (401, "unauthorized")
        assert requests.delete(job, timeout=30).status_code == 401
        assert requests.get(f"{url}/slides", timeout=30).status_code == 401
        wait_for(lambda: requests.get(job, headers=bearer, timeout=30).json()["state"] == "done", 240)


def test_jobs_survive_a_restart(server: TorchServe, jobs: Path, region: bytes, tmp_path: Path) -> None:
    """A finished job is still there, and one that was at work when the server was killed is finished by the next."""
    address = free_addresses()["edge_address"]
    config = tmp_path / "gateway.properties"
    places = {"inference_address": server.inference_url, "metrics_address": server.metrics_url}
    write_properties({"edge_address": address, "edge_jobs_folder": str(jobs), **places}, config)
    command = [sys.executable, "-m", "serving.gateway", "--config", str(config)]

    def start() -> subprocess.Popen[bytes]:
        process = subprocess.Popen(command, cwd=ROOT)
        wait_for(lambda: is_up(address))
        return process

    process = start()
    try:
        done = started(address, region)
        expected = finished(done)
        left = started(address, region)
        worker = suspended_of(jobs, left)
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        process = start()
        wait_for(lambda: not worker.is_running())
        assert finished(done) == expected
        assert finished(left)["state"] == "done"
        maps = [requests.get(f"{job}/map.json", timeout=30).json() for job in (done, left)]
        classes = [[(tile["row"], tile["column"], tile["class"]) for tile in content["tiles"]] for content in maps]
        assert classes[0] == classes[1]
    finally:
        process.terminate()
        process.wait(30)


def is_up(address: str) -> bool:
    try:
        return requests.get(f"{address}/ping", timeout=5).ok
    except requests.ConnectionError:
        return False


def suspended_of(jobs: Path, job: str) -> psutil.Process:
    folder = jobs / job.rpartition("/")[2]
    wait_for(lambda: state_of(folder)["pid"] is not None)
    process = psutil.Process(state_of(folder)["pid"])
    process.suspend()
    return process


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    """A folder with a slide in a folder, a file that is none, and a link to a file outside."""
    folder = tmp_path / "slides"
    (folder / "case 1").mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (600, 700, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "case 1" / "a.tif")
    shutil.copy(TILE, folder / "notes.txt")
    (tmp_path / "outside.tif").write_bytes((folder / "case 1" / "a.tif").read_bytes())
    (folder / "link.tif").symlink_to(tmp_path / "outside.tif")
    return folder


def test_slides_of_the_folder_are_shown_and_nothing_else(server: TorchServe, jobs: Path, slides: Path) -> None:
    settings = settings_for(server, edge_jobs_folder=jobs, edge_slides=slides)
    with Image.open(slides / "case 1" / "a.tif") as picture:
        pixels = np.asarray(picture)
    with running(Edge(settings)) as url:
        assert requests.get(f"{url}/slides", timeout=30).json() == {"slides": ["case 1/a.tif"]}
        slide = f"{url}/slides/{quote('case 1/a.tif', safe='')}"
        shape = requests.get(slide, timeout=60).json()
        assert (shape["width"], shape["height"], shape["max_level"]) == (700, 600, 10)
        place = requests.get(f"{slide}/place", params={"x": 40, "y": 30, "width": 50, "height": 20}, timeout=60)
        assert np.array_equal(np.asarray(Image.open(BytesIO(place.content))), pixels[30:50, 40:90])
        corner = Image.open(BytesIO(requests.get(f"{slide}/10/2_2.jpeg", timeout=60).content))
        assert corner.size == (700 - 512, 600 - 512)
        half = Image.open(BytesIO(requests.get(f"{slide}/9/0_0.jpeg", timeout=60).content))
        assert half.size == (256, 256)
        assert np.asarray(half).mean() == pytest.approx(pixels[:512, :512].mean(), abs=2)
        assert error(requests.get(f"{slide}/11/0_0.jpeg", timeout=60))[:2] == (404, "picture_missing")
        names = ("notes.txt", "link.tif", "../outside.tif", "../..", "/etc/passwd", "case 1/../case 1/a.tif", "\x00")
        for name in names:
            response = requests.get(f"{url}/slides/{quote(name, safe='')}", timeout=60)
            assert (response.status_code, response.json()["error"]["code"]) == (404, "slide_unknown"), name


def test_regions_are_logged_and_counted(server: TorchServe, region: bytes) -> None:
    before = counted(server.url, "pathmnist_jobs_ended_total", outcome="ok")
    identity = "region-of-the-log"
    response = post(server.url, region, {"X-Request-Id": identity}, mpp="4")
    assert response.status_code == 200
    lines = [json.loads(line) for line in server.request_log.read_text().splitlines()]
    (line,) = [line for line in lines if line["request_id"] == identity]
    assert (line["verb"], line["status"]) == ("regions", 200)
    assert counted(server.url, "pathmnist_jobs_ended_total", outcome="ok") == before + 1
    assert counted(server.url, "pathmnist_request_seconds_count", verb="regions", status="200") >= 1
