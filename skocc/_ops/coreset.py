"""Which vectors of many to keep: some at random, or those that cover the others."""

import math

import torch


def random_subset(n_vectors: int, size: int, generator: torch.Generator) -> torch.Tensor:
    """Choose vectors at random, without replacement.

    Parameters
    ----------
    n_vectors : int
        How many there are.
    size : int
        How many to choose.
    generator : torch.Generator
        On the CPU.

    Returns
    -------
    indices : Tensor of shape (size,), int64
        In increasing order.
    """
    _check_size(n_vectors, size)
    return torch.randperm(n_vectors, generator=generator)[:size].sort().values


@torch.no_grad()
def greedy_coreset(
    features: torch.Tensor,
    size: int,
    generator: torch.Generator,
    n_projections: int | None = 128,
) -> torch.Tensor:
    """Choose vectors that leave no other far from all of them: greedy k-centre.

    Parameters
    ----------
    features : Tensor of shape (n, d)
        On any device.
    size : int
        How many to choose.
    generator : torch.Generator
        On the CPU; draws the first vector and the projection.
    n_projections : int or None, default=128
        Features with more dimensions are compared after a random projection to as many,
        which keeps distances about as they are. None compares the features themselves.

    Returns
    -------
    indices : Tensor of shape (size,), int64
        In the order they were chosen, a random one first: the first k are what would have
        been chosen for ``size=k``. On the device of the features.

    Notes
    -----
    Each step takes the vector farthest from those chosen so far (Gonzalez 1985). Without a
    projection, the largest distance left is at most twice the smallest possible. It takes
    time for `size` passes over the features, and memory for one distance a vector beside
    the projection.

    PatchCore's code compares with ten starting points that it does not keep; here every
    vector compared with is in the coreset, or the distance to it would mean nothing.
    """
    n_vectors, n_features = features.shape
    _check_size(n_vectors, size)
    chosen = torch.empty(size, dtype=torch.int64, device=features.device)
    chosen[0] = torch.randint(n_vectors, (), generator=generator)
    if n_projections is not None and n_features > n_projections:
        shape = (n_features, n_projections)
        projection = torch.randn(shape, generator=generator) / math.sqrt(n_projections)
        # Centered, or the products of nearly collapsed features would differ by rounding.
        center, projection = features.mean(dim=0), projection.to(features)
        blocks = features.split(16384)  # no centered copy of all features
        features = torch.cat([(block - center) @ projection for block in blocks])
    distances = features.new_full((n_vectors,), torch.inf)
    for step in range(1, size):
        # All indices stay on the device: reading one would wait for it at every step.
        newest = features.index_select(0, chosen[step - 1 : step])
        added = torch.cdist(features, newest, compute_mode="donot_use_mm_for_euclid_dist")
        distances = torch.minimum(distances, added[:, 0])
        # Copies of a chosen vector have distance 0 too, and it must not be chosen again.
        distances.index_fill_(0, chosen[step - 1 : step], -1)
        chosen[step] = distances.argmax()
    return chosen


def _check_size(n_vectors, size):
    if not 1 <= size <= n_vectors:
        raise ValueError(
            f"A subset must have between one vector and all of them: size={size} of "
            f"{n_vectors} vectors. Choose a size in between."
        )
