"""Represents a worker that serving/forkserver.py forks: TorchServe starts this process, reads its output and kills it.

The worker has this process's standard streams, arguments, environment and folder, and each ends with the other.
"""

import json
import os
import socket
import sys


def main() -> None:
    """Have a worker forked and wait until it ends. Without a fork server, become the worker."""
    ended, alive = os.pipe()
    request = {"arguments": sys.argv[1:], "environment": dict(os.environ), "folder": os.getcwd()}
    with socket.socket(socket.AF_UNIX) as server:
        try:
            server.connect(os.environ["PATHMNIST_FORKSERVER"])
            socket.send_fds(server, [b"{"], [0, 1, 2, alive])
            server.sendall(json.dumps(request).encode()[1:] + b"\n")
        except OSError as error:
            print(f"this worker imports PyTorch itself, because the fork server failed: {error}", flush=True)
            os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
        os.close(alive)
        os.read(ended, 1)
    # TorchServe's workers end with this status.
    sys.exit(1)


if __name__ == "__main__":
    main()
