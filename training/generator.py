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


def train(arguments: argparse.Namespace) -> Path:
    """Train on randomly rotated and mirrored training tiles. Returns the file of the averaged weights.

    Raises `ValueError` if there is no run to resume, or if it had other options.
    """
    seed, steps, batch_size = arguments.seed, arguments.steps, arguments.batch_size
    stream = TileStream(load_or_exit(arguments.data).train, seed)
    fabric = Fabric(devices=1, precision=fabric_precision(arguments.precision, bfloat16=True))
    torch.manual_seed(seed)
    plain = UNet().to(memory_format=torch.channels_last)
    network, optimizer = fabric.setup(plain, torch.optim.AdamW(plain.parameters(), weight_decay=0.01))
    average = moving_average(plain, EMA_DECAY)
    state: dict[str, Any] = {"network": network, "optimizer": optimizer, "average": average, "step": 0}
    state["options"] = [seed, steps, batch_size]
    if arguments.resume:
        _resume(fabric, arguments.output / LAST, state)
    end = min(steps, arguments.stop_after or steps)
    losses: list[float] = []
    for step in tqdm(range(state["step"], end), initial=state["step"], total=steps, disable=None):
        torch.manual_seed(int(np.random.SeedSequence((seed, step)).generate_state(1)[0]))
        tiles, labels = fabric.to_device(stream.read(step * batch_size, batch_size))
        view = int(torch.randint(8, ()))
        tiles = dihedral(tiles.float() / 127.5 - 1)[view].contiguous(memory_format=torch.channels_last)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
        loss = diffusion_loss(network, tiles, labels)
        optimizer.zero_grad()
        fabric.backward(loss)
        fabric.clip_gradients(network, optimizer, max_norm=1.0)
        optimizer.step()
        average.update_parameters(plain)
        state["step"] = step + 1
        losses.append(loss.item())
        if state["step"] % LOG_EVERY == 0:
            tqdm.write(f"step {state['step']}: loss {np.mean(losses):.4f}", file=sys.stderr)
            losses.clear()
        if state["step"] % SAVE_EVERY == 0 or state["step"] == end:
            fabric.save(arguments.output / LAST, state)
    save_weights(average.module, arguments.output / WEIGHTS)
    return Path(arguments.output / WEIGHTS)


def _resume(fabric: Fabric, path: Path, state: dict[str, Any]) -> None:
    if not path.is_file():
        raise ValueError(f"there is nothing to resume in {path.parent}")
    options = state["options"]
    fabric.load(path, state, weights_only=True)
    if state["options"] != options:
        raise ValueError(f"{path} is of a run with another seed, number of steps or batch size")


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
    training = commands.add_parser("train", help="train on the training split")
    add_data_argument(training)
    training.add_argument("--steps", type=int, default=6000)
    training.add_argument("--batch-size", type=int, default=128)
    training.add_argument("--seed", type=int, default=0)
    training.add_argument("--precision", default="auto", help="Lightning Fabric's; auto is bfloat16 if it is fast")
    training.add_argument(
        "--stop-after", type=int, metavar="STEPS", help="stop after this many steps; continue with --resume"
    )
    training.add_argument("--resume", action="store_true", help="continue the run in --output")
    training.add_argument("--output", type=Path, default=Path("runs/generator"))
    sampling = commands.add_parser("sample", help="write tiles of every class")
    sampling.add_argument("--weights", type=Path, required=True)
    sampling.add_argument("--per-class", type=int, default=10)
    sampling.add_argument("--seed", type=int, default=0)
    sampling.add_argument("--steps", type=int, default=50, help="of DDIM")
    sampling.add_argument("--guidance", type=float, default=1.5, help="guidance weight; 1 means no guidance")
    sampling.add_argument("--output", type=Path, required=True)
    return parser.parse_args(arguments)


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
