"""Whether a picture is fit to be judged: figures against what they estimate, and verdicts from them."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from handler.classes import CODES
from handler.model.fit import PIXEL_REASONS, REASONS, Quality, fit_of, measure, reduced
from handler.model.prediction import DecisionRules, FitLimits, Prediction
from tests.conftest import Pixels

LIMITS = FitLimits(
    focus=0.35,
    noise=6.0,
    blocks=1.4,
    chroma=1.2,
    clipped=0.5,
    peak=0.6,
    saturation=0.05,
    tissue=0.05,
    ood_ratio=2.0,
)
GOOD = Quality(focus=0.5, noise=2.0, blocks=1.0, chroma=1.0, clipped=0.0, peak=0.9, saturation=0.3, tissue=0.9)


def prediction(code: str = "TUM", ood_score: float | None = 1.0) -> Prediction:
    logits = np.eye(len(CODES))[CODES.index(code)]
    return Prediction(logits, logits, True, ood_score, 10.0, {})


def changed(tiles: Pixels, change: Callable[[Image.Image], Image.Image]) -> Pixels:
    return np.stack([np.asarray(change(Image.fromarray(tile))) for tile in tiles])


def as_jpeg(image: Image.Image, quality: int, subsampling: str = "4:2:0") -> Image.Image:
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    return Image.open(buffer).convert("RGB")


def figures(tiles: Pixels, name: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array([getattr(quality, name) for quality in measure(tiles)])


@pytest.mark.parametrize("sigma", [2, 5, 12])
def test_noise_is_the_standard_deviation_of_white_noise(sigma: float) -> None:
    noise = np.random.default_rng(0).normal(128, sigma, (100, 28, 28, 3))
    assert figures(np.rint(noise).astype(np.uint8), "noise").mean() == pytest.approx(sigma, rel=0.03)


def test_a_plane_has_no_noise_and_the_focus_of_a_smooth_picture() -> None:
    rows, columns = np.indices((28, 28))
    plane = (3 * rows + 2 * columns + 40)[None, ..., None].repeat(3, axis=3).astype(np.uint8)
    (quality,) = measure(plane)
    assert quality.noise == 0
    assert quality.focus == pytest.approx(0.25, rel=0.1)
    assert quality.blocks == quality.chroma == 1


def test_white_noise_has_no_preferred_scale_and_no_grid() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (200, 28, 28, 3), np.uint8)
    for name in ("focus", "blocks", "chroma"):
        assert figures(noise, name).mean() == pytest.approx(1, abs=0.02)


def test_blur_lowers_focus_step_by_step(tiles: Pixels) -> None:
    filters = [ImageFilter.GaussianBlur(sigma) for sigma in (0, 0.6, 1, 1.6)]
    means = [figures(changed(tiles, partial(Image.Image.filter, filter=item)), "focus").mean() for item in filters]
    assert means == sorted(means, reverse=True)


def test_jpeg_shows_in_its_blocks_and_in_its_colours(tiles: Pixels) -> None:
    plain = {name: np.median(figures(tiles, name)) for name in ("blocks", "chroma")}
    strong = changed(tiles, lambda tile: as_jpeg(tile, 20))
    fine = changed(tiles, lambda tile: as_jpeg(tile, 95))
    full_colour = changed(tiles, lambda tile: as_jpeg(tile, 95, "4:4:4"))
    assert np.median(figures(strong, "blocks")) > 1.3 * plain["blocks"]
    assert np.median(figures(fine, "chroma")) > 1.1 * plain["chroma"]
    # Where colour keeps its resolution there is nothing to see, as there is no harm.
    assert np.median(figures(full_colour, "chroma")) == pytest.approx(plain["chroma"], rel=0.05)


def test_exposure_and_colour_are_shares_of_the_pixels(tiles: Pixels) -> None:
    brighter = changed(tiles, lambda tile: ImageEnhance.Brightness(tile).enhance(1.8))
    darker = changed(tiles, lambda tile: ImageEnhance.Brightness(tile).enhance(0.4))
    grey = changed(tiles, lambda tile: tile.convert("L").convert("RGB"))
    assert figures(brighter, "clipped").mean() > figures(tiles, "clipped").mean() + 0.2
    assert np.allclose(figures(darker, "peak"), tiles.max(axis=(1, 2, 3)) * 0.4 / 255, atol=0.01)
    assert not figures(grey, "saturation").any()
    assert not figures(grey, "tissue").any()


def test_a_tile_has_the_same_figures_alone_and_among_others(tiles: Pixels) -> None:
    together = measure(tiles)
    assert together == [measure(tile[None])[0] for tile in tiles]
    assert together[::-1] == measure(tiles[::-1])


def test_what_the_reduction_removes_is_no_fault(tiles: Pixels) -> None:
    """Blur of a pixel, and a strong JPEG, at eight times the resolution."""
    large = changed(tiles, lambda tile: tile.resize((224, 224), Image.Resampling.BICUBIC))
    expected = [reduced(image, 28) for image in large]
    harmed = changed(large, lambda image: as_jpeg(image.filter(ImageFilter.GaussianBlur(1)), 50))
    for before, after in zip(
        measure(np.stack(expected)), measure(np.stack([reduced(i, 28) for i in harmed])), strict=True
    ):
        assert after.focus == pytest.approx(before.focus, abs=0.03)
        assert after.blocks == pytest.approx(before.blocks, abs=0.15)


def test_a_good_picture_is_fit() -> None:
    assert fit_of(GOOD, prediction(), LIMITS).to_json() == {"verdict": "fit", "reasons": [], **asdict(GOOD)}


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"focus": 0.34}, "out_of_focus"),
        ({"noise": 6.1}, "noisy"),
        ({"blocks": 1.5}, "compressed"),
        ({"chroma": 1.3}, "compressed"),
        ({"clipped": 0.6}, "overexposed"),
        ({"peak": 0.5}, "underexposed"),
        ({"saturation": 0.01}, "colourless"),
        ({"tissue": 0.01}, "little_tissue"),
    ],
)
def test_a_figure_beyond_its_limit_is_a_doubt_and_unfit_in_a_tile_unlike_the_training_tiles(
    fault: dict[str, float], reason: str
) -> None:
    quality = replace(GOOD, **fault)
    doubtful, unfit = fit_of(quality, prediction(), LIMITS), fit_of(quality, prediction(ood_score=11), LIMITS)
    assert (doubtful.verdict, doubtful.reasons) == ("doubtful", (reason,))
    assert (unfit.verdict, unfit.reasons) == ("unfit", (reason,))


def test_all_faults_together_are_all_named() -> None:
    worst = Quality(focus=0.1, noise=99, blocks=9, chroma=9, clipped=1, peak=0, saturation=0, tissue=0)
    assert fit_of(worst, prediction(ood_score=1e6), LIMITS).reasons == REASONS
    assert fit_of(worst, prediction(), LIMITS).reasons == PIXEL_REASONS


def test_glass_may_lack_tissue_and_colour() -> None:
    glass = replace(GOOD, tissue=0.0, saturation=0.0)
    assert fit_of(glass, prediction("BACK"), LIMITS).verdict == "fit"
    assert fit_of(glass, prediction("ADI"), LIMITS).reasons == ("colourless", "little_tissue")


def test_a_tile_far_from_the_training_tiles_is_a_doubt_by_itself() -> None:
    assert fit_of(GOOD, prediction(ood_score=19), LIMITS).verdict == "fit"
    far = fit_of(GOOD, prediction(ood_score=21), LIMITS)
    assert (far.verdict, far.reasons) == ("doubtful", ("unlike_training",))


def test_without_limits_there_are_figures_and_no_verdict() -> None:
    found = fit_of(GOOD, prediction(ood_score=None), None)
    assert (found.verdict, found.reasons, found.quality) == (None, (), GOOD)


def test_rules_keep_their_limits_and_those_of_earlier_archives_have_none() -> None:
    rules = DecisionRules(temperature=1, thresholds={}, ood_threshold=1, calibrated_on="tiles", fit=LIMITS)
    written = json.loads(json.dumps(rules.rules_json()))
    assert DecisionRules.from_json(written) == rules
    del written["fit"]
    assert DecisionRules.from_json(written).fit is None
