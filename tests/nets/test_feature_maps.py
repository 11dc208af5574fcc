import pytest
import torch
from torch.nn import functional

from skocc._nets.feature_maps import (
    FrozenFeatures,
    GlobalAverages,
    JoinedMaps,
    LocallyAwarePatches,
    UnitLength,
)
from skocc._nets.normalization import ImageNetNormalization


def two_maps():
    generator = torch.Generator().manual_seed(0)
    return [
        torch.rand(2, 3, 8, 6, generator=generator),
        torch.rand(2, 5, 4, 3, generator=generator),
    ]


def test_resnet50_gives_1536_features_on_28_by_28_cells():
    maps = [torch.rand(1, 512, 28, 28), torch.rand(1, 1024, 14, 14)]
    join = JoinedMaps()
    assert join(maps).shape == (1, 1536, 28, 28)
    assert join.n_features([512, 1024]) == 1536
    assert LocallyAwarePatches()(maps).shape == (1, 1024, 28, 28)
    assert GlobalAverages()(maps).shape == (1, 1536)


def test_averages_repeat_and_average_neighbors():
    # A map of 14 cells is 12 after pooling without padding; a ramp stays one.
    ramp = torch.arange(-1.0, 13).expand(1, 1, 14, 14)
    joined = JoinedMaps()([ramp, torch.zeros(1, 1, 28, 28)])
    expected = torch.tensor([0, 0, 0.5, 1, 1.5, 2, 2, 3])
    torch.testing.assert_close(joined[0, 0, 5, :8], expected)
    torch.testing.assert_close(joined[0, 0, 5, -1], torch.tensor(11.0))


def test_bilinear_interpolation_of_the_averages():
    large, small = two_maps()
    joined = JoinedMaps("bilinear")([large, small])
    for values, (first, last) in [(large, (0, 3)), (small, (3, 8))]:
        pooled = functional.avg_pool2d(values, 3, 1)
        expected = functional.interpolate(pooled, (8, 6), mode="bilinear")
        torch.testing.assert_close(joined[:, first:last], expected)
    assert not torch.allclose(joined, JoinedMaps()([large, small]))


@pytest.mark.parametrize("interpolation", ["average", "bilinear"])
def test_cells_of_their_own(interpolation):
    large, small = two_maps()
    joined = JoinedMaps(interpolation, averages=False)([large, small])
    assert torch.equal(joined[:, :3], large)
    expected = small.repeat_interleave(2, 2).repeat_interleave(2, 3)
    if interpolation == "bilinear":
        expected = functional.interpolate(small, (8, 6), mode="bilinear")
    torch.testing.assert_close(joined[:, 3:], expected)


def test_features_of_length_one():
    maps = two_maps()
    maps[0][0, :, 0, 0], maps[1][0, :, 0, 0] = 0, 0
    join = UnitLength(JoinedMaps(averages=False))
    joined = join(maps)
    lengths = joined.norm(dim=1)
    assert lengths[0, 0, 0] == 0
    assert join.n_features([3, 5]) == 8
    torch.testing.assert_close(lengths[1], torch.ones(8, 6))
    values = JoinedMaps(averages=False)(maps)
    torch.testing.assert_close(joined * values.norm(dim=1, keepdim=True), values)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 5), (3, 2)])
@pytest.mark.parametrize(
    "join", [JoinedMaps(), JoinedMaps("bilinear"), LocallyAwarePatches(8)]
)
def test_small_maps(join, size):
    values = torch.rand(2, 4, *size)
    joined = join([values, torch.rand(2, 4, 1, 1)])
    assert joined.shape == (2, 8, *size)
    assert joined.isfinite().all()


def test_single_cell_is_left_as_it_is():
    value = torch.rand(2, 4, 1, 1)
    assert torch.equal(JoinedMaps()([value]), value)


def test_locally_aware_patches_by_hand():
    large, small = two_maps()
    found = LocallyAwarePatches(7)([large, small])
    layers = []
    for values in (large, small):
        channels, (height, width) = values.shape[1], values.shape[2:]
        padded = functional.pad(values, (1, 1, 1, 1))
        cells = torch.stack(
            [
                padded[:, :, i : i + 3, j : j + 3].reshape(2, channels * 9)
                for i in range(height)
                for j in range(width)
            ],
            dim=2,
        ).unflatten(2, (height, width))
        # In the order of the source: first to one grid, then to one length.
        cells = functional.interpolate(cells, (8, 6), mode="bilinear")
        vectors = cells.flatten(2).mT
        layers.append(functional.adaptive_avg_pool1d(vectors, 7))
    expected = functional.adaptive_avg_pool1d(torch.cat(layers, dim=2), 7)
    torch.testing.assert_close(found.flatten(2).mT, expected)


def test_global_averages_take_vectors_too():
    large, _ = two_maps()
    vector = torch.rand(2, 4)
    expected = torch.cat([large.mean((2, 3)), vector], dim=1)
    torch.testing.assert_close(GlobalAverages()([large, vector]), expected)


@pytest.mark.parametrize("join", [JoinedMaps(), LocallyAwarePatches(32)])
def test_images_of_odd_sizes(join):
    network = FrozenFeatures(join, "resnet18", ["layer1", "layer3"], weights=None)
    joined = network(torch.rand(2, 1, 33, 50))
    assert joined.shape == (2, *network.grid(33, 50))
    assert joined.shape[2:] == (9, 13)


@pytest.mark.parametrize(
    ("name", "layers", "expected"),
    [
        ("resnet50", ("layer2", "layer3"), (1536, 28, 28)),
        ("resnet18", ("layer2", "layer3"), (384, 28, 28)),
        ("wide_resnet50_2", ("layer2", "layer3"), (1536, 28, 28)),
        ("mobilenet_v2", ("features.6", "features.13"), (128, 28, 28)),
    ],
)
def test_grids_at_224_pixels(name, layers, expected):
    network = FrozenFeatures(JoinedMaps(), name, layers, weights=None)
    assert network.grid(224, 224) == expected


def test_normalization_is_done_before_the_network():
    torch.manual_seed(0)
    plain = FrozenFeatures(JoinedMaps(), "resnet18", ["layer1"], None)
    normalized = FrozenFeatures(JoinedMaps(), "resnet18", ["layer1"], None, "imagenet")
    normalized.extract.maps.load_state_dict(plain.extract.maps.state_dict())
    gray = torch.rand(2, 1, 32, 32)
    expected = plain(ImageNetNormalization()(gray))
    torch.testing.assert_close(normalized(gray), expected)
    assert not torch.allclose(normalized(gray), plain(gray))
