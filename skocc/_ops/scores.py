"""Scores: error maps, structural similarity, and scores relative to an image."""

import math

import torch
from torch.nn import functional

# Window of structural similarity, and the constants that keep its denominators positive.
SSIM_WINDOW = 11
_SSIM_SIGMA = 1.5
_SSIM_K1, _SSIM_K2 = 0.01, 0.03


def squared_error_map(reconstruction: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
    """Return the squared error at each pixel, averaged over the channels.

    Parameters
    ----------
    reconstruction, batch : Tensor of shape (b, C, H, W)

    Returns
    -------
    errors : Tensor of shape (b, H, W)
        At least 0.
    """
    return (reconstruction - batch).square().mean(dim=1)


def similarity_map(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return the structural similarity (SSIM) of each window, averaged over the channels.

    The formula is that of Wang et al. (2004, Eq. 13), at a single scale. Means, variances
    and covariance are weighted by a Gaussian with a standard deviation of 1.5 over 11 x 11
    pixels. The constants are ``(0.01 L)^2`` and ``(0.03 L)^2``, where L = 1 is the range of
    the values.

    Parameters
    ----------
    first, second : Tensor of shape (b, C, H, W)
        Values in [0, 1]; H and W at least 11.

    Returns
    -------
    similarities : Tensor of shape (b, H - 10, W - 10)
        Values in [-1, 1], where 1 means equal windows. Only windows within the image are
        included; the center of the first one is pixel (5, 5).
    """
    offsets = torch.arange(SSIM_WINDOW, device=first.device) - SSIM_WINDOW // 2
    weights = torch.exp(-(offsets.to(first.dtype) ** 2) / (2 * _SSIM_SIGMA**2))
    weights = weights / weights.sum()
    moments = torch.stack([first, second, first * first, second * second, first * second])
    # The window is separable: one factor for the rows and one for the columns.
    maps = moments.flatten(0, 2).unsqueeze(1)
    maps = functional.conv2d(maps, weights.view(1, 1, -1, 1))
    maps = functional.conv2d(maps, weights.view(1, 1, 1, -1))
    maps = maps.squeeze(1).unflatten(0, moments.shape[:3])
    mean_1, mean_2, square_1, square_2, product = maps
    covariance = product - mean_1 * mean_2
    variances = square_1 - mean_1**2 + square_2 - mean_2**2
    c1, c2 = _SSIM_K1**2, _SSIM_K2**2
    luminance = (2 * mean_1 * mean_2 + c1) / (mean_1**2 + mean_2**2 + c1)
    structure = (2 * covariance + c2) / (variances + c2)
    return (luminance * structure).mean(dim=1)


def structural_similarity(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return the mean of :func:`similarity_map` over each image.

    Parameters
    ----------
    first, second : Tensor of shape (b, C, H, W)
        Values in [0, 1]; H and W at least 11.

    Returns
    -------
    similarities : Tensor of shape (b,)
        Values in [-1, 1], where 1 means equal images.
    """
    return similarity_map(first, second).mean(dim=(1, 2))


def reweighting(distances: torch.Tensor, n_features: int) -> torch.Tensor:
    """Return PatchCore's weights (b,) of s* (Eq. 7), in [0, 1).

    Parameters
    ----------
    distances : Tensor of shape (b, n)
        Of the farthest cell of each image to the vectors N_b(m*), of which m* is the first.
    n_features : int
        Size of a vector.
    """
    logits = distances / math.sqrt(n_features)
    return 1 - logits.softmax(dim=1)[:, 0]


def divided_by_median(cells: torch.Tensor) -> torch.Tensor:
    """Divide the scores of each image's cells by their median.

    Parameters
    ----------
    cells : Tensor of shape (b, ...)
        Scores, which must not be negative.

    Returns
    -------
    relative : Tensor of shape (b, ...)
        Relative scores, where 1 is the median of the image. A median of zero counts as
        1e-12.
    """
    return divided_by(cells, cells.flatten(1).median(dim=1).values)


def divided_by(cells: torch.Tensor, medians: torch.Tensor) -> torch.Tensor:
    """Divide scores of cells (b, ...) by medians (b,); zero counts as 1e-12."""
    return cells / medians.clamp(min=1e-12).view(-1, *[1] * (cells.dim() - 1))
