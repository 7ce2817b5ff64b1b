"""The model as a web page without a server: `python -m export.web --output DIR` writes a folder for any file server.

It needs an exported model (`make export`) and ONNX Runtime Web (`npm ci --prefix export`). Prints the size of the
download, plain and compressed, for browsers with and without WebGPU.
"""

import argparse
import gzip
import json
import sys
from pathlib import Path

from export.npm import MissingRuntimeError
from export.web.build import ENGINES, build


def download_size(folder: Path, unused: tuple[str, ...]) -> dict[str, int]:
    """The bytes that a first visit loads, which are all but `unused`; `gzip` if the server compresses."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in unused]
    contents = [path.read_bytes() for path in files]
    return {
        "files": len(contents),
        "bytes": sum(map(len, contents)),
        "gzip": sum(min(len(content), len(gzip.compress(content, 6))) for content in contents),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder to write; an earlier page in it is replaced")
    parser.add_argument("--models", type=Path, default=Path("model_store"), help="folder `python -m export` wrote")
    arguments = parser.parse_args()
    try:
        build(arguments.models, arguments.output)
    except (MissingRuntimeError, FileNotFoundError, FileExistsError) as error:
        sys.exit(f"export.web: {error}")
    others = {
        engine: tuple(name for key, names in ENGINES.items() if key != engine for name in names) for engine in ENGINES
    }
    print(json.dumps({engine: download_size(arguments.output, unused) for engine, unused in others.items()}, indent=2))


if __name__ == "__main__":
    main()
