"""The measurement of Integrated Gradients, with few steps."""

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation.quadrature import RULES, Measurement, choose, reference_map, summarise
from handler.model.checkpoint import Model
from tests.support.questions import ask, map_error, maps, of_network
from training.data import PathMNIST, Split


def test_the_reference_is_the_fixed_rule(model: Model, real_data: PathMNIST) -> None:
    question = ask(model, real_data.test.images[10:11], [8])
    found = reference_map(question, 20)
    network = deepcopy(question.network).double()
    exact = of_network(network, question.inputs.double(), [8], question.preprocessing)
    assert map_error(found.double(), maps("integrated_gradients", exact, n_steps=20)[0]) < 2e-3


def test_rules_are_measured_and_summed_up(model: Model, real_data: PathMNIST, tmp_path: Path) -> None:
    split = Split(real_data.test.images[:4], real_data.test.labels[:4])
    measurement = Measurement(model, tmp_path, steps=64)
    rows = [measurement.of_tile(split, 2)]
    assert len(list(tmp_path.glob("*.npy"))) == 1
    (kept,) = tmp_path.glob("*.npy")
    kept.touch()
    torch.testing.assert_close(measurement.of_tile(split, 2)["adaptive"]["error"], rows[0]["adaptive"]["error"])
    summary = summarise(rows)
    assert summary["tiles"] == 1
    assert summary["gauss-legendre-50"]["gradient_evaluations"]["mean"] == 50
    assert summary["adaptive"]["error"]["mean"] == pytest.approx(rows[0]["adaptive"]["error"], rel=1e-2)
    assert set(RULES) < set(summary)


def test_false_convergence_is_counted() -> None:
    def row(error: float, converged: bool) -> dict[str, object]:
        fixed = {"error": 0.02, "gradient_evaluations": 50, "completeness_residual": 0.01}
        adaptive = {
            "error": error,
            "gradient_evaluations": 16,
            "completeness_residual": 0.0,
            "map_error_estimate": 0.02,
            "converged": converged,
        }
        return {"gauss-legendre-50": fixed, "adaptive": adaptive}

    summary = summarise([row(0.01, True), row(0.1, True), row(0.2, False)])
    assert (summary["adaptive"]["converged"], summary["adaptive"]["false_converged"]) == (2, 1)


def test_tiles_are_spread_and_the_same_each_time() -> None:
    assert choose(200, 718)[:30] == choose(30, 718)
    assert len(set(choose(200, 718))) == 200
    assert np.diff(sorted(choose(200, 718))).max() <= 4
    assert sorted(choose(10, 4)) == [0, 1, 2, 3]
