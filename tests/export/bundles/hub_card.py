"""Reads a card with the hub's own library: `hub_card.py README.md`; prints what it found as JSON.

It runs in .venv-wsinfer, which has that library.
"""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import eval_results_to_model_index


def main(path: str) -> dict[str, Any]:
    # Raises if the metadata or an entry of the model-index is not valid.
    card = ModelCard.load(Path(path))
    results = card.data.eval_results
    return {
        "data": card.data.to_dict(),
        "text": card.text,
        "model_index": eval_results_to_model_index(card.data.model_name, results),
        "results": [dataclasses.asdict(result) for result in results],
    }


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
