"""The network at the start of a run: architecture, initial weights, frozen layers."""

from pathlib import Path

from torch import Tensor, nn
from torchvision.models import ResNet18_Weights, resnet18

from handler.classes import NUM_CLASSES
from handler.model.network import build_network
from handler.model.preprocess import Preprocessing
from handler.model.resnet import ResNet
from training.checkpoint import read_weights
from training.recipe import Recipe
from training.teachers import HALF, efficientnet

FROZEN = ("conv1", "bn1", "layer1", "layer2")


def first_network(recipe: Recipe) -> nn.Module:
    """The recipe's network with its initial weights. Raises `ValueError` if the weights do not fit."""
    if recipe.network == "efficientnet-lite0":
        return efficientnet(recipe.init)
    return initial_network(recipe.init)


def preprocessing_of(recipe: Recipe, tile_size: int) -> Preprocessing:
    """The preprocessing for the recipe's network."""
    if recipe.network == "efficientnet-lite0":
        return Preprocessing(tile_size, recipe.input_size, HALF, HALF)
    return Preprocessing(tile_size, recipe.input_size)


def initial_network(init: str) -> ResNet:
    """A nine-class ResNet-18 from `imagenet`, `random`, or a weights file with torchvision's parameter names.

    The file is safetensors or npz. A classification layer of another size is initialised at random.
    Raises `ValueError` if the weights do not fit.
    """
    state = _initial_state(init)
    network = build_network()
    if len(state.get("fc.bias", ())) != NUM_CLASSES:
        state = {name: value for name, value in state.items() if not name.startswith("fc.")}
    try:
        missing, unexpected = network.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise ValueError(f"{init} does not fit ResNet-18: {' '.join(str(error).split())}") from error
    lacking = [name for name in missing if not name.startswith("fc.") and not name.endswith("num_batches_tracked")]
    if lacking or unexpected:
        raise ValueError(f"{init} does not fit ResNet-18: missing {lacking}, unexpected {unexpected}")
    return network


def _initial_state(init: str) -> dict[str, Tensor]:
    if init == "random":
        return dict(resnet18(num_classes=NUM_CLASSES).state_dict())
    if init == "imagenet":
        return dict(resnet18(weights=ResNet18_Weights.IMAGENET1K_V1).state_dict())
    return read_weights(Path(init))


def freeze(network: nn.Module, recipe: Recipe) -> None:
    """Disable the gradients of the layers that the recipe freezes."""
    if recipe.freeze:
        for name in FROZEN:
            network.get_submodule(name).requires_grad_(False)


def set_training(network: nn.Module, recipe: Recipe) -> None:
    """Set training mode, except for the layers and batch statistics that the recipe freezes."""
    network.train()
    if recipe.freeze:
        for name in FROZEN:
            network.get_submodule(name).eval()
    if recipe.freeze_batchnorm:
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
