"""Occlusion: the drop of the score when a part of the tile is covered. Needs only the network's answers."""

import math

import torch

from handler.explain.baselines import baseline_input
from handler.explain.batching import chunks
from handler.explain.types import Attribution, EvaluationRequest, Parameters, Plan, Sample


def occlusion(sample: Sample, parameters: Parameters) -> Plan:
    """Sliding-window occlusion (Zeiler and Fergus, arXiv 1311.2901): `[I, I]` in logits.

    A square of `window` pixels of the network's input, moved by half its side, shows `baseline` instead of the tile.
    Each pixel has the mean drop of the score over the windows that cover it.
    """
    inputs = sample.inputs
    cover = baseline_input(parameters["baseline"], inputs, sample.preprocessing)
    side = inputs.shape[-1]
    window = min(parameters["window"], side)
    stride = window // 2
    starts = [stride * index for index in range(math.ceil((side - window) / stride) + 1)]
    corners = [(top, left) for top in starts for left in starts]
    drops, covered = torch.zeros_like(inputs[0, 0]), torch.zeros_like(inputs[0, 0])
    for chunk in chunks(len(corners)):
        masks = torch.zeros(len(chunk), 1, side, side, device=inputs.device)
        for mask, index in zip(masks, chunk, strict=True):
            top, left = corners[index]
            mask[:, top : top + window, left : left + window] = 1
        coefficients = sample.coefficients.expand(len(chunk), -1)
        evaluation = yield EvaluationRequest("score", torch.lerp(inputs, cover, masks), coefficients)
        drop = sample.score - evaluation.scores
        drops += (masks[:, 0] * drop[:, None, None]).sum(dim=0)
        covered += masks[:, 0].sum(dim=0)
    details = {
        "window": window,
        "stride": stride,
        "baseline": parameters["baseline"],
        "score_evaluations": len(corners),
    }
    return Attribution(drops / covered, "logit", details)
