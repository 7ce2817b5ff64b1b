"""Prints the measurements that selected the engine for predictions (written by handler/model/selection.py)."""

import json
from pathlib import Path
from typing import Any


def selections(model_store: Path) -> list[str]:
    """A table for each stored selection, the latest first. Unreadable files are skipped."""
    files = sorted(model_store.glob("engines-*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    return [table(content) for content in map(_read, files) if content]


def table(selection: dict[str, Any]) -> str:
    """The conditions, and a row for each engine. The selected engine is marked."""
    conditions = selection["conditions"]
    lines = [
        f"{conditions['processor']}, {conditions['threads']} threads, model {conditions['model'][:12]}",
        f"{'engine':16}{'images a second, batches of ' + ' / '.join(_sizes(selection)):>40}",
    ]
    for candidate in selection["candidates"]:
        rates = " / ".join(f"{rate:.1f}" for rate in candidate["images_per_second"].values())
        mark = "  serves" if candidate["name"] == selection["engine"] else ""
        lines.append(f"{candidate['name']:16}{rates or candidate['left_out']:>40}{mark}")
    return "\n".join(lines)


def _sizes(selection: dict[str, Any]) -> list[str]:
    return max((list(candidate["images_per_second"]) for candidate in selection["candidates"]), key=len, default=[])


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        table(content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return content
