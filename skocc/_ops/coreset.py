"""Subsampling of vectors: a random subset, or a greedy coreset that covers all vectors."""

import math
from collections.abc import Callable, Iterable, Iterator

import torch

from skocc._ops.neighbors import (
    error_of_products,
    products_are_full_precision,
    underflow_of_products,
)

# Number of far vectors among which the next ones are chosen, before all others are compared
# with these, and its inverse share of few vectors. Half and twice as many are as fast.
_N_CANDIDATES, _CANDIDATE_STRIDE = 512, 16
# Number of choices between two looks at their distances: a GPU waits for each look.
_N_AHEAD = 16
# With fewer new vectors than that, differences are as fast as a matrix product.
_FEW = 8
# How many times as long a distance of one pair takes as one of a table of distances.
_COST_OF_PAIR = 8
# Number of values in a block of distances, and of pairs in a block: 1 MiB.
_BLOCK_NUMBERS, _BLOCK_PAIRS = 2**18, 1024


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
    a projection, the largest remaining distance is at most twice the smallest possible.

    Distances only fall, so the next choices lie among the vectors that are far now. They
    are made among a few hundred of these, for as long as the farthest of them is farther
    than any other vector was. Only then all vectors are compared with the new ones, in one
    matrix product. Its rounding errors are bounded as in
    :func:`~skocc._ops.neighbors.nearest`: it tells which distances may fall, and these are
    computed from differences. The choice is that of an algorithm which compares all
    vectors after each step. One distance and one norm per vector are stored in addition to
    the projection.

    PatchCore's code compares with ten starting points that it does not keep. Here, every
    vector that is compared with is in the coreset; otherwise its distances would mean
    nothing.
    """
    n_vectors, n_features = features.shape
    _check_size(n_vectors, size)
    chosen = torch.empty(size, dtype=torch.int64, device=features.device)
    chosen[0] = torch.randint(n_vectors, (), generator=generator)
    # Autocast would compute the products in half precision, outside the error bound.
    with torch.autocast(features.device.type, enabled=False):
        if n_projections is not None and n_features > n_projections:
            features = _project(features, n_projections, generator)
        farthest = _farthest_first(features, chosen[:1])
        for step, index in zip(track(range(1, size)), farthest, strict=False):
            chosen[step] = index
    return chosen


def _project(features, n_projections, generator):
    """Return the centered features in fewer dimensions."""
    shape = (features.shape[1], n_projections)
    projection = torch.randn(shape, generator=generator) / math.sqrt(n_projections)
    # Without centering, the products of nearly collapsed features would be dominated by
    # rounding.
    center, projection = features.mean(dim=0), projection.to(features)
    projected = features.new_empty(len(features), n_projections)
    for rows in _blocks(len(features), 16384):  # no centered copy of all features
        torch.mm(features[rows] - center, projection, out=projected[rows])
    return projected


def _farthest_first(vectors: torch.Tensor, first: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield indices, each of the vector farthest from `first` and those before it."""
    cover, newest = _Cover(vectors), first
    while True:
        cover.add(newest)
        newest = cover.next_choices()
        yield from newest


