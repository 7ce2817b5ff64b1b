import pytest
import torch
from captum.attr import Occlusion

from handler.explain.baselines import baseline_input
from handler.explain.types import Question
from tests.support.questions import attributions, relative_difference, row


@pytest.mark.parametrize(("window", "baseline"), [(112, "mean"), (100, "white")])
def test_occlusion_equals_captum(window: int, baseline: str, question: Question) -> None:
    single = row(question, 8)
    expected = Occlusion(single.network).attribute(
        single.inputs,
        sliding_window_shapes=(3, window, window),
        strides=(3, window // 2, window // 2),
        baselines=baseline_input(single, baseline),
        target=8,
        perturbations_per_eval=8,
    )
    (found,) = attributions("occlusion", single, window=window, baseline=baseline)
    assert relative_difference(found.values, expected[0, 0]) < 1e-3
    assert torch.equal(expected[0, 0], expected[0, 2])


def test_covering_everything_loses_the_whole_difference(question: Question) -> None:
    single = row(question, 3)
    (found,) = attributions("occlusion", single, window=224)
    with torch.no_grad():
        covered = single.network(torch.zeros_like(single.inputs))[0, 3]
    assert torch.allclose(found.values, single.scores - covered, atol=1e-4)
    assert found.facts["score_evaluations"] == 1
