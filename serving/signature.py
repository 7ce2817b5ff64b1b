"""The signature of an exported model, by OpenSSF model signing with an elliptic key; no service is involved.

The signature names every file of a folder with its SHA-256.
"""

import re
from json import JSONDecodeError
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from model_signing import hashing, verifying

SIGNATURE = "model.sig"
# Not covered by the signature: itself, the server's measurements of engines, and a note for people.
UNSIGNED = (SIGNATURE, "engines-*.json", "README.md")


class SignatureError(ValueError):
    """A folder has no valid signature of the expected key, or its files are not those that were signed."""


def hashing_rules(folder: Path) -> hashing.Config:
    """The library's rules for a folder: SHA-256 of every file below it, except the `UNSIGNED` ones."""
    ignored = [path.name for pattern in UNSIGNED for path in folder.glob(pattern) if path.is_file()]
    return hashing.Config().set_ignored_paths(paths=ignored, ignore_git_paths=False)


def require_signed(folder: Path, public_key: Path) -> None:
    """Raise `SignatureError` unless the folder has exactly the files that the owner of the key signed.

    `public_key` is a file in PEM format, of the curve P-256, P-384 or P-521.
    """
    signature = folder / SIGNATURE
    if not signature.is_file():
        raise SignatureError(f"{folder.name}/ is not signed: it has no {SIGNATURE}")
    try:
        verifier = verifying.Config().use_elliptic_key_verifier(public_key=public_key)
    except (OSError, ValueError, AttributeError, UnsupportedAlgorithm) as error:
        raise SignatureError(f"{public_key} is not a public elliptic key in PEM format") from error
    try:
        verifier.set_hashing_config(hashing_rules(folder)).verify(folder, signature)
    except InvalidSignature as error:
        raise SignatureError(f"{folder.name}/{SIGNATURE} was changed after it was made") from error
    except (LookupError, TypeError, JSONDecodeError) as error:
        raise SignatureError(f"{folder.name}/{SIGNATURE} is damaged") from error
    except ValueError as error:
        message = f"{folder.name}/ does not match its signature and {public_key.name}: {_reason(error)}"
        raise SignatureError(message) from error


def _reason(error: Exception) -> str:
    """The library's message without quotes, brackets and the digests' bytes."""
    return re.sub(r"""[\\\[\]"']""", "", str(error).partition(": Expected")[0]).strip()
