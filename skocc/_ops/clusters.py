"""Clusters of the vectors of a bank: those near a query are in few of them."""

import math
from dataclasses import dataclass

import torch

# Vectors of a bank that has clusters; a smaller one is searched as fast without.
_MIN_VECTORS = 2**8
# Vectors per cluster from which centers are computed, and how often they are.
_N_SAMPLED, _N_STEPS = 16, 3
# Number of products that are computed at once.
_BLOCK_NUMBERS = 2**22


@dataclass(frozen=True)
class Clusters:
    """Clusters of vectors.

    Attributes
    ----------
    centers : Tensor of shape (k, d), float32
    order : Tensor of shape (m,), int64
        The vectors, those of a cluster one after the other.
    starts : list of int, of length k + 1
        Where each cluster starts in this order.
    """

    centers: torch.Tensor
    order: torch.Tensor
    starts: list[int]

    @classmethod
    def of(cls, vectors: torch.Tensor, scaled) -> "Clusters | None":
        """Return the clusters of a bank, or None if it is too small for any.

        Parameters
        ----------
        vectors : Tensor of shape (m, d)
        scaled : callable
            Function from vectors to those that are compared, which are centered and of
            about unit size, (n, d).

        Notes
        -----
        A few steps of k-means on a part of the vectors, drawn with a seed of its own: the
        same bank has the same clusters.
        """
        m = len(vectors)
        if m < _MIN_VECTORS:
            return None
        k = math.isqrt(m)
        # Every n-th vector could be from the same few places of every image.
        generator = torch.Generator().manual_seed(0)
        rows = torch.randperm(m, generator=generator)[: _N_SAMPLED * k]
        sample = scaled(vectors[rows.to(vectors.device)]).float()
        centers = sample[:k].clone()
        for _ in range(_N_STEPS):
            nearest = _nearest_centers(sample, centers)
            counts = count(nearest, k)[:, None]
            sums = torch.zeros_like(centers).index_add_(0, nearest, sample)
            # A center without vectors stays where it is.
            centers = torch.where(counts > 0, sums / counts.clamp(min=1), centers)
        blocks = vectors.split(max(1024, _BLOCK_NUMBERS // vectors.shape[1]))
        nearest = torch.cat([_nearest_centers(scaled(b).float(), centers) for b in blocks])
        starts = [0, *count(nearest, k).cumsum(0).cpu().tolist()]
        return cls(centers, nearest.argsort(stable=True), starts)

    def nearest(self, queries: torch.Tensor, n_clusters: int) -> torch.Tensor:
        """Return the clusters (n, n_clusters) whose centers are nearest, nearest first."""
        rows = max(1, _BLOCK_NUMBERS // len(self.centers))
        n_clusters = min(n_clusters, len(self.centers))
        halves = self.centers.square().sum(dim=1) / 2
        found = []
        for block in queries.split(rows):
            values = torch.addmm(halves, block, self.centers.T, alpha=-1)
            if n_clusters == 1:
                found.append(values.argmin(dim=1, keepdim=True))
            else:
                found.append(values.topk(n_clusters, largest=False).indices)
        return torch.cat(found)


def count(numbers: torch.Tensor, n: int) -> torch.Tensor:
    """Return how often each of the first n numbers occurs, a Tensor (n,)."""
    counts = torch.zeros(n, dtype=torch.int64, device=numbers.device)
    return counts.index_add_(0, numbers, torch.ones_like(numbers))


def _nearest_centers(vectors, centers):
    return Clusters(centers, centers, []).nearest(vectors, 1)[:, 0]
