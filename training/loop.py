"""The training loop: augment, mix, query the teacher, enlarge, optimise. It can stop after any step and resume exactly.

Random numbers depend only on seed, step and process; the order of the tiles depends only on the seed. Lightning Fabric
handles devices, processes and precision.
"""

import json
import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax, one_hot, softmax
from torch.optim.lr_scheduler import ReduceLROnPlateau
from tqdm import tqdm

from handler.classes import NUM_CLASSES
from handler.model.preprocess import network_input
from training import augment
from training.averaging import moving_average
from training.data import PathMNIST, TileStream, as_tiles
from training.networks import first_network, freeze, preprocessing_of, set_training
from training.recipe import Recipe
from training.shifts import SHIFTS, shift
from training.teachers import Teacher

SAVE_EVERY = 200
LOG_EVERY = 50
BATCH = 125
LAST = "last.ckpt"

State = dict[str, Tensor]


@dataclass
class Progress:
    """The progress of a run. `best_loss` and `waited` (validations since then) are for early stopping."""

    step: int = 0
    best_loss: float = math.inf
    waited: int = 0
    best: State = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """The inputs of a run: recipe, data, the folder for its files, a teacher if any, and the seed."""

    recipe: Recipe
    data: PathMNIST
    output: Path
    teacher: Teacher | None = None
    seed: int = 0


