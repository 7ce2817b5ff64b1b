"""Addresses and ports: parsing, reachability, and free ports."""

import socket
from ipaddress import ip_address
from urllib.parse import urlsplit

# Settings in config.properties that contain addresses and ports.
ADDRESSES = ("edge_address", "inference_address", "management_address", "metrics_address")
GRPC_PORTS = ("edge_grpc_port", "grpc_inference_port", "grpc_management_port")


# Clients on this machine reach a server on all interfaces through loopback.
EVERY_INTERFACE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def reachable(address: str) -> str:
    """The URL at which this machine reaches a server that listens on an address, with IPv6 in brackets."""
    parts = urlsplit(address)
    host = EVERY_INTERFACE.get(parts.hostname or "", parts.hostname or "")
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port_of(address)}"


def port_of(address: str) -> int:
    """The port of an address, or the default port of its scheme."""
    parts = urlsplit(address)
    return parts.port if parts.port is not None else {"https": 443}.get(parts.scheme, 80)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def free_ports(count: int) -> list[int]:
    """Distinct unused ports of the loopback interface."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [item.getsockname()[1] for item in sockets]
    for item in sockets:
        item.close()
    return ports


def free_addresses() -> dict[str, str]:
    """Settings that assign a free loopback port to every address."""
    ports = iter(free_ports(len(ADDRESSES) + len(GRPC_PORTS)))
    addresses = {name: f"http://127.0.0.1:{next(ports)}" for name in ADDRESSES}
    return addresses | {name: str(next(ports)) for name in GRPC_PORTS}
