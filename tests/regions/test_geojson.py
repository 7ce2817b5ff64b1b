"""The GeoJSON has valid polygons, exact to the pixel, in the form that QuPath reads."""

import json
import uuid
from dataclasses import replace

import numpy as np
import pytest
import shapely
from shapely.geometry import shape

from handler.classes import CODES
from regions.answers import Answers
from regions.colours import COLOURS
from regions.geojson import UNSURE, to_geojson
from regions.grid import Grid
from regions.resolution import Mpp
from regions.tissue import all_tiles
from regions.tissue_map import TissueMap


def random_map(rows: int, columns: int, step: float) -> TissueMap:
    """Random classes, which have diagonal contacts and holes."""
    chance = np.random.default_rng(8)
    count = rows * columns
    logits = np.eye(9)[chance.choice(9, count, p=[0.6, 0.3, 0.1, 0, 0, 0, 0, 0, 0])]
    answers = Answers(
        logits,
        logits,
        logits > 0,
        np.zeros(count),
        np.ones(count, bool),
        chance.choice(3, count, p=[0.8, 0.1, 0.1]).astype(np.int8),
        np.full(count, "fit"),
        np.full(count, ""),
        np.zeros((count, 9, 7, 7), np.float32),
    )
    grid = Grid(rows, columns, step, step)
    mpp = Mpp(112 / step, 112 / step)
    size = (round(columns * step), round(rows * step))
    return TissueMap("random", *size, mpp, (0, 0), grid, tuple(all_tiles(grid)), answers, {})


@pytest.mark.parametrize("step", [28.0, 224.0, 224.449])
def test_regions_are_valid_disjoint_and_exact_to_the_pixel(step: float) -> None:
    tissue_map = random_map(30, 40, step)
    features = to_geojson(tissue_map)["features"]
    polygons = [shape(feature["geometry"]) for feature in features]
    assert all(polygon.is_valid and polygon.geom_type == "Polygon" for polygon in polygons)
    names = np.array([feature["properties"]["classification"]["name"] for feature in features])
    labels = np.where(tissue_map.abstained, UNSURE, np.array(CODES)[tissue_map.classes])
    boxes = np.array([tissue_map.grid.box(tile) for tile in tissue_map.tiles])
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for name in set(labels):
        area = sum(polygon.area for polygon, own in zip(polygons, names, strict=True) if own == name)
        assert area == areas[labels == name].sum()
    whole = shapely.union_all(polygons)
    assert whole.area == sum(polygon.area for polygon in polygons) == tissue_map.width * tissue_map.height


def test_a_region_contains_its_own_tiles_and_no_others() -> None:
    tissue_map = random_map(12, 9, 28.0)
    for feature in to_geojson(tissue_map)["features"]:
        polygon, name = shape(feature["geometry"]), feature["properties"]["classification"]["name"]
        for index, tile in enumerate(tissue_map.tiles):
            inside = polygon.contains(shapely.box(*tissue_map.grid.box(tile)).centroid)
            label = UNSURE if tissue_map.abstained[index] else CODES[tissue_map.classes[index]]
            assert not inside or label == name


def test_regions_are_merged_and_have_only_corners() -> None:
    tissue_map = random_map(6, 8, 28.0)
    assert tissue_map.answers is not None
    one = replace(tissue_map.answers, logits=np.eye(9)[np.full(48, 8)], states=np.zeros(48, np.int8))
    (feature,) = to_geojson(replace(tissue_map, answers=one))["features"]
    assert len(feature["geometry"]["coordinates"][0]) == 5
    assert feature["properties"]["classification"] == {"name": "TUM", "color": list(COLOURS["TUM"])}
    assert feature["properties"]["objectType"] == "annotation"
    (area,) = feature["properties"]["measurements"]
    assert area == {"name": "Area mm^2", "value": pytest.approx(48 * 0.112**2)}


def test_tiles_are_detections_only_on_demand(tissue_map: TissueMap) -> None:
    kinds = [feature["properties"]["objectType"] for feature in to_geojson(tissue_map)["features"]]
    assert set(kinds) == {"annotation"}
    features = to_geojson(tissue_map, detections=True)["features"]
    detections = [item for item in features if item["properties"]["objectType"] == "detection"]
    assert len(detections) == 18
    for feature, row in zip(detections, tissue_map.rows, strict=True):
        measurements = {item["name"]: item["value"] for item in feature["properties"]["measurements"]}
        assert [measurements[code] for code in CODES] == row["probabilities"]
        assert shape(feature["geometry"]).bounds[:2] == (row["x"], row["y"])


def test_objects_have_uuids_that_depend_on_the_map_alone(tissue_map: TissueMap) -> None:
    first, second = (to_geojson(tissue_map, detections=True) for _ in range(2))
    assert json.dumps(first) == json.dumps(second)
    ids = [feature["id"] for feature in first["features"]]
    assert len(set(ids)) == len(ids)
    assert all(str(uuid.UUID(item)) == item for item in ids)
