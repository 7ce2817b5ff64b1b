"""Regions made of tiles."""

import numpy as np
import requests

from serving.supervisor import TorchServe
from tests.conftest import Pixels
from tests.support.waiting import wait_for

SIDE = 28


def mosaic(tiles: Pixels, rows: int, columns: int) -> Pixels:
    """Tiles of 28 pixels side by side, row by row: at 4 micrometres a pixel each is one tile of the region's map."""
    placed = tiles[np.resize(np.arange(len(tiles)), rows * columns)].reshape(rows, columns, SIDE, SIDE, 3)
    return placed.transpose(0, 2, 1, 3, 4).reshape(rows * SIDE, columns * SIDE, 3)


def mapped(server: TorchServe, region: bytes) -> str:
    """The path of a finished job on a region of 4 micrometres a pixel."""
    headers = {"Prefer": "respond-async"}
    response = requests.post(f"{server.url}/regions/pathmnist?mpp=4", data=region, headers=headers, timeout=60)
    job = response.headers["Location"]
    wait_for(lambda: requests.get(server.url + job, timeout=30).json()["state"] == "done", 240)
    return job
