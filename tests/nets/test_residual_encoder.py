import numpy as np
import pytest
import torch

from skocc._nets.residual_encoder import ResidualDecoder, ResidualEncoder
from skocc._ops.losses import hard_boundary_loss, soft_boundary_loss, squared_distance
from skocc.estimators._spheres import away_from_zero, quantile_radius

TINY = {"latent_dim": 5, "widths": (2, 3, 4, 6)}


def n_parameters(*modules):
    return sum(p.numel() for module in modules for p in module.parameters())


@pytest.mark.parametrize(
    ("size", "n_encoder", "n_autoencoder", "n_with_selectors"),
    [(128, 18_037_216, 36_376_320, 36_859_141), (64, 5_454_304, 11_063_040, 11_545_861)],
)
def test_parameter_counts(size, n_encoder, n_autoencoder, n_with_selectors):
    shape = (3, size, size)
    with torch.device("meta"):  # counts need no memory
        encoder, decoder = ResidualEncoder(shape), ResidualDecoder(shape)
        selecting = ResidualEncoder(shape, selectors=True)
    assert n_parameters(encoder) == n_encoder
    assert n_parameters(encoder, decoder) == n_autoencoder
    assert n_parameters(selecting, decoder) == n_with_selectors
    assert [n_parameters(selector) for selector in selecting.selectors] == [
        50_081, 50_081, 50_113, 50_177, 50_305, 99_200, 66_432, 66_432,
    ]  # fmt: skip


def test_parameter_counts_by_layer():
    with torch.device("meta"):
        encoder = ResidualEncoder((3, 128, 128))
    parts = [encoder.conv, encoder.residual, *encoder.down]
    counts = [n_parameters(part) for part in parts]
    assert counts == [864, 18_560, 57_728, 230_144, 919_040]
    assert n_parameters(encoder.hidden) == 16_777_472
    assert n_parameters(encoder.norm) == 512
    assert n_parameters(encoder.code) == 32_896


@pytest.mark.parametrize(
    "shape", [(3, 64, 64), (1, 8, 8), (2, 10, 13), (3, 33, 70), (1, 3, 3)]
)
def test_shapes_of_odd_sizes(shape):
    encoder, decoder = ResidualEncoder(shape, **TINY), ResidualDecoder(shape, **TINY)
    codes = encoder(torch.rand(2, *shape))
    assert codes.shape == (2, 5)
    assert decoder(codes).shape == (2, *shape)


def test_sizes_of_maps_are_the_published_ones():
    encoder = ResidualEncoder((3, 64, 64), 5).eval()
    with torch.no_grad():
        outputs = list(encoder._outputs(torch.rand(1, 3, 64, 64)))
    assert [tuple(z.shape[1:]) for z in outputs] == [
        (32, 62, 62), (32, 62, 62), (64, 31, 31), (128, 16, 16), (256, 8, 8),
        (256,), (5,), (5,),
    ]  # fmt: skip


@pytest.mark.parametrize("selectors", [False, True])
def test_features_of_layers(selectors):
    torch.manual_seed(0)
    encoder = ResidualEncoder((3, 16, 16), selectors=selectors, **TINY).eval()
    batch = torch.rand(2, 3, 16, 16)
    features = encoder.layer_features(batch, tuple(range(8)))
    sizes = [128] * 8 if selectors else [2, 2, 3, 4, 6, 256, 5, 5]
    assert [z.shape for z in features] == [(2, n) for n in sizes]
    some = encoder.layer_features(batch, (1, 4, 6))
    for found, index in zip(some, (1, 4, 6), strict=True):
        assert torch.equal(found, features[index])
    if not selectors:
        assert torch.equal(features[7], encoder(batch))
        torch.testing.assert_close(torch.sigmoid(features[6]), features[7])
        torch.testing.assert_close(features[0], encoder.conv(batch).mean(dim=(2, 3)))


def test_layers_after_the_last_are_not_computed():
    encoder = ResidualEncoder((3, 16, 16), **TINY).eval()
    # Images of another size do not fit the linear layers.
    larger = torch.rand(2, 3, 40, 40)
    assert len(encoder.layer_features(larger, (0, 4))) == 2
    with pytest.raises(RuntimeError):
        encoder.layer_features(larger, (0, 5))


def load_golden(encoder, arrays):
    """Copy the stored weights, which lie in the same order, into `encoder`."""
    stored = [value for key, value in arrays.items() if key.startswith("w/")]
    own = encoder.state_dict()
    for tensor, value in zip(own.values(), stored, strict=True):
        tensor.copy_(torch.from_numpy(value.astype(np.float32)).view(tensor.shape))


def close(actual, expected):
    np.testing.assert_allclose(actual.detach().numpy(), expected, atol=1e-4)


@pytest.mark.data
@torch.no_grad()
def test_golden_encoder(data_dir):
    with np.load(data_dir / "golden" / "mocca_mvtec_encoder_io.npz") as file:
        arrays = {key: file[key] for key in file}
    encoder = ResidualEncoder((3, 32, 32), int(arrays["code_length"]), selectors=True)
    load_golden(encoder, arrays)
    batch, nu = torch.from_numpy(arrays["input"]), float(arrays["nu"])
    close(encoder.eval()(batch), arrays["z"])
    selectors = encoder.selectors
    for kind in ("sel", "pool"):
        encoder.selectors = selectors if kind == "sel" else None
        distances, radii, losses = [], [], []
        for layer, z in enumerate(encoder.layer_features(batch, tuple(range(8)))):
            close(z, arrays[f"{kind}/feat/{layer:02d}"])
            center = away_from_zero(z.mean(dim=0))
            close(center, arrays[f"{kind}/center/{layer:02d}"])
            distances.append(squared_distance(z, center))
            radii.append(quantile_radius(distances[-1], nu))
            close(radii[-1], arrays[f"{kind}/radius/{layer:02d}"])
            losses.append(
                (
                    hard_boundary_loss(distances[-1]),
                    soft_boundary_loss(distances[-1], radii[-1], nu),
                )
            )
        # The code adds 1 to the sum over the layers.
        hard, soft = torch.tensor(losses).sum(dim=0) + 1
        close(hard, arrays[f"{kind}/loss_hard"])
        close(soft, arrays[f"{kind}/loss_soft"])
        scores = torch.stack(distances).sqrt()
        close(scores.mean(0), arrays[f"{kind}/score_hard"])
        scores = scores - torch.stack(radii)[:, None]
        close(scores.mean(0), arrays[f"{kind}/score_soft"])
    close(encoder.train()(batch), arrays["z_train_mode"])
