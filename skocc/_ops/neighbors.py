"""Exact and approximate search for the nearest neighbors in a memory bank.

The distances are Euclidean, not squared, and in float64. Nearly collapsed features, which
differ by 1e-4 of their magnitude, therefore still rank images.
"""

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from skocc._ops.clusters import Clusters

# Number of candidates in addition to the requested neighbors. More candidates are separated
# from the rest of the bank by the error bound more often; each costs one exact distance.
_N_SPARE = 8
# Distances that differ by half a unit in the last place of float32 count as equal.
# Otherwise a bank with many copies of one vector could never be separated.
_TOLERANCE = torch.finfo(torch.float32).eps
# How many times the largest feature of a prepared bank those of queries may be. Larger ones
# take a frame of their own, for which the bank is prepared again.
_HEADROOM = 8
# Number of queries of which the factor is computed at once, in float64.
_QUERY_BLOCK = 1024
# Number of values in a block of a prepared bank, 64 MiB in float64.
_BLOCK_NUMBERS = 2**23
# Number of values of which a minimum is taken before the candidates are selected.
_N_FOLDS = 16


def nearest(
    queries: torch.Tensor,
    bank: torch.Tensor,
    n_neighbors: int = 1,
    *,
    query_groups: torch.Tensor | None = None,
    bank_groups: torch.Tensor | None = None,
    query_block: int = 1024,
    bank_block: int = 16384,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Search the bank exactly for the nearest neighbors of each query.

    Parameters
    ----------
    queries : Tensor of shape (n, d)
        Vectors, on any device.
    bank : Tensor of shape (m, d)
        Finite vectors, on the same device.
    n_neighbors : int, default=1
    query_groups : Tensor of shape (n,), default=None
        Image that contains each query. Bank vectors of the same group are excluded.
    bank_groups : Tensor of shape (m,), default=None
        Image that contains each bank vector; required with `query_groups`.
    query_block, bank_block : int
        Number of queries and of bank vectors that are compared at once. The search takes
        the memory of a few matrices of `query_block` times `bank_block` floats, in addition
        to a copy of the queries.

    Returns
    -------
    distances : Tensor of shape (n, n_neighbors), float64
        Distances in ascending order. They are NaN for a query that is not finite.
    indices : Tensor of shape (n, n_neighbors), int64
        Rows of the bank.

    Raises
    ------
    ValueError
        The shapes do not match, the bank is not finite, or there are fewer neighbors than
        requested.

    Notes
    -----
    Half the squared distance is ``|q|^2 / 2 + |b|^2 / 2 - q b``. The first term does not
    change the order of the neighbors, and the other terms are one matrix product. The
    product is fast, but its rounding errors are those of ``|q||b|``, which for nearly
    collapsed features is more than the distance. So the product only proposes candidates:

    1. Features are centered on a median of the bank and scaled.
    2. The product computes, for each pair, a *lower bound*: half the squared distance, less
       ``g (|q||b| + |b|^2 / 2)`` with ``g = 2 (d + 8) u``, and u the unit roundoff. This is
       at least the rounding error of the product, in whatever order it adds (Higham,
       Accuracy and Stability of Numerical Algorithms, 2002, section 3.1), and of the
       features it is given. Each pair has its own bound, so distant vectors do not loosen
       the bounds of the others.
    3. For the vectors with the lowest bounds, the distances are computed from differences
       in float64. All other vectors are no nearer than the last of these bounds. If that
       bound is no less than the last neighbor's distance, the search for this query ends.
    4. The remaining queries are searched in the same way in float64, and any that still
       remain are searched by differences alone.

    A distance is therefore too large by at most half a unit in the last place of float32.
    If several neighbors are that close to each other, any of them may be returned.

    MPS does not support float64: vectors there are searched on the CPU, and the result is
    on the CPU.
    """
    query = _Query(queries, bank, query_groups, bank_groups, query_block, bank_block)
    query.check(n_neighbors)
    if queries.device.type == "mps":
        query = query.on_cpu()
    return _search(query, n_neighbors)


class PreparedBank:
    """A bank with all that :func:`nearest` computes of it, for many searches.

    Parameters
    ----------
    vectors : Tensor of shape (m, d)
        Finite vectors, on any device but MPS, which does not support float64.
    groups : Tensor of shape (m,), default=None
        Image that contains each vector.

    Attributes
    ----------
    vectors, groups : Tensor
        As given.
    frame : Frame
        The center and scale in which products compare vectors.
    clusters : Clusters or None
        Vectors that are near each other, if there are enough.
    factor : Tensor of shape (m, d + 2), float32
        The bank's factor of the products, in the order of the clusters, little larger than
        the bank.
    groups_in_order : Tensor of shape (m,), or None
        The groups in the order of the factor.
    group_counts : tuple of Tensor, or None
        The groups of the bank, and how many vectors each has.

    Raises
    ------
    ValueError
        The bank is not finite.
    """

    def __init__(self, vectors: torch.Tensor, groups: torch.Tensor | None = None):
        self.vectors, self.groups = vectors, groups
        self.bank_block = min(16384, max(1024, _BLOCK_NUMBERS // vectors.shape[1]))
        _check_bank(vectors)
        # Room for new images, whose features may be larger.
        self.frame = Frame.of(vectors, _HEADROOM * _largest(vectors))
        with torch.no_grad(), torch.autocast(vectors.device.type, enabled=False):
            self.clusters = Clusters.of(vectors, self.frame.scaled)
        self.factor = vectors.new_empty(
            (len(vectors), vectors.shape[1] + 2), dtype=torch.float32
        )
        for rows in _blocks(len(vectors), self.bank_block):
            part = vectors[self.rows(rows)]
            self.factor[rows] = self.frame.bank_factor(part, torch.float32)
        self.groups_in_order = None if groups is None else groups[self.rows(slice(None))]
        self.group_counts = None if groups is None else groups.unique(return_counts=True)

    def rows(self, places: slice | torch.Tensor) -> slice | torch.Tensor:
        """Return the rows of the bank at places of the factor."""
        return places if self.clusters is None else self.clusters.order[places]

    def nearest(
        self,
        queries: torch.Tensor,
        n_neighbors: int = 1,
        *,
        query_groups: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Search the bank as the function :func:`nearest` does.

        Parameters
        ----------
        queries : Tensor of shape (n, d)
            Vectors on the device of the bank.
        n_neighbors : int, default=1
        query_groups : Tensor of shape (n,), default=None
            Image that contains each query. Bank vectors of the same group are excluded.

        Returns
        -------
        distances, indices : Tensor of shape (n, n_neighbors)
            As the function returns them.
        """
        groups = None if query_groups is None else self.groups
        query = _Query(
            queries, self.vectors, query_groups, groups,
            bank_block=self.bank_block, prepared=self,
        )  # fmt: skip
        query.check(n_neighbors)
        return _search(query, n_neighbors)


@dataclass(frozen=True)
class Frame:
    """A center and a scale, in which a matrix product compares queries with a bank.

    Attributes
    ----------
    center : Tensor of shape (d,), float64
    scale : float
        Power of two, by which centered features are divided to lie in [-1, 1].
    """

    center: torch.Tensor
    scale: float

    @classmethod
    def of(cls, bank: torch.Tensor, largest: float) -> "Frame":
        """Return the frame of a bank, for features of at most a magnitude."""
        # The median of about a thousand rows, because outliers would dominate a mean.
        step = max(1, len(bank) // 1000)
        center = bank[::step].double().median(dim=0).values
        # A division by a power of two does not round. The squares then do not overflow in
        # float32, and those of the spread of collapsed features do not underflow.
        return cls(center, math.ldexp(1.0, math.frexp(largest)[1] + 1))

    def covers(self, queries: torch.Tensor) -> bool:
        """Return whether finite queries lie in [-1, 1] when centered and scaled."""
        return 2 * _largest(queries) <= self.scale

    def bank_factor(self, vectors: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Return ``(-b, |b|, |b|^2 / 2)`` of each vector, a Tensor (m, d + 2)."""
        vectors = self.scaled(vectors)
        norms = vectors.norm(dim=1, keepdim=True)
        return torch.cat([-vectors, norms, norms.square() / 2], dim=1).to(dtype)

    def query_factor(
        self, vectors: torch.Tensor, dtype: torch.dtype, sign: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ``(q, s g |q|, 1 + s g)`` of each vector, and the norms (n,) in float64.

        With the sign s = -1, products with a bank's factor are bounds from below of half
        the squared distances, less ``|q|^2 / 2``; with s = 1 they are bounds from above.
        """
        error = sign * error_of_products(vectors.shape[1], dtype)
        factors, all_norms = [], []
        # In blocks, or the float64 copies would take several times the queries' memory.
        for block in vectors.split(_QUERY_BLOCK):
            scaled = self.scaled(block)
            norms = scaled.norm(dim=1, keepdim=True)
            ones = torch.full_like(norms, 1 + error)
            factors.append(torch.cat([scaled, error * norms, ones], dim=1).to(dtype))
            all_norms.append(norms[:, 0])
        return torch.cat(factors), torch.cat(all_norms)

    def scaled(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return vectors (n, d) as they are compared, in float64."""
        return (vectors.double() - self.center) / self.scale


def error_of_products(n_features: int, dtype: torch.dtype) -> float:
    """Return ``g = 2 (d + 8) u`` of the Notes of :func:`nearest`."""
    return (n_features + 8) * torch.finfo(dtype).eps  # eps is 2 u


def underflow_of_products(n_features: int, dtype: torch.dtype) -> float:
    """Return what a product may lose to values that are too small for the dtype."""
    return 8 * (n_features + 8) * torch.finfo(dtype).tiny


def _largest(vectors):
    return max(abs(float(extreme)) for extreme in vectors.aminmax())


def _check_bank(bank):
    """Raise a ValueError for a bank that is not finite."""
    if not all(torch.isfinite(value) for value in bank.aminmax()):
        raise ValueError(
            "The bank must be finite: it contains NaN or infinite features. Check the "
            "training images, and whether training has diverged."
        )


@dataclass(frozen=True)
class _Query:
    """The arguments of `nearest`."""

    queries: torch.Tensor
    bank: torch.Tensor
    query_groups: torch.Tensor | None
    bank_groups: torch.Tensor | None
    query_block: int = 1024
    bank_block: int = 16384
    prepared: PreparedBank | None = None

    def check(self, n_neighbors):
        """Raise a ValueError for invalid arguments."""
        shapes = (
            f"queries of shape {tuple(self.queries.shape)}, "
            f"a bank of {tuple(self.bank.shape)}"
        )
        if self.queries.ndim != 2 or self.queries.shape[1:] != self.bank.shape[1:]:
            raise ValueError(
                "Queries and bank must be tables with the same number of columns: "
                f"{shapes}. Compute both from the same features, one row per vector."
            )
        if not self.queries.numel() or not self.bank.numel():
            raise ValueError(
                f"Queries and bank must not be empty: {shapes}. "
                "Pass at least one vector each."
            )
        if self.prepared is None:
            _check_bank(self.bank)
        groups = (self.query_groups, self.bank_groups)
        given = [None if x is None else len(x) for x in groups]
        if given not in ([None, None], [len(self.queries), len(self.bank)]):
            raise ValueError(
                "Groups must be given for every query and every bank vector, or for "
                f"neither: {given[0]} groups of queries and {given[1]} of bank vectors, "
                f"with {shapes}. Pass both, with one group per row."
            )
        if not 1 <= n_neighbors <= self.n_available():
            raise ValueError(
                "n_neighbors must be at least one and at most the number of bank vectors "
                f"outside the group of a query. Got n_neighbors={n_neighbors} and "
                f"{self.n_available()} such vectors. Set a smaller n_neighbors, or make "
                "the bank from more images."
            )

    def on_cpu(self):
        tensors = ("queries", "bank", "query_groups", "bank_groups")
        values = {name: getattr(self, name) for name in tensors}
        return replace(self, **{k: v.cpu() for k, v in values.items() if v is not None})

    def only(self, rows):
        groups = None if self.query_groups is None else self.query_groups[rows]
        return replace(self, queries=self.queries[rows], query_groups=groups)

    def n_available(self):
        """Return the minimum number of bank vectors outside the group of a query."""
        if self.query_groups is None:
            return len(self.bank)
        if self.prepared is None:
            groups, counts = self.bank_groups.unique(return_counts=True)
        else:
            groups, counts = self.prepared.group_counts
        own = counts * torch.isin(groups, self.query_groups)
        return len(self.bank) - int(own.max())


def _search(query, n_neighbors):
    """Return distances and indices, for queries that may not be finite."""
    broken = ~query.queries.isfinite().all(dim=1)
    query = replace(query, queries=query.queries.masked_fill(broken[:, None], 0))
    # Autocast would compute the products in half precision, outside the error bound.
    with torch.no_grad(), torch.autocast(query.queries.device.type, enabled=False):
        distances, indices = _nearest(query, n_neighbors)
    distances[broken] = torch.nan
    return distances, indices


def _nearest(query, n_neighbors):
    """Search the fast way first; go on with the queries it leaves uncertain."""
    if query.prepared is not None and not query.prepared.frame.covers(query.queries):
        query = replace(query, prepared=None)
    shape = (len(query.queries), n_neighbors)
    distances = query.queries.new_empty(shape, dtype=torch.float64)
    indices = query.queries.new_empty(shape, dtype=torch.int64)
    left = torch.arange(len(query.queries), device=distances.device)
    for dtype in (torch.float32, torch.float64):
        if dtype == torch.float32 and not products_are_full_precision():
            continue
        part = query.only(left)
        distances[left], indices[left], certain = _by_products(part, n_neighbors, dtype)
        left = left[~certain]
        if not len(left):
            return distances, indices
    distances[left], indices[left] = _by_differences(query.only(left), n_neighbors)
    return distances, indices


def products_are_full_precision() -> bool:
    """Return whether float32 matrix products are computed in full float32 precision."""
    try:
        return torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:  # set for a single backend, by newer versions of torch
        return False


def _by_products(query, n_neighbors, dtype):
    """Return distances, indices, and for which queries they are certain."""
    side = _BankSide.of(query, dtype)
    frame = side.frame
    factors, norms = frame.query_factor(query.queries, dtype, -1)
    bounds, places = _smallest(
        replace(query, bank_groups=side.groups),
        min(n_neighbors + _N_SPARE, len(query.bank)),
        factors,
        side.factor,
        torch.mm,
    )
    candidates = side.rows(places)
    distances = exact_distances(query.queries, query.bank, candidates)
    distances.masked_fill_(bounds.isinf(), torch.inf)  # the query's own group
    distances, order = distances.topk(n_neighbors, largest=False)
    indices = candidates.gather(1, order)

    # Convert bounds on half the squares, without the queries' part, to squared distances.
    n_features = query.bank.shape[1]
    underflow = underflow_of_products(n_features, dtype)
    own = norms.square() * (1 - (n_features + 8) * torch.finfo(torch.float64).eps)
    others = 2 * (bounds[:, -1].double() - underflow) + own
    last = distances[:, -1]
    certain = (last / frame.scale).square() * (1 - _TOLERANCE) <= others
    return distances, indices, certain | (last == 0)


class _BankSide(NamedTuple):
    """The bank in the products of a search.

    Attributes
    ----------
    frame : Frame
    factor : callable
        Function from a slice of places to the bank's factor there.
    groups : Tensor of shape (m,), or None
        Group of the vector at each place.
    rows : callable
        Function from places to rows of the bank.
    """

    frame: Frame
    factor: Callable
    groups: torch.Tensor | None
    rows: Callable

    @classmethod
    def of(cls, query, dtype):
        prepared = query.prepared
        if prepared is None:
            largest = max(_largest(query.queries), _largest(query.bank))
            frame = Frame.of(query.bank, largest)
        elif dtype == torch.float32:
            groups = None if query.bank_groups is None else prepared.groups_in_order
            factor = prepared.factor.__getitem__
            return cls(prepared.frame, factor, groups, prepared.rows)
        else:
            frame = prepared.frame

        def factor(places):
            return frame.bank_factor(query.bank[places], dtype)

        return cls(frame, factor, query.bank_groups, lambda places: places)


def _by_differences(query, n_neighbors):
    def distances(right, left_columns):
        left = left_columns.T
        return torch.cdist(right, left, compute_mode="donot_use_mm_for_euclid_dist")

    def bank(columns):
        return query.bank[columns].double()

    return _smallest(query, n_neighbors, query.queries.double(), bank, distances)


def _smallest(
    query: _Query,
    n_smallest: int,
    left: torch.Tensor,
    right: Callable,
    compare: Callable,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the smallest values of each query in ascending order, and their bank rows.

    The values are ``compare(right(places), left.T)``, computed for blocks of places, which
    are rows of the bank; with the bank on the left, products are up to a half faster. They
    are infinite for vectors in the group of the query.
    """
    shape = (len(left), n_smallest)
    smallest = left.new_full(shape, torch.inf)
    indices = torch.zeros(shape, dtype=torch.int64, device=left.device)
    for places in _blocks(len(query.bank), query.bank_block):
        block = right(places)
        for rows in _blocks(len(left), query.query_block):
            values = compare(block, left[rows].T)
            if query.query_groups is not None and query.bank_groups is not None:
                own = query.bank_groups[places, None] == query.query_groups[None, rows]
                values.masked_fill_(own, torch.inf)
            found, where = column_smallest(values, n_smallest)
            found = torch.cat([smallest[rows], found], dim=1)
            where = torch.cat([indices[rows], where + places.start], dim=1)
            smallest[rows], order = found.topk(n_smallest, largest=False)
            indices[rows] = where.gather(1, order)
    return smallest, indices


def _blocks(n: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def column_smallest(
    values: torch.Tensor, n_smallest: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the smallest values of each column and their rows, faster than topk.

    Parameters
    ----------
    values : Tensor of shape (m, n)
    n_smallest : int

    Returns
    -------
    smallest, rows : Tensor of shape (n, min(n_smallest, m))
        In ascending order.
    """
    height = len(values)
    n_short = height // _N_FOLDS
    if n_short <= n_smallest:
        return values.T.topk(min(n_smallest, height), largest=False)
    # The n smallest values are in the n folds with the smallest minima, or in the remaining
    # rows. Minima are fast, and topk then receives few values.
    folded = values[: n_short * _N_FOLDS].unflatten(0, (_N_FOLDS, n_short)).amin(dim=0)
    short = folded.T.contiguous().topk(n_smallest, largest=False).indices
    folds = torch.arange(_N_FOLDS, device=values.device)
    rows = (short[:, :, None] + folds * n_short).flatten(1)
    rest = torch.arange(n_short * _N_FOLDS, height, device=values.device)
    rows = torch.cat([rows, rest.expand(len(rows), -1)], dim=1)
    candidates = values.gather(0, rows.T).T.contiguous()
    smallest, order = candidates.topk(n_smallest, largest=False)
    return smallest, rows.gather(1, order)


def exact_distances(
    queries: torch.Tensor, bank: torch.Tensor, indices: torch.Tensor
) -> torch.Tensor:
    """Return the distances to given bank vectors, computed from differences in float64.

    Parameters
    ----------
    queries : Tensor of shape (n, d)
    bank : Tensor of shape (m, d)
    indices : Tensor of shape (n, k), int64
        Rows of the bank.

    Returns
    -------
    distances : Tensor of shape (n, k), float64
    """
    distances = queries.new_empty(indices.shape, dtype=torch.float64)
    for rows in _blocks(len(queries), 256):
        differences = queries[rows, None].double() - bank[indices[rows]].double()
        distances[rows] = differences.norm(dim=2)
    return distances


class ApproximateIndex:
    """Approximate search with pynndescent, for banks that are too large for exact search.

    Parameters
    ----------
    bank : Tensor of shape (m, d)
        Finite vectors.
    bank_groups : Tensor of shape (m,), default=None
        Image that contains each bank vector.
    graph_n_neighbors : int, default=30
        Number of neighbors of each bank vector in the search graph. More neighbors make the
        search more accurate and the graph slower to build.
    random_state : int, default=0
        Seed of the random trees from which the graph is built.
    waiting : callable, default=nullcontext
        Function from the name of a step to a context, which shows that a graph is being
        built.

    Raises
    ------
    ImportError
        pynndescent is not installed. It is imported here and not together with skocc,
        because its import takes seconds.

    Notes
    -----
    The first graph of a process takes a minute or two, however small it is: numba compiles
    pynndescent, and caches only a part of the result for other processes.
    """

    def __init__(
        self,
        bank,
        bank_groups=None,
        *,
        graph_n_neighbors=30,
        random_state=0,
        waiting: Callable[[str], AbstractContextManager] = nullcontext,
    ):
        self.bank = bank.cpu()
        self.bank_groups = None if bank_groups is None else bank_groups.cpu()
        # Centering: the graph of features that differ only in their last digits would
        # reflect rounding errors.
        self._center = self.bank.double().mean(dim=0)
        stage = "neighbor graph"
        if "pynndescent" not in sys.modules:
            stage += " (compiles first, which takes a minute or two)"
        with _threads_kept(), waiting(stage):
            self._index = _import_pynndescent().NNDescent(
                self._centered(self.bank),
                n_neighbors=min(graph_n_neighbors, len(bank) - 1),
                random_state=random_state,
            )
            self._index.prepare()

    def _centered(self, vectors):
        return (vectors.double() - self._center).float().numpy()

    def nearest(self, queries, n_neighbors=1, *, query_groups=None, epsilon=0.2):
        """Search for the nearest neighbors of each query.

        Parameters
        ----------
        queries : Tensor of shape (n, d)
            Vectors on any device; the search and its result are on the CPU.
        n_neighbors : int, default=1
        query_groups : Tensor of shape (n,), default=None
            Image that contains each query. Bank vectors of the same group are excluded.
        epsilon : float, default=0.2
            Relative distance to which the search extends beyond the neighbors found so far.
            A larger value makes it more accurate and slower.

        Returns
        -------
        distances : Tensor of shape (n, n_neighbors), float64
            Exact distances to the vectors found.
        indices : Tensor of shape (n, n_neighbors), int64
            Rows of the bank.

        Notes
        -----
        If too few candidates of other groups are found for a query, it is searched exactly.
        """
        bank_groups = None if query_groups is None else self.bank_groups
        query = _Query(queries, self.bank, query_groups, bank_groups).on_cpu()
        query.check(n_neighbors)
        n_candidates = min(n_neighbors + _N_SPARE, len(self.bank))
        with _threads_kept():
            candidates, _ = self._index.query(
                self._centered(query.queries), n_candidates, epsilon
            )
        candidates = torch.from_numpy(candidates).long()
        distances = exact_distances(query.queries, self.bank, candidates)
        distances.masked_fill_(candidates < 0, torch.inf)  # none found
        if query_groups is not None:
            own = self.bank_groups[candidates] == query.query_groups[:, None]
            distances.masked_fill_(own, torch.inf)
        distances, order = distances.topk(n_neighbors, largest=False)
        indices = candidates.gather(1, order)
        left = distances[:, -1].isinf()
        if left.any():
            part = query.only(left)
            distances[left], indices[left] = nearest(
                part.queries,
                part.bank,
                n_neighbors,
                query_groups=part.query_groups,
                bank_groups=part.bank_groups,
            )
        return distances, indices


@contextmanager
def _threads_kept():
    """Restore torch's number of threads, which numba changes through OpenMP."""
    n_threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


def _import_pynndescent():
    try:
        import pynndescent
    except ImportError as error:
        raise ImportError(
            "Approximate search needs pynndescent, which cannot be imported: "
            f'{error}. Install it with pip install "skocc[approximate]", or search exactly.'
        ) from error
    return pynndescent


def bank_bytes(n_vectors: int, n_features: int) -> int:
    """Return the number of bytes of a bank of float32 vectors.

    Parameters
    ----------
    n_vectors, n_features : int

    Returns
    -------
    n_bytes : int
    """
    return 4 * int(n_vectors) * int(n_features)
