"""Searches of the farthest cells and the highest pixels, against a search of all cells."""

import pytest
import torch

from skocc._ops import refined_search as module
from skocc._ops.maps import cell_scores_to_map, changed_pixels, covering_weights
from skocc._ops.neighbors import PreparedBank, nearest
from skocc._samples.windows import window_starts
from tests.ops.test_neighbors import KINDS, features

N_IMAGES, N_CELLS, N_VECTORS = 5, 60, 4100


def search_farthest(queries, bank, n_neighbors=1, *, query_groups=None):
    """Return what a search of the farthest cells finds: distances and indices (b, c)."""
    cells = module.Cells(queries, bank, n_neighbors, query_groups=query_groups)
    module.search_farthest(cells)
    return cells.distances, cells.indices


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
    search = module.Cells.search

    def counting(self, chosen):
        found.append(int(chosen.sum()))
        return search(self, chosen)

    monkeypatch.setattr(module.Cells, "search", counting)
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


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_top", [2, 7, N_CELLS, N_CELLS + 1])
def test_the_highest_of_an_image_are_those_of_a_full_search(kind, n_top):
    queries, bank = cells_and_bank(kind)
    queries[1, 3, 2] = torch.nan
    cells = module.Cells(queries, PreparedBank(bank))
    module.search_farthest(cells, n_top)
    expected = full_search(queries, bank)
    assert_same_maxima((cells.distances, cells.indices * 0), (expected[0], expected[1] * 0))
    n = min(n_top, N_CELLS)
    torch.testing.assert_close(
        cells.distances.topk(n).values,
        expected[0].topk(n).values,
        rtol=0,
        atol=0,
        equal_nan=True,
    )


def test_few_cells_are_searched_for_the_highest():
    queries, bank = cells_and_bank("plain")
    queries = queries * torch.linspace(0.5, 1.5, N_CELLS)[:, None]
    cells = module.Cells(queries, PreparedBank(bank))
    module.search_farthest(cells, 5)
    assert 5 * N_IMAGES <= int((~cells.is_left()).sum()) < 0.4 * N_IMAGES * N_CELLS


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


def test_a_small_bank_has_no_clusters(counts):
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
    assert sum(counts) == counts[0] == N_IMAGES * N_CELLS
    assert_same_maxima(found, full_search(queries, bank))
    with torch.autocast("cpu", torch.bfloat16):
        found = search_farthest(queries, PreparedBank(bank))
    assert_same_maxima(found, full_search(queries, bank))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_neighbors", [1, 3])
def test_bounds_are_above_the_distances(kind, n_neighbors):
    queries, bank = cells_and_bank(kind)
    cells = module.Cells(queries, PreparedBank(bank), n_neighbors)
    expected, before = full_search(queries, bank, n_neighbors)[0], cells.bounds
    for level in range(cells.n_levels):
        cells.bound(torch.ones_like(cells.bounds, dtype=torch.bool), level)
        assert (cells.bounds >= expected).all()
        assert (cells.bounds <= before).all()
        before = cells.bounds.clone()
    # A bound that is true but says nothing would send all cells to the search.
    if kind == "plain":
        assert (cells.bounds <= 1.1 * expected).double().mean() > 0.9


def identity_scale(cells):
    """A map whose pixels are the cells."""
    return module.Scale(cells, torch.ones(1, 1), torch.eye(cells.shape[1]))


def highest_of_grids(queries, bank, smoothing, n_neighbors=1, groups=None):
    """Return maps by a refined search, and by a search of all, of grids of 6 x 10 cells."""
    changed = [changed_pixels(n, 8 * n, smoothing) for n in (6, 10)]

    def maps_of(distances):
        return cell_scores_to_map(distances.unflatten(1, (6, 10)), (48, 80), smoothing)

    cells = module.Cells(queries, bank, n_neighbors, query_groups=groups)
    found = module.search_highest([module.Scale(cells, *changed)], maps_of)
    every = module.Cells(queries, bank, n_neighbors, query_groups=groups)
    every.search_all()
    return found, maps_of(every.distances), cells


def assert_same_highest(found, expected):
    highest = expected.flatten(1).amax(dim=1)
    torch.testing.assert_close(
        found.flatten(1).amax(dim=1), highest, rtol=0, atol=0, equal_nan=True
    )
    assert (found >= expected)[highest.isfinite()].all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_neighbors", [1, 3])
