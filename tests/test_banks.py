import pytest
import torch

from skocc import banks as module
from skocc.banks import build_banks, image_digests, kept_under_budget

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

    def spy(features, size, generator):
        pools.append(len(features))
        return greedy(features, size, generator)

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
    with pytest.raises(ValueError, match=r"hold a vector each.*511 bytes.*at least 512"):
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
