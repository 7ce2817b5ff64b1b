"""The options of a request, from text to typed values, or one typed error."""

from collections.abc import Mapping
from dataclasses import dataclass

from handler.api.errors import RequestError
from handler.api.field import PLAUSIBLE
from handler.api.prediction import TRUST
from handler.api.render import DIVERGING, EVIDENCE, SEQUENTIAL, Rendering
from handler.classes import CODES, NUM_CLASSES
from handler.explain.registry import DEFAULT_METHOD, METHODS
from handler.explain.types import Method, Parameter

Value = int | float | str

RENDERING = {
    "colormap": Parameter(default="", choices=(*SEQUENTIAL, *DIVERGING, EVIDENCE)),
    "alpha": Parameter(default=0.5, minimum=0, maximum=1),
    "size": Parameter(default=224, minimum=28, maximum=1024),
    "sigma": Parameter(default=0.0, minimum=0, maximum=32),
    "percentile": Parameter(default=100.0, minimum=50, maximum=100),
}
RETURN = Parameter(default="images", choices=("images", "raw", "both"))
DTYPE = Parameter(default="float32", choices=("float16", "float32"))
# Milliseconds; 0 means no limit. The largest is the time that a worker has for a whole batch.
BUDGET = Parameter(default=0, minimum=1, maximum=300_000)
# The settings of the original demonstration; the smoothing applies to the gradient methods only.
PRESETS: dict[str, dict[str, Value]] = {"classic": {"n_steps": 200, "baseline": "black", "sigma": 2.0}}
METHOD_PARAMETERS = {name for method in METHODS.values() for name in method.parameters}
# What an answer may hold besides: the tile as the network sees it, and the numbers before the last layer.
INCLUDABLE = (*TRUST, "canonical", "embedding")
COVERAGE = Parameter(default="0.9", choices=("0.9", "0.95"))
# Micrometres a pixel; 0 means unknown.
MPP = Parameter(default=0.0, minimum=PLAUSIBLE[0], maximum=PLAUSIBLE[1])
# The only options that apply to a prediction without explanations.
PREDICTION_OPTIONS = {"include", "coverage", "mpp"}
PLAIN = {"explain", "method", "target", "contrast", "preset", "return", "dtype", "budget_ms", *PREDICTION_OPTIONS}
OPTIONS = PLAIN | set(RENDERING) | METHOD_PARAMETERS


@dataclass(frozen=True)
class ExplanationRequest:
    """One explanation to compute.

    `target` None means the predicted class; `contrast` is a class whose logit is subtracted. `parameters` are sorted
    pairs. `images` says whether to draw pictures, `raw` the number type in which to return the signed map, if at all.
    """

    method: Method
    parameters: tuple[tuple[str, Value], ...]
    target: int | None
    contrast: int | None
    rendering: Rendering
    images: bool
    raw: str | None


@dataclass(frozen=True)
class Options:
    """The explanations that a request asks for, in order, and their time limit in seconds, None for no limit.

    `include` names further parts of the answer (`INCLUDABLE`), `coverage` the coverage of its prediction set, `mpp` the
    micrometres a pixel.
    """

    explanations: tuple[ExplanationRequest, ...] = ()
    budget: float | None = None
    include: frozenset[str] = frozenset(TRUST)
    coverage: str = str(COVERAGE.default)
    mpp: float | None = None


def parse_options(options: Mapping[str, str], verb_explain: bool) -> Options:
    """Read and check every option. Raises `RequestError` naming the first bad one."""
    _refuse_unknown(options)
    methods = _methods(options, verb_explain)
    include = _include(options)
    coverage = str(_value("coverage", options, COVERAGE))
    mpp = float(_value("mpp", options, MPP)) or None
    if not methods:
        _refuse_all(set(options) - PREDICTION_OPTIONS - {"explain"})
        return Options(include=include, coverage=coverage, mpp=mpp)
    return Options(_explanations(options, methods), _budget(options), include, coverage, mpp)


def _refuse_unknown(options: Mapping[str, str]) -> None:
    for name in sorted(set(options) - OPTIONS):
        message = f"There is no option {name[:40]!r}; options are {', '.join(sorted(OPTIONS))}."
        raise RequestError("option_unknown", message, name)


def _refuse_all(names: set[str]) -> None:
    if names:
        name = min(names)
        raise RequestError("option_misplaced", f"{name!r} has no meaning without 'explain'.", name)


def _include(options: Mapping[str, str]) -> frozenset[str]:
    words = frozenset(word.strip() for word in options.get("include", ",".join(TRUST)).split(","))
    if words == {"none"}:
        words = frozenset()
    if not words <= set(INCLUDABLE):
        message = f"'include' takes {', '.join(INCLUDABLE)}, several with commas, or none."
        raise RequestError("parameter_invalid", message, "include")
    if "coverage" in options and "prediction_set" not in words:
        raise RequestError("option_misplaced", "'coverage' has no meaning without the prediction set.", "coverage")
    return words


def _methods(options: Mapping[str, str], verb_explain: bool) -> list[Method]:
    """The methods that a request names; none for a plain prediction."""
    field, other = ("method", "explain") if verb_explain else ("explain", "method")
    if other in options:
        message = "Use 'method' with /explanations and 'explain' with /predictions."
        raise RequestError("option_misplaced", message, other)
    names = options.get(field, DEFAULT_METHOD if verb_explain else None)
    if names is None:
        return []
    words = [name.strip() for name in names.split(",")]
    for name in words:
        if name not in METHODS:
            message = f"There is no method {name[:40]!r}; methods are {', '.join(METHODS)}."
            raise RequestError("method_unknown", message, field)
    if len(set(words)) < len(words):
        raise RequestError("parameter_invalid", "A method is named twice.", field)
    methods = [METHODS[name] for name in words]
    if not verb_explain:
        _refuse_slow(methods)
    return methods


