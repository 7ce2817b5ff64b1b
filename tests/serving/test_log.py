import requests

from serving.supervisor import TILE, TorchServe


def test_requests_leave_no_lines_in_the_servers_log(server: TorchServe) -> None:
    def ask() -> None:
        assert requests.post(f"{server.url}/predictions/pathmnist", data=TILE.read_bytes(), timeout=60).ok

    ask()
    before = server.log.stat().st_size
    for _ in range(5):
        ask()
    assert server.log.stat().st_size == before
