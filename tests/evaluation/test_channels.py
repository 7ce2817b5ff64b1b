import torch

from evaluation.channels import dead_channels
from handler.model.preprocess import Preprocessing
from tests.conftest import Pixels
from training.networks import initial_network

SPEC = Preprocessing(28, 64)


def test_channels_that_no_tile_changes_are_counted(tiles: Pixels) -> None:
    batch = torch.from_numpy(tiles).permute(0, 3, 1, 2).float() / 255
    torch.manual_seed(0)
    network = initial_network("random").eval()
    before = dead_channels(network, batch, SPEC)
    assert list(before)[:3] == ["stem", "layer1.0.conv1", "layer1.0"]
    assert len(before) == 17
    with torch.no_grad():
        # Far below zero, so that the ReLU stops them.
        network.bn1.bias[[3, 5]] = -100
        network.blocks()[5].bn1.bias[:7] = -100
        # A constant value that is not zero is dead too.
        network.blocks()[2].conv1.weight[9] = 0
        network.blocks()[2].bn1.bias[9] = 1
    after = dead_channels(network, batch, SPEC)
    grown = {name: after[name] - before[name] for name in after}
    assert grown["stem"] == 2
    assert grown["layer2.0.conv1"] == 1
    assert grown["layer3.1.conv1"] == 7
    assert not network.maxpool._forward_pre_hooks
