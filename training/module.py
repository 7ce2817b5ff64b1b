"""The training step: augment, mix, ask the teacher, enlarge, learn."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax, one_hot, softmax
from torchvision.models import ResNet, ResNet18_Weights, resnet18

from handler.classes import NUM_CLASSES
from handler.model.network import build_network
from handler.model.preprocess import Preprocessing, network_input
from training import augment
from training.recipe import Recipe
from training.teachers import SimpleCNN

FROZEN = ("conv1", "bn1", "layer1", "layer2")


def initial_network(init: str) -> ResNet:
    """A nine-class ResNet-18 from `imagenet`, `random`, or a weights file with torchvision's parameter names.

    The file is safetensors or npz. A classification layer of another size is left random.
    """
    network = build_network()
    if init == "random":
        return network
    state = _imagenet_state() if init == "imagenet" else _file_state(Path(init))
    if len(state["fc.bias"]) != NUM_CLASSES:
        state = {name: value for name, value in state.items() if not name.startswith("fc.")}
    missing, unexpected = network.load_state_dict(state, strict=False)
    lacking = [name for name in missing if not name.startswith("fc.") and not name.endswith("num_batches_tracked")]
    if lacking or unexpected:
        raise ValueError(f"{init} does not fit ResNet-18: missing {lacking}, unexpected {unexpected}")
    return network


def _imagenet_state() -> dict[str, Tensor]:
    return dict(resnet18(weights=ResNet18_Weights.IMAGENET1K_V1).state_dict())


def _file_state(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name]).float() for name in arrays.files}
    return {name: value.float() for name, value in load_file(path).items()}


class TileClassifier(L.LightningModule):
    """A network that learns from canonical tiles, optionally from a teacher's answers."""

    def __init__(
        self,
        network: nn.Module,
        recipe: Recipe,
        preprocessing: Preprocessing,
        teacher: SimpleCNN | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.recipe = recipe
        self.seed = seed
        self.preprocessing = preprocessing
        self.network = network.to(memory_format=torch.channels_last)
        self.teacher = teacher
        self.geometry, self.colour = augment.named(recipe.augmentation, preprocessing.canonical_size)
        if recipe.freeze:
            for name in FROZEN:
                self.network.get_submodule(name).requires_grad_(False)
        # Lightning keeps the modes it finds.
        self.train()

    def train(self, mode: bool = True) -> "TileClassifier":
        """Frozen layers and the teacher stay in eval mode, so that their batch statistics stay too."""
        super().train(mode)
        if self.recipe.freeze:
            for name in FROZEN:
                self.network.get_submodule(name).eval()
        if self.recipe.freeze_batchnorm:
            for module in self.network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        if self.teacher is not None:
            self.teacher.eval()
        return self

    def on_train_epoch_start(self) -> None:
        """Chance depends on seed, epoch and process alone, so a resumed run meets what an unbroken one would."""
        sequence = np.random.SeedSequence((self.seed, self.current_epoch, self.global_rank))
        torch.manual_seed(int(sequence.generate_state(1)[0]))

    def forward(self, tiles: Tensor) -> Tensor:
        """Logits of canonical tiles `[N, 3, S, S]` in [0, 1], at the current stage's input size."""
        spec = replace(self.preprocessing, input_size=self.recipe.stage_at(self.current_epoch)[2])
        inputs = network_input(tiles, spec).to(memory_format=torch.channels_last)
        logits: Tensor = self.network(inputs)
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        tiles, targets = self._augmented(batch)
        loss = (
            cross_entropy(self(self._coloured(tiles)), targets)
            if self.teacher is None
            else self._distill(tiles, self.teacher)
        )
        self.log(
            "train_loss",
            loss,
            on_step=False,
            on_epoch=True,
            prog_bar=True,
            sync_dist=True,
        )
        return loss

    def _augmented(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        tiles, labels = batch
        smoothing = self.recipe.label_smoothing
        targets = one_hot(labels, NUM_CLASSES).float() * (1 - smoothing) + smoothing / NUM_CLASSES
        tiles = self.geometry(tiles.float() / 255).clamp(0, 1)
        return augment.mix(tiles, targets, self.recipe.mixup)

    def _coloured(self, tiles: Tensor) -> Tensor:
        untouched = torch.rand(len(tiles), 1, 1, 1, device=tiles.device) < self.recipe.untouched
        return torch.where(untouched, tiles, self.colour(tiles).clamp(0, 1))

    def _distill(self, tiles: Tensor, teacher: SimpleCNN) -> Tensor:
        """Match the teacher's softened probabilities on the same tile (arXiv 1503.02531, 2106.05237)."""
        temperature = self.recipe.temperature
        with torch.no_grad():
            targets = softmax(teacher(tiles) / temperature, dim=1)
        logits = self(self._coloured(tiles))
        return kl_div(log_softmax(logits / temperature, dim=1), targets, reduction="batchmean") * temperature**2

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        tiles, labels = batch
        logits = self(tiles.float() / 255)
        accuracy = (logits.argmax(dim=1) == labels).float().mean()
        metrics = {"val_loss": cross_entropy(logits, labels), "val_accuracy": accuracy}
        self.log_dict(metrics, prog_bar=True, sync_dist=True, batch_size=len(labels))

    def configure_optimizers(self) -> Any:
        recipe = self.recipe
        trainable = [p for p in self.network.parameters() if p.requires_grad]
        groups = [
            {
                "params": [p for p in trainable if p.ndim > 1],
                "weight_decay": recipe.weight_decay,
            },
            {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
        ]
        kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
        optimizer = kind(groups, lr=recipe.learning_rate)
        if recipe.schedule == "plateau":
            plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=2)
            return {
                "optimizer": optimizer,
                "lr_scheduler": {"scheduler": plateau, "monitor": "val_loss"},
            }
        return [optimizer], [torch.optim.lr_scheduler.LambdaLR(optimizer, recipe.rate_factor)]
