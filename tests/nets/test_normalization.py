import numpy as np
import pytest
import torch

from skocc.nets.normalization import (
    ContrastNormalization,
    ImageNetNormalization,
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


@pytest.mark.data
@pytest.mark.parametrize(("name", "n_channels"), [("mnist", 1), ("cifar10", 3)])
def test_golden_preprocessing(data_dir, name, n_channels):
    path = data_dir / "golden" / f"deep_svdd_{name}_LeNet_io.npz"
    with np.load(path) as arrays:
        images = arrays["images"].reshape(12, *arrays["images"].shape[1:3], n_channels)
        module = ContrastNormalization(float(arrays["gcn_min"]), float(arrays["gcn_max"]))
        batch = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
        np.testing.assert_allclose(module(batch).numpy(), arrays["input"], atol=1e-4)
