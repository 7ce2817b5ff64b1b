"""The explanation methods by name."""

from handler.explain.baselines import baseline_parameter
from handler.explain.cam import gradcam, gradcam_plus_plus, layercam
from handler.explain.gradients import guided_backprop, input_x_gradient, saliency, smoothgrad
from handler.explain.integrated_gradients import ADAPTIVE, integrated_gradients
from handler.explain.occlusion import occlusion
from handler.explain.types import Method, Parameter

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("gradcam", "positive", closed_form=gradcam),
        Method("hirescam", "positive", closed_form=gradcam),
        Method("xgradcam", "positive", closed_form=gradcam),
        Method("layercam", "positive", closed_form=layercam),
        Method("gradcam_plus_plus", "positive", closed_form=gradcam_plus_plus),
        Method("saliency", "magnitude", plan=saliency),
        Method("input_x_gradient", "magnitude", plan=input_x_gradient),
        Method("guided_backprop", "magnitude", plan=guided_backprop),
        Method(
            "smoothgrad",
            "magnitude",
            plan=smoothgrad,
            parameters={
                "n_samples": Parameter(default=16, minimum=1, maximum=128),
                "noise": Parameter(default=0.15, minimum=0, maximum=1),
            },
        ),
        Method(
            "integrated_gradients",
            "magnitude",
            plan=integrated_gradients,
            parameters={
                "n_steps": Parameter(default=ADAPTIVE, minimum=1, maximum=256),
                "tolerance": Parameter(default=0.07, minimum=0.001, maximum=1, excludes="n_steps"),
                "max_evaluations": Parameter(default=128, minimum=16, maximum=256, excludes="n_steps"),
                "baseline": baseline_parameter("black"),
            },
        ),
        Method(
            "occlusion",
            "positive",
            plan=occlusion,
            parameters={
                "window": Parameter(default=56, minimum=16, maximum=224),
                "baseline": baseline_parameter("mean"),
            },
        ),
    )
}

DEFAULT_METHOD = "gradcam"
