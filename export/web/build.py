"""The folder: the page's own modules, those it shares with the server's page, ONNX Runtime Web, and the model."""

import base64
import hashlib
import json
import re
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import onnx

from export.archive import MODEL_NAME, NOTICE, ROOT
from export.npm import PACKAGES, MissingRuntimeError
from export.predictor import CLASSIFYING as SOURCE
from export.predictor import EXPLAINING as EXPLAINING_SOURCE
from export.web.graphs import CLASSIFYING, EXPLAINING, WEIGHTS, write_graphs
from handler.api.verdict import CONFIDENT_FROM
from handler.classes import CODES, DISCLAIMER, TUMOUR_RELATED
from handler.model.checkpoint import file_digest

PAGE = Path(__file__).parent / "page"
SERVED_PAGE = ROOT / "web"
# Modules of the server's page that use nothing of the server.
SHARED = (
    *(f"{name}.js" for name in ("charts", "dom", "evidence", "format", "legend", "messages", "methods", "pictures")),
    *(f"{name}.js" for name in ("probabilities", "shape", "tissues", "trust", "types", "verdict", "viewer")),
    "icon.svg",
    "style.css",
)
EXAMPLES = "examples"
RUNTIME = "onnxruntime"
# Each is a script, and the program that it loads. Some file servers do not know .mjs as JavaScript, and browsers then
# refuse it, so the scripts end in .js here.
ENGINES = {
    "WebAssembly": ("ort.wasm.bundle.min.js", "ort-wasm-simd-threaded.wasm"),
    "WebGPU": ("ort.webgpu.bundle.min.js", "ort-wasm-simd-threaded.asyncify.wasm"),
}
LICENCES, GOLDEN, DATA, FILE_LIST = "licences.txt", "golden.png", "model.json", "files.js"
RUNTIME_LICENCE = "The files in onnxruntime/ are ONNX Runtime Web. Copyright (c) Microsoft Corporation. MIT License."
# Larger files are stored by the service worker when the page first uses them.
SMALL = 2**20
POLICY = re.compile(r'http-equiv="Content-Security-Policy" content="([^"]*)"')


def build(store: Path, folder: Path) -> None:
    """Write the static page for the model in `store` to `folder`.

    Raises `MissingRuntimeError` before `npm ci`, `FileNotFoundError` without an exported model, `FileExistsError` if
    the folder holds anything but an earlier page.
    """
    for name in (SOURCE, EXPLAINING_SOURCE):
        if not (store / name).is_file():
            raise FileNotFoundError(f"there is no {store / name}: `make export` writes it")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / FILE_LIST).is_file():
        raise FileExistsError(f"{folder} is not empty, and not a page of this command")
    with tempfile.TemporaryDirectory() as name:
        _assemble(store, Path(name))
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(name, folder)


def _assemble(store: Path, folder: Path) -> None:
    shutil.copytree(PAGE, folder, dirs_exist_ok=True)
    for name in SHARED:
        shutil.copy(SERVED_PAGE / name, folder)
    # The server's page fetches this table. A worker may not: it would miss messages while its modules wait.
    contract = (SERVED_PAGE / "contract.json").read_text().strip()
    (folder / "contract.js").write_text(f"export const CONTRACT = {contract};\n")
    shutil.copytree(SERVED_PAGE / EXAMPLES, folder / EXAMPLES)
    _copy_runtime(folder / RUNTIME)
    _write_model(store, folder)
    _write_licences(store, folder)
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    (folder / FILE_LIST).write_text(f"self.FILES = {json.dumps(_file_list(folder, files))};\n")


def _copy_runtime(folder: Path) -> None:
    package = PACKAGES / "onnxruntime-web"
    if not package.is_dir():
        raise MissingRuntimeError("npm packages are not installed (npm ci --prefix export)")
    folder.mkdir()
    for name in (file for files in ENGINES.values() for file in files):
        shutil.copy(package / "dist" / name.replace(".js", ".mjs"), folder / name)


def _write_model(store: Path, folder: Path) -> None:
    """The graphs, what makes answers of their outputs, and a tile by which a browser proves that it computes them."""
    write_graphs(store / SOURCE, store / EXPLAINING_SOURCE, folder)
    metadata = {
        item.key: item.value for item in onnx.load(folder / CLASSIFYING, load_external_data=False).metadata_props
    }
    golden = json.loads((store / "manifest.json").read_text())["golden"]
    (folder / GOLDEN).write_bytes(base64.b64decode(golden["image"]))
    data = {
        "model": {
            "name": metadata["name"],
            "version": metadata["version"],
            "digest": metadata["weights_sha256"],
            "training_data": metadata["training_data"],
        },
        "codes": CODES,
        "rules": json.loads(metadata["rules"]),
        "confident_from": CONFIDENT_FROM,
        "tumour_related": TUMOUR_RELATED,
        "disclaimer": DISCLAIMER,
        "golden": {"image": GOLDEN, "logits": golden["logits"], "tolerance": golden["tolerance"]},
        "bytes": {name: (folder / name).stat().st_size for name in (CLASSIFYING, EXPLAINING, WEIGHTS)},
    }
    (folder / DATA).write_text(json.dumps(data, indent=2))


def _write_licences(store: Path, folder: Path) -> None:
    """Of the code, of ONNX Runtime Web, and of what the weights were made from."""
    parts = [(ROOT / "LICENSE").read_text(), RUNTIME_LICENCE]
    with zipfile.ZipFile(store / f"{MODEL_NAME}.mar") as archive:
        if NOTICE in archive.namelist():
            parts.append(archive.read(NOTICE).decode())
    (folder / LICENCES).write_text("\n\n".join(parts))


def _file_list(folder: Path, files: list[str]) -> dict[str, Any]:
    """What the service worker needs. If a file changes, the version does."""
    digest = hashlib.sha256()
    for name in files:
        digest.update(f"{name} {file_digest(folder / name)}\n".encode())
    policy = POLICY.search((folder / "index.html").read_text())
    if policy is None:
        raise ValueError("index.html states no content security policy")
    return {
        "version": digest.hexdigest()[:16],
        "files": files,
        "small": [name for name in files if (folder / name).stat().st_size < SMALL and not name.startswith(RUNTIME)],
        "policy": policy[1],
    }
