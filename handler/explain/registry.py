"""The explanation methods by name."""

from handler.explain.attribution import Method, Parameter
from handler.explain.cam import gradcam, gradcam_plus_plus, layercam
from handler.explain.gradient import input_x_gradient, integrated_gradients, saliency

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("gradcam", gradcam, "positive", closed_form=True),
        Method("hirescam", gradcam, "positive", closed_form=True),
        Method("xgradcam", gradcam, "positive", closed_form=True),
        Method("layercam", layercam, "positive", closed_form=True),
        Method("gradcam_plus_plus", gradcam_plus_plus, "positive", closed_form=True),
        Method("saliency", saliency, "magnitude"),
        Method("input_x_gradient", input_x_gradient, "magnitude"),
        Method(
            "integrated_gradients",
            integrated_gradients,
            "magnitude",
            parameters={
                "n_steps": Parameter(default=32, minimum=1, maximum=256),
                "baseline": Parameter(default="black", choices=("black", "white", "mean", "blur")),
            },
        ),
    )
}

DEFAULT_METHOD = "gradcam"
