"""The heat map is an OME-TIFF with nine named channels of known size, and a pyramid if it is large."""

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile

from handler.classes import CODES
from regions.ome_tiff import write_ome_tiff
from regions.tissue_map import TissueMap


def test_tifffile_reads_the_cells(tissue_map: TissueMap, tmp_path: Path) -> None:
    write_ome_tiff(tissue_map, tmp_path / "heat.ome.tiff")
    with tifffile.TiffFile(tmp_path / "heat.ome.tiff") as file:
        (series,) = file.series
        assert series.axes == "CYX"
        assert np.array_equal(series.asarray(), tissue_map.cells(), equal_nan=True)
        pixels = ElementTree.fromstring(file.ome_metadata or "").find(".//{*}Pixels")
    assert pixels is not None
    assert [channel.attrib["Name"] for channel in pixels.findall("{*}Channel")] == list(CODES)
    assert (pixels.attrib["PhysicalSizeX"], pixels.attrib["PhysicalSizeXUnit"]) == ("16.0", "µm")


def test_a_large_map_has_levels_whose_cells_are_means(tissue_map: TissueMap, tmp_path: Path) -> None:
    grid = replace(tissue_map.grid, rows=75, columns=90)
    write_ome_tiff(replace(tissue_map, grid=grid), tmp_path / "heat.ome.tiff")
    with tifffile.TiffFile(tmp_path / "heat.ome.tiff") as file:
        levels = [level.asarray() for level in file.series[0].levels]
    assert [level.shape for level in levels] == [(9, 525, 630), (9, 263, 315)]
    assert levels[1][3, 2, 5] == pytest.approx(levels[0][3, 4:6, 10:12].mean(), abs=1e-4)
    # Beside glass, the mean is of the cells with tissue.
    assert levels[1][3, 2, 17] == pytest.approx(np.nanmean(levels[0][3, 4:6, 34:36]), abs=1e-4)


def test_the_same_map_is_the_same_file(tissue_map: TissueMap, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_ome_tiff(tissue_map, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