class Training:
    """A network trained on canonical tiles, and the complete state of the run."""

    def __init__(self, fabric: Fabric, run: Run) -> None:
        """Create the network with the recipe's initial weights. Raises `ValueError` if the weights do not fit."""
        data = run.data
        recipe = run.recipe.in_steps(len(data.train), fabric.world_size)
        self.fabric, self.recipe, self.output, self.seed = fabric, recipe, run.output, run.seed
        self.preprocessing = preprocessing_of(recipe, data.tile_size)
        self.network = first_network(recipe).to(memory_format=torch.channels_last)
        freeze(self.network, recipe)
        self.parallel, self.optimizer = fabric.setup(self.network, _optimizer(self.network, recipe))
        self.average = None if recipe.ema_decay is None else moving_average(self.network, recipe.ema_decay)
        self.plateau = None
        if recipe.schedule == "plateau":
            self.plateau = ReduceLROnPlateau(self.optimizer, factor=0.1, patience=2)
        self.teacher = fabric.to_device(run.teacher) if run.teacher else None
        geometry, colour = augment.of_recipe(recipe, data.tile_size)
        self.geometry, self.colour = fabric.to_device(geometry), fabric.to_device(colour)
        self.stream = TileStream(data.train, run.seed)
        self.validation = data.val.sample(recipe.validation_tiles or len(data.val))
        self.progress = Progress()
        # These values must equal those of the run to resume.
        self._identity = json.dumps([asdict(recipe), run.seed, data.digest, fabric.world_size])

    @property
    def judged(self) -> nn.Module:
        """The network for validation: the averaged one if it exists."""
        return self.average.module if self.average else self.network

    def fit(self, stop_after: int | None = None) -> nn.Module:
        """Train to the end, or until `stop_after` steps are done. Returns the network to keep."""
        recipe, progress = self.recipe, self.progress
        end = min(recipe.steps, stop_after or recipe.steps)
        validation_steps = recipe.validation_steps or recipe.steps
        set_training(self.network, recipe)
        losses: list[Tensor] = []
        bar = tqdm(total=recipe.steps, initial=progress.step, disable=None if self.fabric.is_global_zero else True)
        while progress.step < end and not self._gave_up():
            losses.append(self.step())
            bar.update()
            validates = progress.step % validation_steps == 0 or progress.step == recipe.steps
            if validates or progress.step % LOG_EVERY == 0:
                self._log(losses, self._validate() if validates else {})
                losses.clear()
            if progress.step % SAVE_EVERY == 0 or progress.step == end:
                self.fabric.save(self.output / LAST, self._state())
        bar.close()
        if progress.best:
            self.network.load_state_dict(progress.best)
        return self.judged

    def resume(self) -> None:
        """Read the state of the run in `output`. Raises `ValueError` if it is missing or of another run."""
        path = self.output / LAST
        if not path.is_file():
            raise ValueError(f"there is nothing to resume in {self.output}")
        state = self._state()
        self.fabric.load(path, state, weights_only=True)
        if state["identity"] != self._identity:
            raise ValueError(f"{path} is of a run with another recipe, seed, data or number of devices")
        self.progress = Progress(**state["progress"])

    def shift_accuracies(self) -> dict[str, float]:
        """Accuracy on the validation tiles after each shift of `training.shifts`."""
        tiles = self._validation_tiles()
        return {name: self._score(shift(name, tiles))[1] for name in SHIFTS}

    def step(self) -> Tensor:
        """Train on one batch. Returns its loss."""
        recipe, step = self.recipe, self.progress.step
        sequence = np.random.SeedSequence((self.seed, step, self.fabric.global_rank))
        torch.manual_seed(int(sequence.generate_state(1)[0]))
        if recipe.schedule == "cosine":
            for group in self.optimizer.param_groups:
                group["lr"] = recipe.cosine_rate(step)
        size = recipe.stage_at(step)[0].batch_size
        start = recipe.position(step, self.fabric.world_size) + self.fabric.global_rank * size
        tiles, labels = self.fabric.to_device(self.stream.read(start, size))
        loss = self._loss(tiles, labels)
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        if recipe.gradient_clip is not None:
            self.fabric.clip_gradients(self.parallel, self.optimizer, max_norm=recipe.gradient_clip)
        self.optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.network)
        self.progress.step += 1
        return loss.detach()

    def _loss(self, tiles: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy with the labels, mixed with the divergence from the teacher's softened probabilities.

        The teacher sees each tile before the colour changes, so the student learns to be invariant to them.
        """
        recipe, stage = self.recipe, self.recipe.stage_at(self.progress.step)[0]
        smoothing = recipe.label_smoothing
        targets = one_hot(labels, NUM_CLASSES).float() * (1 - smoothing) + smoothing / NUM_CLASSES
        plain, targets = augment.mix(self.geometry(tiles.float() / 255).clamp(0, 1), targets, recipe.mixup)
        untouched = torch.rand(len(plain), 1, 1, 1, device=plain.device) < recipe.untouched
        coloured = torch.where(untouched, plain, self.colour(plain).clamp(0, 1))
        logits = self.parallel(self._inputs(coloured, stage.size))
        loss = cross_entropy(logits, targets)
        if self.teacher is None or not stage.distillation:
            return loss
        temperature = recipe.temperature
        with torch.no_grad(), self.fabric.autocast():
            answers = self.teacher(plain).float()
        divergence = kl_div(
            log_softmax(logits / temperature, dim=1), softmax(answers / temperature, dim=1), reduction="batchmean"
        )
        return (1 - stage.distillation) * loss + stage.distillation * temperature**2 * divergence

    def _inputs(self, tiles: Tensor, size: int) -> Tensor:
        spec = replace(self.preprocessing, input_size=size)
        return network_input(tiles, spec).contiguous(memory_format=torch.channels_last)

    def _validate(self) -> dict[str, float]:
        loss, accuracy = self._score(self._validation_tiles())
        if self.plateau is not None:
            self.plateau.step(loss)
        self._remember(loss)
        return {"val_loss": loss, "val_accuracy": accuracy} | {
            f"val_accuracy, {name}": value for name, value in self.shift_accuracies().items()
        }

    def _remember(self, loss: float) -> None:
        progress = self.progress
        progress.waited += 1
        if loss < progress.best_loss:
            progress.best_loss, progress.waited = loss, 0
            if self.plateau is not None:
                progress.best = {name: value.clone() for name, value in self.network.state_dict().items()}

    def _gave_up(self) -> bool:
        return self.recipe.patience is not None and self.progress.waited >= self.recipe.patience

    def _validation_tiles(self) -> Tensor:
        """This process's share of the validation tiles."""
        tiles: Tensor = self.fabric.to_device(as_tiles(self.validation)[self._share()])
        return tiles

    def _share(self) -> slice:
        return slice(self.fabric.global_rank, None, self.fabric.world_size)

    @torch.inference_mode()
    def _score(self, tiles: Tensor) -> tuple[float, float]:
        """Mean loss and accuracy over all processes' tiles."""
        self.judged.eval()
        labels = self.fabric.to_device(torch.from_numpy(self.validation.labels)[self._share()])
        size = self.recipe.stage_at(self.progress.step - 1)[0].size
        with self.fabric.autocast():
            logits = torch.cat([self.judged(self._inputs(part, size)).float() for part in tiles.split(BATCH)])
        right = (logits.argmax(dim=1) == labels).sum()
        sums = torch.stack([cross_entropy(logits, labels, reduction="sum"), right, torch.tensor(len(labels))])
        loss, correct, count = self._summed(sums)
        set_training(self.network, self.recipe)
        return loss / count, correct / count

    def _summed(self, values: Tensor) -> list[float]:
        """The sums over all processes."""
        sums = self.fabric.all_reduce(values, reduce_op="sum")
        assert isinstance(sums, Tensor)
        numbers: list[float] = sums.tolist()
        return numbers

    def _log(self, losses: list[Tensor], validation: dict[str, float]) -> None:
        (loss,) = self._summed(torch.stack(losses).mean()[None] / self.fabric.world_size)
        rate = self.optimizer.param_groups[0]["lr"]
        stage, _ = self.recipe.stage_at(self.progress.step - 1)
        metrics = {"train_loss": loss, "learning_rate": rate, "input_size": stage.size} | validation
        self.fabric.log_dict(metrics, step=self.progress.step)

    def _state(self) -> dict[str, Any]:
        parts = {"network": self.parallel, "optimizer": self.optimizer, "progress": vars(self.progress)}
        optional = {"average": self.average, "plateau": self.plateau}
        present = {name: part for name, part in optional.items() if part is not None}
        return {**parts, **present, "identity": self._identity}


def _optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Weight decay acts on matrices and kernels, not on biases and normalisation."""
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, lr=recipe.learning_rate)
