"""The explanation methods by name."""

from handler.explain.attribution import Method, Parameter
from handler.explain.cam import gradcam
from handler.explain.gradient import integrated_gradients, saliency

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("gradcam", gradcam, "positive"),
        Method("saliency", saliency, "magnitude"),
        Method(
            "integrated_gradients",
            integrated_gradients,
            "magnitude",
            {
                "n_steps": Parameter(default=32, minimum=1, maximum=256),
                "baseline": Parameter(default="black", choices=("black", "white", "mean")),
            },
        ),
    )
}

DEFAULT_METHOD = "gradcam"
