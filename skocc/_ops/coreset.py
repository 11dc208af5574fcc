"""Subsampling of vectors: a random subset, or a greedy coreset that covers all vectors."""

import math
from collections.abc import Callable, Iterable

import torch


def random_subset(n_vectors: int, size: int, generator: torch.Generator) -> torch.Tensor:
    """Choose vectors at random, without replacement.

    Parameters
    ----------
    n_vectors : int
        Number of vectors.
    size : int
        Number of vectors to choose.
    generator : torch.Generator
        Generator on the CPU.

    Returns
    -------
    indices : Tensor of shape (size,), int64
        Indices in increasing order.
    """
    _check_size(n_vectors, size)
    return torch.randperm(n_vectors, generator=generator)[:size].sort().values


@torch.no_grad()
def greedy_coreset(
    features: torch.Tensor,
    size: int,
    generator: torch.Generator,
    n_projections: int | None = 128,
    track: Callable[[Iterable], Iterable] = iter,
) -> torch.Tensor:
    """Choose vectors such that every other vector is near one of them (greedy k-center).

    Parameters
    ----------
    features : Tensor of shape (n, d)
        Vectors, on any device.
    size : int
        Number of vectors to choose.
    generator : torch.Generator
        Generator on the CPU, which draws the first vector and the projection.
    n_projections : int or None, default=128
        Features with more dimensions are compared after a random projection to this many
        dimensions, which approximately preserves distances. None compares the features
        themselves.
    track : callable, default=iter
        Function that yields the steps and shows how many are done.

    Returns
    -------
    indices : Tensor of shape (size,), int64
        Indices in the order of choice, on the device of the features. The first vector is
        random. The first k indices are those that ``size=k`` would return.

    Notes
    -----
    Each step chooses the vector farthest from those chosen so far (Gonzalez 1985). Without
    a projection, the largest remaining distance is at most twice the smallest possible. The
    algorithm takes `size` passes over the features, and stores one distance per vector in
    addition to the projection.

    PatchCore's code compares with ten starting points that it does not keep. Here, every
    vector that is compared with is in the coreset; otherwise its distances would mean
    nothing.
    """
    n_vectors, n_features = features.shape
    _check_size(n_vectors, size)
    chosen = torch.empty(size, dtype=torch.int64, device=features.device)
    chosen[0] = torch.randint(n_vectors, (), generator=generator)
    if n_projections is not None and n_features > n_projections:
        shape = (n_features, n_projections)
        projection = torch.randn(shape, generator=generator) / math.sqrt(n_projections)
        # Without centering, the products of nearly collapsed features would be dominated by
        # rounding.
        center, projection = features.mean(dim=0), projection.to(features)
        blocks = features.split(16384)  # no centered copy of all features
        features = torch.cat([(block - center) @ projection for block in blocks])
    distances = features.new_full((n_vectors,), torch.inf)
    for step in track(range(1, size)):
        # All indices stay on the device: reading one would wait for it at every step.
        newest = features.index_select(0, chosen[step - 1 : step])
        added = torch.cdist(features, newest, compute_mode="donot_use_mm_for_euclid_dist")
        distances = torch.minimum(distances, added[:, 0])
        # Below 0, the distance of duplicates, so that no vector is chosen twice.
        distances.index_fill_(0, chosen[step - 1 : step], -1)
        chosen[step] = distances.argmax()
    return chosen


def _check_size(n_vectors, size):
    if not 1 <= size <= n_vectors:
        raise ValueError(
            f"A subset must have between one vector and all of them: size={size} of "
            f"{n_vectors} vectors. Choose a size in between."
        )
