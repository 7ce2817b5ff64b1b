"""Pairs of elliptic keys in PEM files."""

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa


@dataclass(frozen=True)
class Keys:
    """The files of a private key and its public key."""

    private: Path
    public: Path


PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def write_keys(folder: Path, name: str = "key", key: PrivateKey | None = None, password: str = "") -> Keys:
    """Write a key, by default a new one of the curve P-256. The private file is encrypted if there is a password."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password:
        encryption = serialization.BestAvailableEncryption(password.encode())
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    keys = Keys(folder / f"{name}.pem", folder / f"{name}.pub.pem")
    keys.private.write_bytes(key.private_bytes(pem, pkcs8, encryption))
    keys.public.write_bytes(key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    return keys
