"""Exact search of a memory bank for what is highest in an image, from upper bounds.

The score of an image is the maximum over its cells of the distance to the nearest vector of
the bank, and the highest value of its map is a maximum over pixels. Most cells need no
search for either: the distance to a few vectors of the bank is at least that to the
nearest, and often less than the distance of another cell already.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch

from skocc._ops.clusters import count
from skocc._ops.neighbors import (
    ApproximateIndex,
    PreparedBank,
    products_are_full_precision,
    underflow_of_products,
)

# Of the clusters near a cell, nearest first, those that bound its distance at each level.
_LEVELS = ((0, 1), (1, 4), (4, 16))
# Vectors of a cluster that are compared with: this many times those of a usual one.
_MAX_SIZE = 4
# The distances of a search exceed the true ones by half of this at most, see `nearest`.
_ROUNDING = 1 + torch.finfo(torch.float32).eps
# Pixels of an image that are bounded further before any is searched.
_N_LIKELY = 16
# Cells of an image of which all are searched; of more only those under the highest pixels,
# which may rule out the others, but no more than so many times.
_FEW, _N_SEARCHES = 16, 4


class Cells:
    """The cells of a batch of images, with what is known of their distances to a bank.

    Parameters
    ----------
    queries : Tensor of shape (b, c, d)
        Vectors of the c cells of b images, on the device of the bank.
    bank : PreparedBank or ApproximateIndex
        What is searched. An index has no bounds: all cells are searched.
    n_neighbors : int, default=1
        The distance of a cell is its mean distance to so many nearest vectors.
    query_groups : Tensor of shape (b,), default=None
        Group of each image. Bank vectors of the same group are excluded.

    Attributes
    ----------
    distances : Tensor of shape (b, c), float64
        Distance of each cell that was searched, minus infinity for the others. NaN for a
        cell that is not finite.
    indices : Tensor of shape (b, c), int64
        Row of the bank that is nearest to each of these cells; 0 for the others.
    bounds : Tensor of shape (b, c), float64
        At least the distance of each cell.
    n_levels : int
        Number of levels of bounds. Without any, all cells are searched.

    Notes
    -----
    Distances to a part of the bank bound those to all of it from above. The parts are the
    clusters of the bank whose centers are nearest to a cell: the first, the next three and
    the next twelve. Bounds are matrix products plus their rounding errors, see the Notes of
    :func:`~skocc._ops.neighbors.nearest`, which searches the bank: distances are the same
    numbers as without bounds. If float32 products have a lower precision, all cells are
    searched.
    """

    def __init__(
        self,
        queries: torch.Tensor,
        bank: PreparedBank | ApproximateIndex,
        n_neighbors: int = 1,
        *,
        query_groups: torch.Tensor | None = None,
    ):
        self.bank: Any = bank
        self.n_neighbors, self.shape = n_neighbors, queries.shape[:2]
        self._queries, self._groups = queries.flatten(0, 1), None
        if query_groups is not None:
            self._groups = query_groups.repeat_interleave(self.shape[1])
        self._all = torch.arange(len(self._queries), device=queries.device)
        self.bounds = queries.new_full(self.shape, torch.inf, dtype=torch.float64)
        self.distances = torch.full_like(self.bounds, -torch.inf)
        self.indices = self.bounds.new_zeros(self.shape, dtype=torch.int64)
        has_bounds = isinstance(bank, PreparedBank) and bank.clusters is not None
        self.n_levels = len(_LEVELS) * (has_bounds and products_are_full_precision())
        if self.n_levels:
            self._prepare_bounds()

    def is_left(self) -> torch.Tensor:
        """Return which cells (b, c) were not searched."""
        return self.distances.isneginf()

    def values(self) -> torch.Tensor:
        """Return the distance (b, c) of each cell, or its bound."""
        return torch.where(self.is_left(), self.bounds, self.distances)

    def search(self, chosen: torch.Tensor) -> None:
        """Search all of the bank for the cells in a mask (b, c)."""
        cells = self._all[chosen.flatten()]
        if len(cells):
            distances, indices = self.bank.nearest(
                self._queries[cells],
                self.n_neighbors,
                query_groups=None if self._groups is None else self._groups[cells],
            )
            self.distances.view(-1)[cells] = distances.mean(dim=1)
            self.indices.view(-1)[cells] = indices[:, 0]

    def search_all(self) -> None:
        """Search for all cells that were not searched yet."""
        self.search(self.is_left())

    @torch.no_grad()
    def bound(self, chosen: torch.Tensor, level: int) -> None:
        """Bound the distances of the cells in a mask (b, c) by those to some clusters."""
        cells = self._all[chosen.flatten()]
        if not len(cells):
            return
        first, last = _LEVELS[level]
        # The same vector must not be among the neighbors twice.
        first = first if self.n_neighbors == 1 else 0
        with torch.autocast(cells.device.type, enabled=False):
            scaled = self._factor[cells, : self._queries.shape[1]]
            clusters = self.bank.clusters.nearest(scaled, last)[:, first:]
            found = self._smallest_in_clusters(cells, clusters)
        if self.n_neighbors == 1:
            found = found.amin(dim=1, keepdim=True)  # without a search for where
        else:
            found = found.topk(self.n_neighbors, largest=False).values
        squares = 2 * (found.double() + self._rest[cells, None])
        bounds = squares.clamp(min=0).sqrt().mean(dim=1) * self.bank.frame.scale * _ROUNDING
        bounds.masked_fill_(~self._is_bounded[cells], torch.inf)
        of_all = self.bounds.view(-1)
        of_all[cells] = torch.minimum(of_all[cells], bounds)

    def _smallest_in_clusters(self, cells, clusters):
        """Return the smallest products of each cell with vectors of its clusters."""
        bank, n, width = self.bank, self.n_neighbors, clusters.shape[1]
        # The visits of one cluster after the other: each is a product of matrices.
        visited, order = clusters.flatten().sort(stable=True)
        counts = count(visited, len(bank.clusters.centers)).cpu().tolist()
        cells = cells.repeat_interleave(width)[order]
        factor, starts = self._factor[cells], bank.clusters.starts
        groups = None if self._groups is None else self._groups[cells, None]
        most = max(n, _MAX_SIZE * len(bank.vectors) // len(starts))
        smallest = factor.new_full((len(cells), n), torch.inf)
        end = 0
        for n_visits, (start, stop) in zip(counts, pairwise(starts), strict=True):
            rows, end = slice(end, end + n_visits), end + n_visits
            # Of a large cluster some vectors, from one end to the other.
            places = slice(start, stop, 1 + (stop - start) // most)
            if not n_visits or start == stop:
                continue
            values = factor[rows] @ bank.factor[places].T
            if groups is not None:
                values.masked_fill_(groups[rows] == bank.groups_in_order[places], torch.inf)
            if n == 1:
                torch.amin(values, dim=1, keepdim=True, out=smallest[rows])
            else:
                values = values.topk(min(n, values.shape[1]), largest=False).values
                smallest[rows, : values.shape[1]] = values
        in_order = torch.empty_like(smallest).index_copy_(0, order, smallest)
        return in_order.view(-1, width * n)

    @torch.no_grad()
    def _prepare_bounds(self):
        """Make the factor of the products, and what they lack of half the squares."""
        frame, n_features = self.bank.frame, self._queries.shape[1]
        self._factor, norms = frame.query_factor(self._queries, torch.float32, 1)
        rounding = 1 + (n_features + 8) * torch.finfo(torch.float64).eps
        # Half of |q|^2, and what products lose to underflow.
        self._rest = norms.square() / 2 * rounding + underflow_of_products(
            n_features, torch.float32
        )
        # Outside of the frame products may overflow, and NaN has no bound.
        self._is_bounded = 2 * self._queries.abs().amax(dim=1) <= frame.scale


class Scale(NamedTuple):
    """Cells that take part in a map, and the pixels that each of them changes.

    Attributes
    ----------
    cells : Cells
        Cells of a grid, row by row.
    rows : Tensor of shape (H, n_rows)
        1 where the cells in a row of the grid change the pixels in a row of the map, else
        0.
    columns : Tensor of shape (W, n_columns)
        The same for columns.
    """

    cells: Cells
    rows: torch.Tensor
    columns: torch.Tensor

    def under(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return which cells (b, c) change pixels of a mask (b, H, W), but those searched.

        They are the cells of which the distance must be known for the values there.
        """
        touched = self.rows.T @ pixels.to(self.rows) @ self.columns > 0
        return touched.flatten(1) & self.cells.is_left()


