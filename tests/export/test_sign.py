"""A signed export: the format, checked without the library that writes it, and what is refused."""

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from export.sign import SigningError, sign
from serving.signature import SIGNATURE, require_signed
from serving.supervisor import ROOT
from tests.support.keys import Keys, write_keys


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return write_keys(tmp_path)


@pytest.fixture
def exported(model_store: Path, tmp_path: Path) -> Path:
    """A copy of the export, with links instead of copies of the large files."""
    folder = tmp_path / "store"
    shutil.copytree(model_store, folder, copy_function=os.link)
    for path in folder.glob("engines-*.json"):
        path.unlink()
    return folder


def replace(path: Path, content: bytes) -> None:
    """Write a file that may be a link to another test's."""
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def test_the_signature_is_a_dsse_envelope_with_the_digest_of_every_file(exported: Path, keys: Keys) -> None:
    """By the specifications of DSSE and in-toto, with hashlib and an elliptic key alone."""
    envelope = json.loads(sign(exported, keys.private).read_text())["dsseEnvelope"]
    payload = base64.b64decode(envelope["payload"])
    kind = envelope["payloadType"].encode()
    signed = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
    public = load_pem_public_key(keys.public.read_bytes())
    assert isinstance(public, ec.EllipticCurvePublicKey)
    public.verify(base64.b64decode(envelope["signatures"][0]["sig"]), signed, ec.ECDSA(hashes.SHA256()))
    resources = json.loads(payload)["predicate"]["resources"]
    assert {item["name"]: item["digest"] for item in resources} == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in exported.iterdir()
        if path.name != SIGNATURE
    }
    assert {"pathmnist.mar", "pathmnist.onnx", "pathmnist_explain.onnx", "manifest.json"} <= {
        item["name"] for item in resources
    }


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
def test_keys_of_three_curves_sign_with_or_without_a_password(
    curve: ec.EllipticCurve, exported: Path, tmp_path: Path
) -> None:
    keys = write_keys(tmp_path, "encrypted", ec.generate_private_key(curve), password="secret")
    sign(exported, keys.private, "secret")
    require_signed(exported, keys.public)
    with pytest.raises(SigningError, match=r"encrypted\.pem is not a private elliptic key"):
        sign(exported, keys.private)


def test_other_keys_sign_nothing(exported: Path, tmp_path: Path, keys: Keys) -> None:
    other = write_keys(tmp_path, "rsa", rsa.generate_private_key(65537, 2048))
    for key in (other.private, keys.public, tmp_path / "missing.pem"):
        with pytest.raises(SigningError, match="is not a private elliptic key"):
            sign(exported, key)
    assert not (exported / SIGNATURE).exists()


def test_only_a_complete_export_is_signed(exported: Path, keys: Keys) -> None:
    archive = exported / "pathmnist.mar"
    content = archive.read_bytes()
    replace(archive, content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(SigningError, match=r"that the export did not write: pathmnist\.mar"):
        sign(exported, keys.private)
    replace(archive, content)
    (exported / "other.mar").write_bytes(content[:10])
    with pytest.raises(SigningError, match=r"that the export did not write: other\.mar"):
        sign(exported, keys.private)
    (exported / "other.mar").unlink()
    archive.unlink()
    with pytest.raises(SigningError, match="is not a complete export"):
        sign(exported, keys.private)


def test_the_commands_sign_and_verify(exported: Path, keys: Keys, tmp_path: Path) -> None:
    def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", *map(str, words)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)

    verify = ("serving", "verify", exported, "--public-key", keys.public)
    assert "is not signed" in run(*verify).stderr
    assert run("export.sign", exported, "--key", keys.private).stdout == f"signed: {exported / SIGNATURE}\n"
    verified = run(*verify)
    assert verified.stdout.startswith(f"verified: {exported}, pathmnist-resnet18 "), verified.stderr
    other = [Path(sys.executable).with_name("model_signing"), "verify", "key", exported, "--public_key", keys.public]
    subprocess.run([*map(str, other), "--signature", str(exported / SIGNATURE)], check=True, timeout=60)
    refused = run("serving", "verify", exported, "--public-key", write_keys(tmp_path, "other").public)
    assert refused.returncode == 1
    assert "does not match its signature and other.pub.pem" in refused.stderr
    assert "give --public-key" in run("serving", "verify", exported).stderr
