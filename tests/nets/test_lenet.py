import numpy as np
import pytest
import torch

from skocc._nets.lenet import (
    LeNetDecoder,
    LeNetEncoder,
    lenet_latent_dim,
    lenet_widths,
)
from skocc._ops.losses import (
    hard_boundary_loss,
    reconstruction_loss,
    soft_boundary_loss,
    squared_distance,
)
from skocc.estimators._spheres import away_from_zero, quantile_radius

MNIST, CIFAR = (1, 28, 28), (3, 32, 32)


def published(in_shape, **params):
    widths = lenet_widths(*in_shape[1:])
    return in_shape, lenet_latent_dim(widths), widths


def n_parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("in_shape", "n_encoder", "n_autoencoder", "latent_dim"),
    [(MNIST, 7_272, 8_472, 32), (CIFAR, 520_544, 804_544, 128)],
)
def test_parameter_counts_and_shapes(in_shape, n_encoder, n_autoencoder, latent_dim):
    encoder = LeNetEncoder(*published(in_shape))
    decoder = LeNetDecoder(*published(in_shape))
    assert n_parameters(encoder) == n_encoder
    assert n_parameters(encoder) + n_parameters(decoder) == n_autoencoder
    codes = encoder(torch.rand(3, *in_shape))
    assert codes.shape == (3, latent_dim)
    images = decoder(codes)
    assert images.shape == (3, *in_shape)
    assert images.min() > 0
    assert images.max() < 1


@pytest.mark.parametrize(
    ("size", "widths"),
    [
        ((1, 3), (8,)),
        ((8, 8), (8,)),
        ((16, 16), (8, 4)),
        ((28, 28), (8, 4)),
        ((31, 40), (8, 4)),
        ((32, 32), (32, 64, 128)),
        ((64, 64), (32, 64, 128, 256)),
        ((128, 200), (32, 64, 128, 256, 256)),
        ((512, 512), (32, 64, 128, 256, 256)),
    ],
)
def test_widths_by_image_size(size, widths):
    assert lenet_widths(*size) == widths


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "size",
    [(1, 1), (1, 7), (5, 3), (8, 8), (13, 13), (17, 30), (31, 28), (45, 50), (64, 33)],
)
@pytest.mark.parametrize("latent_dim", [None, 10])
def test_every_size_is_encoded_and_decoded(channels, size, latent_dim):
    in_shape, default_dim, widths = published((channels, *size))
    latent_dim = latent_dim or default_dim
    encoder = LeNetEncoder(in_shape, latent_dim, widths)
    decoder = LeNetDecoder(in_shape, latent_dim, widths)
    batch = torch.rand(2, *in_shape)
    assert encoder(batch).shape == (2, latent_dim)
    assert decoder(encoder(batch)).shape == batch.shape


def test_encoder_without_bias_is_positively_homogeneous():
    torch.manual_seed(0)
    encoder = LeNetEncoder(*published(MNIST)).eval()
    batch = torch.rand(4, *MNIST)
    assert torch.equal(encoder(torch.zeros(1, *MNIST)), torch.zeros(1, 32))
    torch.testing.assert_close(encoder(3 * batch), 3 * encoder(batch), rtol=1e-5, atol=1e-5)


def test_affine_and_activation_are_used():
    torch.manual_seed(0)
    batch = torch.rand(4, *MNIST)
    plain = LeNetEncoder(*published(MNIST))
    assert n_parameters(LeNetEncoder(*published(MNIST), affine=True)) == 7_272 + 2 * 12
    elu = LeNetEncoder(*published(MNIST), activation="elu")
    elu.load_state_dict(plain.state_dict())
    assert not torch.allclose(elu(batch), plain(batch))


def test_features_of_layers():
    torch.manual_seed(0)
    encoder = LeNetEncoder(*published(CIFAR)).eval()
    batch = torch.rand(4, *CIFAR)
    features = encoder.layer_features(batch, (0, 1, 2, 3))
    assert encoder.n_layers == 4
    assert [z.shape for z in features] == [(4, 32), (4, 64), (4, 128), (4, 128)]
    # Raw convolutions: before BatchNorm, activation and pooling.
    torch.testing.assert_close(features[0], encoder.stages[0][0](batch).mean(dim=(2, 3)))
    torch.testing.assert_close(
        features[1], encoder.stages[1][0](encoder.stages[0](batch)).mean(dim=(2, 3))
    )
    assert torch.equal(features[3], encoder(batch))
    for layers in [(0,), (1, 3), (2,)]:
        for z, index in zip(encoder.layer_features(batch, layers), layers, strict=True):
            assert torch.equal(z, features[index])


def test_a_code_of_another_length():
    # The published net of MOCCA with the code length that is its parser's default.
    assert n_parameters(LeNetEncoder(CIFAR, 32, (32, 64, 128))) == 323_936


def golden(data_dir, name):
    with np.load(data_dir / "golden" / f"deep_svdd_{name}_io.npz") as arrays:
        return {key: arrays[key] for key in arrays}