class _OwnPixels(NamedTuple):
    """Cells that are the pixels of a map (b, 1, c)."""

    cells: Cells

    def under(self, pixels):
        return pixels[:, 0] & self.cells.is_left()


def search_farthest(cells: Cells, n_top: int = 1) -> None:
    """Search the bank for the neighbors of the cells of each image that are farthest.

    The `n_top` largest of ``cells.distances`` over an image, and the first cell that has
    the maximum, are then those of a search of all cells. It is :func:`search_highest` for a
    map whose pixels are the cells.
    """
    maps = search_highest([_OwnPixels(cells)], lambda distances: distances[:, None], n_top)
    # Cells that may be as far as the farthest: the first of them counts.
    cells.search((maps[:, 0] >= maps.amax(dim=2)) & cells.is_left())


def search_highest(scales: Sequence, maps_of: Callable, n_top: int = 1) -> torch.Tensor:
    """Search banks until the highest values of the map of each image are exact.

    Parameters
    ----------
    scales : sequence of Scale
        All cells that take part in the maps.
    maps_of : callable
        Function from a distance (b, c) for each scale to maps (b, H, W). It must not fall
        where a distance rises, to the last bit: sums and products of distances by numbers
        that are not negative, always in the same order.
    n_top : int, default=1
        How many of the highest values of an image are wanted.

    Returns
    -------
    maps : Tensor of shape (b, H, W)
        Of each image the `n_top` highest values are those of the map of a search of all
        cells; the others are bounds from above. NaN counts as the highest.

    Notes
    -----
    Maps of upper bounds are upper bounds.

    1. The nearest cluster of the bank bounds all cells.
    2. In each image, the cells under the highest pixels are bounded by more clusters, and
       those under the `n_top` highest are searched in all of the bank. The lowest value of
       these is a lower limit of the values that are wanted.
    3. The cells under pixels that exceed the limit are bounded by more clusters, and those
       that remain are searched in all of the bank. Where many remain, those under the
       highest pixels come first, and may rule out the others.
    """
    for scale in scales:
        cells = scale.cells
        for level in range(cells.n_levels):
            # Further clusters only where the first are all of the image itself.
            cells.bound(cells.is_left() & cells.bounds.isinf(), level)
        # An infinite bound would be NaN where a map multiplies it by zero.
        cells.search(cells.is_left() & cells.bounds.isinf())
    maps = _BoundedMaps(scales, maps_of, n_top)
    maps.bound(maps.highest(_N_LIKELY * n_top), level=1)
    maps.search(maps.highest(n_top))
    for level in range(1, len(_LEVELS)):
        maps.bound(maps.may_be_highest(), level)
    for _ in range(_N_SEARCHES - 1):
        maps.search(maps.may_be_highest(), at_most=_FEW)
    maps.search(maps.may_be_highest())
    return maps.maps


