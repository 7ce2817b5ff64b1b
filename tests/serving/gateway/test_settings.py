import json
from pathlib import Path

import pytest

from serving.gateway.settings import (
    ROOT,
    Settings,
    SettingsError,
    read_properties,
    read_settings,
    require_guarded,
    write_properties,
)


def test_the_projects_own_file_holds_the_defaults() -> None:
    properties = read_properties(ROOT / "config.properties")
    models = json.loads(properties["models"])
    assert read_settings(properties) == Settings(models=models)
    assert {pool: next(iter(versions.values()))["batchSize"] for pool, versions in models.items()} == {
        "pathmnist": 8,
        "pathmnist-explain": 4,
    }


def test_each_kind_of_setting_is_read() -> None:
    properties = {
        "edge_rate_limit": "0.5",
        "edge_rate_burst": " 7 ",
        "edge_audit_file": "runs/audit.jsonl",
        "edge_certificate_file": "",
        "cors_allowed_origin": "https://a.example, https://b.example",
        "job_queue_size": "100",
    }
    settings = read_settings(properties)
    assert (settings.edge_rate_limit, settings.edge_rate_burst) == (0.5, 7)
    assert settings.edge_audit_file == ROOT / "runs" / "audit.jsonl"
    assert settings.edge_certificate_file is None
    assert settings.cors_allowed_origin == ("https://a.example", "https://b.example")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("edge_rate_burst", "many"),
        ("edge_rate_burst", "-1"),
        ("edge_rate_limit", "-1"),
        ("edge_rate_limit", "nan"),
        ("edge_read_timeout", "inf"),
        ("max_request_size", "16 MiB"),
        ("grpc_inference_port", "0x10"),
        ("models", "{"),
        ("edge_rate_limt", "1"),
    ],
)
def test_a_bad_setting_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        read_settings({name: value})


def test_properties_are_javas(tmp_path: Path) -> None:
    path = tmp_path / "x.properties"
    path.write_text('# note=1\n! note=2\na=1\nb={\\\n  "c": 2\\\n}\nd : \\u00e9\ne f\n')
    assert read_properties(path) == {"a": "1", "b": '{"c": 2}', "d": "é", "e": "f"}


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    properties = {"a": ' {"b": 1}', "path": r"C:\x", "empty": "", "url": "http://[::1]:80/#x", "é": "\n"}
    write_properties(properties, tmp_path / "x.properties")
    assert read_properties(tmp_path / "x.properties") == properties


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"x\.properties"):
        read_properties(tmp_path / "x.properties")


@pytest.mark.parametrize("address", ["127.0.0.1:8080", "ftp://127.0.0.1:1", ""])
def test_an_address_without_http_is_refused(address: str) -> None:
    with pytest.raises(SettingsError, match="is not an http"):
        require_guarded(Settings(edge_address=address), token="")
