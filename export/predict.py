"""Classify and explain tiles without a server: `python -m export.predict tile.png ... --explain gradcam`.

Answers are those of the server, one line of JSON or CSV for each file; maps are in the JSON, or in pictures with
`--pictures`. It needs ONNX Runtime, NumPy and Pillow (`pip install --group predict`), and the two ONNX files.
A file that cannot be read gets an `error` in its line, and the exit status is then 1.
"""

import argparse
import csv
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from export.predictor import BASELINES, METHODS, Explanation, IntegrationPath, ModelFileError, Predictor, Score
from handler.api.attribution import map_json, subject_json
from handler.api.errors import RequestError
from handler.api.field import PLAUSIBLE, view
from handler.api.image import DecodedImage, ImageLimits, decode_image
from handler.api.prediction import TRUST, picture_json, prediction_json
from handler.api.render import EVIDENCE, Canvas, Rendering, jpeg, png, strength_of
from handler.api.verdict import verdict_of
from handler.classes import CODES

MAX_STEPS = 256
COVERAGES = ("0.9", "0.95")
COLUMNS = (
    "file",
    "code",
    "probability",
    "verdict",
    "prediction_set",
    "ood_score",
    "in_distribution",
    "tumour_share",
    "risk",
    "fit",
    "fit_reasons",
    "field_microns",
    *(f"p_{code}" for code in CODES),
    "error",
)


@dataclass(frozen=True)
class Task:
    """What to do with each tile. None means the predicted class as `target`, no `pictures`, and an unknown size of a
    pixel, `mpp` in micrometres."""

    methods: tuple[str, ...]
    target: int | None
    contrast: int | None
    path: IntegrationPath
    coverage: str
    pictures: Path | None
    mpp: float | None = None


def answers(predictor: Predictor, files: list[Path], task: Task) -> Iterator[dict[str, Any]]:
    """The answer for each file, in order, or its error."""
    for number, file in enumerate(files, start=1):
        try:
            yield {"file": str(file), **_answer(predictor, file, f"{number:04d}_{file.stem}", task)}
        except RequestError as error:
            yield {"file": str(file), **error.to_json()}


def _answer(predictor: Predictor, file: Path, stem: str, task: Task) -> dict[str, Any]:
    image = _read(file)
    pixels, field = view(image.pixels, task.mpp, image.scale)
    classified = predictor.classify(pixels)
    prediction = classified.prediction
    verdict = verdict_of(prediction, predictor.rules)
    body = prediction_json(predictor.identity(), prediction, verdict, frozenset(TRUST), task.coverage)
    body |= picture_json(field, classified.fit, frozenset(TRUST))
    if notes := image.notes + field.notes:
        body["notes"] = notes
    target = prediction.tissue.class_id if task.target is None else task.target
    explanations = [
        predictor.explain(pixels, classified, method, Score(target, task.contrast), task.path)
        for method in task.methods
    ]
    if explanations:
        canvas = Canvas(pixels, predictor.input_size)
        body["explanations"] = [_explanation_json(item, canvas, stem, task.pictures) for item in explanations]
    return body


def _read(file: Path) -> DecodedImage:
    try:
        data = file.read_bytes()
    except OSError as error:
        message = f"The file cannot be read: {error.strerror}."
        raise RequestError("file_unreadable", message, "file") from error
    return decode_image(data, ImageLimits())


def _explanation_json(explanation: Explanation, canvas: Canvas, stem: str, pictures: Path | None) -> dict[str, Any]:
    score = explanation.score
    body = subject_json(explanation.method, score.target, score.contrast)
    body |= {
        **explanation.details,
        "unit": explanation.unit,
        "attribution": map_json(explanation.attribution, "float32"),
    }
    if pictures:
        body |= _draw(explanation, canvas, pictures / f"{stem}_{explanation.method}")
    return body


def _draw(explanation: Explanation, canvas: Canvas, path: Path) -> dict[str, str]:
    """Write the heat map and the overlay, in the colours of evidence; returns their files."""
    display = "signed" if explanation.score.contrast is not None else METHODS[explanation.method]
    picture = canvas.draw(strength_of(explanation.attribution, display), display, Rendering(colormap=EVIDENCE))
    heatmap, overlay = Path(f"{path}_heatmap.png"), Path(f"{path}_overlay.jpg")
    heatmap.write_bytes(png(picture.heatmap))
    overlay.write_bytes(jpeg(picture.overlay))
    return {"heatmap": str(heatmap), "overlay": str(overlay)}


def write_json_lines(rows: Iterator[dict[str, Any]], output: TextIO) -> bool:
    """Write each answer as soon as it is there; returns whether there was no error."""
    faultless = True
    for row in rows:
        faultless &= "error" not in row
        print(json.dumps(row), file=output, flush=True)
    return faultless


