"""Plotly figures. Numbers go in as plain lists, so that what the browser draws is what was handed over."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from demo.live import EXPLANATIONS, PREDICTIONS, Rate
from demo.markup import percent
from handler.classes import CODES, TISSUES

FONT = "system-ui, sans-serif"
ACCENT, SECOND, GREY = "#1d4ed8", "#b45309", "#6b7280"
NAMES = {tissue.code: tissue.name for tissue in TISSUES}


def probabilities(shares: Mapping[str, float], chosen: str) -> go.Figure:
    """Nine bars, the largest on top."""
    codes = sorted(shares, key=lambda code: shares[code])
    figure = go.Figure(
        go.Bar(
            x=[shares[code] for code in codes],
            y=codes,
            orientation="h",
            marker_color=[ACCENT if code == chosen else GREY for code in codes],
            text=[percent(shares[code]) for code in codes],
            textposition="outside",
            cliponaxis=False,
            customdata=[NAMES.get(code, code) for code in codes],
            hovertemplate="%{customdata}: %{x:.4f}<extra></extra>",
        )
    )
    figure.update_xaxes(range=[0, 1.12], tickformat=".0%", tickvals=[0, 0.25, 0.5, 0.75, 1])
    return _laid_out(figure, "Probability of each class", height=320)


def confusion(matrix: Sequence[Sequence[int]], shares: bool) -> go.Figure:
    """True classes in rows, predicted ones in columns; coloured by the share of the row."""
    portions = [[count / max(1, sum(row)) for count in row] for row in matrix]
    text = [
        [f"{100 * portion:.0f}" if shares else str(count) for count, portion in zip(row, line, strict=True)]
        for row, line in zip(matrix, portions, strict=True)
    ]
    figure = go.Figure(
        go.Heatmap(
            z=portions,
            x=list(CODES),
            y=list(CODES),
            text=text,
            texttemplate="%{text}",
            customdata=[list(row) for row in matrix],
            hovertemplate="%{y} taken for %{x}: %{customdata} tiles, %{z:.1%} of them<extra></extra>",
            colorscale="Blues",
            zmin=0,
            zmax=1,
            showscale=False,
        )
    )
    figure.update_yaxes(autorange="reversed", title="true class")
    figure.update_xaxes(title="predicted class", side="bottom")
    return _laid_out(figure, "Confusion matrix" + (", % of the true class" if shares else ", tiles"), height=460)


def reliability(rows: Sequence[Mapping[str, float]]) -> go.Figure:
    """Accuracy against confidence, bin by bin; points as large as the share of tiles in them."""
    figure = go.Figure()
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", line={"dash": "dot", "color": GREY}, name="as promised")
    figure.add_scatter(
        x=[row["confidence"] for row in rows],
        y=[row["accuracy"] for row in rows],
        mode="lines+markers",
        marker={"size": [8 + 40 * row["share"] for row in rows], "color": ACCENT},
        customdata=[row["share"] for row in rows],
        hovertemplate="confidence %{x:.3f}, accuracy %{y:.3f}, %{customdata:.1%} of tiles<extra></extra>",
        name="found",
    )
    figure.update_xaxes(title="mean confidence", range=[0, 1.03])
    figure.update_yaxes(title="accuracy", range=[0, 1.05])
    return _laid_out(figure, "Reliability: is 90 % sure right nine times in ten?", height=400)


def robustness(changes: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> go.Figure:
    """Accuracy under each change of the image, with its interval, beside that of unchanged tiles."""
    figure = go.Figure()
    plain = changes["unchanged"][""]["accuracy"]
    for place, (kind, strengths) in enumerate(changes.items()):
        if kind == "unchanged":
            continue
        found = [row["accuracy"] for row in strengths.values()]
        # Plotly orders equal labels of all kinds together; spaces of no width keep those of each kind apart.
        labels = [strength + place * "\u200b" for strength in strengths]
        figure.add_bar(
            x=[[kind] * len(found), labels],
            y=found,
            name=kind,
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [row["interval"][1] - row["accuracy"] for row in strengths.values()],
                "arrayminus": [row["accuracy"] - row["interval"][0] for row in strengths.values()],
                "color": GREY,
            },
            marker_color=ACCENT,
            hovertemplate="%{x}: accuracy %{y:.4f}<extra></extra>",
            showlegend=False,
        )
    figure.add_hline(y=plain, line_dash="dot", line_color=SECOND, annotation_text=f"unchanged: {plain:.4f}")
    figure.update_yaxes(title="accuracy", range=[0, 1])
    return _laid_out(figure, "Robustness: accuracy when the image is changed", height=440)


def request_rate(found: Sequence[Rate]) -> go.Figure:
    """Requests a second over time."""
    return _over_time(found, "Requests a second", lambda rate, pool: rate.requests[pool])


def latency(found: Sequence[Rate]) -> go.Figure:
    """Mean milliseconds a request, queue included; gaps where nobody asked."""

    def milliseconds(rate: Rate, pool: str) -> float | None:
        mean = rate.latency[pool]
        return None if mean is None else 1000 * mean

    return _over_time(found, "Mean time of a request, ms", milliseconds)


def class_mix(counts: Mapping[str, float]) -> go.Figure:
    """How often each class was predicted since the server started."""
    figure = go.Figure(go.Bar(x=list(CODES), y=[counts.get(code, 0) for code in CODES], marker_color=ACCENT))
    return _laid_out(figure, "Predictions by class since the server started", height=300)


def _over_time(found: Sequence[Rate], title: str, value: Any) -> go.Figure:
    figure = go.Figure()
    ages = [rate.moment - found[-1].moment for rate in found]
    for pool, colour in ((PREDICTIONS, ACCENT), (EXPLANATIONS, SECOND)):
        figure.add_scatter(
            x=ages,
            y=[value(rate, pool) for rate in found],
            mode="lines+markers",
            name=pool,
            line_color=colour,
        )
    figure.update_xaxes(title="seconds ago", range=[min([-60.0, *ages]), 1])
    figure.update_yaxes(rangemode="tozero")
    return _laid_out(figure, title, height=300)


def _laid_out(figure: go.Figure, title: str, height: int) -> go.Figure:
    figure.update_layout(
        title={"text": title, "font": {"size": 15}},
        font={"family": FONT, "size": 13},
        template="plotly_white",
        height=height,
        margin={"l": 60, "r": 20, "t": 50, "b": 50},
        legend={"orientation": "h", "y": 1.12, "x": 1, "xanchor": "right"},
        modebar={"remove": ["lasso2d", "select2d"]},
    )
    return figure