@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("smoothing", [0, 4, 500])
def test_highest_pixels_are_those_of_a_full_search(kind, n_neighbors, grouped, smoothing):
    queries, bank = cells_and_bank(kind)
    queries[0], queries[3] = bank[:N_CELLS], bank[300 : 300 + N_CELLS]
    groups = torch.tensor([0, -1, -1, 3, 40]) if grouped else None
    index = PreparedBank(bank, torch.arange(N_VECTORS) // 100 if grouped else None)
    found, expected, _ = highest_of_grids(queries, index, smoothing, n_neighbors, groups)
    if kind in ("duplicates", "constant"):  # any of several copies is the nearest
        torch.testing.assert_close(found.amax(dim=(1, 2)), expected.amax(dim=(1, 2)))
    else:
        assert_same_highest(found, expected)


def test_few_cells_are_searched_for_the_highest_pixel():
    queries, bank = cells_and_bank("plain")
    queries = queries * torch.linspace(0.5, 1.5, N_CELLS)[:, None]
    found, expected, cells = highest_of_grids(queries, PreparedBank(bank), 0)
    assert_same_highest(found, expected)
    assert int((~cells.is_left()).sum()) < 0.5 * N_IMAGES * N_CELLS


def test_the_highest_pixel_after_the_farthest_cell():
    """What one search has found, the other does not search again."""
    queries, bank = cells_and_bank("plain")
    cells = module.Cells(queries, PreparedBank(bank))
    module.search_farthest(cells)
    searched = cells.distances.clone()
    maps = module.search_highest(
        [identity_scale(cells)], lambda distances: distances[:, None]
    )
    assert torch.equal(maps.amax(dim=(1, 2)), searched.amax(dim=1))
    assert torch.equal(cells.distances, searched)


def test_highest_of_cells_that_are_not_finite_or_far_too_large():
    queries, bank = cells_and_bank("plain")
    queries[1, 3, 2], queries[2, 4, 4] = torch.nan, -torch.inf
    queries[3, 5], queries[4, 6] = 1e30, 1e3
    found, expected, _ = highest_of_grids(queries, PreparedBank(bank), 0)
    assert found.amax(dim=(1, 2)).isnan().tolist() == [False, True, True, False, False]
    assert_same_highest(found, expected)


def test_a_group_that_fills_clusters_has_no_bound():
    """All vectors of the nearest clusters are those of the image itself."""
    queries, bank = cells_and_bank("plain")
    clusters = PreparedBank(bank).clusters
    groups = torch.ones(N_VECTORS, dtype=torch.int64)
    for cluster in clusters.nearest(queries[0, :1] - bank.median(dim=0).values, 16)[0]:
        groups[clusters.order[clusters.starts[cluster] : clusters.starts[cluster + 1]]] = 0
    index = PreparedBank(bank, groups)
    images = torch.zeros(N_IMAGES, dtype=torch.int64)
    found, expected, _ = highest_of_grids(queries, index, 0, groups=images)
    assert_same_highest(found, expected)


@pytest.mark.parametrize("sizes", [(4100, 900), (4100, 150), (150, 150)])
def test_two_scales_with_banks_of_their_own(sizes):
    """A product of two averages, with banks that have other clusters or none."""
    grids, banks = [(9, 7), (3, 2)], [features("plain", n, 5) for n in sizes]
    queries = [
        features("plain", 4 * a * b, i).view(4, a * b, -1) for i, (a, b) in enumerate(grids)
    ]
    weights = [
        [covering_weights(window_starts(n, side, stride), side, n) for n in (32, 24)]
        for side, stride in [(8, 3), (16, 8)]
    ]
    weights = [
        [r[:, : g[0]], c[:, : g[1]]] for (r, c), g in zip(weights, grids, strict=True)
    ]

    def maps_of(*distances):
        product = 1.0
        for (rows, columns), values, grid in zip(weights, distances, grids, strict=True):
            product = product * (rows @ values.numpy().reshape(-1, *grid) @ columns.T)
        return torch.from_numpy(product)

    scales, every = [], []
    for q, bank, pair in zip(queries, banks, weights, strict=True):
        cells = module.Cells(q, PreparedBank(bank))
        scales.append(module.Scale(cells, *(torch.from_numpy(w > 0).float() for w in pair)))
        every.append(module.Cells(q, PreparedBank(bank)))
        every[-1].search_all()
    found = module.search_highest(scales, maps_of)
    assert_same_highest(found, maps_of(*(cells.distances for cells in every)))
