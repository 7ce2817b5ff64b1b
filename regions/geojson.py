"""A map as GeoJSON, in the form that QuPath reads: coordinates are pixels of level 0."""

import uuid
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from handler.classes import CODES, TISSUES
from regions.colours import ABSTAINED, BY_CLASS_ID, Colour
from regions.tissue_map import TissueMap

# QuPath requires a UUID for each object. These follow from the content, so that the same map is the same file.
NAMESPACE = uuid.UUID("5f0c7c3e-5a8b-5b5e-9d0e-6c1f0a2b3c4d")
UNSURE = "Abstained"


def to_geojson(tissue_map: TissueMap, detections: bool = False) -> dict[str, Any]:
    """Connected regions of each class as annotations; with `detections` also each tile with its probabilities.

    Tiles about which the model abstains form regions of their own. Touching corners do not connect tiles, so that every
    ring is valid.
    """
    features = [*_annotations(tissue_map), *(_detections(tissue_map) if detections else ())]
    return {"type": "FeatureCollection", "features": features}


def regions_of(tissue_map: TissueMap, members: NDArray[np.bool_]) -> list[shapely.Polygon]:
    """The connected regions of some tiles, without points inside straight edges."""
    boxes = _polygons(tissue_map.boxes[members])
    if len(boxes) == 0:
        return []
    merged = shapely.simplify(shapely.coverage_union_all(boxes), 0)
    parts = sorted(shapely.get_parts(merged), key=lambda part: part.bounds)
    # Exterior rings run counterclockwise (RFC 7946) in the axes of the file, whose y points down.
    return [shapely.orient_polygons(shapely.normalize(part)) for part in parts]


def _polygons(boxes: NDArray[np.int64]) -> NDArray[np.object_]:
    polygons: NDArray[np.object_] = shapely.box(*boxes.astype(float).T)
    return polygons


def _annotations(tissue_map: TissueMap) -> list[dict[str, Any]]:
    classes, abstained = tissue_map.classes, tissue_map.abstained
    found = []
    for tissue, colour in zip(TISSUES, BY_CLASS_ID, strict=True):
        for polygon in regions_of(tissue_map, (classes == tissue.class_id) & ~abstained):
            found.append(_annotation(tissue_map, polygon, tissue.code, colour, tissue.name))
    for polygon in regions_of(tissue_map, abstained):
        found.append(_annotation(tissue_map, polygon, UNSURE, ABSTAINED, "no class that the model is confident about"))
    return found


def _annotation(
    tissue_map: TissueMap, polygon: shapely.Polygon, code: str, colour: Colour, name: str
) -> dict[str, Any]:
    area = polygon.area * tissue_map.mpp.x * tissue_map.mpp.y / 1e6
    return _feature("annotation", polygon, {"name": name, **_classification(code, colour)}, {"Area mm^2": area})


def _detections(tissue_map: TissueMap) -> list[dict[str, Any]]:
    return [
        _feature(
            "detection",
            box,
            _classification(UNSURE, ABSTAINED)
            if row["abstained"]
            else _classification(row["class"], BY_CLASS_ID[CODES.index(row["class"])]),
            {
                **dict(zip(CODES, row["probabilities"], strict=True)),
                **({} if row["ood_score"] is None else {"OOD score": row["ood_score"]}),
            },
        )
        for box, row in zip(_polygons(tissue_map.boxes), tissue_map.rows, strict=True)
    ]


def _classification(code: str, colour: Colour) -> dict[str, Any]:
    return {"classification": {"name": code, "color": list(colour)}}


def _feature(
    kind: str, polygon: shapely.Polygon, properties: dict[str, Any], measurements: dict[str, float]
) -> dict[str, Any]:
    # The list of QuPath's older versions, which all versions and other readers know.
    listed = [{"name": name, "value": value} for name, value in measurements.items()]
    return {
        "type": "Feature",
        "id": str(uuid.uuid5(NAMESPACE, f"{kind} {polygon.wkt} {properties}")),
        "geometry": shapely.geometry.mapping(polygon),
        "properties": {"objectType": kind, **properties, "measurements": listed},
    }
