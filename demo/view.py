"""How a visitor looks at a tile: methods, question, drawing. A view stands in the page's address and can be shared."""

from collections.abc import Mapping
from dataclasses import dataclass

from handler.classes import CODES

# HiResCAM and XGrad-CAM are the same map as Grad-CAM in this architecture.
METHODS = {
    "gradcam": ("Grad-CAM", "where the evidence for the class lies; exact, and coarse (7 x 7)"),
    "layercam": ("LayerCAM", "the same feature map, positive evidence only"),
    "gradcam_plus_plus": ("Grad-CAM++", "the same feature map, weighted by positive evidence"),
    "occlusion": ("Occlusion", "what the score loses when a square is covered; asks the model nothing but answers"),
    "integrated_gradients": ("Integrated Gradients", "the change from black, shared out over the pixels"),
    "smoothgrad": ("SmoothGrad", "the mean gradient of noisy copies"),
    "saliency": ("Saliency", "the gradient with respect to the pixels"),
    "input_x_gradient": ("Input x Gradient", "the gradient times the pixels"),
    "guided_backprop": ("Guided backpropagation", "shows edges; no evidence about the model, for comparison"),
}
# By default the server draws contrasts in a diverging map and everything else in a sequential one.
COLORMAPS = ("inferno", "viridis", "magma", "plasma", "cividis", "gray", "vik")
BUDGETS = (500, 2000, 10000)


@dataclass(frozen=True)
class View:
    """`target` "" is the predicted class, `contrast` "" none, `colormap` "" the server's choice, `budget` 0 no limit.

    `opacity` is the map's share of the overlay, 0 to 1; `budget` is in milliseconds.
    """

    methods: tuple[str, ...] = ("gradcam",)
    target: str = ""
    contrast: str = ""
    colormap: str = ""
    opacity: float = 0.5
    budget: int = 0

    def options(self) -> dict[str, str]:
        """The view as options of the server's API; opacity is the browser's business."""
        options = {
            "method": ",".join(self.methods),
            "target": self.target,
            "contrast": self.contrast,
            "colormap": self.colormap,
            "budget_ms": str(self.budget or ""),
        }
        return {name: value for name, value in options.items() if value}


def read_view(query: Mapping[str, str]) -> View:
    """The view in a page's address; what is unknown or out of range there is left at its default."""
    plain = View()
    methods = tuple(name for name in METHODS if name in query.get("methods", "").split(","))
    return View(
        methods=methods or plain.methods,
        target=_one_of(CODES, query.get("target")),
        contrast=_one_of(CODES, query.get("contrast")),
        colormap=_one_of(COLORMAPS, query.get("colormap")),
        opacity=_share(query.get("opacity"), plain.opacity),
        budget=int(_one_of(tuple(map(str, BUDGETS)), query.get("budget")) or 0),
    )


def _one_of(known: tuple[str, ...], value: str | None) -> str:
    return value if value in known else ""


def _share(value: str | None, default: float) -> float:
    try:
        share = float(value or "")
    except ValueError:
        return default
    return share if 0 <= share <= 1 else default
