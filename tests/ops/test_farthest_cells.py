"""The search of the farthest cells against a search of all cells."""

import pytest
import torch

from skocc._ops import farthest_cells as module
from skocc._ops.farthest_cells import search_farthest
from skocc._ops.neighbors import PreparedBank, nearest
from tests.ops.test_neighbors import KINDS, features

N_IMAGES, N_CELLS, N_VECTORS = 5, 60, 4100


def full_search(queries, bank, n_neighbors=1, groups=None, bank_groups=None):
    """Return the distance (b, c) of each cell, and its nearest vector (b, c)."""
    own = None if groups is None else groups.repeat_interleave(queries.shape[1])
    distances, rows = nearest(
        queries.flatten(0, 1), bank, n_neighbors, query_groups=own, bank_groups=bank_groups
    )
    shape = queries.shape[:2]
    return distances.mean(dim=1).view(shape), rows[:, 0].view(shape)


def assert_same_maxima(found, expected):
    """Assert equal scores, worst cells and nearest vectors, to the last bit."""
    (distances, rows), (all_distances, all_rows) = found, expected
    maxima, worst = all_distances.max(dim=1)
    torch.testing.assert_close(
        distances.amax(dim=1), maxima, rtol=0, atol=0, equal_nan=True
    )
    assert torch.equal(distances.max(dim=1).indices, worst)
    at = torch.arange(len(worst)), worst
    assert torch.equal(rows[at], all_rows[at])
    is_searched = ~distances.isneginf()
    torch.testing.assert_close(
        distances[is_searched], all_distances[is_searched], rtol=0, atol=0, equal_nan=True
    )


def cells_and_bank(kind):
    queries = features(kind, N_IMAGES * N_CELLS, 1)
    return queries.view(N_IMAGES, N_CELLS, -1), features(kind, N_VECTORS, 0)


@pytest.fixture
def counts(monkeypatch):
    """Number of cells that are searched in all of the bank, one number a search."""
    found = []
    search = module._Cells.search

    def counting(self, cells):
        found.append(len(cells))
        return search(self, cells)

    monkeypatch.setattr(module._Cells, "search", counting)
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_neighbors", [1, 3])
@pytest.mark.parametrize("grouped", [False, True])
def test_maxima_are_those_of_a_full_search(kind, n_neighbors, grouped):
    queries, bank = cells_and_bank(kind)
    bank_groups = torch.arange(N_VECTORS) // 100
    # Images 0 and 3 are in the bank, and find their own vectors if groups do not count.
    groups = torch.tensor([0, -1, -1, 3, 40])
    queries[0], queries[3] = bank[:N_CELLS], bank[300 : 300 + N_CELLS]
    groups = (groups, bank_groups) if grouped else (None, None)
    found = search_farthest(
        queries, PreparedBank(bank, groups[1]), n_neighbors, query_groups=groups[0]
    )
    expected = full_search(queries, bank, n_neighbors, *groups)
    assert found[0].dtype == torch.float64
    if kind in ("duplicates", "constant"):  # any of several copies is the nearest
        found, expected = (found[0], found[1] * 0), (expected[0], expected[1] * 0)
    assert_same_maxima(found, expected)


def test_most_cells_are_not_searched(counts):
    queries, bank = cells_and_bank("plain")
    queries = queries * torch.linspace(0.5, 1.5, N_CELLS)[:, None]
    found = search_farthest(queries, PreparedBank(bank))
    assert_same_maxima(found, full_search(queries, bank))
    n_searched = int((~found[0].isneginf()).sum())
    assert sum(counts) == n_searched
    assert n_searched < 0.2 * N_IMAGES * N_CELLS


def test_equal_distances_are_all_searched(counts):
    """The first of several maxima is the worst cell, as in a search of all."""
    bank = torch.ones(N_VECTORS, 4)
    queries = torch.ones(3, 50, 4)
    queries[..., 1] = 2
    queries[1, ::5, 2] = 7
    queries[2, 20] = 1
    found = search_farthest(queries, PreparedBank(bank))
    assert_same_maxima(found, full_search(queries, bank))
    assert (~found[0].isneginf()).sum(dim=1).tolist() == [50, 10, 49]
    assert sum(counts) == 109


def test_a_bound_a_hair_below_is_searched():
    """Cells whose distances differ by less than products can tell."""
    bank = features("plain", N_VECTORS, 0)
    queries = bank[:1].repeat(4, 64, 1)
    queries[..., 0] += 3
    for image in range(4):
        queries[image, 7 + image, 0] += 1e-6 * 2**image
    found = search_farthest(queries, PreparedBank(bank))
    assert_same_maxima(found, full_search(queries, bank))


def test_cells_that_are_not_finite_or_far_too_large():
    queries, bank = cells_and_bank("plain")
    queries[1, 3, 2], queries[1, 9, 0], queries[2, 4, 4] = torch.nan, torch.inf, -torch.inf
    queries[3, 5], queries[4, 6] = 1e30, 1e3
    found = search_farthest(queries, PreparedBank(bank))
    assert found[0].amax(dim=1).isnan().tolist() == [False, True, True, False, False]
    assert_same_maxima(found, full_search(queries, bank))


def test_a_small_bank_has_no_parts(counts):
    queries, bank = features("plain", 60, 1).view(2, 30, -1), features("plain", 159, 0)
    found = search_farthest(queries, PreparedBank(bank))
    assert sum(counts) == 60
    assert torch.equal(found[0], full_search(queries, bank)[0])


def test_products_of_reduced_precision_bound_nothing(counts):
    queries, bank = cells_and_bank("plain")
    precision = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        found = search_farthest(queries, PreparedBank(bank))
    finally:
        torch.set_float32_matmul_precision(precision)
    assert counts == [N_IMAGES * N_CELLS]
    assert_same_maxima(found, full_search(queries, bank))
    with torch.autocast("cpu", torch.bfloat16):
        found = search_farthest(queries, PreparedBank(bank))
    assert_same_maxima(found, full_search(queries, bank))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_neighbors", [1, 3])
def test_bounds_are_above_the_distances(kind, n_neighbors):
    queries, bank = cells_and_bank(kind)
    cells = module._Cells(queries, PreparedBank(bank), n_neighbors, None)
    searched = []
    cells.search = searched.append
    cells.bound_by_parts(module._PARTS[1:])
    expected = full_search(queries, bank, n_neighbors)[0].flatten()
    assert (cells.bounds >= expected).all()
    part = full_search(queries, bank[:: module._PARTS[1][0]], n_neighbors)[0].flatten()
    # A bound that is true but says nothing would send all cells to the search.
    if kind == "plain":
        assert (cells.bounds <= 1.01 * part).all()
