"""The formulas of the papers, as pure functions of tensors."""

import torch


def squared_distance(z: torch.Tensor, center: torch.Tensor) -> torch.Tensor:
    """Squared Euclidean distance to the center.

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
    """Mean squared distance: every image is pulled to the center.

    The one-class Deep SVDD objective (Ruff et al. 2018, Eq. 4) without its weight decay,
    which is the optimiser's.

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
    """Volume of the sphere plus the excess of the images outside it.

    ``R^2 + 1/nu * mean(max(0, d - R^2))`` (Ruff et al. 2018, Eq. 3) without its weight
    decay.

    Parameters
    ----------
    distances : Tensor of shape (b,)
        Squared distances d; b at least 1.
    radius : scalar Tensor
        R, in units of distance, not squared.
    nu : float in (0, 1]
        Price of an image outside: about this fraction of the images ends there.

    Returns
    -------
    loss : scalar Tensor
    """
    excess = torch.relu(distances - radius**2)
    return radius**2 + excess.mean() / nu


def reconstruction_loss(reconstruction: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
    """Squared error, summed over each image, averaged over the batch.

    Parameters
    ----------
    reconstruction, batch : Tensor of shape (b, ...)

    Returns
    -------
    loss : scalar Tensor
    """
    return (reconstruction - batch).square().flatten(1).sum(dim=1).mean()


def pairwise_distance_loss(z: torch.Tensor, z_neighbor: torch.Tensor) -> torch.Tensor:
    """Mean distance, not squared, between the embeddings of neighbouring patches.

    ``mean_i ||z_i - z'_i||`` (Yi and Yoon 2020, Eq. 4), the pull of Patch SVDD, without its
    weight lambda. The paper has the sum over pairs; its code, the mean.

    Parameters
    ----------
    z, z_neighbor : Tensor of shape (b, d)
        Embeddings of patches and of their neighbours; b at least 1.

    Returns
    -------
    loss : scalar Tensor
    """
    # The norm has the gradient 0 at 0; the root of a sum of squares would give NaN there.
    return torch.linalg.vector_norm(z - z_neighbor, dim=1).mean()
