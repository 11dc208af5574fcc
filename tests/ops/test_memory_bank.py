import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from skocc._ops import memory_bank as module
from skocc._ops.memory_bank import MemoryBank, build_banks, image_digests, kept_under_budget
from skocc._ops.neighbors import PreparedBank, nearest
from skocc._ops.refined_search import Cells, search_farthest

N_FEATURES = 3


def stream(n_small=60, n_big=12, n_blocks=4):
    """Two streams of vectors whose first entry is their place; blocks side by side."""
    small = torch.rand(n_small, N_FEATURES, generator=torch.Generator().manual_seed(0))
    big = torch.rand(n_big, N_FEATURES, generator=torch.Generator().manual_seed(1))
    small[:, 0], big[:, 0] = torch.arange(n_small), torch.arange(n_big)
    blocks = zip(small.chunk(n_blocks), big.chunk(n_blocks), strict=True)
    return (small, big), blocks


def build(subsampling, n_kept=(20, 5), seed=0):
    streams, blocks = stream()
    generator = torch.Generator().manual_seed(seed)
    return streams, build_banks(
        blocks,
        [60, 12],
        n_kept,
        N_FEATURES,
        subsampling=subsampling,
        generator=generator,
    )


@pytest.mark.parametrize("subsampling", ["random", "coreset"])
def test_rows_are_those_of_the_stream(subsampling):
    streams, banks = build(subsampling)
    for vectors, bank, n_kept in zip(streams, banks, (20, 5), strict=True):
        assert len(bank.rows.unique()) == len(bank.rows) == n_kept
        torch.testing.assert_close(bank.vectors, vectors[bank.rows])
    _, others = build(subsampling, seed=1)
    assert set(others[0].rows.tolist()) != set(banks[0].rows.tolist())


@pytest.mark.parametrize("subsampling", ["random", "coreset"])
def test_everything_fits(subsampling):
    streams, banks = build(subsampling, (60, 12))
    for vectors, bank in zip(streams, banks, strict=True):
        assert torch.equal(bank.vectors, vectors)
        assert torch.equal(bank.rows, torch.arange(len(vectors)))


def test_coreset_covers_better():
    def radius(subsampling):
        (vectors, _), (bank, _) = build(subsampling)
        return torch.cdist(vectors, bank.vectors).amin(dim=1).max()

    assert radius("coreset") < radius("random")


def test_coreset_of_a_pool(monkeypatch):
    # Room for 10 vectors beyond each bank: the coreset is one of 30 and of 12.
    monkeypatch.setattr(module, "_POOL_BYTES", 2 * 10 * 4 * N_FEATURES)
    pools = []
    greedy = module.greedy_coreset

    def spy(features, size, generator, **options):
        pools.append(len(features))
        return greedy(features, size, generator, **options)

    monkeypatch.setattr(module, "greedy_coreset", spy)
    streams, banks = build("coreset")
    assert pools == [30, 12]
    torch.testing.assert_close(banks[0].vectors, streams[0][banks[0].rows])


def test_stream_of_another_length_is_noticed():
    _, blocks = stream()
    with pytest.raises(RuntimeError, match=r"held \[60, 12\] vectors, not \[61, 12\]"):
        build_banks(
            blocks,
            [61, 12],
            [20, 5],
            N_FEATURES,
            subsampling="random",
            generator=torch.Generator(),
        )


def test_budget_is_shared_in_proportion():
    assert kept_under_budget([1000, 50], 64, None) == [1000, 50]
    assert kept_under_budget([1000, 50], 64, 1050 * 256) == [1000, 50]
    for budget in (2 * 256, 100 * 256, 105_001, 1049 * 256):
        kept = kept_under_budget([1000, 50], 64, budget)
        assert min(kept) >= 1
        assert sum(kept) * 256 <= budget
        assert budget - sum(kept) * 256 < 3 * 256
        assert kept[0] / kept[1] == pytest.approx(20, rel=0.3) or kept[1] < 4
    with pytest.raises(ValueError, match=r"at least one vector.*511 bytes.*at least 512"):
        kept_under_budget([1000, 50], 64, 511)


