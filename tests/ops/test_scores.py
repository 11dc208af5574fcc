import pytest
import torch

from skocc._ops.scores import (
    divided_by_median,
    similarity_map,
    squared_error_map,
    structural_similarity,
)


def test_squared_error_map_is_the_mean_over_channels():
    batch = torch.zeros(2, 3, 4, 5)
    reconstruction = batch.clone()
    reconstruction[1, :, 2, 3] = torch.tensor([1.0, 2.0, 4.0])
    errors = squared_error_map(reconstruction, batch)
    assert errors.shape == (2, 4, 5)
    assert errors[1, 2, 3] == 7
    assert errors.sum() == 7


def test_similarity_agrees_with_scikit_image():
    metrics = pytest.importorskip("skimage.metrics")
    first = torch.rand(2, 3, 20, 17, generator=torch.Generator().manual_seed(0))
    second = (first + 0.1 * torch.randn(first.shape)).clamp(0, 1)
    similarities = structural_similarity(first.double(), second.double())
    maps = similarity_map(first.double(), second.double())
    assert maps.shape == (2, 10, 7)
    for a, b, similarity, found in zip(first, second, similarities, maps, strict=True):
        mean, full = metrics.structural_similarity(
            a.double().numpy(),
            b.double().numpy(),
            data_range=1.0,
            channel_axis=0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            full=True,
        )
        assert similarity.item() == pytest.approx(mean, abs=1e-9)
        expected = torch.from_numpy(full).mean(0)[5:-5, 5:-5]
        torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)


def test_similarity_of_constant_images_by_hand():
    first, second = torch.full((1, 1, 11, 11), 0.2), torch.full((1, 1, 11, 11), 0.6)
    # Without variance only the means are compared: (2 ab + c1) / (a^2 + b^2 + c1).
    expected = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
    assert structural_similarity(first, second).item() == pytest.approx(expected, rel=1e-4)
    assert structural_similarity(first, first).item() == pytest.approx(1)
    noise = torch.rand(1, 2, 15, 12)
    assert structural_similarity(noise, 1 - noise).item() < -0.5


def test_similarity_has_gradients():
    first = torch.rand(2, 1, 12, 12, dtype=torch.double, requires_grad=True)
    second = torch.rand(2, 1, 12, 12, dtype=torch.double)
    torch.autograd.gradcheck(structural_similarity, (first, second))


def test_cells_are_divided_by_the_median_of_their_image():
    cells = torch.tensor([[[1.0, 2.0, 9.0]], [[4.0, 4.0, 8.0]], [[0.0, 0.0, 3.0]]])
    expected = torch.tensor([[[0.5, 1.0, 4.5]], [[1.0, 1.0, 2.0]], [[0.0, 0.0, 3e12]]])
    torch.testing.assert_close(divided_by_median(cells), expected)
