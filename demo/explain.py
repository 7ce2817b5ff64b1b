"""The Explain tab's answer, as HTML: tile, map and overlay for each method, with its figures of trust."""

import base64
from collections.abc import Mapping
from html import escape
from io import BytesIO
from typing import Any

from PIL import Image

from demo.client import Answer, Explanation
from demo.markup import picture
from demo.view import METHODS

# What a fact of an explanation means, and how it is written.
FACTS = {
    "completeness_residual": ("completeness residual", ".1e"),
    "map_error_estimate": ("estimated error of the map", ".1%"),
    "standard_error": ("standard error of the mean", ".1%"),
    "gradient_evaluations": ("gradients computed", "d"),
    "score_evaluations": ("predictions computed", "d"),
    "segments": ("segments of the path", "d"),
    "n_steps": ("steps", "d"),
    "n_samples": ("noisy copies", "d"),
    "noise": ("noise, share of the range", ".2f"),
    "tolerance": ("tolerance asked for", ".1%"),
    "baseline": ("baseline", "s"),
    "window": ("covered square, pixels", "d"),
    "stride": ("step between squares, pixels", "d"),
    "layer": ("layer", "s"),
    "rule": ("rule", "s"),
    "stopped_by": ("stopped by", "s"),
}
LEGEND_STOPS = 9


def panel(answer: Answer, budget: int) -> str:
    """One card for each map, in the order asked for; `budget` is the time limit that was set, in ms, or 0."""
    cards = "".join(_card(item) for item in answer.explanations)
    limit = f", with a time limit of {budget / 1000:g} s" if budget else ""
    spent = f"Answered in {1000 * answer.seconds:.0f} ms{limit}. Predicted: {answer.name} ({answer.code})."
    return f'<p class="hint" id="explained">{escape(spent)}</p><div class="cards">{cards}</div>'


def question(item: Explanation) -> str:
    """What a map was asked, in words."""
    return f"for {item.target}" + (f" rather than {item.contrast}" if item.contrast else "")


def _card(item: Explanation) -> str:
    title, meaning = METHODS.get(item.method, (item.method, ""))
    heading = f"<h2>{escape(title)} <small>{escape(question(item))}</small></h2>"
    if item.skipped:
        body = f'<p class="notice bad">{escape(item.skipped)} Raise the time limit to see it.</p>'
        return f'<article class="card" data-method="{escape(item.method)}">{heading}{body}</article>'
    asked = f"{title} map {question(item)}"
    tile = picture(item.tile, "jpeg", "The tile as the model sees it")
    pictures = (
        f"<figure>{tile}<figcaption>tile</figcaption></figure>"
        f"<figure>{picture(item.heatmap, 'png', asked)}<figcaption>map</figcaption></figure>"
        f'<figure class="overlay">{tile}{picture(item.heatmap, "png", f"{asked}, laid over the tile", "map")}'
        "<figcaption>overlay</figcaption></figure>"
    )
    return (
        f'<article class="card" data-method="{escape(item.method)}" data-title="{escape(title)}, '
        f'{escape(question(item))}">{heading}<p class="hint">{escape(meaning)}</p>'
        f'<div class="pictures">{pictures}</div>{_legend(item)}{_facts(item.facts)}</article>'
    )


def _legend(item: Explanation) -> str:
    """The colour scale, read from the picture's own palette."""
    with Image.open(BytesIO(base64.b64decode(item.heatmap))) as image:
        palette = image.getpalette() or [0, 0, 0]
    levels = len(palette) // 3 - 1
    stops = [round(levels * step / (LEGEND_STOPS - 1)) for step in range(LEGEND_STOPS)]
    colours = ",".join("rgb({},{},{})".format(*palette[3 * stop : 3 * stop + 3]) for stop in stops)
    return (
        f'<div class="legend"><span>{item.low:.2g}</span>'
        f'<span class="scale" style="background:linear-gradient(to right,{colours})"></span>'
        f"<span>{item.high:.2g} {escape(item.unit)}</span></div>"
    )


def _facts(facts: Mapping[str, Any]) -> str:
    rows = [(*FACTS[name], value) for name, value in facts.items() if name in FACTS]
    if "converged" in facts:
        rows.append(("converged", "s", "yes" if facts["converged"] else "no"))
    cells = "".join(f"<dt>{label}</dt><dd>{escape(format(value, spec))}</dd>" for label, spec, value in rows)
    return f'<dl class="facts">{cells}</dl>'
