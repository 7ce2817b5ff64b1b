"""Sign an export with an elliptic key: `python -m export.sign FOLDER --key private.pem` writes model.sig there.

`python -m serving verify FOLDER --public-key public.pem` verifies it, and so does the server before it starts if
config.properties names the key. The format is that of OpenSSF model signing.
"""

import argparse
import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from model_signing import signing

from serving.signature import SIGNATURE, UNSIGNED, hashing_rules

MANIFEST = "manifest.json"


class SigningError(RuntimeError):
    """The folder or the key cannot be used."""


def sign(folder: Path, private_key: Path, password: str | None = None) -> Path:
    """Sign every file of an export; returns the signature's path. Raises `SigningError`.

    `private_key` is a file in PEM format, of the curve P-256, P-384 or P-521.
    """
    require_export(folder)
    # The library's annotation says `str`, but its call needs bytes.
    secret: Any = password.encode() if password else None
    try:
        signer = signing.Config().use_elliptic_key_signer(private_key=private_key, password=secret)
    except (OSError, ValueError, TypeError, AttributeError, UnsupportedAlgorithm) as error:
        raise SigningError(f"{private_key} is not a private elliptic key in PEM format: {error}") from error
    signature = folder / SIGNATURE
    signer.set_hashing_config(hashing_rules(folder)).sign(folder, signature)
    return signature


def require_export(folder: Path) -> None:
    """Raise `SigningError` unless the folder has exactly the files of its manifest, with their digests."""
    try:
        artifacts = json.loads((folder / MANIFEST).read_text())["artifacts"]
        changed = {name for name, facts in artifacts.items() if _digest(folder / name) != facts["sha256"]}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise SigningError(f"{folder} is not a complete export: {error}") from error
    found = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    others = {str(path) for path in found if not any(path.match(pattern) for pattern in UNSIGNED)}
    wrong = changed | (others - {*artifacts, MANIFEST})
    if wrong:
        raise SigningError(f"{folder} has files that the export did not write: {', '.join(sorted(wrong))}")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument(
        "folder", type=Path, nargs="?", default=Path("model_store"), help="output of `python -m export`"
    )
    parser.add_argument(
        "--key", type=Path, required=True, help="private key; its password, if any, is SIGNING_PASSWORD"
    )
    arguments = parser.parse_args()
    try:
        signature = sign(arguments.folder, arguments.key, os.environ.get("SIGNING_PASSWORD"))
    except SigningError as error:
        sys.exit(f"sign: {error}")
    print(f"signed: {signature}")


if __name__ == "__main__":
    main()
