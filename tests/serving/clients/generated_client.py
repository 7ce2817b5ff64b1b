"""Classifies and explains through a client that openapi-python-client generated: `generated_client.py FOLDER URL FILE`.

It runs in .venv-clients. FOLDER holds the package `generated`.
"""

import base64
import io
import json
import sys
from pathlib import Path
from typing import Any


def main(folder: str, url: str, path: str) -> dict[str, Any]:
    sys.path.insert(0, folder)
    from generated import Client
    from generated.api.default import classify, describe_model, explain
    from generated.models import EncodedImages
    from generated.types import File

    file = Path(path).read_bytes()
    client = Client(url, timeout=60)
    encoded = base64.b64encode(file).decode()
    single = classify.sync(client=client, body=File(payload=io.BytesIO(file)))
    both = explain.sync(client=client, body=EncodedImages(images=[encoded, encoded]), method="saliency", target="STR")
    return {
        "logits": single.logits,
        "methods": [result.explanations[0].method for result in both.results],
        "licence": describe_model.sync(client=client).licence,
    }


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
