"""The options of `python -m training.train`."""

import argparse
from dataclasses import replace
from pathlib import Path

from training.data import add_data_argument
from training.recipe import RECIPES, Recipe, Stage


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m training.train",
        description="Train a network on PathMNIST.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add_data_argument(parser)
    _add_recipe(parser)
    _add_run(parser)
    _add_devices(parser)
    return parser.parse_args(arguments)


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    """The recipe and the changes to it."""
    add, switch = parser.add_argument, argparse.BooleanOptionalAction
    add("--recipe", choices=sorted(RECIPES), default="classic", help="named defaults for all options below")
    add("--init", metavar="imagenet|random|FILE", help="initial weights")
    add("--freeze", action=switch, help="keep conv1 to layer2 as initialised")
    add("--freeze-batchnorm", action=switch, help="keep the batch statistics as initialised")
    add("--augmentation", choices=("none", "classic", "strong"), help="augmentation of the training tiles")
    add("--epochs", type=int, help="train a single stage of this many epochs at --input-size")
    add("--steps", type=int, help="train a single stage of this many steps at --input-size")
    add("--input-size", type=int, help="the network's input side in every stage")
    add("--batch-size", type=int, help="tiles per step and device in every stage")
    add("--learning-rate", type=float, help="peak learning rate")


def _add_run(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--teacher", type=Path, help="weights of a teacher, written by the recipe `teacher`")
    add("--seed", type=int, default=0, help="seed of every random choice")
    add("--output", type=Path, default=Path("runs/latest"), help="folder for checkpoint, card and curves")
    add("--stop-after", type=int, metavar="STEPS", help="stop after this many steps; continue with --resume")
    add("--resume", action="store_true", help="continue the run in --output from its last saved step")


def _add_devices(parser: argparse.ArgumentParser) -> None:
    """Lightning Fabric's options."""
    add = parser.add_argument
    precision = "Lightning Fabric's, such as bf16-mixed; auto is the recipe's, if it is fast on this machine"
    add("--precision", default="auto", help=precision)
    add("--accelerator", default="auto", help="Lightning Fabric's accelerator")
    add("--devices", default="auto", help="Lightning Fabric's devices, on each machine")
    add("--num-nodes", type=int, default=1, help="machines, each started by torchrun")
    add("--strategy", default="auto", help="Lightning Fabric's strategy, such as ddp")


def recipe_from(arguments: argparse.Namespace) -> Recipe:
    """The named recipe with the changes from the command line."""
    recipe = RECIPES[arguments.recipe]
    names = ("init", "freeze", "freeze_batchnorm", "augmentation", "learning_rate")
    changes = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    if arguments.epochs or arguments.steps:
        lengths = {"epochs": arguments.epochs or 0, "steps": arguments.steps or 0}
        changes["stages"] = (replace(recipe.stages[-1], **lengths),)
    stages: tuple[Stage, ...] = changes.get("stages", recipe.stages)
    sizes = {"size": arguments.input_size, "batch_size": arguments.batch_size}
    given = {name: value for name, value in sizes.items() if value is not None}
    return replace(recipe, **{**changes, "stages": tuple(replace(stage, **given) for stage in stages)})
