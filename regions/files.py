"""Writes the files of one map. The same map gives the same bytes."""

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from handler.classes import CODES
from regions.cell_picture import draw_cells
from regions.geojson import to_geojson
from regions.ome_tiff import write_ome_tiff
from regions.overlay import draw_overlay
from regions.source import Pixels
from regions.tissue_map import TissueMap

MAP, GEOJSON, TABLE = "map.json", "map.geojson.gz", "tiles.parquet"
CELLS, HEAT, OVERLAY, PICTURE = "cells.npz", "heat.ome.tiff", "overlay.png", "cells.png"
FILES = (MAP, GEOJSON, TABLE, CELLS, HEAT, OVERLAY, PICTURE)
ROWS = pa.schema(
    [
        ("row", pa.int32()),
        ("column", pa.int32()),
        ("x", pa.int32()),
        ("y", pa.int32()),
        ("class", pa.string()),
        ("probabilities", pa.struct([(code, pa.float64()) for code in CODES])),
        ("prediction_set", pa.list_(pa.string())),
        ("in_distribution", pa.bool_()),
        ("ood_score", pa.float64()),
        ("state", pa.string()),
        ("abstained", pa.bool_()),
        ("fit", pa.string()),
        ("fit_reasons", pa.list_(pa.string())),
    ]
)


def write_files(tissue_map: TissueMap, picture: Pixels, folder: Path, detections: bool) -> dict[str, str]:
    """Write all files of a map; `picture` is a thumbnail. Returns each file's SHA-256."""
    (folder / MAP).write_bytes(_json(tissue_map.to_json()))
    (folder / GEOJSON).write_bytes(gzip.compress(_json(to_geojson(tissue_map, detections)), mtime=0))
    parquet.write_table(_table(tissue_map), folder / TABLE)
    _write_cells(tissue_map, folder / CELLS)
    write_ome_tiff(tissue_map, folder / HEAT)
    draw_overlay(tissue_map, picture).save(folder / OVERLAY)
    draw_cells(tissue_map).save(folder / PICTURE)
    return {name: sha256(folder / name) for name in FILES}


def write_json(values: Any, path: Path) -> None:
    """Write a file that is whole at every moment."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(json.dumps(values, indent=2) + "\n")
    temporary.replace(path)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _json(values: dict[str, Any]) -> bytes:
    return json.dumps(values, separators=(",", ":"), ensure_ascii=False).encode()


def _table(tissue_map: TissueMap) -> pa.Table:
    rows = [{**row, "probabilities": dict(zip(CODES, row["probabilities"], strict=True))} for row in tissue_map.rows]
    return pa.Table.from_pylist(rows, schema=ROWS)


def _write_cells(tissue_map: TissueMap, path: Path) -> None:
    """The class activation maps of each tile, float32 `[N, 9, h, w]`, in the order of the table."""
    cams = tissue_map.answers.cams if tissue_map.answers else np.zeros((0, len(CODES), 0, 0), np.float32)
    np.savez(
        path,
        cams=cams,
        rows=np.array([tile.row for tile in tissue_map.tiles], np.int32),
        columns=np.array([tile.column for tile in tissue_map.tiles], np.int32),
    )
