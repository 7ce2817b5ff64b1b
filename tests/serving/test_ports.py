import pytest

from serving.ports import is_loopback, port_of, reachable


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("https://0.0.0.0:8443", "https://127.0.0.1:8443"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("http://[::]:8080", "http://[::1]:8080"),
        ("http://edge.example", "http://edge.example:80"),
        ("https://[2001:db8::1]", "https://[2001:db8::1]:443"),
    ],
)
def test_an_address_is_written_as_a_client_needs_it(address: str, url: str) -> None:
    assert reachable(address) == url
    assert port_of(address) == int(url.rpartition(":")[2])


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("::", False), ("0.0.0.0", False)],
)
def test_loopback_is_known(host: str, loopback: bool) -> None:
    assert is_loopback(host) == loopback
