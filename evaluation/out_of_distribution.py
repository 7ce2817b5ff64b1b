"""Telling what is no tile: scores from the embedding, and images to try them on."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.special import logsumexp
from sklearn.covariance import LedoitWolf
from sklearn.datasets import load_sample_images
from sklearn.metrics import roc_auc_score

from handler.classes import NUM_CLASSES

Embeddings = NDArray[np.float64]
Images = NDArray[np.uint8]
# Embeddings `[N, 512]` and logits `[N, 9]` to scores `[N]`, larger for stranger images.
Score = Callable[[Embeddings, NDArray[np.float64]], NDArray[np.float64]]

SIZE = 28
NEIGHBOURS = 5
VIM_DIMENSIONS = 128


def gaussian_classes(embeddings: Embeddings, labels: NDArray[np.int64]) -> tuple[Embeddings, Embeddings]:
    """Class means `[9, 512]` and the whitening matrix of the covariance they share, shrunk by Ledoit and Wolf."""
    means = np.stack([embeddings[labels == class_id].mean(axis=0) for class_id in range(NUM_CLASSES)])
    precision = LedoitWolf().fit(embeddings - means[labels]).precision_
    return means, np.linalg.cholesky(precision)


def mahalanobis(means: Embeddings, whitening: Embeddings) -> Score:
    """Distance to the nearest of `gaussian_classes` (Lee et al., arXiv 1807.03888)."""

    def score(points: Embeddings, _: NDArray[np.float64]) -> NDArray[np.float64]:
        differences = (points[:, None] - means[None]) @ whitening
        nearest: NDArray[np.float64] = np.square(differences).sum(axis=2).min(axis=1)
        return nearest

    return score


def nearest_neighbours(embeddings: Embeddings) -> Score:
    """Distance to the fifth nearest training tile (Sun et al., arXiv 2204.06507, without their normalisation)."""

    def score(points: Embeddings, _: NDArray[np.float64]) -> NDArray[np.float64]:
        distances = np.stack([np.linalg.norm(embeddings - point, axis=1) for point in points])
        kept: NDArray[np.float64] = np.partition(distances, NEIGHBOURS - 1, axis=1)[:, NEIGHBOURS - 1]
        return kept

    return score


def vim(embeddings: Embeddings, logits: NDArray[np.float64]) -> Score:
    """Virtual-logit matching (Wang et al., arXiv 2203.10807): what lies off the training tiles' main directions."""
    centre = embeddings.mean(axis=0)
    _, _, directions = np.linalg.svd(embeddings - centre, full_matrices=False)
    minor = directions[min(VIM_DIMENSIONS, len(directions) // 2) :]

    def residual(points: Embeddings) -> NDArray[np.float64]:
        length: NDArray[np.float64] = np.linalg.norm((points - centre) @ minor.T, axis=1)
        return length

    scale = logits.max(axis=1).mean() / residual(embeddings).mean()

    def score(points: Embeddings, of_points: NDArray[np.float64]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = scale * residual(points) - logsumexp(of_points, axis=1)
        return found

    return score


def separation(inside: NDArray[np.float64], outside: NDArray[np.float64]) -> dict[str, float]:
    """AUROC, and the share of foreign images taken for tiles where 95 % of tiles are."""
    truth = np.r_[np.zeros(len(inside)), np.ones(len(outside))]
    limit = np.quantile(inside, 0.95)
    return {
        "auroc": float(roc_auc_score(truth, np.r_[inside, outside])),
        "fpr95": float((outside <= limit).mean()),
    }


def foreign_images(tiles: Images, seed: int = 0) -> dict[str, Images]:
    """Images that are no PathMNIST tiles, at the tiles' size; some are real tiles (`tiles`) made strange."""
    rng = np.random.default_rng(seed)
    return {
        "photographs": _photographs(rng, 100),
        "noise": rng.integers(0, 256, (100, SIZE, SIZE, 3), dtype=np.uint8),
        "one colour": rng.integers(0, 256, (100, 1, 1, 3), dtype=np.uint8).repeat(SIZE, axis=1).repeat(SIZE, axis=2),
        "text": np.stack([_page(rng) for _ in range(60)]),
        "colours swapped": np.roll(tiles, 1, axis=3),
        "colours inverted": 255 - tiles,
    }


def _photographs(rng: np.random.Generator, count: int) -> Images:
    """Crops of the two photographs that come with scikit-learn."""
    photographs = load_sample_images().images
    crops = []
    for index in range(count):
        photograph = photographs[index % len(photographs)]
        side = int(rng.integers(60, 300))
        top, left = (int(rng.integers(0, length - side)) for length in photograph.shape[:2])
        crop = Image.fromarray(photograph[top : top + side, left : left + side])
        crops.append(np.asarray(crop.resize((SIZE, SIZE), Image.Resampling.BOX)))
    return np.stack(crops)


def _page(rng: np.random.Generator) -> Images:
    page = Image.new("RGB", (4 * SIZE, 4 * SIZE), "white")
    pen = ImageDraw.Draw(page)
    for row in range(8):
        pen.text((2, 14 * row), "".join(rng.choice(list("abcdefghijklmnop "), 18)), fill="black")
    return np.asarray(page.resize((SIZE, SIZE), Image.Resampling.BOX))