def test_digests_tell_images_apart():
    images = torch.randint(0, 256, (5, 1, 8, 8)) / 255
    digests = image_digests(images)
    assert len(set(digests)) == 5
    assert all(len(digest) == 16 for digest in digests)
    # Whatever the layout in memory, the sign of zero and the company.
    images[2][images[2] == 0] = -0.0
    assert image_digests(images[2:3].transpose(2, 3).contiguous().mT) == [digests[2]]
    images[0, 0, 3, 3] += 1 / 255
    assert image_digests(images)[0] != digests[0]


def test_digests_of_images_of_a_small_range_differ():
    images = 1e-6 * torch.rand(12, 1, 8, 8)
    assert len(set(image_digests(images))) == 12


@pytest.fixture
def bank():
    """Six vectors of three images, of which the third is a copy of the first."""
    images = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 1, 4, 4).clone()
    images[2] = images[0]
    vectors = np.array([[0], [1], [10], [11], [20], [21]], np.float32)
    digests = np.frombuffer(b"".join(image_digests(images)), np.uint8).reshape(3, 16)
    return MemoryBank(vectors, np.repeat(np.arange(3, dtype=np.int32), 2), digests), images


@pytest.mark.parametrize("search", ["exact", "approximate"])
def test_an_image_of_the_bank_is_compared_with_the_others(bank, search, monkeypatch):
    bank, images = bank
    assert bank.numbers_of(images).tolist() == [0, 1, 0]
    new = images + 5
    assert bank.numbers_of(new).tolist() == [-1, -1, -1]
    queries = torch.tensor([[1.0], [10.0], [9.0]])
    if search == "approximate":
        monkeypatch.setattr(module, "ApproximateIndex", ExactIndex)
    found = bank.on(torch.device("cpu"), search)
    distances, rows = found.nearest(queries, bank.numbers_of(images), 1)
    assert rows[:, 0].tolist() == [2, 1, 2]
    assert distances[:, 0].tolist() == [9, 9, 1]
    # Also the first one alone, whose number is 0.
    distances, rows = found.nearest(queries[:1], bank.numbers_of(images[:1]), 1)
    assert (distances.item(), rows.item()) == (9, 2)
    distances, rows = found.nearest(queries, bank.numbers_of(new), 2)
    assert rows.tolist() == [[1, 0], [2, 3], [2, 3]]
    assert bank.n_others() == 4


@pytest.mark.parametrize("search", ["exact", "approximate"])
def test_cells_of_images_of_the_bank(bank, search, monkeypatch):
    """Two cells an image; the farthest alone has the same distance and neighbor."""
    bank, images = bank
    monkeypatch.setattr(module, "ApproximateIndex", ExactIndex)
    found = bank.on(torch.device("cpu"), search)
    queries = torch.tensor([[[1.0], [2.0]], [[10.0], [14.0]], [[9.0], [8.0]]])
    for search_cells in (Cells.search_all, search_farthest):
        cells = found.cells(queries, bank.numbers_of(images), 2)
        search_cells(cells)
        distances, rows = cells.distances, cells.indices
        worst = distances.argmax(dim=1)
        # Images 0 and 2 are copies, and both leave out the vectors of the first.
        assert worst.tolist() == [0, 0, 1]
        assert distances.amax(dim=1).tolist() == [9.5, 9.5, 2.5]
        assert rows[torch.arange(3), worst].tolist() == [2, 1, 2]


class ExactIndex:
    """Stands in for the graph of neighbors, and counts how often it is made."""

    n_made = 0

    def __init__(self, vectors, images, waiting):
        type(self).n_made += 1
        self.vectors, self.images = vectors, images

    def nearest(self, queries, n_neighbors, query_groups=None):
        groups = None if query_groups is None else self.images
        return nearest(
            queries,
            self.vectors,
            n_neighbors,
            query_groups=query_groups,
            bank_groups=groups,
        )


class CountedBank(PreparedBank):
    n_made = 0

    def __init__(self, *args):
        type(self).n_made += 1
        super().__init__(*args)


