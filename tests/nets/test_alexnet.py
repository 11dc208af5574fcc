from itertools import pairwise

import pytest
import torch

from skocc._nets.alexnet import (
    AlexNetAutoencoder,
    CompactAlexNet,
    alexnet_code_size,
    alexnet_widths,
)


def n_weights(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("in_shape", "n_classifier", "n_spatial", "n_autoencoder"),
    [
        ((1, 28, 28), 4_808_897, 4_914_565, 4_912_515),
        ((3, 32, 32), 4_812_097, 4_939_403, 5_164_707),
    ],
)
def test_numbers_of_weights(in_shape, n_classifier, n_spatial, n_autoencoder):
    for batch_norm in (False, True):
        extractor = CompactAlexNet(in_shape, batch_norm=batch_norm)
        assert n_weights(extractor) + n_weights(torch.nn.Linear(512, 1)) == n_classifier
    assert n_weights(AlexNetAutoencoder(in_shape, spatial_code=True)) == n_spatial
    assert n_weights(AlexNetAutoencoder(in_shape)) == n_autoencoder


@pytest.mark.parametrize(
    ("in_shape", "code", "spatial_code"),
    [
        ((1, 8, 8), (8, 1, 1), (4, 1, 1)),
        ((3, 15, 16), (16, 1, 1), (8, 2, 2)),
        ((1, 16, 16), (16, 1, 1), (4, 2, 2)),
        ((1, 28, 28), (2, 1, 1), (4, 4, 4)),
        ((3, 32, 32), (32, 1, 1), (8, 4, 4)),
        ((3, 224, 224), (128, 1, 1), (128, 7, 7)),
    ],
)
def test_code_is_much_smaller_than_the_image(in_shape, code, spatial_code):
    for spatial, shape in [(False, code), (True, spatial_code)]:
        autoencoder = AlexNetAutoencoder(
            in_shape, widths=(2, 2, 2, 2, 2), spatial_code=spatial
        )
        assert autoencoder.encoder(torch.zeros(2, *in_shape)).shape == (2, *shape)


@pytest.mark.parametrize(
    "in_shape", [(1, 1, 3), (3, 8, 8), (2, 17, 23), (1, 62, 40), (3, 63, 64), (1, 70, 101)]
)
@pytest.mark.parametrize("spatial_code", [False, True])
def test_reconstructions_have_the_size_of_the_image(in_shape, spatial_code):
    autoencoder = AlexNetAutoencoder(
        in_shape, widths=(4, 6, 8, 6, 5), spatial_code=spatial_code
    )
    images = autoencoder(torch.rand(2, *in_shape))
    assert images.shape == (2, *in_shape)
    assert images.min() > 0
    assert images.max() < 1


def test_features_are_not_negative_and_dropout_is_there():
    torch.manual_seed(0)  # of some weights, all features are 0
    network = CompactAlexNet((1, 12, 9), latent_dim=7, widths=(3, 4, 5, 4, 3), dropout=0.5)
    features = network.eval()(torch.rand(4, 1, 12, 9))
    assert features.shape == (4, 7)
    assert features.min() >= 0
    assert features.std() > 0
    rates = [m.p for m in network.modules() if isinstance(m, torch.nn.Dropout)]
    assert rates == [0.5, 0.5]


def test_batch_norm_follows_each_convolution():
    network = CompactAlexNet((1, 12, 9), 7, (3, 4, 5, 4, 3), batch_norm=True)
    after = [
        second for first, second in pairwise(network) if isinstance(first, torch.nn.Conv2d)
    ]
    assert [norm.num_features for norm in after] == [3, 4, 5, 4, 3]
    batch = torch.rand(6, 1, 12, 9)
    network(batch)  # takes the statistics
    network.eval()
    torch.testing.assert_close(network(batch[:1]), network(batch)[:1])


def test_sizes_of_the_code():
    sizes = [(15, 40), (23, 16), (24, 28), (62, 70), (63, 63)]
    for spatial, gray, color in [
        (False, [8, 16, 2, 2, 64], [16, 32, 32, 32, 128]),
        (True, [4, 4, 4, 4, 64], [8, 8, 8, 8, 128]),
    ]:
        assert [alexnet_code_size(1, *size, spatial) for size in sizes] == gray
        assert [alexnet_code_size(3, *size, spatial) for size in sizes] == color


def test_widths_by_size():
    assert alexnet_widths(28, 28) == (64, 192, 384, 256, 256)
    assert alexnet_widths(28, 8) == (16, 48, 96, 64, 64)
    assert alexnet_widths(2, 28) == (8, 24, 48, 32, 32)


def test_autoencoder_learns_at_its_step_size():
    """Without BatchNorm it paints the mean image, and goes on doing so."""
    torch.manual_seed(0)
    coarse = torch.rand(40, 1, 4, 4)
    images = torch.nn.functional.interpolate(coarse, (16, 16), mode="bilinear")
    autoencoder = AlexNetAutoencoder((1, 16, 16), widths=(8, 12, 16, 12, 12))
    optimizer = torch.optim.Adam(autoencoder.parameters(), lr=1e-3)
    for _ in range(60):
        loss = (autoencoder(images) - images).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.5 * (images - images.mean(dim=0)).square().mean()
