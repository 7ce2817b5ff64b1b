"""The page: five tabs, and what happens when a visitor does something.

A visitor's tile is kept as bytes in his session's memory. The file Gradio makes of an upload is read once, at once,
and soon deleted; answers are written into the page and never into files.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from demo import charts, classify, explain, guide, report
from demo.client import Client, ServerError
from demo.live import Monitor, rates
from demo.markup import alert, hint
from demo.report import SPLITS, Report, ReportError, read_report
from demo.upload import FORMATS, UploadError, check
from demo.view import BUDGETS, COLORMAPS, METHODS, View, read_view
from handler.classes import CODES, DISCLAIMER, TISSUES

# Seconds between looks at the server's health, and at its metrics while the Live tab is open.
PULSE, LIVE_PULSE = 3.0, 2.0
# Seconds after which an idle visitor's tile is forgotten.
FORGET = 3600
TABS = {"classify": "Classify", "explain": "Explain", "model": "Model", "guide": "Tissue guide", "live": "Live"}
WAITING = "Drop a tissue tile on the left, paste one, or take an example. The answer appears here."
NO_MAPS = "Choose a tile on the left. Its maps appear here."
CLASSES = [(f"{tissue.code}, {tissue.name}", tissue.code) for tissue in TISSUES]


@dataclass(frozen=True)
class Content:
    """What the page shows besides the server's answers: the folder of reports, tiles by class code, their origin.

    `keep` is for how many seconds the file Gradio makes of an upload may lie on disk.
    """

    reports: Path
    tiles: dict[str, str]
    origin: str
    keep: int


def build(client: Client, content: Content) -> gr.Blocks:
    """The whole page, ready to be launched."""
    measured = _read_report(content.reports)
    blocks = gr.Blocks(title="PathMNIST XAI", analytics_enabled=False, delete_cache=(content.keep, content.keep))
    with blocks:
        tile = gr.State(None, time_to_live=FORGET)
        recoveries = gr.State(0)
        gr.HTML(f'<header><h1>What does the model see?</h1><p class="hint">{DISCLAIMER}</p></header>')
        _status(blocks, client, recoveries)
        with gr.Row():
            with gr.Column(scale=1, min_width=280, elem_classes="tile-panel"):
                _tile_panel(tile)
            with gr.Column(scale=3, min_width=320), gr.Tabs(elem_id="tabs") as tabs:
                with _tab("classify"):
                    _classify_tab(client, tile, recoveries, measured)
                with _tab("explain"):
                    controls = _explain_tab(client, tile, recoveries)
                with _tab("model"):
                    _model_tab(measured)
                with _tab("guide"):
                    gr.HTML(guide.panel(content.tiles, content.origin))
                with _tab("live"):
                    timer = _live_tab(client)
        _shared_view(blocks, tabs, controls, timer)
    return blocks.queue(default_concurrency_limit=16)


def _read_report(folder: Path) -> Report | ReportError:
    try:
        return read_report(folder)
    except ReportError as error:
        return error


def _tab(name: str) -> gr.Tab:
    # All tabs are in the page from the start, so that a shared address can open any of them.
    return gr.Tab(TABS[name], id=name, elem_id=name)


def _status(blocks: gr.Blocks, client: Client, recoveries: gr.State) -> None:
    """A line on the server's health; counts how often the server has come back."""
    problem = gr.State(None)
    line = gr.HTML(elem_id="status")

    def look(before: str | None, count: int) -> tuple[Any, str, int]:
        found = _problem(client)
        shown = alert(found) if found else hint(f"Model server ready at {client.url}.")
        recovered = bool(before) and not found
        return gr.skip() if found == before else shown, found, count + recovered

    gr.on(
        [gr.Timer(PULSE).tick, blocks.load],
        look,
        [problem, recoveries],
        [line, problem, recoveries],
        show_progress="hidden",
        api_visibility="private",
    )


def _problem(client: Client) -> str:
    """Why the server cannot be used at the moment; empty where it can."""
    try:
        client.ping()
    except ServerError as error:
        advice = "Start it with `make serve`, or start this page with another --server. " if error.down else ""
        return f"{error} {advice}The page tries again by itself."
    return ""