def load_golden(modules, arrays):
    """Copy the stored weights, which lie in the order of the layers, into `modules`."""
    stored = [
        torch.from_numpy(np.asarray(value, dtype=np.float32))
        for key, value in arrays.items()
        if key.startswith("w/") and not key.endswith("num_batches_tracked")
    ]
    own = [
        tensor
        for module in modules
        for key, tensor in module.state_dict().items()
        if not key.endswith("num_batches_tracked")
    ]
    by_shape = {}
    for tensor in stored:
        by_shape.setdefault(tuple(tensor.shape), []).append(tensor)
    for tensor in own:
        tensor.copy_(by_shape[tuple(tensor.shape)].pop(0))
    assert not any(by_shape.values())


def close(actual, expected):
    np.testing.assert_allclose(actual.detach().numpy(), expected, atol=1e-4)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "in_shape"), [("mnist_LeNet", MNIST), ("cifar10_LeNet", CIFAR)]
)
def test_golden_encoder(data_dir, name, in_shape):
    arrays = golden(data_dir, name)
    encoder = LeNetEncoder(*published(in_shape))
    load_golden([encoder], arrays)
    batch = torch.from_numpy(arrays["input"])
    close(encoder.eval()(batch), arrays["output"])
    z = encoder(batch)
    center = away_from_zero(z.mean(0))
    close(center, arrays["center"])
    distances = squared_distance(z, center)
    nu = float(arrays["nu"])
    radius = quantile_radius(distances, nu)
    close(radius, arrays["radius"])
    close(distances, arrays["score_one_class"])
    close(distances - radius**2, arrays["score_soft_boundary"])
    close(hard_boundary_loss(distances), arrays["loss_one_class"])
    close(soft_boundary_loss(distances, radius, nu), arrays["loss_soft_boundary"])
    close(encoder.train()(batch), arrays["output_train_mode"])


@pytest.mark.data
def test_golden_elu_encoder(data_dir):
    arrays = golden(data_dir, "cifar10_LeNet_ELU")
    weights = golden(data_dir, "cifar10_LeNet")
    weights |= {key: value for key, value in arrays.items() if key.startswith("w/")}
    encoder = LeNetEncoder(*published(CIFAR), activation="elu")
    load_golden([encoder], weights)
    batch = torch.from_numpy(arrays["input"])
    close(encoder.eval()(batch), arrays["output"])
    close(encoder.train()(batch), arrays["output_train_mode"])


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "in_shape"),
    [("mnist_LeNet_autoencoder", MNIST), ("cifar10_LeNet_autoencoder", CIFAR)],
)
def test_golden_autoencoder(data_dir, name, in_shape):
    arrays = golden(data_dir, name)
    encoder, decoder = (
        LeNetEncoder(*published(in_shape)),
        LeNetDecoder(*published(in_shape)),
    )
    load_golden([encoder, decoder], arrays)
    autoencoder = torch.nn.Sequential(encoder, decoder)
    batch = torch.from_numpy(arrays["input"])
    reconstruction = autoencoder.eval()(batch)
    close(reconstruction, arrays["output"])
    close(reconstruction_loss(reconstruction, batch), arrays["loss"])
    close(autoencoder.train()(batch), arrays["output_train_mode"])


def golden_mocca(data_dir, name):
    with np.load(data_dir / "golden" / f"mocca_cifar10_{name}_io.npz") as arrays:
        return {key: arrays[key] for key in arrays}


@pytest.mark.data
@torch.no_grad()
def test_golden_layers(data_dir):
    arrays = golden_mocca(data_dir, "encoder")
    encoder = LeNetEncoder(*published(CIFAR)).eval()
    load_golden([encoder], arrays)
    batch, nu = torch.from_numpy(arrays["input"]), float(arrays["nu"])
    close(encoder(batch), arrays["output"])
    layers = tuple(arrays["idx_list_enc"].tolist())
    distances, excesses, losses = [], [], []
    for layer, z in zip(layers, encoder.layer_features(batch, layers), strict=True):
        close(z, arrays[f"feat/{layer:02d}"])
        center = away_from_zero(z.mean(0))
        close(center, arrays[f"center/{layer:02d}"])
        d = squared_distance(z, center)
        close(d, arrays[f"dist/{layer:02d}"])
        radius = quantile_radius(d, nu)
        close(radius, arrays[f"radius/{layer:02d}"])
        distances.append(d)
        excesses.append(d - radius**2)
        losses.append((hard_boundary_loss(d), soft_boundary_loss(d, radius, nu)))
    close(torch.stack(distances).mean(0), arrays["score_hard"])
    close(torch.stack(excesses).mean(0), arrays["score_soft"])
    # The code adds 1 to the sum over the layers.
    hard, soft = torch.tensor(losses).sum(dim=0) + 1
    close(hard, arrays["loss_hard"])
    close(soft, arrays["loss_soft"])


@pytest.mark.data
def test_golden_autoencoder_of_mocca(data_dir):
    arrays = golden_mocca(data_dir, "autoencoder")
    encoder, decoder = (
        LeNetEncoder(*published(CIFAR)),
        LeNetDecoder(*published(CIFAR)),
    )
    # It normalizes the code twice.
    norm = torch.nn.BatchNorm1d(128, eps=1e-4, affine=False)
    load_golden([encoder, norm, decoder], arrays)
    autoencoder = torch.nn.Sequential(encoder, norm, decoder).eval()
    batch = torch.from_numpy(arrays["input"])
    reconstruction = autoencoder(batch)
    close(reconstruction, arrays["output"])
    close(reconstruction_loss(reconstruction, batch), arrays["loss"])
