"""Center and radius of a sphere in an embedding space, or of one in each of several.

The network is given as a function `features` from a batch to a list of tensors (b, d_j),
one for each sphere.
"""

from collections.abc import Callable, Iterable

import numpy as np
import torch

from skocc._engine.inference import map_batches
from skocc._ops.losses import hard_boundary_loss, soft_boundary_loss, squared_distance


def away_from_zero(center: torch.Tensor, margin: float = 0.1) -> torch.Tensor:
    """Move components near zero to ``+-margin``, keeping their sign.

    A network with weights of zero reaches a component of zero whatever the input.

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
    An exact zero becomes ``+margin``. The reference codes leave it at zero, the very value
    that the rule is meant to avoid.
    """
    least = center.new_tensor(margin)
    moved = torch.where(center < 0, -least, least)
    return torch.where(center.abs() < least, moved, center)


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


def initial_centers(
    network: torch.nn.Module, features: Callable, batches: Iterable
) -> list[torch.Tensor]:
    """Return the mean features of all batches in eval mode, kept away from zero.

    Parameters
    ----------
    network : torch.nn.Module
        Put in eval mode.
    features : callable
        From a batch to a list of tensors (b, d_j).
    batches : iterable

    Returns
    -------
    centers : list of Tensor of shape (d_j,), float32
        On the CPU.
    """

    def sums(batch):
        z = features(batch)
        return torch.tensor([len(z[0])]), *(zj.sum(0, keepdim=True) for zj in z)

    counts, *totals = map_batches(network, batches, sums, stage="centers")
    means = [total.sum(0, dtype="float64") / counts.sum() for total in totals]
    return [away_from_zero(torch.from_numpy(mean)).float() for mean in means]


def distances_to_centers(
    network: torch.nn.Module,
    features: Callable,
    batches: Iterable,
    centers: list[torch.Tensor],
):
    """Return squared distances to the centers, and how much features vary.

    Parameters
    ----------
    network, features, batches
        As in :func:`initial_centers`.
    centers : list of Tensor of shape (d_j,)
        In dtype and on the device of the features.

    Returns
    -------
    distances : ndarray of shape (n, n_spheres)
    spreads : list of float
        For each sphere the mean standard deviation of the features, relative to the mean
        size of the center's components.
    """

    def distances_of(batch):
        distances, sums = [], []
        for z, center in zip(features(batch), centers, strict=True):
            offsets = z - center
            sums += [offsets.sum(0, keepdim=True), offsets.square().sum(0, keepdim=True)]
            distances.append(squared_distance(z, center))
        return torch.stack(distances, dim=1), *sums

    distances, *sums = map_batches(network, batches, distances_of)
    spreads = []
    for center, total, squares in zip(centers, sums[::2], sums[1::2], strict=True):
        mean = total.sum(0, dtype="float64") / len(distances)
        variance = squares.sum(0, dtype="float64") / len(distances) - mean**2
        deviation = (variance.clip(0) ** 0.5).mean()
        spreads.append(float(deviation) / float(center.abs().mean()))
    return distances, spreads


class HardBoundary:
    """The hard-boundary loss. It keeps no radius.

    Attributes
    ----------
    radius : scalar Tensor
        Zero.
    """

    radius = torch.zeros(())

    def __call__(self, distances: torch.Tensor) -> torch.Tensor:
        """Return the loss of a batch of squared distances (b,)."""
        return hard_boundary_loss(distances)

    def state_dict(self) -> dict:
        """Return nothing, for a checkpoint."""
        return {}

    def load_state_dict(self, state: dict) -> None:
        """Change nothing."""


class SoftBoundary:
    """The soft-boundary loss together with the radius it keeps up to date.

    The optimizer does not train the radius. It starts at 0 and stays there while the
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
        Initial radius.
    device : torch.device, default=None
        Device of the radius.

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
        """Return the loss of a batch of squared distances (b,), then update the radius.

        Without gradients the batch is one of held-out images. They leave the radius as it
        is, and have their own, so that losses before and after the warm-up can be compared.
        """
        if not torch.is_grad_enabled():
            radius = quantile_radius(distances, self._nu)
            return soft_boundary_loss(distances, radius, self._nu)
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

    def state_dict(self) -> dict:
        """Return the state after an epoch, for a checkpoint."""
        return {"radius": self.radius, "n_seen": self._n_seen}

    def load_state_dict(self, state: dict) -> None:
        """Set the state to one that `state_dict` has returned."""
        self.radius = state["radius"].to(self.radius.device)
        self._n_seen = state["n_seen"]


def make_boundary(
    boundary: str,
    nu: float,
    *,
    n_batches: int,
    warm_up_n_epochs: int,
    update: str,
    n_epochs_done: int = 0,
    radius: float = 0.0,
    device: torch.device | None = None,
) -> HardBoundary | SoftBoundary:
    """Return the loss of distances, at the start or in a warm start.

    Parameters
    ----------
    boundary : {"hard", "soft"}
    nu, n_batches, warm_up_n_epochs, update, device
        As of `SoftBoundary`.
    n_epochs_done : int, default=0
        Epochs of earlier fits. The warm-up continues after them.
    radius : float, default=0.0
        Radius of an earlier fit. A boundary whose warm-up is over starts from it.
    """
    if boundary == "hard":
        return HardBoundary()
    warm_up_n_epochs = max(0, warm_up_n_epochs - n_epochs_done)
    start = 0.0 if warm_up_n_epochs else radius
    return SoftBoundary(nu, n_batches, warm_up_n_epochs, update, start, device)


def final_radius(distances: np.ndarray, nu: float) -> float:
    """Return the radius after training, which leaves the fraction `nu` outside.

    Parameters
    ----------
    distances : ndarray of shape (n,)
        Squared distances of all training images, in eval mode. The radius of a soft
        boundary, in contrast, is that of a batch in train mode, which may be small.
    nu : float in (0, 1]
        Fraction outside, to within an image.
    """
    # Not torch.quantile, which takes no more than 2 ** 24 values.
    return float(np.quantile(np.sqrt(distances), 1 - nu))