def _tile_panel(tile: gr.State) -> None:
    image = gr.Image(
        label="Tissue tile",
        type="filepath",
        image_mode=None,
        sources=["upload", "clipboard"],
        buttons=[],
        height=260,
        elem_id="tile",
        alt_text="The chosen tissue tile",
        placeholder=f"Drop a tile here\n{', '.join(FORMATS)}, up to 16 MB",
    )
    notice = gr.HTML(elem_id="notice")

    def read(file: dict[str, Any] | None) -> tuple[bytes | None, str]:
        if file is None:
            return None, ""
        try:
            data = Path(file["path"]).read_bytes()
            check(data)
        except OSError:
            return None, alert("The upload was lost on the way. Please choose the file again.")
        except UploadError as error:
            return None, alert(str(error))
        return data, ""

    # Not preprocessed: the server is to judge the very bytes the visitor chose.
    image.change(
        read,
        image,
        [tile, notice],
        preprocess=False,
        show_progress="hidden",
        trigger_mode="always_last",
        api_visibility="private",
    )
    gr.Examples(
        [str(guide.GENERATED / f"{code}.png") for code in CODES],
        image,
        label="Generated examples",
        examples_per_page=len(CODES),
        elem_id="examples",
        api_visibility="private",
    )


def _classify_tab(client: Client, tile: gr.State, recoveries: gr.State, measured: Report | ReportError) -> None:
    answer = gr.HTML(hint(WAITING), elem_id="answer")
    bars = gr.Plot(charts.probabilities({}, ""), show_label=False, visible=False, elem_id="bars", container=False)
    retry = gr.Button("Try again", visible=False)

    def run(data: bytes | None) -> tuple[str, Any, Any]:
        if data is None:
            return hint(WAITING), gr.Plot(visible=False), gr.Button(visible=False)
        try:
            found = client.classify(data)
        except ServerError as error:
            return alert(str(error)), gr.Plot(visible=False), gr.Button(visible=True)
        figure = charts.probabilities(found.probabilities, found.code)
        other = isinstance(measured, Report) and measured.digest != found.model["digest"]
        return classify.panel(found, other), gr.Plot(figure, visible=True), gr.Button(visible=False)

    triggers = [tile.change, recoveries.change, retry.click]
    _answer(triggers, run, [tile], [answer, bars, retry])


@dataclass(frozen=True)
class Controls:
    """The controls of a view, in the order of its fields."""

    methods: gr.CheckboxGroup
    target: gr.Dropdown
    contrast: gr.Dropdown
    colormap: gr.Dropdown
    opacity: gr.Slider
    budget: gr.Dropdown

    def all(self) -> list[gr.components.Component]:
        return list(vars(self).values())


def _controls() -> Controls:
    plain = View()
    methods = gr.CheckboxGroup(
        [(title, name) for name, (title, _) in METHODS.items()],
        value=list(plain.methods),
        label="Methods, side by side",
        elem_id="methods",
    )
    with gr.Row():
        target = gr.Dropdown([("the predicted class", ""), *CLASSES], value="", label="What speaks for", min_width=230)
        contrast = gr.Dropdown([("nothing else", ""), *CLASSES], value="", label="rather than", min_width=230)
    with gr.Row():
        colormap = gr.Dropdown([("automatic", ""), *COLORMAPS], value="", label="Colour map", min_width=160)
        opacity = gr.Slider(0, 1, plain.opacity, step=0.05, label="Opacity of the overlay", scale=2, min_width=200)
        limits = [("none", 0), *((f"{budget / 1000:g} s", budget) for budget in BUDGETS)]
        budget = gr.Dropdown(limits, value=0, label="Time limit", min_width=130)
    return Controls(methods, target, contrast, colormap, opacity, budget)


def _explain_tab(client: Client, tile: gr.State, recoveries: gr.State) -> Controls:
    controls = _controls()
    with gr.Row():
        contrast_button = gr.Button("Stroma against muscle", size="sm", min_width=120)
        plain_button = gr.Button("Predicted class", size="sm", min_width=120)
        png_button = gr.Button("Download PNG", size="sm", min_width=120)
        json_button = gr.Button("Download JSON", size="sm", min_width=120)
    maps = gr.HTML(hint(NO_MAPS), elem_id="maps")
    retry = gr.Button("Try again", visible=False)
    document = gr.Textbox(visible=False)

    def run(data: bytes | None, *chosen: Any) -> tuple[str, Any]:
        view = _view(*chosen)
        if data is None or not view.methods:
            return hint(NO_MAPS if data is None else "Choose at least one method."), gr.Button(visible=False)
        try:
            found = client.explain(data, view.options())
        except ServerError as error:
            return alert(str(error)), gr.Button(visible=True)
        return explain.panel(found, view.budget), gr.Button(visible=False)

    def as_json(data: bytes | None, *chosen: Any) -> str:
        view = _view(*chosen)
        if data is None or not view.methods:
            raise gr.Error("There is nothing to download yet: choose a tile and a method.")
        try:
            return client.explain_as_json(data, view.options())
        except ServerError as error:
            raise gr.Error(str(error)) from error

    # Opacity is drawn by the browser, so it asks the server for nothing.
    asked = [control for control in controls.all() if control is not controls.opacity]
    triggers = [tile.change, recoveries.change, retry.click, *(control.change for control in asked)]
    _answer(triggers, run, [tile, *controls.all()], [maps, retry])
    questions = [controls.target, controls.contrast]
    contrast_button.click(lambda: ("STR", "MUS"), None, questions, api_visibility="private")
    plain_button.click(lambda: ("", ""), None, questions, api_visibility="private")
    png_button.click(None, None, None, js="() => pathmnist.savePicture()", api_visibility="private")
    json_button.click(as_json, [tile, *controls.all()], document, api_visibility="private").success(
        None, document, None, js="(text) => pathmnist.saveText(text)", api_visibility="private"
    )
    return controls


