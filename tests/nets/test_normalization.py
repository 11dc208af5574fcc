import numpy as np
import pytest
import torch

from skocc._nets.normalization import (
    ContrastNormalization,
    ImageNetNormalization,
    LocalContrastNormalization,
    MeanSubtraction,
    SymmetricRange,
    freeze_batch_norm,
    global_contrast_normalize,
)


def test_constants_of_an_image_cancel():
    torch.manual_seed(0)
    batch = torch.rand(4, 3, 9, 9)
    normalized = global_contrast_normalize(batch)
    torch.testing.assert_close(normalized.mean(dim=(1, 2, 3)), torch.zeros(4))
    torch.testing.assert_close(normalized.abs().mean(dim=(1, 2, 3)), torch.ones(4))
    torch.testing.assert_close(
        global_contrast_normalize(5 * batch + 2), normalized, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("value", [0.0, 0.1, 200.0])
def test_constant_images_become_zeros(value):
    batch = torch.full((2, 1, 7, 7), value)
    assert torch.equal(global_contrast_normalize(batch), torch.zeros_like(batch))


def test_dim_images_keep_their_contrast():
    batch = 1e-6 * torch.rand(2, 1, 7, 7)
    assert global_contrast_normalize(batch).abs().mean() == pytest.approx(1, abs=1e-3)


def test_minimum_and_maximum_become_zero_and_one():
    batch = torch.rand(5, 1, 6, 6)
    normalized = global_contrast_normalize(batch)
    module = ContrastNormalization(normalized.min().item(), normalized.max().item())
    assert module(batch).min().item() == pytest.approx(0, abs=1e-6)
    assert module(batch).max().item() == pytest.approx(1, abs=1e-6)
    assert torch.isfinite(ContrastNormalization(2.0, 2.0)(batch)).all()


def test_imagenet_constants():
    batch = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    module = ImageNetNormalization()
    torch.testing.assert_close(module(batch), torch.zeros(1, 3, 1, 1))
    ones = module(batch + torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))
    torch.testing.assert_close(ones, torch.ones(1, 3, 1, 1))


def test_local_contrast_is_that_of_the_surroundings():
    batch = torch.rand(2, 3, 20, 24, generator=torch.Generator().manual_seed(0))
    found = LocalContrastNormalization((20, 24), 3.0)(batch)
    row, column = torch.arange(20.0)[:, None], torch.arange(24.0)
    weights = torch.stack(  # of all pixels around each pixel, also at the border
        [
            (-((row - i) ** 2 + (column - j) ** 2) / 18).exp()
            for i in range(20)
            for j in range(24)
        ]
    ).flatten(1)
    weights /= weights.sum(dim=1, keepdim=True)

    def blur(values):
        return (values.flatten(2) @ weights.T).unflatten(2, (20, 24))

    centered = batch - blur(batch)
    deviation = (blur(centered.square().mean(dim=1, keepdim=True)) + 1e-4).sqrt()
    torch.testing.assert_close(found, 0.2 * centered / deviation)
    # Light that changes slowly makes no difference, where the image is not flat.
    ramp = torch.linspace(0, 0.3, 24)
    lit = LocalContrastNormalization((20, 24), 3.0)(3 * batch + ramp)
    inside = (slice(None), slice(None), slice(None), slice(8, 16))
    torch.testing.assert_close(lit[inside], found[inside], rtol=0, atol=2e-2)
    assert found.std() == pytest.approx(0.2, rel=0.05)


def test_flat_surroundings_are_not_blown_up():
    batch = 0.5 + 1e-4 * torch.rand(1, 1, 16, 16)
    assert LocalContrastNormalization((16, 16), 4.0)(batch).abs().max() < 0.01


def test_mean_is_subtracted_and_gray_repeated():
    mean = torch.tensor([[[1.0, 2.0]]])
    batch = torch.tensor([[[[4.0, 4.0]]]])
    expected = torch.tensor([[[[3.0, 2.0]]] * 3]).view(1, 3, 1, 2)
    torch.testing.assert_close(MeanSubtraction(mean, 3)(batch), expected)


@pytest.mark.data
@pytest.mark.parametrize(("name", "n_channels"), [("mnist", 1), ("cifar10", 3)])
def test_golden_preprocessing(data_dir, name, n_channels):
    path = data_dir / "golden" / f"deep_svdd_{name}_LeNet_io.npz"
    with np.load(path) as arrays:
        images = arrays["images"].reshape(12, *arrays["images"].shape[1:3], n_channels)
        module = ContrastNormalization(float(arrays["gcn_min"]), float(arrays["gcn_max"]))
        batch = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
        np.testing.assert_allclose(module(batch).numpy(), arrays["input"], atol=1e-4)


def test_symmetric_range():
    batch = torch.tensor([0.0, 0.25, 1.0])
    assert SymmetricRange()(batch).tolist() == [-1.0, -0.5, 1.0]


def test_frozen_batch_norm_keeps_its_statistics():
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.BatchNorm1d(3), torch.nn.Dropout(), torch.nn.BatchNorm1d(3)
    ).train()
    freeze_batch_norm(network)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    network(torch.randn(8, 3))
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert network[1].training
