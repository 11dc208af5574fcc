"""Losses of the methods, and the distances that they are computed from."""

import torch
from torch.nn import functional


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
