"""The Classify tab's answer, as HTML."""

from html import escape

from demo.client import Answer
from demo.guide import GUIDANCE
from demo.markup import percent, picture, table
from handler.classes import TISSUES

NAMES = {tissue.code: tissue.name for tissue in TISSUES}


def panel(answer: Answer, unmeasured: bool) -> str:
    """Class, confidence, prediction set, warnings, risk with guidance, and the map that costs nothing.

    `unmeasured`: the Model tab's figures are of other weights than those that answered.
    """
    parts = [_headline(answer), _warning(answer), _sets(answer), _risk(answer), _probabilities(answer), _origin(answer)]
    if unmeasured:
        parts.append('<p class="notice">The figures under Model were measured with other weights.</p>')
    return f'<div class="answer"><div>{"".join(parts)}</div>{_map(answer)}</div>'


def _headline(answer: Answer) -> str:
    kind = "calibrated confidence" if answer.calibrated else "confidence, not calibrated"
    return (
        f'<h2 id="class">{escape(answer.name)} <span class="code">{escape(answer.code)}</span></h2>'
        f'<p class="confidence"><strong>{percent(answer.confidence)}</strong> {kind}</p>'
    )


def _warning(answer: Answer) -> str:
    if answer.in_distribution is not False:
        return ""
    return (
        '<p class="notice bad" id="unfamiliar">This image does not resemble the tissue tiles the model has learned '
        "from. Its answer should not be relied on.</p>"
    )


def _sets(answer: Answer) -> str:
    if answer.prediction_set is None or answer.coverage is None:
        return ""
    names = ", ".join(f"{NAMES.get(code, code)} ({code})" for code in answer.prediction_set)
    promise = f"{100 * answer.coverage:.0f} %"
    return (
        f'<p id="set"><strong>Prediction set at {promise}:</strong> {escape(names)}. On tiles like those it was '
        f"calibrated on, such a list holds the true class in {promise} of cases.</p>"
    )


def _risk(answer: Answer) -> str:
    guidance = GUIDANCE.get(answer.risk, "")
    return (
        f'<p class="notice risk-{escape(answer.risk)}" id="risk"><strong>Risk group: {escape(answer.risk)}.</strong> '
        f"{escape(guidance)}<br><em>{escape(answer.disclaimer)}</em></p>"
    )


def _probabilities(answer: Answer) -> str:
    ordered = sorted(answer.probabilities.items(), key=lambda item: -item[1])
    rows = [(code, NAMES.get(code, code), percent(share)) for code, share in ordered]
    found = table("Probability of each class", ("class", "name", "probability"), rows)
    return f"<details><summary>Probabilities as a table</summary>{found}</details>"


def _origin(answer: Answer) -> str:
    model = answer.model
    return (
        f'<p class="hint" id="origin">Answered in {1000 * answer.seconds:.0f} ms by {escape(model["name"])} '
        f"{escape(model['version'])} ({escape(model['digest'][:12])}), which has learned from "
        f"{escape(model['training_data'])}.</p>"
    )


def _map(answer: Answer) -> str:
    if not answer.explanations or not answer.explanations[0].heatmap:
        return ""
    found = answer.explanations[0]
    return (
        '<figure class="overlay">'
        + picture(found.tile, "jpeg", "The tile as the model sees it")
        + picture(found.heatmap, "png", f"Grad-CAM map for {found.target}, laid over the tile", "map")
        + f"<figcaption>What speaks for {escape(found.target)}: bright. More maps under Explain.</figcaption></figure>"
    )
