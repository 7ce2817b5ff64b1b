"""Changes of a tile's own pixels, as another scanner, site or file format makes them.

`SHIFTS` are made to validation tiles, which calibrate, and so are the stronger `FAULTS`, which set the limits of a
picture that is fit to be judged. `CHANGES` are made to test tiles, which judge. No strength occurs in both.
"""

from collections.abc import Callable, Mapping
from functools import partial
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter

from training.augment import STAINS

Images = NDArray[np.uint8]
# An image to a changed one. Random changes draw from the generator, the others ignore it.
Change = Callable[[Image.Image, np.random.Generator], Image.Image]
Changes = Mapping[str, Mapping[str, Change]]


def jpeg(image: Image.Image, _: np.random.Generator, quality: int) -> Image.Image:
    """Write and read a JPEG file."""
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def blur(image: Image.Image, _: np.random.Generator, sigma: float) -> Image.Image:
    """Gaussian blur, `sigma` in pixels."""
    return image.filter(ImageFilter.GaussianBlur(sigma))


def brightness(image: Image.Image, _: np.random.Generator, factor: float) -> Image.Image:
    """Multiply every value."""
    return ImageEnhance.Brightness(image).enhance(factor)


def contrast(image: Image.Image, _: np.random.Generator, factor: float) -> Image.Image:
    """Multiply the differences from the mean grey."""
    return ImageEnhance.Contrast(image).enhance(factor)


def saturation(image: Image.Image, _: np.random.Generator, factor: float) -> Image.Image:
    """Multiply the differences from each pixel's grey."""
    return ImageEnhance.Color(image).enhance(factor)


def hue(image: Image.Image, _: np.random.Generator, turn: float) -> Image.Image:
    """Turn the hue by a share of the circle."""
    values = np.asarray(image.convert("HSV")).copy()
    values[..., 0] += np.uint8(round(turn * 256) % 256)
    return Image.fromarray(values, "HSV").convert("RGB")


def stain(image: Image.Image, _: np.random.Generator, factors: tuple[float, float]) -> Image.Image:
    """Multiply the amounts of haematoxylin and eosin (Ruifrok and Johnston, PMID 11531144)."""
    vectors = STAINS.double().numpy()
    density = -np.log(np.clip(np.asarray(image) / 255, 1e-3, 1))
    amounts = density @ np.linalg.inv(vectors) * np.array([*factors, 1.0])
    return _image(255 * np.exp(-amounts @ vectors))


def channel_gain(image: Image.Image, rng: np.random.Generator, strength: float) -> Image.Image:
    """Multiply each channel by 1 + U(-strength, strength)."""
    return _image(np.asarray(image) * (1 + rng.uniform(-strength, strength, 3)))


def channel_shift(image: Image.Image, rng: np.random.Generator, strength: float) -> Image.Image:
    """Add U(-strength, strength) of the full range to each channel."""
    return _image(np.asarray(image) + 255 * rng.uniform(-strength, strength, 3))


def noise(image: Image.Image, rng: np.random.Generator, sigma: float) -> Image.Image:
    """Add Gaussian noise, `sigma` as a share of the full range."""
    return _image(np.asarray(image) + 255 * rng.normal(0, sigma, np.asarray(image).shape))


def enlarge(image: Image.Image, _: np.random.Generator, size: int) -> Image.Image:
    """Enlarge to `size` pixels, bicubic."""
    return image.resize((size, size), Image.Resampling.BICUBIC)


def enlarge_and_reduce(image: Image.Image, rng: np.random.Generator, size: int) -> Image.Image:
    """Enlarge to `size` pixels, bicubic, and reduce to the tile's own size, bilinear."""
    return enlarge(image, rng, size).resize(image.size, Image.Resampling.BILINEAR)


def _image(values: NDArray[np.float64]) -> Image.Image:
    return Image.fromarray(np.rint(np.clip(values, 0, 255)).astype(np.uint8))


SHIFTS: Changes = {
    "JPEG quality": {f"{quality}": partial(jpeg, quality=quality) for quality in (70, 30)},
    "blur, pixels": {f"{sigma:g}": partial(blur, sigma=sigma) for sigma in (0.7, 1.2, 2.0)},
    "brightness": {f"{factor:g}": partial(brightness, factor=factor) for factor in (0.75, 1.25)},
    "stain H, E": {f"{h:g}, {e:g}": partial(stain, factors=(h, e)) for h, e in ((0.8, 1.3), (1.3, 0.8))},
    "channel gain": {"8 %": partial(channel_gain, strength=0.08)},
    "channel shift": {"8 %": partial(channel_shift, strength=0.08)},
}

FAULTS: Changes = {
    "JPEG quality": {f"{quality}": partial(jpeg, quality=quality) for quality in (90, 50, 15)},
    "brightness": {f"{factor:g}": partial(brightness, factor=factor) for factor in (0.5, 1.5)},
    "contrast": {f"{factor:g}": partial(contrast, factor=factor) for factor in (0.5, 0.8, 1.25, 1.7)},
    "saturation": {f"{factor:g}": partial(saturation, factor=factor) for factor in (0.0, 0.4, 1.9)},
    "hue, turns": {f"{turn:g}": partial(hue, turn=turn) for turn in (-0.08, 0.08)},
    "noise, sigma": {f"{sigma:g}": partial(noise, sigma=sigma) for sigma in (0.02, 0.045, 0.08)},
    "enlarged and reduced": {"64": partial(enlarge_and_reduce, size=64)},
}

CHANGES: Changes = {
    "JPEG quality": {f"{quality}": partial(jpeg, quality=quality) for quality in (80, 60, 40)},
    "blur, pixels": {f"{sigma:g}": partial(blur, sigma=sigma) for sigma in (1.0, 1.5)},
    "brightness": {f"{factor:g}": partial(brightness, factor=factor) for factor in (0.85, 1.15)},
    "stain H, E": {
        f"{h:g}, {e:g}": partial(stain, factors=(h, e)) for h, e in ((0.7, 1.0), (1.4, 1.0), (1.0, 0.7), (1.0, 1.4))
    },
    "channel gain": {"5 %": partial(channel_gain, strength=0.05)},
    "channel shift": {"5 %": partial(channel_shift, strength=0.05)},
    "contrast": {f"{factor:g}": partial(contrast, factor=factor) for factor in (0.7, 1.4)},
    "saturation": {f"{factor:g}": partial(saturation, factor=factor) for factor in (0.6, 1.6)},
    "hue, turns": {f"{turn:g}": partial(hue, turn=turn) for turn in (-0.04, 0.04)},
    "noise, sigma": {f"{sigma:g}": partial(noise, sigma=sigma) for sigma in (0.03, 0.06)},
    "enlarged to, pixels": {"224": partial(enlarge, size=224)},
    "enlarged and reduced": {"224": partial(enlarge_and_reduce, size=224)},
}


def change_all(images: Images, change: Change) -> Images:
    """The change made to every image, through Pillow. The same images always give the same result."""
    rng = np.random.default_rng(0)
    return np.stack([np.asarray(change(Image.fromarray(image), rng)) for image in images])
