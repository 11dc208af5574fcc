import copy
import pickle

import pytest
import torch
from torch import nn

from skocc._nets.backbones import BackboneEncoder
from skocc._nets.layer_encoder import LayerEncoder
from skocc._nets.own import own_module, taken_channels, try_out
from skocc._nets.own_autoencoder import OwnAutoencoder
from skocc._nets.own_patches import OwnPatchEncoder
from skocc._nets.patch_encoder import HierarchicalPatchEncoder


class Net(nn.Module):
    """Network that changes the output of a layer in place."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3)
        self.act = nn.ReLU(inplace=True)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.last = nn.Conv2d(4, 2, 1)

    def forward(self, x):
        if x.sum() > 1e9:  # a branch on values, which cannot be traced
            return x
        return self.last(self.drop(self.norm(self.act(self.first(x))))).mean((2, 3))


def test_modules_are_copied_in_float32():
    module = nn.Linear(2, 3).double()
    copied = own_module(module, "backbone")
    assert copied.weight.dtype == torch.float32
    assert module.weight.dtype == torch.float64


def test_classes_are_built_with_values_even_where_tensors_have_none():
    with torch.device("meta"):
        built = own_module(lambda: nn.Linear(2, int(torch.ones(3).sum())), "backbone")
    assert built.weight.shape == (3, 2)
    assert built.weight.device.type == "meta"


def test_trying_out_changes_nothing():
    module = Net().train()
    module.norm.eval()
    before = copy.deepcopy(module.state_dict())
    n_channels, output = try_out(module, (1, 9, 9), "backbone", "vectors")
    assert (n_channels, output.shape) == (1, (2, 2))
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())
    assert module.training
    assert not module.norm.training
    assert all(p.grad is None for p in module.parameters())


def test_channels_that_a_network_takes():
    assert taken_channels(nn.Conv2d(3, 2, 3), (1, 5, 5), "backbone", "maps")[0] == 3
    assert taken_channels(nn.Conv2d(1, 2, 3), (1, 5, 5), "backbone", "maps")[0] == 1
    assert taken_channels(nn.Conv3d(3, 2, 3), (1, 4, 5, 5), "backbone", "maps")[0] == 3
    with pytest.raises(ValueError, match=r"\(2, 1, 5, 5\), and RuntimeError.*\(2, 3, 5, 5"):
        taken_channels(nn.Conv2d(4, 2, 3), (1, 5, 5), "backbone", "maps")
    with pytest.raises(ValueError, match=r"for a batch of shape \(2, 3, 5, 5\)\. Pass"):
        taken_channels(nn.Conv2d(1, 2, 3), (3, 5, 5), "backbone", "maps")


def test_lazy_layers_take_what_the_images_have():
    encoder = BackboneEncoder(nn.Sequential(nn.LazyConv2d(2, 3), nn.Flatten()))
    assert encoder.adapt((4, 5, 5)) == 18
    assert encoder.body[0].in_channels == 4


def test_features_of_layers_before_they_are_changed_in_place():
    torch.manual_seed(0)
    encoder = LayerEncoder(Net, None)
    encoder.adapt((1, 9, 9))
    body, batch = encoder.encoder.body.eval(), torch.randn(3, 1, 9, 9)
    first = body.first(batch)
    expected = [first.mean((2, 3)), body.norm(first.relu()).mean((2, 3)), body(batch)]
    assert first.min() < 0
    for layers in [("first", "norm", -1), (-1, "norm", "first"), ("norm",)]:
        found = encoder.layer_features(batch, layers)
        for layer, features in zip(layers, found, strict=True):
            index = ("first", "norm", -1).index(layer)
            torch.testing.assert_close(features, expected[index])
    # Nothing behind the last layer is computed.
    body.last = None
    encoder.layer_features(batch, ("norm", "first"))


def test_layers_are_trained_and_have_the_mode_of_the_network():
    encoder = LayerEncoder(Net, None).train()
    encoder.adapt((1, 9, 9))
    batch = torch.rand(4, 1, 9, 9)
    (features,) = encoder.layer_features(batch, ("drop",))
    features.sum().backward()
    assert encoder.encoder.body.first.weight.grad is not None
    first, second = (encoder.layer_features(batch, ("drop",))[0] for _ in range(2))
    assert not torch.equal(first, second)  # dropout is on
    for other in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
        (found,) = other.eval().layer_features(batch, ("first",))
        torch.testing.assert_close(found, encoder.layer_features(batch, ("first",))[0])


def test_layers_that_give_no_features():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.unused, self.pair = nn.Linear(2, 2), nn.LSTM(3, 2, batch_first=True)

        def forward(self, x):
            return self.pair(x.flatten(2).mT)[0][:, -1]

    encoder = LayerEncoder(Odd, None)
    batch = torch.rand(2, 3, 4, 4)
    for name in ("unused", "pair"):
        with pytest.raises(ValueError, match=f"layers names '{name}', which gives no feat"):
            encoder.layer_features(batch, (name,))
    assert encoder(batch).shape == (2, 2)


def test_default_layers_of_a_network_that_is_trained():
    assert LayerEncoder("resnet18", None).ordered(None) == ("layer2", "layer3", -1)
    assert LayerEncoder(Net, None).ordered(None) == (-1,)


def test_windows_are_the_patches_one_by_one():
    torch.manual_seed(0)
    small = OwnPatchEncoder(nn.Sequential(nn.Conv2d(3, 5, 4), nn.Flatten()), None, 4, 1)
    assert (small.in_channels, small.embedding_dim) == (3, 5)
    encoder = HierarchicalPatchEncoder(5, 8, 3, small)
    images = torch.rand(2, 3, 13, 11)
    rows, columns = [0, 3, 9], [5, 2]
    found = small.windows(images, rows, columns)
    assert found.shape == (2, 5, 3, 2)
    torch.testing.assert_close(found[:, :, 1, 0], small(images[:, :, 3:7, 5:9]))
    z_small, z_big = encoder.dense_scales(images, 2, 3)
    torch.testing.assert_close(z_small[:, :, 2, 1], small(images[:, :, 4:8, 2:6]))
    torch.testing.assert_close(z_big[:, :, 1, 1], encoder(images[:, :, 3:11, 3:11]))


def test_reconstructions_are_compared_by_their_places():
    network = OwnAutoencoder(nn.Conv2d(1, 1, 1), (1, 8, 8))
    batch = torch.rand(3, 1, 8, 8)
    output, means = network.reconstruct(batch)
    assert torch.equal(output, network(batch))
    torch.testing.assert_close(means[:, 5], output[:, 0, 2:4, 2:4].mean((1, 2)))
