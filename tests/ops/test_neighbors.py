from dataclasses import replace

import numpy as np
import pytest
import torch

from skocc._ops import neighbors
from skocc._ops.neighbors import (
    ApproximateIndex,
    PreparedBank,
    bank_bytes,
    exact_distances,
    nearest,
)


def brute_force(queries, bank, n_neighbors, query_groups=None, bank_groups=None):
    """Distances (n, k) by differences in float64, on the CPU."""
    queries, bank = queries.cpu().double(), bank.cpu().double()
    distances = torch.stack([(bank - query).norm(dim=1) for query in queries])
    if query_groups is not None:
        own = query_groups.cpu()[:, None] == bank_groups.cpu()
        distances[own] = torch.inf
    return distances.sort(dim=1).values[:, :n_neighbors]


def features(kind, n, seed, n_features=24):
    """Feature vectors (n, n_features) that are hard to compare."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(n, n_features, generator=generator)
    if kind == "collapsed":
        return 1 + 1e-4 * noise
    if kind == "huge offset":
        return 1e6 + noise  # steps of float32 there: 0.06
    if kind == "tiny":
        return 1e-30 * noise
    if kind == "huge":
        return 1e30 * noise
    if kind == "one far cluster":
        noise[::10] += 1e5
    if kind == "two collapsed clusters":
        noise = 1e-4 * noise + (torch.arange(n) % 2)[:, None]
    if kind == "one vector very far":
        noise[n // 2] = 1e12
    if kind == "duplicates":
        noise = noise[torch.arange(n) % 5]
    if kind == "constant":
        noise[:] = 0.3
    return noise


KINDS = (
    "plain", "collapsed", "huge offset", "tiny", "huge", "one far cluster",
    "two collapsed clusters", "one vector very far", "duplicates", "constant",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_neighbors", [1, 5])
def test_distances_are_exact(kind, n_neighbors, device):
    bank, queries = features(kind, 700, 0).to(device), features(kind, 60, 1).to(device)
    queries[:3] = bank[:3]
    distances, indices = nearest(queries, bank, n_neighbors)
    assert distances.dtype == torch.float64
    assert distances.device == indices.device == queries.device
    expected = brute_force(queries, bank, n_neighbors)
    torch.testing.assert_close(distances.cpu(), expected, rtol=1e-7, atol=0)
    assert (distances[:3, 0] == 0).all()
    named = (queries[:, None].double() - bank[indices].double()).norm(dim=2)
    torch.testing.assert_close(named, distances, rtol=1e-12, atol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_prepared", [False, True])
def test_bound_is_below_the_distance(kind, is_prepared, monkeypatch):
    """What makes a search exact: no product says more than half the squared distance."""
    bank, queries = features(kind, 300, 0, 200), features(kind, 40, 1, 200)
    matrices = []

    def record(search, n_smallest, left, right, compare):
        matrices.append(compare(right(slice(None)), left.T).T)
        return search_all(search, n_smallest, left, right, compare)

    search_all = neighbors._smallest
    monkeypatch.setattr(neighbors, "_smallest", record)
    searched = neighbors._Query(queries, bank, None, None)
    if is_prepared:
        searched = replace(searched, prepared=PreparedBank(bank))
    true = torch.stack([(bank.double() - query.double()).norm(dim=1) for query in queries])
    for dtype in (torch.float32, torch.float64):
        side = neighbors._BankSide.of(searched, dtype)
        frame, in_order = side.frame, true[:, side.rows(torch.arange(len(bank)))]
        assert frame.covers(queries)
        scale = frame.scale
        own = ((queries.double() - frame.center) / scale).square().sum(dim=1, keepdim=True)
        neighbors._by_products(searched, 1, dtype)
        bounds = 2 * matrices.pop().double() + own
        slack = 1e4 * torch.finfo(dtype).tiny + 1e-13 * own
        assert (bounds <= (in_order / scale).square() + slack).all()
        # A bound that is true but says nothing would send all to the slow search.
        if kind == "plain":
            assert (bounds >= 0.99 * (in_order / scale).square()).all()


def test_expansion_would_not_do():
    """The trap that the search avoids, at its place in the features of a collapsed net."""
    bank, queries = features("collapsed", 700, 0), features("collapsed", 60, 1)
    squares = bank.square().sum(1) - 2 * queries @ bank.T + queries.square().sum(1)[:, None]
    naive = squares.clamp(min=0).amin(dim=1).sqrt()
    expected = brute_force(queries, bank, 1)[:, 0]
    assert ((naive - expected).abs() > 0.1 * expected).any()


def test_uncertain_queries_are_searched_by_differences(monkeypatch):
    """Two clusters so far apart that float64 products tell nothing within the far one."""
    bank, queries = features("plain", 700, 0).double(), features("plain", 60, 1).double()
    bank[::2] += 1e10
    queries[::3] += 1e10
    searched = []

    def record(search, n_neighbors):
        searched.append(len(search.queries))
        return by_differences(search, n_neighbors)

    by_differences = neighbors._by_differences
    monkeypatch.setattr(neighbors, "_by_differences", record)
    distances, _ = nearest(queries, bank, 2)
    torch.testing.assert_close(distances, brute_force(queries, bank, 2), rtol=1e-7, atol=0)
    # Those of one cluster only: the center is in the other.
    assert searched in ([20], [40])


def test_plain_features_need_one_stage(monkeypatch):
    monkeypatch.setattr(neighbors, "_by_differences", None)
    dtypes = []
    by_products = neighbors._by_products

    def record(search, n_neighbors, dtype):
        dtypes.append(dtype)
        return by_products(search, n_neighbors, dtype)

    monkeypatch.setattr(neighbors, "_by_products", record)
    nearest(features("collapsed", 60, 1), features("collapsed", 700, 0))
    assert dtypes == [torch.float32]


def test_reduced_precision_is_not_trusted():
    """TF32 and bfloat16 products are outside the error bound."""
    precision = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        assert not neighbors.products_are_full_precision()
    finally:
        torch.set_float32_matmul_precision(precision)
    bank, queries = features("plain", 300, 0), features("plain", 30, 1)
    with torch.autocast("cpu", torch.bfloat16):
        distances, _ = nearest(queries, bank)
    torch.testing.assert_close(distances, brute_force(queries, bank, 1), rtol=1e-7, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_prepared_bank_finds_the_same(kind, device):
    """Also for queries that are larger than it has room for, of which one is enough."""
    bank, queries = features(kind, 700, 0).to(device), features(kind, 60, 1).to(device)
    groups = torch.arange(700, device=device) % 7
    prepared = PreparedBank(bank, groups)
    for has_larger in (False, True):
        if has_larger:
            queries[7] = 1e3 * bank.abs().max()
        assert prepared.frame.covers(queries) != has_larger
        distances, indices = prepared.nearest(queries, 3)
        expected, rows = nearest(queries, bank, 3)
        assert torch.equal(distances, expected)
        if kind not in ("duplicates", "constant"):  # any of several copies
            assert torch.equal(indices, rows)
        own = groups[:60]
        distances, _ = prepared.nearest(queries, 3, query_groups=own)
        expected, _ = nearest(queries, bank, 3, query_groups=own, bank_groups=groups)
        assert torch.equal(distances, expected)
    with pytest.raises(ValueError, match=r"n_neighbors=601 and 600 .* Set a"):
        prepared.nearest(queries, 601, query_groups=own)
    with pytest.raises(ValueError, match=r"contains NaN .* Check the training"):
        PreparedBank(torch.where(bank == bank[3, 3], torch.nan, bank))


@pytest.mark.parametrize("blocks", [(1, 1), (7, 13), (60, 399), (64, 700)])
def test_blocks(blocks):
    bank, queries = features("plain", 700, 0), features("plain", 60, 1)
    query_block, bank_block = blocks
    distances, indices = nearest(
        queries, bank, 3, query_block=query_block, bank_block=bank_block
    )
    expected = nearest(queries, bank, 3)
    assert torch.equal(distances, expected[0])
    assert torch.equal(indices, expected[1])


@pytest.mark.parametrize("width", [1, 40, 288, 289, 1000])
def test_column_smallest(width):
    values = torch.randn(20, width, generator=torch.Generator().manual_seed(0))
    values[:, : width // 3] = torch.inf
    smallest, columns = neighbors.column_smallest(values.T, 8)
    expected = values.topk(min(8, width), largest=False).values
    assert torch.equal(smallest, expected)
    assert torch.equal(values.gather(1, columns), expected)
    assert all(len(row.unique()) == len(row) for row in columns)


def test_own_group_does_not_count(device):
    """Images of 50 patches each, more than there are candidates."""
    bank = features("plain", 400, 0).to(device)
    groups = torch.arange(400, device=device) // 50
    bank += 10 * groups[:, None]  # the nearest are all of the own image
    distances, indices = nearest(bank, bank, 5, query_groups=groups, bank_groups=groups)
    assert (groups[indices] != groups[:, None]).all()
    expected = brute_force(bank, bank, 5, groups, groups)
    torch.testing.assert_close(distances.cpu(), expected, rtol=1e-7, atol=0)
    # A group of queries that the bank does not have leaves nothing out.
    distances, _ = nearest(bank, bank, query_groups=groups + 100, bank_groups=groups)
    assert (distances == 0).all()


def test_query_that_is_not_finite():
    bank, queries = features("plain", 100, 0), features("plain", 4, 1)
    expected, _ = nearest(queries, bank)
    queries[1, 3], queries[2, 0] = torch.nan, torch.inf
    distances, _ = nearest(queries, bank)
    assert distances.isnan().flatten().tolist() == [False, True, True, False]
    assert torch.equal(distances[[0, 3]], expected[[0, 3]])


def test_inputs_that_do_not_fit():
    bank = features("plain", 10, 0)
    groups = torch.arange(10) // 4  # at most 6 are of other groups
    with pytest.raises(ValueError, match=r"n_neighbors=11 and 10 .* Set a"):
        nearest(bank, bank, 11)
    with pytest.raises(ValueError, match=r"n_neighbors=7 and 6 .* Set a"):
        nearest(bank, bank, 7, query_groups=groups, bank_groups=groups)
    nearest(bank, bank, 6, query_groups=groups, bank_groups=groups)
    with pytest.raises(ValueError, match=r"n_neighbors=0"):
        nearest(bank, bank, 0)
    with pytest.raises(ValueError, match=r"\(10, 23\), a bank of \(10, 24\)\. Compute"):
        nearest(bank[:, 1:], bank)
    with pytest.raises(ValueError, match=r"\(0, 24\)\. Pass at least one"):
        nearest(bank, bank[:0])
    with pytest.raises(ValueError, match=r"10 groups of queries and None .* Pass both"):
        nearest(bank, bank, query_groups=groups)
    with pytest.raises(ValueError, match=r"contains NaN .* Check the training"):
        nearest(bank, torch.where(bank > 2, torch.nan, bank))


def test_exact_distances():
    queries, bank = torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0], [0.0, 1.0]])
    distances = exact_distances(queries, bank, torch.tensor([[1, 0, 0]]))
    assert distances.tolist() == [[1.0, 5.0, 5.0]]


def test_budget():
    assert bank_bytes(679_041, 64) == 679_041 * 64 * 4


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "collapsed"])
def test_approximate_search(kind, device):
    bank = features(kind, 2000, 0, 8).to(device)
    queries = features(kind, 100, 1, 8).to(device)
    groups = torch.arange(2000, device=device) // 20
    index = ApproximateIndex(bank, groups, random_state=0)
    distances, indices = index.nearest(queries, 3)
    expected, _ = nearest(queries, bank, 3)
    assert np.mean(np.isclose(distances, expected.cpu(), rtol=1e-7, atol=0)) > 0.95
    torch.testing.assert_close(
        distances, exact_distances(queries.cpu(), bank.cpu(), indices), rtol=0, atol=0
    )
    again, _ = ApproximateIndex(bank, groups, random_state=0).nearest(queries, 3)
    assert torch.equal(again, distances)

    # The own image of a query leaves enough candidates for most, and the rest is exact.
    distances, indices = index.nearest(bank[:100], 3, query_groups=groups[:100])
    assert (groups.cpu()[indices] != groups[:100, None].cpu()).all()
    assert distances.isfinite().all()
    with pytest.raises(ValueError, match=r"n_neighbors=2001"):
        index.nearest(queries, 2001)
