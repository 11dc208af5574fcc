"""Exact search for the cell of an image that is farthest from a memory bank.

The score of an image is the maximum over its cells of the distance to the nearest vector of
the bank. Most cells need no search for it: the distance to a few vectors of the bank is at
least that to the nearest, and often less than the distance of another cell already.
"""

import torch

from skocc._ops.neighbors import (
    PreparedBank,
    products_are_full_precision,
    row_smallest,
    underflow_of_products,
)

# Every n-th vector of the bank is a part that bounds the distances of cells, and how many
# cells of an image, those with the highest bounds, go on from there before the others do.
# The strides are primes: the bank has the cells of an image one after the other, and a
# divisor of their number would take the same few places of every image.
_PARTS = ((401, 16), (101, 8), (23, 3), (5, 1))
# Vectors that a part has at least. Fewer tell too little about the others.
_MIN_PART = 32
# Number of queries of which the factor is computed at once, in float64.
_QUERY_BLOCK = 1024
# Number of products that are computed at once.
_BLOCK_NUMBERS = 2**21
# The distances of a search exceed the true ones by half of this at most, see `nearest`.
_ROUNDING = 1 + torch.finfo(torch.float32).eps


def search_farthest(
    queries: torch.Tensor,
    bank: PreparedBank,
    n_neighbors: int = 1,
    *,
    query_groups: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Search the bank for the neighbors of the cell that is farthest from it.

    Parameters
    ----------
    queries : Tensor of shape (b, c, d)
        Vectors of the c cells of b images, on the device of the bank.
    bank : PreparedBank
    n_neighbors : int, default=1
        The distance of a cell is its mean distance to so many nearest vectors.
    query_groups : Tensor of shape (b,), default=None
        Group of each image. Bank vectors of the same group are excluded.

    Returns
    -------
    distances : Tensor of shape (b, c), float64
        Distance of each cell that may be the farthest of its image; of the others, minus
        infinity. The maximum of an image, and the first cell that has it, are those of a
        search of all cells. NaN for a cell that is not finite.
    indices : Tensor of shape (b, c), int64
        Row of the bank that is nearest to each of these cells; 0 for the others.

    Raises
    ------
    ValueError
        As in :func:`~skocc._ops.neighbors.nearest`.

    Notes
    -----
    Distances to a part of the bank bound those to all of it from above. The parts are every
    401st, 101st, 23rd and fifth vector, those that are too small left out:

    1. The smallest part bounds all cells.
    2. In each image, the cells with the highest bounds are bounded by the next parts, fewer
       each time, and one is searched in all of the bank. Its distance is a lower limit of
       the maximum.
    3. The cells whose bounds are not below the limit are bounded by the next parts, and
       those that remain are searched in all of the bank.

    Bounds are matrix products plus their rounding errors, see the Notes of
    :func:`~skocc._ops.neighbors.nearest`, which searches the bank: distances are the same
    numbers as without bounds. If float32 products have a lower precision, all cells are
    searched.
    """
    with torch.no_grad(), torch.autocast(queries.device.type, enabled=False):
        cells = _Cells(queries, bank, n_neighbors, query_groups)
        if products_are_full_precision():
            least = max(_MIN_PART, 2 * n_neighbors)
            cells.bound_by_parts(
                [part for part in _PARTS if len(bank.vectors) >= part[0] * least]
            )
        cells.search(cells.left())
    shape = queries.shape[:2]
    return cells.distances.view(shape), cells.indices.view(shape)


class _Cells:
    """The cells of a batch of images, one after the other, with what is known of each."""

    def __init__(self, queries, bank, n_neighbors, groups):
        self.bank, self.n_neighbors, self.n_cells = bank, n_neighbors, queries.shape[1]
        self.queries = queries.flatten(0, 1)
        self.groups = None if groups is None else groups.repeat_interleave(self.n_cells)
        self.all = torch.arange(len(self.queries), device=queries.device)
        self.bounds = torch.full_like(self.all, torch.inf, dtype=torch.float64)
        self.distances = torch.full_like(self.bounds, -torch.inf)
        self.indices = torch.zeros_like(self.all)

    def bound_by_parts(self, parts):
        """Bound cells from above, and search those that are likely to be the farthest."""
        blocks = self.queries.split(_QUERY_BLOCK)
        factors = [self.bank.frame.query_factor(b, torch.float32, 1) for b in blocks]
        self.factor, norms = map(torch.cat, zip(*factors, strict=True))
        n_features = self.queries.shape[1]
        rounding = 1 + (n_features + 8) * torch.finfo(torch.float64).eps
        # Half of |q|^2, and what products lose to underflow, for squares from products.
        self.rest = norms.square() / 2 * rounding + underflow_of_products(
            n_features, torch.float32
        )
        # Outside of the frame products may overflow, and NaN has no bound.
        self.is_bounded = 2 * self.queries.abs().amax(dim=1) <= self.bank.frame.scale
        likely = self.all.view(-1, self.n_cells)
        for stride, n_likely in parts:
            self.bound(likely.flatten(), stride)
            n_likely = min(n_likely, likely.shape[1])
            order = self.bounds[likely].topk(n_likely, dim=1).indices
            likely = likely.gather(1, order)
        self.search(likely.flatten())
        for stride, _ in parts[1:]:
            self.bound(self.left(), stride)

    def bound(self, cells, stride):
        """Bound the distances of cells by those to a part of the bank."""
        part = self.bank.factor[::stride]
        for block in cells.split(max(1, _BLOCK_NUMBERS // len(part))):
            values = self.factor[block] @ part.T
            if self.groups is not None:
                own = self.groups[block, None] == self.bank.groups[None, ::stride]
                values.masked_fill_(own, torch.inf)
            if self.n_neighbors == 1:
                values = values.amin(dim=1, keepdim=True)  # faster than a search for where
            else:
                values, _ = row_smallest(values, self.n_neighbors)
            squares = 2 * (values.double() + self.rest[block, None])
            distances = squares.clamp(min=0).sqrt().mean(dim=1) * self.bank.frame.scale
            distances.masked_fill_(~self.is_bounded[block], torch.inf)
            self.bounds[block] = torch.minimum(self.bounds[block], distances * _ROUNDING)

    def search(self, cells):
        """Search all of the bank for the nearest neighbors of cells."""
        if len(cells):
            distances, indices = self.bank.nearest(
                self.queries[cells],
                self.n_neighbors,
                query_groups=None if self.groups is None else self.groups[cells],
            )
            self.distances[cells] = distances.mean(dim=1)
            self.indices[cells] = indices[:, 0]

    def left(self):
        """Return the cells that may be the farthest of their image, but those searched."""
        limits = self.distances.view(-1, self.n_cells).amax(dim=1)
        limits = limits.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
        may_be = self.bounds >= limits.repeat_interleave(self.n_cells)
        return self.all[may_be & self.distances.isneginf()]
