"""Center and radius of a sphere in an embedding space."""

import torch

from skocc.losses import soft_boundary_loss


def away_from_zero(center: torch.Tensor, margin: float = 0.1) -> torch.Tensor:
    """Move components near zero to ``+-margin``, keeping their sign.

    A component of zero can be met by weights of zero, whatever the input.

    Parameters
    ----------
    center : Tensor of shape (d,)
        Mean embedding.
    margin : float, default=0.1
        Smallest absolute value.

    Returns
    -------
    center : Tensor of shape (d,)

    Notes
    -----
    An exact zero becomes ``+margin``. The reference codes leave it at zero, the one value
    the rule is there to avoid.
    """
    moved = torch.where(center < 0, -margin, margin)
    return torch.where(center.abs() < margin, moved, center)


def quantile_radius(distances: torch.Tensor, nu: float) -> torch.Tensor:
    """Radius of the sphere that leaves the fraction `nu` outside.

    Parameters
    ----------
    distances : Tensor of shape (n,)
        Squared distances to the center.
    nu : float in (0, 1]
        Fraction outside.

    Returns
    -------
    radius : scalar Tensor
        In units of distance, not squared.
    """
    return torch.quantile(distances.sqrt(), 1 - nu)


class SoftBoundary:
    """The soft-boundary loss together with the radius it keeps up to date.

    The radius is no parameter of the optimiser. It starts at 0 and stays there while the
    network warms up; afterwards it is the ``1 - nu`` quantile of the distances.

    Parameters
    ----------
    nu : float in (0, 1]
        Fraction of images outside.
    n_batches : int
        Batches per epoch.
    warm_up_n_epochs : int
        Epochs before the first update.
    update : {"batch", "epoch"}
        Quantile of each batch, after its step; or of all distances of an epoch, when it
        ends.
    radius : float, default=0.0
        Where to start.
    device : torch.device, default=None
        Where the radius lives.

    Attributes
    ----------
    radius : scalar Tensor
    """

    def __init__(self, nu, n_batches, warm_up_n_epochs, update, radius=0.0, device=None):
        self.radius = torch.tensor(radius, device=device)
        self._nu = nu
        self._n_batches = n_batches
        self._warm_up_n_batches = warm_up_n_epochs * n_batches
        self._update = update
        self._n_seen = 0
        self._epoch_distances = []

    def __call__(self, distances: torch.Tensor) -> torch.Tensor:
        """Return the loss of a batch of squared distances (b,), then update the radius."""
        loss = soft_boundary_loss(distances, self.radius, self._nu)
        self._n_seen += 1
        if self._n_seen <= self._warm_up_n_batches:
            return loss
        distances = distances.detach()
        if self._update == "epoch":
            self._epoch_distances.append(distances)
            if self._n_seen % self._n_batches:
                return loss
            distances = torch.cat(self._epoch_distances)
            self._epoch_distances = []
        self.radius = quantile_radius(distances, self._nu)
        return loss
