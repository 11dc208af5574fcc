import pytest
import torch

from skocc._nets.conv_autoencoder import ConvAutoencoder


def n_parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_published_number_of_parameters():
    network = ConvAutoencoder()
    assert n_parameters(network) == 933_443
    residual = network.encoder[6]
    assert n_parameters(residual) == 73_728 + 256 + 147_456 + 256 + 8_192 + 256
    # Only the last convolution has a bias.
    biases = [
        name
        for name, layer in network.named_modules()
        if isinstance(layer, torch.nn.Conv2d | torch.nn.ConvTranspose2d)
        and layer.bias is not None
    ]
    assert biases == ["output"]


def test_published_shapes():
    network, shapes = ConvAutoencoder(), []
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            layer.register_forward_hook(lambda *args: shapes.append(args[2].shape[1:]))
    images = network(torch.rand(2, 3, 224, 224))
    assert images.shape == (2, 3, 224, 224)
    assert 0 < images.min() < images.max() < 1
    assert [tuple(shape) for shape in shapes] == [
        (32, 112, 112),
        (64, 56, 56),
        (128, 28, 28),
        (128, 28, 28),
        (128, 28, 28),
        (256, 14, 14),
        (128, 28, 28),
        (64, 56, 56),
        (32, 112, 112),
        (3, 224, 224),
    ]


@pytest.mark.parametrize(
    ("n_channels", "size", "code_size"),
    [
        (3, (224, 200), (14, 13)),
        (1, (1, 1), (1, 1)),
        (1, (1, 7), (1, 1)),
        (2, (8, 8), (1, 1)),
        (4, (31, 33), (2, 3)),
        (3, (50, 97), (4, 7)),
    ],
)
def test_any_size_comes_back(n_channels, size, code_size):
    network = ConvAutoencoder(n_channels)
    batch = torch.rand(2, n_channels, *size)
    assert network.encode(batch).shape == (2, 256, *code_size)
    assert network(batch).shape == batch.shape
    network.eval()
    torch.testing.assert_close(network(batch)[:1], network(batch[:1]))


def test_skip_connection_reaches_the_sum():
    block = ConvAutoencoder().encoder[6].eval()
    maps = torch.rand(1, 64, 8, 8)
    skip = torch.relu(block.skip(maps[:, :, ::2, ::2]))
    block.body[-1].weight.data.zero_()
    torch.testing.assert_close(block(maps), skip)
