"""config.properties as one frozen object."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints
from urllib.parse import urlsplit

import javaproperties

from serving.ports import is_loopback

ROOT = Path(__file__).parents[2]


class SettingsError(ValueError):
    """A setting that cannot be used."""


@dataclass(frozen=True)
class Settings:
    """The settings of config.properties that the project reads itself, by their names there.

    An empty setting has its default; TorchServe reads the others. The file explains each.
    """

    edge_address: str = "http://127.0.0.1:8080"
    edge_certificate_file: Path | None = None
    edge_private_key_file: Path | None = None
    edge_grpc_port: int = 8001
    edge_rate_limit: float = 0
    edge_rate_burst: int = 20
    edge_read_timeout: float = 60
    edge_audit_file: Path | None = None
    edge_traces_endpoint: str = ""
    edge_regions: int = 1
    edge_regions_queue: int = 8
    edge_region_size: int = 64 * 1024 * 1024
    edge_jobs_folder: Path | None = None
    edge_jobs: int = 100
    edge_jobs_size: int = 4 * 1024**3
    edge_jobs_days: float = 1
    edge_slides: Path | None = None
    inference_address: str = "http://127.0.0.1:8085"
    management_address: str = "http://127.0.0.1:8081"
    metrics_address: str = "http://127.0.0.1:8082"
    grpc_inference_port: int = 7070
    grpc_management_port: int = 7071
    job_queue_size: int = 128
    max_request_size: int = 16 * 1024 * 1024
    engine: str = "auto"
    model_public_key_file: Path | None = None
    cors_allowed_origin: tuple[str, ...] = ()
    cors_allowed_methods: tuple[str, ...] = ("GET", "POST", "PUT")
    cors_allowed_headers: tuple[str, ...] = ("Authorization", "Content-Type", "X-Request-Id")
    models: dict[str, Any] = field(default_factory=dict)


def read_settings(properties: Mapping[str, str]) -> Settings:
    """Properties to settings; raises `SettingsError` naming the first bad one."""
    kinds = get_type_hints(Settings)
    for name in properties:
        if name.startswith("edge_") and name not in kinds:
            raise SettingsError(f"{name}: there is no such setting")
    given = {name: text.strip() for name, text in properties.items() if name in kinds and text.strip()}
    return Settings(**{name: _parse(name, text, kinds[name]) for name, text in given.items()})


def read_properties(path: Path) -> dict[str, str]:
    """A Java properties file; raises `SettingsError` if it cannot be read."""
    try:
        return dict(javaproperties.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path.name}: {error}") from error


def write_properties(properties: Mapping[str, str], path: Path) -> None:
    path.write_text(javaproperties.dumps(properties, timestamp=None))


def require_guarded(settings: Settings, token: str) -> None:
    """Raise `SettingsError` if the edge would serve other machines without a token, or TLS without a certificate."""
    address = urlsplit(settings.edge_address)
    if address.scheme not in ("http", "https"):
        raise SettingsError(f"edge_address: {settings.edge_address!r} is not an http or https address")
    if not token and not is_loopback(address.hostname or ""):
        raise SettingsError(f"{settings.edge_address} can be reached by others: set PATHMNIST_TOKEN")
    if address.scheme == "https" and not (settings.edge_certificate_file and settings.edge_private_key_file):
        raise SettingsError(f"{settings.edge_address} needs a certificate and its key")


def _parse(name: str, text: str, kind: Any) -> Any:
    parse, expected = PARSERS[kind]
    try:
        return parse(text)
    except ValueError as error:
        raise SettingsError(f"{name}: {text[:80]!r} is not {expected}") from error


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise ValueError
    return int(text)


def _amount(text: str) -> float:
    number = float(text)
    if not 0 <= number < float("inf"):
        raise ValueError
    return number


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


PARSERS: dict[Any, tuple[Callable[[str], Any], str]] = {
    str: (str, "text"),
    int: (_count, "a whole number"),
    float: (_amount, "a number of at least 0"),
    Path | None: (ROOT.joinpath, "a path"),
    tuple[str, ...]: (_words, "a list with commas"),
    dict[str, Any]: (json.loads, "JSON"),
}
