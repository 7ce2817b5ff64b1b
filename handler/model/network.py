"""The network: ResNet-18 with nine outputs, read from safetensors."""

from copy import deepcopy
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from handler.classes import NUM_CLASSES
from handler.model.resnet import ResNet


def build_network() -> ResNet:
    """A ResNet-18 with nine outputs and random weights."""
    return ResNet(NUM_CLASSES)


def load_network(path: Path) -> ResNet:
    """Read weights (torchvision's parameter names, any float type) into a float32 network in eval mode.

    Raises `RuntimeError` if names or shapes do not fit.
    """
    with torch.device("meta"):  # which draws no random weights
        network = build_network()
    state = {name: value.float() if value.is_floating_point() else value for name, value in load_file(path).items()}
    network.load_state_dict(state, assign=True)
    return network.eval()


def for_inference(network: ResNet) -> ResNet:
    """A faster copy with the same function: each BatchNorm folded into its convolution, channels last, frozen."""
    result = deepcopy(network).eval().requires_grad_(False)
    _fold(result, "conv1", "bn1")
    for block in result.blocks():
        _fold(block, "conv1", "bn1")
        _fold(block, "conv2", "bn2")
        if block.downsample is not None:
            _fold(block.downsample, "0", "1")
    return result.to(memory_format=torch.channels_last)


def _fold(parent: nn.Module, convolution: str, normalisation: str) -> None:
    folded = fuse_conv_bn_eval(getattr(parent, convolution), getattr(parent, normalisation))
    setattr(parent, convolution, folded)
    setattr(parent, normalisation, nn.Identity())


def feature_map(network: ResNet, inputs: Tensor) -> Tensor:
    """The output of `layer4`: `[N, 512, H/32, W/32]` for inputs `[N, 3, H, W]`."""
    stem = network.maxpool(network.relu(network.bn1(network.conv1(inputs))))
    result: Tensor = network.layer4(network.layer3(network.layer2(network.layer1(stem))))
    return result


def embedding(features: Tensor) -> Tensor:
    """Global average pooling: `[N, 512, h, w]` to `[N, 512]`."""
    return features.mean(dim=(2, 3))


def classify(network: ResNet, features: Tensor) -> Tensor:
    """Logits `[N, 9]` of a `layer4` feature map."""
    return nn.functional.linear(embedding(features), network.fc.weight, network.fc.bias)


def class_activation(network: ResNet, features: Tensor) -> Tensor:
    """All nine class activation maps in logits, `[N, 9, h, w]`.

    The network ends in average pooling and one linear layer, so `map_c = sum_k W[c,k] A_k / (h w)`: the maps of
    Zhou et al. (arXiv 1512.04150), which here equal Grad-CAM before its ReLU (arXiv 1610.02391). The sum of a map plus
    the bias of its class is the logit.
    """
    cells = features.shape[2] * features.shape[3]
    weight = network.fc.weight[:, :, None, None] / cells
    return nn.functional.conv2d(features, weight)
