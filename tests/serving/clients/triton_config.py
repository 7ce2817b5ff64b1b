"""Reads Triton's model configurations with Triton's own schema: `triton_config.py config.pbtxt...`; prints JSON.

It runs in .venv-clients, which has that schema.
"""

import json
import sys
from pathlib import Path
from typing import Any

from google.protobuf import json_format, text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig


def read(path: Path) -> dict[str, Any]:
    # Raises at a field or a value that the schema does not know.
    config = text_format.Parse(path.read_text(), ModelConfig())
    return json_format.MessageToDict(config, preserving_proto_field_name=True)


if __name__ == "__main__":
    print(json.dumps([read(Path(path)) for path in sys.argv[1:]]))