def _refuse_slow(methods: list[Method]) -> None:
    """Predictions have their own workers, which no explanation may keep busy."""
    for method in methods:
        if method.closed_form is None:
            free = ", ".join(item.name for item in METHODS.values() if item.closed_form)
            message = f"{method.name} is too slow for /predictions; use /explanations. 'explain' takes {free}."
            raise RequestError("method_misplaced", message, "explain")


def _explanations(options: Mapping[str, str], methods: list[Method]) -> tuple[ExplanationRequest, ...]:
    """One for each method and target, methods first."""
    preset = PRESETS[_choice("preset", options["preset"], tuple(PRESETS))] if "preset" in options else {}
    _refuse_unused(options, methods, preset)
    contrast = _class_id(options["contrast"], "contrast") if "contrast" in options else None
    targets = _targets(options, methods, contrast)
    images, raw = _output(options)
    return tuple(
        ExplanationRequest(
            method,
            _parameters(method, options, preset),
            target,
            contrast,
            _rendering(method, options, preset),
            images,
            raw,
        )
        for method in methods
        for target in targets
    )


def _refuse_unused(options: Mapping[str, str], methods: list[Method], preset: Mapping[str, Value]) -> None:
    used = {name for method in methods for name in method.parameters}
    for name in sorted(set(options) & METHOD_PARAMETERS - used):
        message = f"{name!r} has no meaning for {', '.join(method.name for method in methods)}."
        raise RequestError("option_misplaced", message, name)
    for method in methods:
        for name, spec in method.parameters.items():
            if name in options and spec.excludes in {*options, *preset}:
                raise RequestError("option_misplaced", f"{name!r} has no meaning beside {spec.excludes!r}.", name)


def _targets(options: Mapping[str, str], methods: list[Method], contrast: int | None) -> list[int | None]:
    if "target" not in options:
        return [None]
    if options["target"] == "all":
        _refuse_all_targets(methods)
        return list(range(NUM_CLASSES))
    target = _class_id(options["target"], "target")
    if target == contrast:
        raise RequestError("target_invalid", "A class cannot be contrasted with itself.", "contrast")
    return [target]


def _refuse_all_targets(methods: list[Method]) -> None:
    for method in methods:
        if method.closed_form is None:
            message = f"'all' is for methods without a backward pass; {method.name} needs one for each class."
            raise RequestError("target_invalid", message, "target")


def _class_id(value: str, field: str) -> int:
    if value.upper() in CODES:
        return CODES.index(value.upper())
    if value.isascii() and value.isdigit() and len(value) < 3 and int(value) < NUM_CLASSES:
        return int(value)
    message = f"There is no class {value[:20]!r}; use 0 to {NUM_CLASSES - 1} or one of {', '.join(CODES)}."
    raise RequestError("target_invalid", message, field)


def _parameters(
    method: Method, options: Mapping[str, str], preset: Mapping[str, Value]
) -> tuple[tuple[str, Value], ...]:
    return tuple((name, _value(name, options, spec, preset)) for name, spec in sorted(method.parameters.items()))


def _rendering(method: Method, options: Mapping[str, str], preset: Mapping[str, Value]) -> Rendering:
    smoothing = preset if method.display == "magnitude" else {}
    drawing = {name: _value(name, options, spec, smoothing) for name, spec in RENDERING.items()}
    return Rendering(
        str(drawing["colormap"]) or None,
        float(drawing["alpha"]),
        int(drawing["size"]),
        float(drawing["sigma"]),
        float(drawing["percentile"]),
    )


def _output(options: Mapping[str, str]) -> tuple[bool, str | None]:
    """Whether to draw pictures, and the number type of the raw map, if that is to be returned."""
    output = _value("return", options, RETURN)
    if output != "images":
        return output == "both", str(_value("dtype", options, DTYPE))
    if "dtype" in options:
        raise RequestError("option_misplaced", "'dtype' has no meaning without return=raw or both.", "dtype")
    return True, None


def _budget(options: Mapping[str, str]) -> float | None:
    """Seconds."""
    milliseconds = int(_value("budget_ms", options, BUDGET))
    return milliseconds / 1000 if milliseconds else None


def _value(name: str, options: Mapping[str, str], spec: Parameter, preset: Mapping[str, Value] | None = None) -> Value:
    """What the request says, or its preset, or the default."""
    if name not in options:
        return (preset or {}).get(name, spec.default)
    text = options[name]
    if spec.choices:
        return _choice(name, text, spec.choices)
    return _number(name, text, spec)


def _number(name: str, text: str, spec: Parameter) -> int | float:
    is_integer = isinstance(spec.default, int)
    word = "an integer" if is_integer else "a number"
    message = f"{name!r} must be {word} from {spec.minimum:g} to {spec.maximum:g}."
    try:
        # Python also reads other scripts' digits and underscores between digits.
        plain = text.encode("ascii").replace(b"_", b"?")
        number = int(plain) if is_integer else float(plain)
    except ValueError as error:
        raise RequestError("parameter_invalid", message, name) from error
    # NaN fails this comparison too.
    if not spec.minimum <= number <= spec.maximum:
        raise RequestError("parameter_invalid", message, name)
    return number


def _choice(name: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise RequestError("parameter_invalid", f"{name!r} must be one of {', '.join(choices)}.", name)
    return value
