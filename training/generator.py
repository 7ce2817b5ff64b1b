"""Synthetic tiles from a small class-conditional diffusion model of the training split.

    python -m training.generator train --data medmnist --output runs/generator
    python -m training.generator sample --weights runs/generator/generator.safetensors --output runs/tiles

`train` trains the model; `--resume` continues an interrupted run. `sample` writes PNG files named by their class.
`python -m evaluation.memorising` compares them with the training tiles.
"""

import argparse
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from tqdm import tqdm

from evaluation.classification import dihedral
from handler.classes import CODES, NUM_CLASSES
from training.averaging import moving_average
from training.checkpoint import read_weights, save_weights
from training.data import TileStream, add_data_argument, load_or_exit
from training.diffusion import diffusion_loss, sample
from training.precision import fabric_precision
from training.unet import UNet

WEIGHTS = "generator.safetensors"
LAST = "generator.ckpt"
LEARNING_RATE = 1e-3
WARM_UP = 200
EMA_DECAY = 0.999
SAVE_EVERY = 500
LOG_EVERY = 50

Pixels = NDArray[np.uint8]


def learning_rate(step: int, steps: int) -> float:
    """The learning rate: a linear warm-up, then a cosine to zero."""
    return LEARNING_RATE * min(1.0, (step + 1) / WARM_UP) * (1 + math.cos(math.pi * step / steps)) / 2


class Training:
    """The generator in training, and the complete state of the run."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.steps, self.batch_size, self.seed = arguments.steps, arguments.batch_size, arguments.seed
        self.path = arguments.output / LAST
        self.stream = TileStream(load_or_exit(arguments.data).train, self.seed)
        self.fabric = Fabric(devices=1, precision=fabric_precision(arguments.precision, bfloat16=True))
        torch.manual_seed(self.seed)
        self.plain = UNet().to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(self.plain.parameters(), weight_decay=0.01)
        self.network, self.optimizer = self.fabric.setup(self.plain, optimizer)
        self.average = moving_average(self.plain, EMA_DECAY)
        self.step = 0

    def resume(self) -> None:
        """Read the state of the run. Raises `ValueError` if it is missing or of another run."""
        if not self.path.is_file():
            raise ValueError(f"there is nothing to resume in {self.path.parent}")
        state = self._state()
        self.fabric.load(self.path, state, weights_only=True)
        if state["options"] != self._options:
            raise ValueError(f"{self.path} is of a run with another seed, number of steps or batch size")
        self.step = state["step"]

    def fit(self, stop_after: int | None) -> nn.Module:
        """Train to the end, or until `stop_after` steps are done. Returns the network with averaged weights."""
        end = min(self.steps, stop_after or self.steps)
        losses: list[float] = []
        for _ in tqdm(range(self.step, end), initial=self.step, total=self.steps, disable=None):
            losses.append(self.optimise())
            if self.step % LOG_EVERY == 0:
                tqdm.write(f"step {self.step}: loss {np.mean(losses):.4f}", file=sys.stderr)
                losses.clear()
            if self.step % SAVE_EVERY == 0 or self.step == end:
                self.fabric.save(self.path, self._state())
        return self.average.module

    def optimise(self) -> float:
        """Train on one batch of rotated and mirrored tiles. Returns its loss."""
        torch.manual_seed(int(np.random.SeedSequence((self.seed, self.step)).generate_state(1)[0]))
        tiles, labels = self.fabric.to_device(self.stream.read(self.step * self.batch_size, self.batch_size))
        view = int(torch.randint(8, ()))
        tiles = dihedral(tiles.float() / 127.5 - 1)[view].contiguous(memory_format=torch.channels_last)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.steps)
        loss = diffusion_loss(self.network, tiles, labels)
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        self.fabric.clip_gradients(self.network, self.optimizer, max_norm=1.0)
        self.optimizer.step()
        self.average.update_parameters(self.plain)
        self.step += 1
        return loss.item()

    @property
    def _options(self) -> list[int]:
        """What must equal that of the run to resume."""
        return [self.seed, self.steps, self.batch_size]

    def _state(self) -> dict[str, Any]:
        parts = {"network": self.network, "optimizer": self.optimizer, "average": self.average}
        return {**parts, "step": self.step, "options": self._options}


def train(arguments: argparse.Namespace) -> Path:
    """Train on randomly rotated and mirrored training tiles. Returns the file of the averaged weights.

    Raises `ValueError` if there is no run to resume, or if it had other options.
    """
    training = Training(arguments)
    if arguments.resume:
        training.resume()
    weights: Path = arguments.output / WEIGHTS
    save_weights(training.fit(arguments.stop_after), weights)
    return weights


def load_generator(path: Path) -> UNet:
    """Read a generator. Raises `ValueError` if the file is damaged or contains another network."""
    network = UNet()
    try:
        network.load_state_dict(read_weights(path))
    except RuntimeError as error:
        raise ValueError(f"{path} does not contain the generator's weights") from error
    return network.eval()


def write_samples(images: Pixels, labels: NDArray[np.int64], folder: Path) -> None:
    """Write PNG files such as STR-03.png."""
    folder.mkdir(parents=True, exist_ok=True)
    counts = dict.fromkeys(CODES, 0)
    for image, label in zip(images, labels, strict=True):
        code = CODES[label]
        Image.fromarray(image).save(folder / f"{code}-{counts[code]:02d}.png")
        counts[code] += 1


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    _add_training(commands.add_parser("train", help="train on the training split"))
    _add_sampling(commands.add_parser("sample", help="write tiles of every class"))
    return parser.parse_args(arguments)


def _add_training(parser: argparse.ArgumentParser) -> None:
    add_data_argument(parser)
    add = parser.add_argument
    add("--steps", type=int, default=6000)
    add("--batch-size", type=int, default=128)
    add("--seed", type=int, default=0)
    add("--precision", default="auto", help="Lightning Fabric's; auto is bfloat16 if it is fast")
    add("--stop-after", type=int, metavar="STEPS", help="stop after this many steps; continue with --resume")
    add("--resume", action="store_true", help="continue the run in --output")
    add("--output", type=Path, default=Path("runs/generator"))


def _add_sampling(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--weights", type=Path, required=True)
    add("--per-class", type=int, default=10)
    add("--seed", type=int, default=0)
    add("--steps", type=int, default=50, help="of DDIM")
    add("--guidance", type=float, default=1.5, help="guidance weight; 1 means no guidance")
    add("--output", type=Path, required=True)


def run(arguments: argparse.Namespace) -> None:
    if arguments.command == "train":
        print(train(arguments))
        return
    labels = torch.arange(NUM_CLASSES).repeat_interleave(arguments.per_class)
    network = load_generator(arguments.weights)
    images = sample(network, labels, arguments.seed, arguments.steps, arguments.guidance)
    write_samples(images, labels.numpy(), arguments.output)


def main() -> None:
    try:
        run(parse_arguments())
    except ValueError as error:
        sys.exit(f"generator: {error}")


if __name__ == "__main__":
    main()
