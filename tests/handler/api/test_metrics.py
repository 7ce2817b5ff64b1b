from PIL import Image, ImageFilter
from prometheus_client import REGISTRY

from handler.api.request import RawRequest
from handler.api.service import Service
from serving.supervisor import TILE
from tests.conftest import Pixels
from tests.support.images import Encode


class Counted:
    """By how much each sample rose since this was made."""

    def __init__(self) -> None:
        self._before = self._samples()

    def __call__(self, name: str, **labels: str) -> float:
        key = (f"pathmnist_{name}", frozenset(labels.items()))
        return self._samples().get(key, 0) - self._before.get(key, 0)

    @staticmethod
    def _samples() -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        samples = [sample for metric in REGISTRY.collect() for sample in metric.samples]
        return {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}


def test_requests_count_by_verb_and_outcome(service: Service, tiles: Pixels, encode: Encode) -> None:
    counted = Counted()
    service.respond(
        [
            RawRequest({"body": encode(tiles[0])}),
            RawRequest({"body": encode(tiles[1]), "method": "layercam"}, explain=True),
            RawRequest({"body": b"no image"}),
            RawRequest({"body": encode(tiles[2]), "target": "12"}, explain=True),
        ]
    )
    assert counted("requests_total", verb="predictions", outcome="ok") == 1
    assert counted("requests_total", verb="explanations", outcome="ok") == 1
    assert counted("requests_total", verb="predictions", outcome="image_unreadable") == 1
    assert counted("requests_total", verb="explanations", outcome="target_invalid") == 1
    assert counted("explanations_total", method="layercam", outcome="ok") == 1
    assert counted("batch_size_sum") == 4
    assert counted("batch_size_count") == 1


def test_each_stage_is_timed_as_often_as_it_runs(service: Service, tiles: Pixels, encode: Encode) -> None:
    counted = Counted()
    service.respond([RawRequest({"body": encode(tile), "method": "gradcam"}, explain=True) for tile in tiles[:2]])
    service.respond([RawRequest({"body": encode(tiles[0])})])
    counts = {stage: counted("stage_seconds_count", stage=stage) for stage in ("decode", "model", "explain", "render")}
    assert counts == {"decode": 3, "model": 2, "explain": 1, "render": 2}
    assert 0 < counted("stage_seconds_sum", stage="decode") < counted("stage_seconds_sum", stage="model")


def test_what_answers_say_of_themselves_is_counted(service: Service, tiles: Pixels, encode: Encode) -> None:
    counted = Counted()
    options = {"method": "integrated_gradients", "n_steps": "4", "return": "raw"}
    service.respond([RawRequest({"body": encode(tiles[0]), **options}, explain=True)])
    names = ("confidence", "ood_ratio", "gradient_evaluations", "completeness_residual")
    assert [counted(f"{name}_count") for name in names] == [1, 1, 1, 1]
    assert counted("gradient_evaluations_sum") == 4


def test_faults_of_pictures_are_counted_by_reason(service: Service, encode: Encode) -> None:
    counted = Counted()
    tile = Image.open(TILE).convert("RGB")
    pictures = [tile, tile.filter(ImageFilter.GaussianBlur(1.5)), tile.filter(ImageFilter.GaussianBlur(2))]
    service.respond([RawRequest({"body": encode(picture)}) for picture in pictures])
    assert counted("fit_reasons_total", reason="out_of_focus") == 2
    assert counted("fit_reasons_total", reason="noisy") == 0
    assert counted("fit_total", verdict="fit") == 1
    assert counted("fit_total", verdict="doubtful") + counted("fit_total", verdict="unfit") == 2
    assert counted("focus_count") == 3


def test_a_skipped_explanation_counts_as_such(service: Service, tiles: Pixels, encode: Encode) -> None:
    occlusion = {"method": "occlusion", "window": "112"}
    service.respond([RawRequest({"body": encode(tiles[1]), **occlusion}, explain=True)])
    counted = Counted()
    fields = {"body": encode(tiles[0]), "method": "occlusion", "window": "16", "budget_ms": "1"}
    service.respond([RawRequest(fields, explain=True)])
    assert counted("explanations_total", method="occlusion", outcome="budget_exceeded") == 1
    assert counted("requests_total", verb="explanations", outcome="ok") == 1
