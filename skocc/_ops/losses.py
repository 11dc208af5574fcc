"""Losses of the methods, and the distances and similarities they are computed from."""

import torch
from torch.nn import functional

# Window of structural similarity, and the constants that keep its denominators positive.
SSIM_WINDOW = 11
_SSIM_SIGMA = 1.5
_SSIM_K1, _SSIM_K2 = 0.01, 0.03


def squared_distance(z: torch.Tensor, center: torch.Tensor) -> torch.Tensor:
    """Return the squared Euclidean distance to the center.

    Parameters
    ----------
    z : Tensor of shape (b, d)
        Embeddings.
    center : Tensor of shape (d,)

    Returns
    -------
    distances : Tensor of shape (b,)
        ``||z - center||^2``, at least 0.
    """
    # Differences first: the expansion of the square cancels near the center.
    return (z - center).square().sum(dim=1)


def hard_boundary_loss(distances: torch.Tensor) -> torch.Tensor:
    """Return the mean squared distance to the center.

    This is the one-class Deep SVDD objective (Ruff et al. 2018, Eq. 4) without its weight
    decay, which the optimizer applies.

    Parameters
    ----------
    distances : Tensor of shape (b,)
        Squared distances; b at least 1.

    Returns
    -------
    loss : scalar Tensor
    """
    return distances.mean()


def soft_boundary_loss(
    distances: torch.Tensor, radius: torch.Tensor, nu: float
) -> torch.Tensor:
    """Return the volume of the sphere plus the excess of the images outside it.

    This is ``R^2 + 1/nu * mean(max(0, d - R^2))`` (Ruff et al. 2018, Eq. 3) without the
    weight decay.

    Parameters
    ----------
    distances : Tensor of shape (b,)
        Squared distances d; b at least 1.
    radius : scalar Tensor
        Radius R, not squared.
    nu : float in (0, 1]
        Fraction of the images that end up outside the sphere, approximately. A smaller
        value gives these images a larger weight.

    Returns
    -------
    loss : scalar Tensor
    """
    excess = torch.relu(distances - radius**2)
    return radius**2 + excess.mean() / nu


def reconstruction_loss(reconstruction: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
    """Return the squared error, summed over each image and averaged over the batch.

    Parameters
    ----------
    reconstruction, batch : Tensor of shape (b, ...)

    Returns
    -------
    loss : scalar Tensor
    """
    return (reconstruction - batch).square().flatten(1).sum(dim=1).mean()


def pairwise_distance_loss(z: torch.Tensor, z_neighbor: torch.Tensor) -> torch.Tensor:
    """Return the mean distance, not squared, between embeddings of neighboring patches.

    This is Patch SVDD's loss ``mean_i ||z_i - z'_i||`` (Yi and Yoon 2020, Eq. 4) without
    its weight lambda. The paper sums over pairs; its code averages.

    Parameters
    ----------
    z, z_neighbor : Tensor of shape (b, d)
        Embeddings of patches and of their neighbors; b at least 1.

    Returns
    -------
    loss : scalar Tensor
    """
    # The norm has the gradient 0 at 0; the root of a sum of squares would give NaN there.
    return torch.linalg.vector_norm(z - z_neighbor, dim=1).mean()


def closeness_loss(logits: torch.Tensor) -> torch.Tensor:
    """Return the closeness loss ``-mean log(1 - dist)``, which penalizes large distances.

    Data splitting applies it to pairs of typical samples (Schlachter et al. 2019, Eq. 2).

    Parameters
    ----------
    logits : Tensor of shape (b,)
        Logits of distances in [0, 1]; b at least 1.

    Returns
    -------
    loss : scalar Tensor
        At least 0, log 2 for logits of 0.
    """
    return functional.softplus(logits).mean()


def dispersion_loss(logits: torch.Tensor) -> torch.Tensor:
    """Return the dispersion loss ``-mean log dist``, which penalizes small distances.

    Data splitting applies it to pairs of atypical samples (Schlachter et al. 2019, Eq. 4).

    Parameters
    ----------
    logits : Tensor of shape (b,)
        Logits of distances in [0, 1]; b at least 1.

    Returns
    -------
    loss : scalar Tensor
        At least 0, log 2 for logits of 0.
    """
    return functional.softplus(-logits).mean()


def intra_class_loss(logits: torch.Tensor, is_atypical: torch.Tensor) -> torch.Tensor:
    """Return the binary cross-entropy of the probability that samples are atypical.

    This is the intra-class loss of data splitting (Schlachter et al. 2019, Eq. 3).

    Parameters
    ----------
    logits : Tensor of shape (b,)
        Logits of the probability that a sample is atypical; b at least 1.
    is_atypical : Tensor of shape (b,)
        1 for atypical samples, 0 for typical ones.

    Returns
    -------
    loss : scalar Tensor
        At least 0, log 2 for logits of 0.
    """
    is_atypical = is_atypical.to(logits.dtype)
    return functional.binary_cross_entropy_with_logits(logits, is_atypical)


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
    medians = cells.flatten(1).median(dim=1).values.clamp(min=1e-12)
    return cells / medians.view(-1, *[1] * (cells.dim() - 1))
