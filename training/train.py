"""Train a network on PathMNIST: `python -m training.train --data medmnist --recipe scratch`."""

import argparse
import sys
from pathlib import Path

import lightning as L
from lightning.fabric import Fabric
from lightning.fabric.loggers.csv_logs import CSVLogger

from training.card import commit, write_result
from training.data import DataError, load
from training.loop import Run, Training
from training.options import parse_arguments, recipe_from
from training.precision import fabric_precision
from training.teachers import load_teacher


def train(arguments: argparse.Namespace) -> Path:
    """Run the recipe. Returns the folder with weights, card and curves.

    Raises `ValueError` (`DataError` for the data) if data, weights, teacher or the run to resume do not fit.
    """
    # Before the run, during which the checkout may change.
    version = commit()
    teacher = load_teacher(arguments.teacher) if arguments.teacher else None
    run = Run(recipe_from(arguments), load(arguments.data), arguments.output, teacher, arguments.seed)
    fabric = _fabric(arguments, run.recipe.bfloat16)
    fabric.launch()
    L.seed_everything(run.seed, verbose=False)
    training = Training(fabric, run)
    if arguments.resume:
        training.resume()
    network = training.fit(arguments.stop_after)
    shifts = {name: round(value, 4) for name, value in training.shift_accuracies().items()}
    if fabric.is_global_zero:
        write_result(run, training, network, {"commit": version, "validation_shifts": shifts})
    return run.output


def _fabric(arguments: argparse.Namespace, bfloat16: bool) -> Fabric:
    return Fabric(
        accelerator=arguments.accelerator,
        devices=arguments.devices,
        num_nodes=arguments.num_nodes,
        strategy=arguments.strategy,
        precision=fabric_precision(arguments.precision, bfloat16),
        loggers=CSVLogger(arguments.output, name="curves", flush_logs_every_n_steps=1),
    )


def main() -> None:
    try:
        train(parse_arguments())
    except DataError as error:
        sys.exit(f"data: {error}")
    except ValueError as error:
        sys.exit(f"train: {error}")


if __name__ == "__main__":
    main()
