"""The papers of a bundle: card, licence, notice, and the digests of all its files."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from string import Template

import yaml

from export.archive import NOTICE, ROOT
from export.bundles.source import Source
from handler.classes import CODES
from handler.model.checkpoint import file_digest

CARD, LICENCE = "README.md", "LICENSE"
# In the format of coreutils: `sha256sum --check SHA256SUMS`.
DIGESTS = "SHA256SUMS"


def write_documents(
    source: Source,
    folder: Path,
    home: str,
    values: Mapping[str, object] | None = None,
    metadata: dict[str, object] | None = None,
) -> None:
    """Write card, licence, notice and digests beside the files that are in `folder` already.

    The card gets a section on this bundle, `{home}.md` beside this module with its `values`. `metadata` is what a hub
    reads in YAML.
    """
    template = Template((Path(__file__).parent / f"{home}.md").read_text())
    use = template.substitute(codes=", ".join(CODES), temperature=source.temperature, **(values or {}))
    summary, _, rest = source.card.partition("\n## ")
    front = f"---\n{yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True, width=120)}---\n" if metadata else ""
    (folder / CARD).write_text(f"{front}{summary}\n{use}\n## {rest}")
    shutil.copy(ROOT / LICENCE, folder / LICENCE)
    if (source.checkpoint / NOTICE).is_file():
        shutil.copy(source.checkpoint / NOTICE, folder / NOTICE)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{file_digest(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    (folder / DIGESTS).write_text("".join(lines))
