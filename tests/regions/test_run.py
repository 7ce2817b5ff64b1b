"""A command maps many inputs: what is done is skipped, what was ended continues, what fails harms no other."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regions import job
from regions.answers import Answers
from regions.backend import Backend
from regions.errors import RegionError
from regions.files import FILES
from regions.inputs import files_of
from regions.job import Run, Settings
from regions.local_backend import LocalBackend
from regions.progress import Progress
from regions.run import in_this_process, run, versions
from regions.source import Pixels
from tests.support.slides import WRITERS, mosaic, write_png

Map = Callable[..., dict[str, Any]]


@dataclass
class Counting:
    """A backend that counts tiles, and is ended as by Ctrl-C after some calls."""

    backend: LocalBackend
    calls: int = 1000
    tiles: list[int] = field(default_factory=list)

    def identity(self) -> dict[str, Any]:
        return self.backend.identity()

    def classify(self, tiles: Pixels) -> Answers:
        if len(self.tiles) == self.calls:
            raise KeyboardInterrupt
        self.tiles.append(len(tiles))
        return self.backend.classify(tiles)


class Refusing(Counting):
    """A server that is gone."""

    def classify(self, tiles: Pixels) -> Answers:
        raise RegionError("server_unavailable", "The server does not answer.")


@pytest.fixture(autouse=True)
def small_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "SHARE", 5)


@pytest.fixture
def do(tmp_path: Path) -> Map:
    def do(backend: Backend, *paths: Path, output: str = "maps", **settings: Any) -> dict[str, Any]:
        folder = tmp_path / output
        folder.mkdir(exist_ok=True)
        progress = Progress(folder)
        common = Run(Settings(**settings), backend.identity(), versions(), ["arguments"])
        run(files_of(paths), folder, common, in_this_process(backend), progress)
        progress.finish()
        content: dict[str, Any] = json.loads((folder / "progress.json").read_text())
        return content

    return do


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in (*FILES, "run.json")}


def test_what_was_ended_continues_and_gives_the_same_bytes(
    do: Map, backend: LocalBackend, region: Path, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        do(Counting(backend, calls=2), region, output="ended", all_tiles=True)
    assert not (tmp_path / "ended" / "region" / "run.json").exists()
    state = json.loads((tmp_path / "ended" / "progress.json").read_text())
    assert (state["state"], state["done"], state["total"]) == ("running", 10, 20)
    rest = Counting(backend)
    state = do(rest, region, output="ended", all_tiles=True)
    assert state == {"state": "done", "done": 20, "total": 20, "errors": []}
    assert sum(rest.tiles) == 20 - 10
    do(backend, region, output="whole", all_tiles=True)
    assert contents(tmp_path / "ended" / "region") == contents(tmp_path / "whole" / "region")
    assert not (tmp_path / "ended" / "region" / ".work").exists()


def test_a_finished_map_is_skipped_until_something_that_decides_it_changes(
    do: Map, backend: LocalBackend, region: Path, tiles: Pixels, tmp_path: Path
) -> None:
    path = tmp_path / "a.png"
    shutil.copy(region, path)
    do(backend, path)
    again = Counting(backend)
    assert do(again, path)["done"] == 20
    assert again.tiles == []
    do(again, path, all_tiles=True)
    assert sum(again.tiles) == 20
    write_png(path, mosaic(tiles[:4], 2), 4.0)
    assert do(again, path, all_tiles=True) == {"state": "done", "done": 4, "total": 4, "errors": []}
    assert len(json.loads((tmp_path / "maps" / "a" / "map.json").read_text())["tiles"]) == 4


def test_half_a_map_of_another_setting_is_not_mixed_in(
    do: Map, backend: LocalBackend, region: Path, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        do(Counting(backend, calls=2), region, read_mpp=0.5)
    do(backend, region)
    do(backend, region, output="whole")
    assert contents(tmp_path / "maps" / "region") == contents(tmp_path / "whole" / "region")


def test_inputs_of_the_same_name_get_folders_of_their_own(
    do: Map, backend: LocalBackend, tiles: Pixels, tmp_path: Path
) -> None:
    slides = tmp_path / "slides"
    for number, name in enumerate(("one", "two")):
        (slides / name).mkdir(parents=True)
        write_png(slides / name / "slide.png", mosaic(tiles[number : number + 1], 1), 4.0)
    WRITERS["levels.ome.tiff"](slides / "slide.ome.tiff", mosaic(tiles[2:3], 1), 4.0)
    (slides / "notes.txt").write_text("no slide")
    assert do(backend, slides)["state"] == "done"
    folders = sorted(path for path in (tmp_path / "maps").iterdir() if path.is_dir())
    assert [folder.name for folder in folders] == ["slide", "slide-2", "slide-3"]
    inputs = {json.loads((folder / "run.json").read_text())["input"]["path"] for folder in folders}
    assert inputs == {str(path) for path in files_of([slides])}
    again = Counting(backend)
    do(again, slides / "two" / "slide.png", slides / "one" / "slide.png")
    assert again.tiles == []


def test_an_input_that_fails_harms_no_other(
    do: Map, backend: LocalBackend, region: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cut.png").write_bytes(region.read_bytes()[:500])
    state = do(backend, tmp_path / "cut.png", tmp_path / "gone.svs", region)
    assert state["state"] == "failed"
    assert [error["code"] for error in state["errors"]] == ["image_truncated", "file_unreadable"]
    assert (tmp_path / "maps" / "region" / "run.json").is_file()
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("regions: ")]
    assert len(lines) == 2


def test_an_error_of_the_backend_is_said_once_for_each_input_and_can_be_resumed(
    do: Map, backend: LocalBackend, region: Path, tmp_path: Path
) -> None:
    state = do(Refusing(backend), region)
    assert (state["state"], [error["code"] for error in state["errors"]]) == ("failed", ["server_unavailable"])
    assert do(backend, region)["state"] == "done"


def test_glass_alone_makes_a_map_without_tiles(do: Map, backend: LocalBackend, tmp_path: Path) -> None:
    write_png(tmp_path / "glass.png", np.full((56, 56, 3), 244, np.uint8), 4.0)
    assert do(backend, tmp_path / "glass.png") == {"state": "done", "done": 4, "total": 4, "errors": []}
    content = json.loads((tmp_path / "maps" / "glass" / "map.json").read_text())
    assert (content["tiles"], content["composition"]["glass_mm2"]) == ([], pytest.approx(4 * 0.112**2, abs=1e-6))


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_map(
    name: str, do: Map, backend: LocalBackend, tiles: Pixels, region: Path, tmp_path: Path
) -> None:
    WRITERS[name](tmp_path / name, mosaic(tiles, 5), 4.0)
    do(backend, tmp_path / name, region)
    folder = tmp_path / "maps" / name.split(".")[0]
    found = json.loads((folder / "map.json").read_text())
    expected = json.loads((tmp_path / "maps" / "region" / "map.json").read_text())
    assert found["tiles"] == expected["tiles"]
    assert found["composition"]["classes"] == expected["composition"]["classes"]
    record = json.loads((folder / "run.json").read_text())
    assert record["model"] == backend.identity()
    assert set(record["files"]) == set(FILES)
