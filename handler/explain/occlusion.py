"""Occlusion: what the score loses when a part of the tile is covered. Needs nothing of the network but its answers."""

import math

import torch

from handler.explain.baselines import baseline_input
from handler.explain.batching import chunks
from handler.explain.types import Attribution, Parameters, Plan, Points, Question


def occlusion(question: Question, parameters: Parameters) -> Plan:
    """Sliding-window occlusion (Zeiler and Fergus, arXiv 1311.2901): `[I, I]` in logits.

    A square of `window` pixels of the network's input, moved by half its side, shows `baseline` instead of the tile.
    Each pixel has the mean drop of the score over the windows that cover it.
    """
    tile, coefficients = question.inputs, question.coefficients
    cover = baseline_input(question, parameters["baseline"])
    side = tile.shape[-1]
    window = min(parameters["window"], side)
    stride = window // 2
    starts = [stride * index for index in range(math.ceil((side - window) / stride) + 1)]
    corners = [(top, left) for top in starts for left in starts]
    drops, covered = torch.zeros_like(tile[0, 0]), torch.zeros_like(tile[0, 0])
    for chunk in chunks(len(corners)):
        masks = torch.zeros(len(chunk), 1, side, side, device=tile.device)
        for mask, index in zip(masks, chunk, strict=True):
            top, left = corners[index]
            mask[:, top : top + window, left : left + window] = 1
        evaluation = yield Points("score", torch.lerp(tile, cover, masks), coefficients.expand(len(chunk), -1))
        lost = question.scores - evaluation.scores
        drops += (masks[:, 0] * lost[:, None, None]).sum(dim=0)
        covered += masks[:, 0].sum(dim=0)
    facts = {
        "window": window,
        "stride": stride,
        "baseline": parameters["baseline"],
        "score_evaluations": len(corners),
    }
    return Attribution(drops / covered, "logit", facts)
