"""The benchmark as a picture: throughput by number of clients."""

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure


def draw(table: dict[str, dict[str, float]], path: Path) -> None:
    """One line for each server, and the engine without a server as the ceiling."""
    mpl.rcParams["svg.hashsalt"] = "bench"
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, row in table.items():
        points = {int(key.rpartition(" ")[2]): value for key, value in row.items() if key.startswith("per_second at ")}
        if points:
            axes.plot(list(points), list(points.values()), marker="o", label=name)
    axes.axhline(max(table["in process"].values()), linestyle="--", color="black", label="fastest engine, no server")
    axes.set_xscale("log", base=2)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("clients")
    axes.set_ylabel("predictions per second")
    axes.legend(loc="lower right")
    figure.savefig(path, metadata={"Date": None})
