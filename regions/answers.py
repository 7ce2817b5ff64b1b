"""Answers for many tiles, as arrays."""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from handler.api.verdict import State

STATES: tuple[State, ...] = ("confident", "uncertain", "unreliable")


@dataclass(frozen=True, eq=False)
class Answers:
    """The answers for N tiles, as `/predictions` gives them.

    `logits` and calibrated `probabilities` are float64 `[N, 9]`; `sets` are bool `[N, 9]`, the prediction sets at a
    coverage of 0.9, empty for a tile that is unlike the training tiles. `ood_scores` are float64 `[N]`, NaN without a
    calibration, `in_distribution` bool `[N]`, `states` int8 `[N]`, the place in `STATES`. `fits` `[N]` says whether the
    picture is fit to be judged (`handler.model.fit`), empty without limits; `reasons` `[N]` why not, with commas.
    `cams` are float32 `[N, 9, h, w]`, the class activation maps in logits: a map's sum plus the bias is the logit.
    """

    logits: NDArray[np.float64]
    probabilities: NDArray[np.float64]
    sets: NDArray[np.bool_]
    ood_scores: NDArray[np.float64]
    in_distribution: NDArray[np.bool_]
    states: NDArray[np.int8]
    fits: NDArray[np.str_]
    reasons: NDArray[np.str_]
    cams: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.logits)

    @classmethod
    def join(cls, parts: list["Answers"]) -> "Answers":
        """One after the other. There must be at least one."""
        names = [field.name for field in fields(cls)]
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))