def write_csv(rows: Iterator[dict[str, Any]], output: TextIO) -> bool:
    """The same as a table, without logits and maps; the codes of a prediction set are separated by spaces."""
    faultless = True
    writer = csv.DictWriter(output, COLUMNS)
    writer.writeheader()
    for row in rows:
        faultless &= "error" not in row
        writer.writerow(_columns(row))
        output.flush()
    return faultless


def _columns(row: dict[str, Any]) -> dict[str, Any]:
    if "error" in row:
        return {"file": row["file"], "error": row["error"]["code"]}
    prediction_set, risk = row["prediction_set"], row["risk"]
    return {
        "file": row["file"],
        "code": row["prediction"]["code"],
        "probability": row["prediction"]["probability"],
        "verdict": row["verdict"]["state"],
        "prediction_set": " ".join(prediction_set["codes"]) if prediction_set else "",
        "ood_score": row["ood_score"],
        "in_distribution": row["in_distribution"],
        "tumour_share": row["verdict"]["tumour_share"],
        "risk": risk["level"] if risk else "",
        "fit": row["fit"]["verdict"],
        "fit_reasons": " ".join(row["fit"]["reasons"]),
        "field_microns": row["field"]["microns"],
        **{f"p_{code}": probability for code, probability in row["probabilities"].items()},
    }


WRITERS = {"json": write_json_lines, "csv": write_csv}


def _class_id(text: str) -> int:
    """A class by its code or its id."""
    if text.upper() in CODES:
        return CODES.index(text.upper())
    if text.isascii() and text.isdigit() and int(text) < len(CODES):
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no class; classes are {', '.join(CODES)}, or 0 to {len(CODES) - 1}")


def _methods(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in METHODS:
            raise argparse.ArgumentTypeError(f"{name!r} is no method; methods are {', '.join(METHODS)}")
    if len(set(names)) < len(names):
        raise argparse.ArgumentTypeError("a method is named twice")
    return names


def _steps(text: str) -> int:
    if text.isascii() and text.isdigit() and 1 <= int(text) <= MAX_STEPS:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {MAX_STEPS}")


def _mpp(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if PLAUSIBLE[0] <= value <= PLAUSIBLE[1]:
        return value
    raise argparse.ArgumentTypeError(
        f"{text!r} is not a number of micrometres from {PLAUSIBLE[0]:g} to {PLAUSIBLE[1]:g}"
    )


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Exits with status 2 and a message for arguments that have no meaning."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="JPEG, PNG, TIFF, BMP or WebP")
    parser.add_argument("--models", type=Path, default=Path("model_store"), help="folder with the ONNX files")
    parser.add_argument(
        "--explain", type=_methods, default=(), metavar="METHOD[,METHOD]", help=f"of {', '.join(METHODS)}"
    )
    parser.add_argument("--target", type=_class_id, metavar="CLASS", help="default: the predicted class")
    parser.add_argument("--contrast", type=_class_id, metavar="CLASS", help="class whose logit is subtracted")
    parser.add_argument("--n-steps", type=_steps, default=32, metavar="N", help="of Integrated Gradients; default 32")
    parser.add_argument("--baseline", choices=list(BASELINES), default="black", help="of Integrated Gradients")
    parser.add_argument("--coverage", choices=COVERAGES, default="0.9", help="promise of the prediction set")
    parser.add_argument("--mpp", type=_mpp, metavar="MICROMETRES", help="size of a pixel; default: the file's, if any")
    parser.add_argument("--format", choices=list(WRITERS), default="json", help="lines of JSON, or a table")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="folder for a heat map and an overlay of each map")
    arguments = parser.parse_args(words)
    if not arguments.explain and (arguments.pictures or arguments.target is not None or arguments.contrast is not None):
        parser.error("--target, --contrast and --pictures have no meaning without --explain")
    if arguments.explain and arguments.format == "csv" and not arguments.pictures:
        parser.error("a table holds no maps: add --pictures")
    return arguments


def main(words: list[str] | None = None) -> int:
    """The exit status."""
    arguments = parse_arguments(words)
    if arguments.pictures:
        arguments.pictures.mkdir(parents=True, exist_ok=True)
    path = IntegrationPath(arguments.n_steps, arguments.baseline)
    task = Task(
        arguments.explain,
        arguments.target,
        arguments.contrast,
        path,
        arguments.coverage,
        arguments.pictures,
        arguments.mpp,
    )
    try:
        predictor = Predictor(arguments.models)
        faultless = WRITERS[arguments.format](answers(predictor, arguments.files, task), sys.stdout)
    except ModelFileError as error:
        print(f"predict: {error}", file=sys.stderr)
        return 2
    return 0 if faultless else 1


if __name__ == "__main__":
    sys.exit(main())
