"""Addresses: who can reach one, and free ones."""

import socket
from ipaddress import ip_address

# Settings of config.properties that hold addresses and ports.
ADDRESSES = ("edge_address", "inference_address", "management_address", "metrics_address")
GRPC_PORTS = ("grpc_inference_port", "grpc_management_port")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def free_ports(count: int) -> list[int]:
    """Different ports of the loopback interface that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [item.getsockname()[1] for item in sockets]
    for item in sockets:
        item.close()
    return ports


def free_addresses() -> dict[str, str]:
    """Settings that put every address on a free loopback port."""
    ports = iter(free_ports(len(ADDRESSES) + len(GRPC_PORTS)))
    addresses = {name: f"http://127.0.0.1:{next(ports)}" for name in ADDRESSES}
    return addresses | {name: str(next(ports)) for name in GRPC_PORTS}