class _Cover:
    """The distance of each vector to the nearest one chosen.

    Parameters
    ----------
    vectors : Tensor of shape (n, d)

    Attributes
    ----------
    distances : Tensor of shape (n,)
        They are -1, below the distance of duplicates, for vectors that are chosen, so that
        none is chosen twice.
    """

    def __init__(self, vectors):
        self.vectors = vectors
        self.distances = vectors.new_full((len(vectors),), torch.inf)
        # The median of about a thousand rows, because outliers would dominate a mean.
        self._center = vectors[:: max(1, len(vectors) // 1000)].median(dim=0).values
        self._halves = torch.empty_like(self.distances)
        for rows in _blocks(len(vectors), _BLOCK_PAIRS):
            self._halves[rows] = (vectors[rows] - self._center).square().sum(dim=1) / 2

    def add(self, newest: torch.Tensor) -> None:
        """Bring the distances up to date with vectors that are chosen, given by indices."""
        is_by_products = len(newest) >= _FEW and products_are_full_precision()
        update = self._update_by_products if is_by_products else self._update
        for rows in _blocks(len(self.vectors), max(1, _BLOCK_NUMBERS // len(newest))):
            update(rows, newest)
        self.distances.index_fill_(0, newest, -1)

    def next_choices(self) -> torch.Tensor:
        """Return the indices of the vectors to choose next, at least one."""
        # Indices are tensors of one entry: a GPU would wait for a number.
        newest = self.distances.argmax()[None]
        rows, others = self._candidates()
        vectors, distances = self.vectors[rows], self.distances[rows]
        choices, farness = [newest], []
        while True:
            for _ in range(_N_AHEAD):
                added = _distances(vectors, self.vectors[newest])[:, 0]
                distances = torch.minimum(distances, added).masked_fill(rows == newest, -1)
                position = distances.argmax()[None]
                newest = rows[position]
                choices.append(newest)
                farness.append(distances[position])
            # The distances of all others only fall.
            n_certain = int((torch.cat(farness) > others).sum())
            if n_certain < len(farness):
                return torch.cat(choices[: n_certain + 1])

    def _candidates(self):
        """Return the indices of the farthest vectors, and the distance of the next one."""
        n_farthest = 1 + min(_N_CANDIDATES, len(self.distances) // _CANDIDATE_STRIDE + 1)
        blocks = self.distances.split(_BLOCK_NUMBERS)  # topk copies what it is given
        tops = [block.topk(min(n_farthest, len(block))) for block in blocks]
        rows = [top.indices + i * _BLOCK_NUMBERS for i, top in enumerate(tops)]
        distances, order = torch.cat([top.values for top in tops]).topk(
            min(n_farthest, len(self.distances))
        )
        # In ascending order, because argmax returns the first of equal distances.
        return torch.cat(rows)[order[:-1]].sort().values, distances[-1]

    def _update(self, rows, newest):
        """Compare a block of vectors with the new ones by differences."""
        added = _distances(self.vectors[rows], self.vectors[newest]).amin(dim=1)
        self.distances[rows] = torch.minimum(self.distances[rows], added)

    def _update_by_products(self, rows, newest):
        """Compare a block with the new ones by differences, where that may change it.

        Half the squared distance is ``|x|^2 / 2 + |c|^2 / 2 - x c`` of centered vectors. By
        products, it is wrong by at most ``g (|x|^2 / 2 + |c|^2 / 2)``; this holds for the
        distances from differences too, and twice g for both.
        """
        n_features, dtype = self.vectors.shape[1], self.vectors.dtype
        error = 2 * error_of_products(n_features, dtype)
        slack = underflow_of_products(n_features, dtype)
        block, new = self.vectors[rows], self.vectors[newest]
        own, new_halves = self._halves[rows], self._halves[newest]
        # Bounds from below, less those parts that all values of a row have in common.
        bounds = torch.addmm(
            new_halves * (1 - error), block - self._center, (new - self._center).T, alpha=-1
        )
        limits = self.distances[rows].square() / 2 - own * (1 - error) + slack
        places = (bounds.amin(dim=1) <= limits).nonzero()[:, 0]
        bounds = bounds[places]
        # No vector that is farther than the nearest for certain.
        least, nearest = bounds.min(dim=1)
        above = least + 2 * error * (new_halves[nearest] + own[places]) + slack
        is_near = bounds <= torch.minimum(above, limits[places])[:, None]
        which, to = is_near.nonzero().unbind(dim=1)
        if len(which) * _COST_OF_PAIR > len(block) * len(new):
            return self._update(rows, newest)
        which = places[which]
        distances = self.distances[rows]
        for pairs in _blocks(len(which), _BLOCK_PAIRS):
            left, right = block[which[pairs], None], new[to[pairs], None]
            distances.scatter_reduce_(
                0, which[pairs], _distances(left, right)[:, 0, 0], "amin"
            )


def _distances(left, right):
    """Return the table of distances, computed from differences."""
    return torch.cdist(left, right, compute_mode="donot_use_mm_for_euclid_dist")


def _blocks(n, size):
    return (slice(start, start + size) for start in range(0, n, size))


def _check_size(n_vectors, size):
    if not 1 <= size <= n_vectors:
        raise ValueError(
            f"A subset must have between one vector and all of them: size={size} of "
            f"{n_vectors} vectors. Choose a size in between."
        )
