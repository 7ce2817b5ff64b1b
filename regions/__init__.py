"""From a region or a slide to a tissue map: `python -m regions slide.svs --output maps`.

The core is typed and needs no server: `source` opens files, `grid` cuts tiles of 112 micrometres, `tissue` leaves out
glass, a `Backend` classifies, and `tissue_map` holds the result, which the other modules write as files.
"""
