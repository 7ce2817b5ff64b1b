"""The measurement of Integrated Gradients, with few steps."""

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest

from evaluation.quadrature import ADAPTIVE, FIXED, Measurement, Result, Row, choose, reference_map, summarise
from handler.classifier import Classifier
from handler.model.checkpoint import Model
from tests.support.explaining import classifier_of, map_error, maps, network_inputs
from training.data import PathMNIST, Split


def test_the_reference_is_the_fixed_rule(model: Model, real_data: PathMNIST) -> None:
    inputs = network_inputs(model, real_data.test.images[10:11])
    exact = classifier_of(model, deepcopy(model.network).double())
    expected = maps(exact.explain_inputs(inputs.double(), "integrated_gradients", 8, n_steps=20))
    assert map_error(reference_map(model, inputs, 8, 20).double(), expected[0]) < 2e-3


def test_rules_are_measured_and_summed_up(classifier: Classifier, real_data: PathMNIST, tmp_path: Path) -> None:
    split = Split(real_data.test.images[:4], real_data.test.labels[:4])
    measurement = Measurement(classifier, tmp_path, steps=64)
    row = measurement.of_tile(split, 2)
    (reference,) = tmp_path.glob("*.npy")
    modified = reference.stat().st_mtime_ns
    assert measurement.of_tile(split, 2).results[ADAPTIVE].error == pytest.approx(row.results[ADAPTIVE].error)
    assert reference.stat().st_mtime_ns == modified
    summary = summarise([row])
    assert summary["tiles"] == 1
    assert summary[FIXED]["gradient_evaluations"]["mean"] == 50
    assert summary[ADAPTIVE]["error"]["mean"] == pytest.approx(row.results[ADAPTIVE].error, rel=1e-2)


def test_false_convergence_is_counted() -> None:
    def row(error: float, converged: bool) -> Row:
        fixed = Result(error=0.02, gradient_evaluations=50, completeness_residual=0.01)
        adaptive = Result(error, 16, 0.0, map_error_estimate=0.02, converged=converged)
        return Row(0, "ADI", {FIXED: fixed, ADAPTIVE: adaptive})

    summary = summarise([row(0.01, True), row(0.1, True), row(0.2, False)])
    assert (summary[ADAPTIVE]["converged"], summary[ADAPTIVE]["false_converged"]) == (2, 1)
    assert summary["error_ratio"] == 5


def test_tiles_are_spread_and_the_same_each_time() -> None:
    assert choose(200, 718)[:30] == choose(30, 718)
    assert len(set(choose(200, 718))) == 200
    assert np.diff(sorted(choose(200, 718))).max() <= 4
    assert sorted(choose(10, 4)) == [0, 1, 2, 3]
