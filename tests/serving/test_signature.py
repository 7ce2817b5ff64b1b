"""With a public key in its settings, the server starts only from a folder that is exactly what was signed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from deploy.ray.archive import require_signed_archive
from export.sign import sign
from serving.gateway.settings import ROOT, read_properties, write_properties
from serving.ports import free_addresses
from serving.signature import SIGNATURE, SignatureError, require_signed
from tests.support.keys import Keys, write_keys

FILES = ("pathmnist.mar", "pathmnist.onnx", "pathmnist_explain.onnx", "manifest.json")


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return write_keys(tmp_path)


@pytest.fixture
def signed(model_store: Path, keys: Keys, tmp_path: Path) -> Path:
    """A signed export, with links instead of copies of the large files."""
    folder = tmp_path / "store"
    shutil.copytree(model_store, folder, copy_function=os.link)
    sign(folder, keys.private)
    return folder


def flip(path: Path, position: int) -> None:
    """Flip one bit of a file that may be a link to another test's."""
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.unlink()
    path.write_bytes(content)


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_bit_of_any_file_is_refused_with_its_name(name: str, signed: Path, keys: Keys) -> None:
    require_signed(signed, keys.public)
    middle = (signed / name).stat().st_size // 2
    flip(signed / name, middle)
    with pytest.raises(SignatureError, match=f"Hash mismatch for {name}$"):
        require_signed(signed, keys.public)
    flip(signed / name, middle)
    require_signed(signed, keys.public)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_refused_with_its_name(name: str, signed: Path, keys: Keys) -> None:
    (signed / name).unlink()
    with pytest.raises(SignatureError, match=f"Missing files in model store: {name}$"):
        require_signed(signed, keys.public)


@pytest.mark.parametrize("name", ["other.mar", "folder/file", "engines-1.json/file", ".gitignore"])
def test_another_file_is_refused_with_its_name(name: str, signed: Path, keys: Keys) -> None:
    (signed / name).parent.mkdir(exist_ok=True)
    (signed / name).write_text("{}")
    with pytest.raises(SignatureError, match=f"Extra files found in model store: {name}$"):
        require_signed(signed, keys.public)


def test_a_link_is_refused(signed: Path, keys: Keys, tmp_path: Path) -> None:
    archive = signed / "pathmnist.mar"
    archive.rename(tmp_path / "elsewhere.mar")
    archive.symlink_to(tmp_path / "elsewhere.mar")
    with pytest.raises(SignatureError, match="symlink"):
        require_signed(signed, keys.public)


def test_what_the_server_writes_there_is_allowed(signed: Path, keys: Keys) -> None:
    (signed / "engines-abc.json").write_text("{}")
    (signed / "README.md").write_text("a note")
    require_signed(signed, keys.public)


def test_other_keys_are_refused(signed: Path, keys: Keys, tmp_path: Path) -> None:
    with pytest.raises(SignatureError, match=r"does not match its signature and other\.pub\.pem"):
        require_signed(signed, write_keys(tmp_path, "other").public)
    for path in (write_keys(tmp_path, "rsa", rsa.generate_private_key(65537, 2048)).public, keys.private):
        with pytest.raises(SignatureError, match="is not a public elliptic key"):
            require_signed(signed, path)
    with pytest.raises(SignatureError, match="is not a public elliptic key"):
        require_signed(signed, tmp_path / "missing.pem")


def test_a_missing_signature_is_refused(signed: Path, keys: Keys) -> None:
    (signed / SIGNATURE).unlink()
    with pytest.raises(SignatureError, match=r"store/ is not signed: it has no model\.sig"):
        require_signed(signed, keys.public)


def test_a_damaged_signature_is_refused(signed: Path, keys: Keys) -> None:
    """One bit at a time, in every part of the file, and other JSON."""
    # Without the large files, to be quick: the signature alone is refused, before a file is read.
    content = (signed / SIGNATURE).read_bytes()
    for name in FILES:
        (signed / name).unlink()
    damaged = [content[:i] + bytes([content[i] ^ 1]) + content[i + 1 :] for i in range(0, len(content), 20)]
    for text in (*damaged, b"", b"{}", b"[]", b"null", b"\xff", content[:-20]):
        (signed / SIGNATURE).write_bytes(text)
        with pytest.raises(SignatureError):
            require_signed(signed, keys.public)


def test_the_signature_of_another_export_is_refused(signed: Path, keys: Keys, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(signed, other, copy_function=os.link)
    for path in (other / SIGNATURE, other / "manifest.json"):
        path.unlink()
    (other / "manifest.json").write_text((signed / "manifest.json").read_text() + "\n")
    sign(other, keys.private)
    (signed / SIGNATURE).unlink()
    shutil.copy(other / SIGNATURE, signed)
    with pytest.raises(SignatureError, match=r"Hash mismatch for manifest\.json"):
        require_signed(signed, keys.public)


@pytest.mark.parametrize("fault", ["unsigned", "flipped"])
def test_the_server_does_not_start_from_another_model(fault: str, signed: Path, keys: Keys, tmp_path: Path) -> None:
    """In particular if an attacker made the manifest match the archive."""
    settings = read_properties(ROOT / "config.properties") | free_addresses()
    config = tmp_path / "config.properties"
    write_properties(settings | {"model_public_key_file": str(keys.public)}, config)
    if fault == "unsigned":
        (signed / SIGNATURE).unlink()
    else:
        flip(signed / "pathmnist.onnx", 100)
    command = [sys.executable, "-m", "serving", "start", "--config", str(config), "--model-store", str(signed)]
    result = subprocess.run(
        [*command, "--run-folder", str(tmp_path / "run")], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 1
    expected = "is not signed" if fault == "unsigned" else "Hash mismatch for pathmnist.onnx"
    assert expected in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "run").exists()


def test_rays_processes_demand_the_same_signature(signed: Path, keys: Keys, tmp_path: Path) -> None:
    config = tmp_path / "config.properties"
    config.write_text(f"model_public_key_file={keys.public}\n")
    require_signed_archive(signed / "pathmnist.mar", config)
    flip(signed / "manifest.json", 100)
    require_signed_archive(signed / "pathmnist.mar", ROOT / "config.properties")
    with pytest.raises(SignatureError, match=r"Hash mismatch for manifest\.json"):
        require_signed_archive(signed / "pathmnist.mar", config)
