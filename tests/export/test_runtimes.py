"""Every runtime on this machine gives PyTorch's answers from raw bytes."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.npm import MissingRuntimeError
from export.runtimes import RUNTIMES, compare, expected_logits
from handler.model.checkpoint import Model
from tests.conftest import Pixels


@pytest.mark.parametrize("side", [28, 100])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_runtime_gives_pytorchs_answers(
    runtime: str, side: int, model: Model, model_store: Path, tiles: Pixels
) -> None:
    # onnx.reference takes seconds for a tile.
    part = tiles[:1] if runtime == "onnx.reference" else tiles
    part = np.stack([np.asarray(Image.fromarray(tile).resize((side, side))) for tile in part])
    try:
        row = compare(runtime, model_store / "pathmnist.onnx", part, expected_logits(model, part))
    except MissingRuntimeError as error:
        pytest.skip(str(error))
    assert row.tiles == len(part)
    # Winograd's convolutions round more.
    assert row.max_logit_difference < (1e-2 if runtime == "the server's worker, MNN" else 1e-4)
    assert row.top1_agreement == 1
    assert row.images_per_second > 0
