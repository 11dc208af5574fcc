import math

import pytest
import torch
from torch import nn

from skocc._engine.seeding import seeded
from skocc._nets.backbones import FeatureMaps
from skocc._nets.hooks import LayerError
from skocc._nets.layouts import Layout, as_map, default_layers

# One member of each family of torchvision, and its layers of stride 8 and 16.
FAMILIES = {
    "alexnet": ("features.4", "features.11"),
    "convnext_tiny": ("features.3", "features.5"),
    "densenet121": ("features.denseblock2", "features.denseblock3"),
    "efficientnet_b0": ("features.3", "features.5"),
    "efficientnet_v2_s": ("features.3", "features.5"),
    "googlenet": ("inception3b", "inception4e"),
    "inception_v3": ("Mixed_5d", "Mixed_6e"),
    "maxvit_t": ("blocks.1", "blocks.2"),
    "mnasnet0_5": ("layers.9", "layers.11"),
    "mobilenet_v2": ("features.6", "features.13"),
    "mobilenet_v3_large": ("features.6", "features.12"),
    "mobilenet_v3_small": ("features.3", "features.8"),
    "regnet_y_400mf": ("trunk_output.block2", "trunk_output.block3"),
    "resnet18": ("layer2", "layer3"),
    "resnext50_32x4d": ("layer2", "layer3"),
    "shufflenet_v2_x0_5": ("stage2", "stage3"),
    "squeezenet1_0": ("features.10", "features"),
    "squeezenet1_1": ("features.7", "features"),
    "swin_t": ("features.3", "features.5"),
    "swin_v2_t": ("features.3", "features.5"),
    "vgg11": ("features.14", "features.19"),
    "vgg11_bn": ("features.20", "features.27"),
    "vit_b_32": ("encoder.layers.encoder_layer_5", "encoder.layers.encoder_layer_8"),
    "wide_resnet50_2": ("layer2", "layer3"),
}
QUICK = ("mobilenet_v2", "shufflenet_v2_x0_5", "squeezenet1_0")


@pytest.mark.parametrize(
    "name",
    [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in FAMILIES],
)
def test_default_layers_of_every_family(name):
    # As in a fit, in which layers such as dropout draw from private streams.
    with seeded(0, torch.device("cpu")):
        maps = FeatureMaps(name, None, weights=None)
    assert maps.layers == FAMILIES[name]
    sizes = [shape[1:] for shape in maps.shapes(224, 224)]
    if name == "vit_b_32":
        assert sizes == [(7, 7), (7, 7)]
    else:
        assert 25 <= min(sizes[0]) <= 28
        assert 12 <= min(sizes[1]) <= 14
    last = FeatureMaps(name, None, weights=None, strides=(32,))
    ((channels, *_),) = last.shapes(224, 224)
    assert len(last.layers) == 1
    assert channels >= maps.shapes(224, 224)[-1][0]


def test_the_last_layer_of_a_stride_and_the_outermost():
    def block(n_in, n_out, stride):
        return nn.Sequential(nn.Conv2d(n_in, n_out, 3, stride, 1), nn.ReLU())

    model = nn.Sequential(
        block(1, 2, 4), block(2, 3, 2), block(3, 3, 1), block(3, 4, 2), nn.Flatten()
    )
    found = default_layers(model.eval(), [(1, 32, 48)], (8, 16))
    assert found == ("2", "3")
    assert not any(m._forward_hooks for m in model.modules())
    maps = FeatureMaps(lambda: model, None, in_shape=(1, 32, 48))
    assert maps.shapes(32, 48) == [(3, 4, 6), (4, 2, 3)]
    # The stride is that of the maps, not a setting: of images of three channels there are
    # none, and what is behind the layers may fail.
    with pytest.raises(
        ValueError, match=r"stride 8 and 16.*none for images of 32 x 48.*'0"
    ):
        default_layers(model, [(3, 32, 48)], (8, 16))
    model.append(nn.Linear(7, 7))
    assert default_layers(model, [(1, 32, 48)], (8, 16)) == found


def test_tokens_and_permuted_maps():
    tokens = torch.arange(2 * 5 * 3).view(2, 5, 3)
    found = as_map(tokens, Layout(n_prefix_tokens=1), (32, 32))
    assert found.shape == (2, 3, 2, 2)
    assert found[1, :, 1, 0].tolist() == tokens[1, 3].tolist()
    permuted = as_map(torch.empty(2, 4, 5, 3), Layout(is_channels_last=True), (64, 80))
    assert permuted.shape == (2, 3, 4, 5)
    vectors = torch.rand(2, 5)
    assert as_map(vectors, Layout(), (8, 8)) is vectors


@pytest.mark.parametrize(
    ("n_tokens", "layout", "image_size", "grid"),
    [
        (1 + 12, Layout(n_prefix_tokens=1), (48, 64), (3, 4)),
        (5 + 12, Layout(n_prefix_tokens=5, patch_size=(16, 16)), (48, 64), (3, 4)),
        # Before a class token is added, the patches alone.
        (12, Layout(n_prefix_tokens=1, patch_size=(16, 16)), (48, 64), (3, 4)),
        (12, Layout(patch_size=(16, 16)), (64, 48), (4, 3)),
        # Later stages of a hierarchy have fewer tokens than there are patches.
        (6, Layout(n_prefix_tokens=0, patch_size=(4, 4)), (64, 96), (2, 3)),
        # One stride, rounded down in both directions, or up.
        (7 * 9, Layout(n_prefix_tokens=0), (112, 150), (7, 9)),
        (8 * 10, Layout(n_prefix_tokens=0), (113, 150), (8, 10)),
    ],
)
def test_the_grid_of_tokens(n_tokens, layout, image_size, grid):
    tokens = torch.rand(2, n_tokens, 3)
    found = as_map(tokens, layout, image_size)
    assert found.shape == (2, 3, *grid)
    last = math.prod(grid)
    assert torch.equal(found.flatten(2).mT, tokens[:, n_tokens - last :])


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (Layout(), r"'a', which returns 17 tokens .* 64 x 64 .*Got n_prefix_tokens=None"),
        (
            Layout(n_prefix_tokens=2),
            r"'a', whose tokens form no map .*Got 17 tokens with 2",
        ),
        (Layout(n_prefix_tokens=17), r"form no map .*Set n_prefix_tokens to"),
    ],
)
def test_tokens_that_give_no_map(layout, message):
    with pytest.raises(LayerError, match=message):
        as_map(torch.rand(1, 17, 3), layout, (64, 64), "a")
