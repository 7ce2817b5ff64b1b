"""A bounded load test: `python -m loadtest`. It starts a server on free ports, asks, judges, and ends the server.

With --host a server that runs already is asked instead. Options it does not know go to Locust, such as
`--shape spike --users 20 --run-time 2m`. The exit code is 0 where every objective was kept.
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
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "loadtest", help="folder of the reports")
    arguments, for_locust = parser.parse_known_args()
    # As an exception, a signal ends the server too.
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
    # Without a grace the slowest requests, still under way at the end, would be missing from the figures.
    command += ["--stop-timeout", "60"]
    command += ["--html", str(output / "report.html"), "--csv", str(output / "stats"), *options]
    return subprocess.run(command, cwd=ROOT).returncode


@contextmanager
def server(model_store: Path) -> Iterator[str]:
    """The address of a server that lives as long as the context."""
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
