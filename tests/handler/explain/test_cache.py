import json
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import diskcache
import numpy as np
import pytest
import torch

from handler.explain.cache import AttributionCache, attribution_key, open_cache
from handler.explain.types import Attribution
from handler.model.checkpoint import Model
from handler.model.preprocess import Preprocessing

SOME = Attribution(torch.tensor([[1.5, -2.25]]), "logit", {"n_steps": 3, "converged": None})
EXPLANATION: dict[str, Any] = {"method": "saliency", "parameters": {"baseline": "black"}, "target": 3, "contrast": None}


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[AttributionCache]:
    opened = AttributionCache(tmp_path / "cache", 50_000_000)
    yield opened
    opened.close()


def test_an_attribution_that_is_put_comes_back(cache: AttributionCache) -> None:
    assert cache.get(b"key") is None
    cache.put(b"key", SOME)
    stored = cache.get(b"key")
    assert stored is not None
    assert torch.equal(stored.values, SOME.values)
    assert (stored.unit, stored.details, stored.complete) == (SOME.unit, SOME.details, True)


def test_workers_share_it(cache: AttributionCache, tmp_path: Path) -> None:
    cache.put(b"key", SOME)
    other = AttributionCache(tmp_path / "cache", 50_000_000)
    assert other.get(b"key") is not None
    other.close()


def test_it_keeps_its_limit_of_bytes_and_what_was_used_last(tmp_path: Path) -> None:
    limit = 5_000_000
    cache = AttributionCache(tmp_path / "small", limit)
    large = replace(SOME, values=torch.rand(3, 224, 224))
    for index in range(40):
        cache.put(b"first", large) if index == 0 else None
        cache.put(f"{index}".encode(), large)
        assert cache.get(b"first") is not None
        assert cache.volume() < limit + 2 * 700_000
    assert cache.get(b"39") is not None
    assert cache.get(b"1") is None
    cache.close()


def test_the_key_is_everything_that_decides_a_map(model: Model) -> None:
    image = np.zeros((28, 28, 3), dtype=np.uint8)
    one_pixel = image.copy()
    one_pixel[5, 7, 1] = 1
    changes: list[dict[str, Any]] = [
        {"method": "occlusion"},
        {"parameters": {"baseline": "white"}},
        {"target": 4},
        {"contrast": 5},
    ]
    keys = [
        attribution_key(model, image, **EXPLANATION),
        attribution_key(model, one_pixel, **EXPLANATION),
        attribution_key(model, image.reshape(14, 56, 3), **EXPLANATION),
        attribution_key(model, image.view(np.int8), **EXPLANATION),
        attribution_key(replace(model, digest="other weights"), image, **EXPLANATION),
        attribution_key(replace(model, preprocessing=Preprocessing(input_size=112)), image, **EXPLANATION),
        *(attribution_key(model, image, **{**EXPLANATION, **change}) for change in changes),
    ]
    assert len(set(keys)) == len(keys)
    assert attribution_key(model, image.copy(order="F"), **EXPLANATION) == keys[0]


def test_a_broken_entry_is_a_miss(cache: AttributionCache, tmp_path: Path) -> None:
    cache.put(b"cut", replace(SOME, values=torch.rand(3, 224, 224)))
    (file,) = (tmp_path / "cache").rglob("*.val")
    file.write_bytes(file.read_bytes()[:1000])
    assert cache.get(b"cut") is None
    file.unlink()
    assert cache.get(b"cut") is None


def test_nothing_is_unpickled(cache: AttributionCache, tmp_path: Path) -> None:
    with diskcache.Cache(str(tmp_path / "cache")) as foreign:
        foreign.set(b"key", {"a": "pickled object"})
    assert cache.get(b"key") is None


def test_a_lost_database_is_a_miss(cache: AttributionCache, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "cache" / "cache.db") as database:
        database.execute("DROP TABLE Cache")
    cache.put(b"key", SOME)
    assert cache.get(b"key") is None


@pytest.mark.parametrize("place", ["a file", "below a file", "a foreign database"])
def test_a_folder_that_cannot_be_used_means_no_cache(place: str, tmp_path: Path) -> None:
    path = tmp_path / "explanations"
    if place == "a foreign database":
        path.mkdir()
        (path / "cache.db").write_bytes(b"no database" * 1000)
    else:
        path.write_text("in the way")
    assert open_cache(path / "sub" if place == "below a file" else path, 1_000_000) is None


def test_a_folder_that_can_be_used_is_a_cache(tmp_path: Path) -> None:
    opened = open_cache(tmp_path / "explanations", 1_000_000)
    assert opened is not None
    opened.put(b"key", SOME)
    assert opened.get(b"key") is not None
    opened.close()


def test_entries_are_json_and_numbers(cache: AttributionCache, tmp_path: Path) -> None:
    cache.put(b"key", replace(SOME, values=torch.rand(3, 224, 224)))
    (file,) = (tmp_path / "cache").rglob("*.val")
    head = json.loads(file.read_bytes().split(b"\n", 1)[0])
    assert head == {"shape": [3, 224, 224], "unit": "logit", "details": SOME.details}
