import pytest
import torch

from skocc._nets.feature_autoencoder import FeatureAutoencoder


def n_parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_published_number_of_parameters():
    network = FeatureAutoencoder(1536)
    assert n_parameters(network) == 1_434_036
    expected = [
        *[614_800, 800, 80_200, 400, 20_100],
        *[20_200, 400, 80_400, 800, 615_936],
    ]
    layers = [*network.encoder, *network.decoder]
    assert [n for n in map(n_parameters, layers) if n] == expected


@pytest.mark.parametrize(("n_channels", "latent_dim"), [(1536, 100), (5, 3)])
def test_shapes(n_channels, latent_dim):
    network = FeatureAutoencoder(n_channels, latent_dim)
    maps = torch.rand(2, n_channels, 28, 28)
    codes = network.encode(maps)
    assert codes.shape == (2, latent_dim, 28, 28)
    assert network.decode(codes).shape == maps.shape
    # Neither the code nor the output is cut at zero.
    assert codes.min() < 0
    assert network(maps).min() < 0


def test_cells_know_nothing_of_each_other():
    network = FeatureAutoencoder(6, 4).eval()
    maps = torch.rand(2, 6, 5, 7, generator=torch.Generator().manual_seed(0))
    order = torch.randperm(35)
    permuted = maps.flatten(2)[:, :, order].unflatten(2, (5, 7))
    expected = network(maps).flatten(2)[:, :, order].unflatten(2, (5, 7))
    torch.testing.assert_close(network(permuted), expected)