class _BoundedMaps:
    """Maps of the distances of cells, or of their bounds."""

    def __init__(self, scales, maps_of, n_top):
        self.scales, self.maps_of = scales, maps_of
        self.update()
        self.n_top = min(n_top, self.heights[0].numel())
        self.limits = torch.full_like(self.maps[:, :1, :1], -torch.inf)
        self.is_known = torch.zeros_like(self.maps, dtype=torch.bool)

    def update(self):
        self.maps = self.maps_of(*(scale.cells.values() for scale in self.scales))
        self.heights = self.maps.nan_to_num(nan=torch.inf, posinf=torch.inf)

    def highest(self, n_pixels):
        """Return a mask (b, H, W) of the highest pixels of each image."""
        flat = self.heights.flatten(1)
        pixels = flat.topk(min(n_pixels, flat.shape[1]), dim=1).indices
        found = torch.zeros_like(flat, dtype=torch.bool).scatter_(1, pixels, True)
        return found.view_as(self.maps)

    def may_be_highest(self):
        """Return a mask (b, H, W) of the pixels that may be among the highest."""
        return self.heights > self.limits

    def bound(self, pixels, level):
        """Bound the cells under some pixels by more clusters."""
        chosen = [scale.under(pixels) for scale in self.scales]
        if any(bool(mask.any()) for mask in chosen):
            for scale, mask in zip(self.scales, chosen, strict=True):
                if scale.cells.n_levels:
                    scale.cells.bound(mask, level)
            self.update()

    def search(self, pixels, at_most=None):
        """Search for the cells under some pixels, which limit the highest from below.

        In images that have more such cells than `at_most`, only those under the highest of
        the pixels.
        """
        if not pixels.any():
            return
        chosen = [scale.under(pixels) for scale in self.scales]
        if at_most is not None:
            n_cells = sum(mask.sum(dim=1) for mask in chosen)
            likely = self.highest(2 * self.n_top)
            pixels &= (n_cells <= at_most)[:, None, None].to(pixels) | likely
            chosen = [scale.under(pixels) for scale in self.scales]
        for scale, mask in zip(self.scales, chosen, strict=True):
            scale.cells.search(mask)
        self.update()
        self.is_known |= pixels
        known = self.heights.masked_fill(~self.is_known, -torch.inf).flatten(1)
        highest = known.topk(self.n_top, dim=1).values
        self.limits = torch.maximum(self.limits, highest[:, -1:, None])