def _view(methods: list[str], target: str, contrast: str, colormap: str, opacity: float, budget: int) -> View:
    return View(tuple(methods), target, contrast, colormap, opacity, budget)


def _model_tab(found: Report | ReportError) -> None:
    if isinstance(found, ReportError):
        gr.HTML(alert(str(found)))
        return
    split = gr.Radio(
        [(SPLITS[name], name) for name in found.splits], value=found.splits[0], label="Measured on tiles of"
    )
    summary = gr.HTML(report.summary(found, found.splits[0]))
    shares = gr.Checkbox(False, label="Confusion matrix in % of the true class")
    matrix = gr.Plot(charts.confusion(found.confusion(found.splits[0]), False), show_label=False, container=False)
    gr.Plot(charts.reliability(found.confidence["reliability"]), show_label=False, container=False)
    gr.HTML(report.trust(found))
    gr.Plot(charts.robustness(found.robustness["changes"]), show_label=False, container=False)

    def show(name: str, in_percent: bool) -> tuple[str, Any]:
        return report.summary(found, name), charts.confusion(found.confusion(name), in_percent)

    gr.on([split.change, shares.change], show, [split, shares], [summary, matrix], api_visibility="private")


def _live_tab(client: Client) -> gr.Timer:
    monitor = Monitor(client.metrics, client.model, LIVE_PULSE)
    line = gr.HTML(elem_id="live-line")
    with gr.Row():
        requests = gr.Plot(charts.request_rate([]), show_label=False, container=False)
        latency = gr.Plot(charts.latency([]), show_label=False, container=False)
    mix = gr.Plot(charts.class_mix({}), show_label=False, container=False)
    timer = gr.Timer(LIVE_PULSE, active=False)

    def look() -> tuple[Any, ...]:
        try:
            samples = monitor.samples()
        except ServerError:
            return alert(f"No metrics answer at {client.metrics_url}."), gr.skip(), gr.skip(), gr.skip()
        except ValueError:
            return alert(f"What answers at {client.metrics_url} is no metrics."), gr.skip(), gr.skip(), gr.skip()
        found, last = rates(samples), samples[-1]
        asked = sum(last.requests.values())
        text = (
            f"Since the server started: {asked:.0f} requests, {last.errors:.0f} failures of the server, "
            f"{last.cache_hits:.0f} of {last.cache_hits + last.cache_misses:.0f} costly maps from the cache."
        )
        return hint(text), charts.request_rate(found), charts.latency(found), charts.class_mix(last.classes)

    timer.tick(look, None, [line, requests, latency, mix], show_progress="hidden", api_visibility="private")
    return timer


def _shared_view(blocks: gr.Blocks, tabs: gr.Tabs, controls: Controls, timer: gr.Timer) -> None:
    """The view is read from the page's address on load and written there when it changes."""

    def open_view(request: gr.Request) -> list[Any]:
        view = read_view(request.query_params)
        name = request.query_params.get("tab", "")
        selected = name if name in TABS else "classify"
        values = {**vars(view), "methods": list(view.methods)}
        return [*values.values(), gr.Tabs(selected=selected), gr.Timer(active=selected == "live")]

    def selected(event: gr.SelectData) -> Any:
        return gr.Timer(active=event.value == TABS["live"])

    blocks.load(None, None, None, js=f"() => pathmnist.nameExamples({[tissue.name for tissue in TISSUES]})")
    blocks.load(open_view, None, [*controls.all(), tabs, timer], show_progress="hidden", api_visibility="private")
    gr.on(
        [control.change for control in controls.all()],
        None,
        controls.all(),
        None,
        js=f"(...values) => pathmnist.share(values, {json.dumps(vars(View()))})",
        api_visibility="private",
    )
    tabs.select(selected, None, timer, show_progress="hidden", api_visibility="private").then(
        None, None, None, js="() => pathmnist.shareTab()", api_visibility="private"
    )


def _answer(triggers: list[Any], run: Callable[..., Any], inputs: list[Any], outputs: list[Any]) -> None:
    """Ask the server on any trigger. While an answer is under way further triggers wait, and only the last of them is
    asked, so that an old answer never replaces a newer one."""
    gr.on(triggers, run, inputs, outputs, trigger_mode="always_last", api_visibility="private")
