"""Forks TorchServe's workers: `python -P serving/forkserver.py DESCRIPTOR`, with that of a listening Unix socket.

Importing PyTorch takes a second or two and a quarter of a gigabyte. Here it happens once, while TorchServe's frontend
starts, and all workers share that memory. For each worker the frontend starts serving/worker.sh. That process asks for
a fork over the socket, and the fork then runs TorchServe's worker script as a Python interpreter would.
"""

import ctypes
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
from dataclasses import dataclass
from typing import Any

import psutil
from setproctitle import setproctitle

# What every worker imports apart from the archive. None of these starts a thread: a fork would lack it.
PRELOADED = ("torch", "numpy", "PIL.Image", "safetensors.torch", "ts.model_service_worker")
# madvise(2): the pages are read from their file again if they are used.
MADV_DONTNEED = 4
# Seconds in which a request must arrive.
PATIENCE = 5.0


@dataclass(frozen=True)
class Request:
    """A worker to start: its command line, environment, folder and three standard streams.

    `alive` is the end of a pipe that only the worker holds. The other end shows when the worker has ended.
    """

    arguments: list[str]
    environment: dict[str, str]
    folder: str
    streams: list[int]
    alive: int

    @classmethod
    def receive(cls, connection: socket.socket) -> "Request":
        """Read a line of JSON and the four descriptors that come with it.

        Raises `OSError`, `TypeError` or `ValueError`.
        """
        connection.settimeout(PATIENCE)
        text, descriptors, _, _ = socket.recv_fds(connection, 2**16, 4)
        try:
            while not text.endswith(b"\n"):
                more = connection.recv(2**16)
                if not more:
                    raise ConnectionError("the request ended early")
                text += more
            *streams, alive = descriptors
            return cls(**json.loads(text), streams=streams, alive=alive)
        except (OSError, TypeError, ValueError):
            _close(descriptors)
            raise

    def close(self) -> None:
        """Close the descriptors here, because the worker has its own."""
        _close([*self.streams, self.alive])

    def run(self) -> None:
        """Become the worker."""
        # For `ps`. It finds the command line by the environment, so it comes before the new one.
        setproctitle(" ".join([sys.executable, *self.arguments]))
        for number, stream in enumerate(self.streams):
            os.dup2(stream, number)
            os.close(stream)
        os.chdir(self.folder)
        os.environ.clear()
        os.environ.update(self.environment)
        sys.argv = self.arguments
        sys.path[:0] = filter(None, self.environment.get("PYTHONPATH", "").split(os.pathsep))
        runpy.run_path(self.arguments[0], run_name="__main__")


def serve(listener: socket.socket) -> Request:
    """Fork a worker for each connection, and kill it when the other end closes. Returns in the workers only."""
    workers: dict[socket.socket, int] = {}
    while True:
        ready, _, _ = select.select([listener, *workers], [], [])
        for closed in set(ready) - {listener}:
            _end(workers.pop(closed))
            closed.close()
        if listener not in ready:
            continue
        connection, _ = listener.accept()
        try:
            request = Request.receive(connection)
        except (OSError, TypeError, ValueError) as error:
            print(f"a worker could not be forked: {error}", flush=True)
            connection.close()
            continue
        worker = os.fork()
        if worker == 0:
            for inherited in (listener, connection, *workers):
                inherited.close()
            return request
        request.close()
        workers[connection] = worker


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _end(worker: int) -> None:
    # Nothing else waits for it, so its number is not used again before this.
    os.kill(worker, signal.SIGKILL)
    os.waitpid(worker, 0)


def release_code() -> None:
    """Release the pages of code and constants that the imports read.

    They are two hundred megabytes, most of it of CUDA's libraries, and no fork needs more than a part. Areas with pages
    that were written to, such as relocated addresses, stay.
    """
    madvise = ctypes.CDLL(None).madvise
    areas: Any = psutil.Process().memory_maps(grouped=False)
    for area in areas:
        changed = area.anonymous or area.swap
        if area.path.startswith("/") and area.perms in ("r-xp", "r--p") and not changed:
            start, end = (int(address, 16) for address in area.addr.split("-"))
            madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), MADV_DONTNEED)


def main() -> None:
    """Import, then serve."""
    listener = socket.socket(fileno=int(sys.argv[1]))
    for name in PRELOADED:
        importlib.import_module(name)
    # The collector writes to each object that it looks at, and so would copy what the workers share.
    gc.collect()
    gc.freeze()
    if sys.platform == "linux":
        release_code()
    serve(listener).run()


if __name__ == "__main__":
    main()