@pytest.mark.parametrize("search", ["exact", "approximate"])
def test_what_is_searched_is_made_once_and_never_pickled(bank, search, monkeypatch):
    bank, _ = bank
    made = CountedBank if search == "exact" else ExactIndex
    monkeypatch.setattr(module, "ApproximateIndex", ExactIndex)
    monkeypatch.setattr(module, "PreparedBank", CountedBank)
    monkeypatch.setattr(made, "n_made", 0)
    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(lambda _: bank.on(torch.device("cpu"), search), range(8)):
            pass
    assert made.n_made == 1
    again = pickle.loads(pickle.dumps(bank))
    for name in ("vectors", "images", "digests"):
        np.testing.assert_array_equal(getattr(again, name), getattr(bank, name))
    again.on(torch.device("cpu"), search)
    assert made.n_made == 2


def test_spread_is_relative_to_the_size_of_the_features(bank):
    bank, _ = bank
    expected = bank.vectors.std(axis=0).mean() / np.abs(bank.vectors).mean()
    assert bank.spread() == pytest.approx(expected)
    constant = MemoryBank(np.ones_like(bank.vectors), bank.images, bank.digests)
    assert constant.spread() == 0


def grow(n_parts, n_kept, subsampling="random", seed=0, fraction=1.0, n_each=40):
    """Return the places of the vectors in a bank that grew with parts of a stream."""
    banks, generator = [], torch.Generator().manual_seed(seed)
    for part in range(n_parts):
        places = torch.arange(part * n_each, (part + 1) * n_each).float()
        blocks = [[rows[:, None]] for rows in places.chunk(2)]
        digests = [bytes([part, half] * 8) for half in range(2)]
        options = {"subsampling": subsampling, "generator": generator}
        size = n_kept((part + 1) * n_each)
        if banks:
            banks = MemoryBank.grown(
                banks, [part * n_each], blocks, digests, [n_each], [size],
                fraction=fraction, **options,
            )  # fmt: skip
        else:
            size = min(size, n_each)
            banks = MemoryBank.of_streams(blocks, digests, [n_each], [size], 1, **options)
    (bank,) = banks
    assert len(bank) == min(size, n_parts * n_each)
    assert bank.digests[:, 0].tolist() == [p for p in range(n_parts) for _ in range(2)]
    np.testing.assert_array_equal(bank.images, bank.vectors[:, 0] // (n_each / 2))
    assert bank.images.dtype == np.int32
    places = bank.vectors[:, 0].astype(int)
    assert len(set(places)) == len(places)
    return places


# The limit is reached in the first part, at its end, in a later one, and never.
@pytest.mark.parametrize("limit", [10, 40, 100, 10**6])
def test_a_random_bank_under_a_limit_is_a_random_subset_of_all(limit):
    places = [grow(5, lambda n: min(limit, n), seed=seed) for seed in range(400)]
    size = len(places[0])
    assert size == min(limit, 200)
    # How often each part, and each place within a part, is in the bank.
    for groups in (np.concatenate(places) // 40, np.concatenate(places) % 40):
        counts = np.bincount(groups) / 400
        share = 1 / len(counts)
        # Of a hypergeometric number; five of its standard errors.
        variance = size * share * (1 - share) * (200 - size) / 199
        assert np.abs(counts - size * share).max() <= 5 * np.sqrt(variance / 400) + 1e-9
    # The number from the last part varies as that in a random subset of all does.
    n_last = np.array([np.sum(p >= 160) for p in places])
    variance = size * 0.2 * 0.8 * (200 - size) / 199
    assert n_last.var() == pytest.approx(variance, rel=5 * np.sqrt(2 / 400), abs=1e-9)


@pytest.mark.parametrize("fraction", [0.1, 0.26])
def test_a_fraction_takes_the_same_part_of_each_call(fraction):
    def n_kept(n):
        return max(1, round(fraction * n))

    places = [grow(5, n_kept, fraction=fraction, seed=seed) for seed in range(200)]
    counts = np.bincount(np.concatenate(places) // 40, minlength=5) / 200
    assert counts.sum() == pytest.approx(n_kept(200))
    assert np.abs(counts - fraction * 40).max() <= 1  # by rounding
    within = np.bincount(np.concatenate(places) % 40, minlength=40) / 200
    share = n_kept(200) / 40
    assert np.abs(within - share).max() < 5 * np.sqrt(share / 200)


def test_of_very_many_vectors_the_new_ones_may_have_no_place():
    """More than NumPy has hypergeometric numbers for, and few of them."""
    bank = MemoryBank(
        np.arange(30, dtype=np.float32)[:, None],
        np.arange(30, dtype=np.int32) % 3,
        np.zeros((3, 16), np.uint8),
    )

    def grown(n_before, n_new, n_kept):
        (found,) = MemoryBank.grown(
            [bank], [n_before], [[torch.full((n_new, 1), 99.0)]], [bytes(16)], [n_new],
            [n_kept], fraction=1.0, subsampling="random",
            generator=torch.Generator().manual_seed(0),
        )  # fmt: skip
        assert len(found.digests) == 4
        return found

    for n_before in (10**8, 10**12):
        assert sorted(grown(n_before, 5, 30).vectors[:, 0]) == [*range(30)]
    # And all may be new.
    found = grown(30, 10**4, 3)
    assert found.vectors[:, 0].tolist() == [99, 99, 99]
    assert found.images.tolist() == [3, 3, 3]


@pytest.mark.parametrize("is_grouped", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("n_kept", [18, 9])
def test_groups_of_banks_that_grow(is_grouped, n_kept):
    """Images of one group are not compared with each other, in whichever call they came."""
    vectors = torch.arange(9.0)[:, None]
    options = {"subsampling": "random", "generator": torch.Generator().manual_seed(0)}
    groups = [np.array([0, 0, 1]) if grouped else None for grouped in is_grouped]
    digests = [[bytes([10 * part + i] * 16) for i in range(3)] for part in range(2)]
    banks = MemoryBank.of_streams(
        [[vectors]], digests[0], [9], [9], 1, groups=groups[0], **options
    )
    (bank,) = MemoryBank.grown(
        banks, [9], [[vectors + 100]], digests[1], [9], [n_kept],
        fraction=1.0, groups=groups[1], **options,
    )  # fmt: skip
    assert len(bank) == n_kept
    expected = []
    for part, grouped in enumerate(is_grouped):
        expected += [3 * part + i for i in ([0, 0, 1] if grouped else range(3))]
    assert bank.groups.tolist() == expected
    numbers = bank.numbers_of_digests([d for part in digests for d in part])
    assert numbers.tolist() == expected
    others = np.bincount(np.array(expected)[bank.images])
    assert bank.n_others() == n_kept - others.max()
    copied = pickle.loads(pickle.dumps(bank))
    assert copied.groups.tolist() == expected


def test_a_coreset_that_grew_covers_all_within_the_sum_of_its_steps():
    streams = torch.rand(5, 60, 4, generator=torch.Generator().manual_seed(0))
    streams += 3 * torch.arange(5)[:, None, None]  # the later, the farther
    banks, radii, generator = [], [], torch.Generator().manual_seed(0)
    options = {"subsampling": "coreset", "generator": generator}
    for part, vectors in enumerate(streams):
        common = [[[vectors]], [bytes([part] * 16)], [60], [30]]
        before = vectors
        if banks:
            before = torch.cat([torch.from_numpy(banks[0].vectors), vectors])
            banks = MemoryBank.grown(banks, [60 * part], *common, fraction=1.0, **options)
        else:
            banks = MemoryBank.of_streams(*common, 4, **options)
        kept = torch.from_numpy(banks[0].vectors)
        assert len(kept) == 30
        radii.append(torch.cdist(before, kept).amin(dim=1).max().item())
        radius = torch.cdist(streams[: part + 1].flatten(0, 1), kept).amin(dim=1).max()
        assert radius.item() <= sum(radii) + 1e-6
    assert set(banks[0].images) == {*range(5)}
