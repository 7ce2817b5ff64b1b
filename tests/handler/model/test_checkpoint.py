import json
import shutil
from pathlib import Path

import pytest

from handler.model.checkpoint import CARD, WEIGHTS, ModelError, load_model
from training.checkpoint import SHIPPED


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (CARD, WEIGHTS):
        shutil.copy(SHIPPED / name, tmp_path)
    return tmp_path


def test_a_model_says_what_it_is(folder: Path) -> None:
    card = json.loads((folder / CARD).read_text())
    identity = load_model(folder).identity()
    assert identity["digest"] == card["digest"]
    assert identity["training_data"] == card["training"]["data"]


def test_changed_weights_are_refused(folder: Path) -> None:
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (folder / WEIGHTS).write_bytes(content)
    with pytest.raises(ModelError, match="SHA-256"):
        load_model(folder)


@pytest.mark.parametrize("key", ["digest", "version", "preprocessing", "training"])
def test_a_card_without_a_key_is_refused(folder: Path, key: str) -> None:
    card = json.loads((folder / CARD).read_text())
    del card[key]
    (folder / CARD).write_text(json.dumps(card))
    with pytest.raises(ModelError, match=key):
        load_model(folder)
