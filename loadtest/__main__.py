"""A bounded load test: `python -m loadtest` starts a server on free ports, sends load, checks the objectives
and stops the server.

`--host` tests a running server instead. Unknown options are passed to Locust, such as
`--shape spike --users 20 --run-time 2m`. The exit code is 0 if every objective was met.
"""

import argparse
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", help="address of a running server")
    parser.add_argument("--model-store", type=Path, default=ROOT / "model_store")
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "loadtest", help="output folder of the reports")
    arguments, for_locust = parser.parse_known_args()
    # Raise an exception on SIGTERM, so that the server is stopped too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    arguments.output.mkdir(parents=True, exist_ok=True)
    if arguments.host:
        sys.exit(run(arguments.host, arguments.output, for_locust))
    with server(arguments.model_store) as url:
        code = run(url, arguments.output, for_locust)
    sys.exit(code)


def run(url: str, output: Path, options: list[str]) -> int:
    """Run Locust without its web page; returns its exit code."""
    command = [sys.executable, "-m", "locust", "--locustfile", "loadtest/locustfile.py", "--host", url]
    command += ["--headless", "--only-summary", "--shape", "ramp", "--users", "4", "--run-time", "60s"]
    # Without a grace period, the figures would miss the slowest requests, which are still running at the end.
    command += ["--stop-timeout", "60"]
    command += ["--html", str(output / "report.html"), "--csv", str(output / "stats"), *options]
    return subprocess.run(command, cwd=ROOT).returncode


@contextmanager
def server(model_store: Path) -> Iterator[str]:
    """The URL of a server that runs until the context exits."""
    with tempfile.TemporaryDirectory(prefix="pathmnist-loadtest-") as name:
        command = [sys.executable, "-m", "serving", "start", "--free-ports"]
        command += ["--model-store", str(model_store.resolve()), "--run-folder", name]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        try:
            first = process.stdout.readline()
            if not first.startswith("ready: "):
                sys.exit("loadtest: the server did not start")
            yield first.removeprefix("ready: ").split("/predictions/")[0]
        finally:
            process.terminate()
            process.wait(60)


if __name__ == "__main__":
    main()
