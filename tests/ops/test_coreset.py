import pytest
import torch

from skocc._ops import coreset
from skocc._ops.coreset import greedy_coreset, random_subset
from tests.ops.test_neighbors import KINDS, brute_force, features


def covering_radius(vectors, chosen):
    return brute_force(vectors, vectors[chosen], 1).max()


def brute_force_greedy(vectors, size, first):
    chosen = [first]
    distances = torch.cdist(vectors.double(), vectors.double())
    while len(chosen) < size:
        chosen.append(int(distances[chosen].amin(dim=0).argmax()))
    return chosen


@pytest.mark.parametrize("kind", ["plain", "collapsed", "one far cluster"])
def test_greedy_coreset(kind, device):
    vectors = features(kind, 300, 0).to(device)
    generator = torch.Generator().manual_seed(3)
    chosen = greedy_coreset(vectors, 30, generator)
    assert chosen.device == vectors.device
    first = int(torch.randint(300, (), generator=torch.Generator().manual_seed(3)))
    # The seed is in it, and each further vector is the farthest from those before it.
    assert chosen.tolist() == brute_force_greedy(vectors.cpu(), 30, first)


def every_step(vectors, size, first):
    """Compare all vectors with each that is chosen, in the precision of the vectors."""
    chosen, distances = [first], torch.full((len(vectors),), torch.inf)
    while len(chosen) < size:
        newest = vectors[chosen[-1:]]
        added = torch.cdist(vectors, newest, compute_mode="donot_use_mm_for_euclid_dist")
        distances = torch.minimum(distances, added[:, 0])
        distances[chosen] = -1
        chosen.append(int(distances.argmax()))
    return chosen


def many_features(kind, seed, n=2000):
    if kind == "clusters":
        generator = torch.Generator().manual_seed(seed)
        centers = 10 * torch.randn(40, 24, generator=generator)
        sizes = torch.rand(40, 1, generator=generator)
        of = torch.randint(40, (n,), generator=generator)
        return centers[of] + sizes[of] * torch.randn(n, 24, generator=generator)
    if kind == "equal distances":
        return features("plain", n, seed).round()
    return features(kind, n, seed)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", [*KINDS, "clusters", "equal distances"])
def test_greedy_coreset_is_that_of_a_comparison_after_each_step(kind, seed):
    vectors = many_features(kind, seed)
    chosen = greedy_coreset(vectors, 400, torch.Generator().manual_seed(seed))
    first = int(torch.randint(2000, (), generator=torch.Generator().manual_seed(seed)))
    assert chosen.tolist() == every_step(vectors, 400, first)


@pytest.mark.parametrize("seed", range(2))
def test_greedy_coreset_is_that_of_a_comparison_of_projections(seed):
    vectors = torch.tanh(features("plain", 2000, seed, 6) @ features("plain", 6, 9, 200))
    generator = torch.Generator().manual_seed(seed)
    first = int(torch.randint(2000, (), generator=generator))
    projected = coreset._project(vectors, 16, generator)
    chosen = greedy_coreset(vectors, 400, torch.Generator().manual_seed(seed), 16)
    assert chosen.tolist() == every_step(projected, 400, first)


def test_first_vectors_are_those_of_a_smaller_coreset():
    vectors = many_features("clusters", 0)
    sizes = (1, 2, 123, 2000)
    chosen = [greedy_coreset(vectors, n, torch.Generator().manual_seed(0)) for n in sizes]
    for some in chosen:
        assert torch.equal(some, chosen[-1][: len(some)])
    assert sorted(chosen[-1].tolist()) == list(range(2000))


@pytest.mark.parametrize("kind", ["plain", "collapsed", "clusters"])
def test_greedy_coreset_compares_few_vectors_by_differences(kind, monkeypatch):
    """What makes it fast, and no table of distances grows with the vectors."""
    sizes, compare = [], coreset._distances

    def recording(left, right):
        distances = compare(left, right)
        sizes.append(distances.numel())
        return distances

    monkeypatch.setattr(coreset, "_distances", recording)
    vectors = many_features(kind, 0, n=20_000)
    greedy_coreset(vectors, 2000, torch.Generator().manual_seed(0))
    # Measured: 3 to 5 %, nearly all of them among the candidates.
    assert sum(sizes) < 0.1 * 20_000 * 2000
    assert max(sizes) <= coreset._BLOCK_NUMBERS


@pytest.mark.parametrize("setting", ["bfloat16 products", "autocast"])
def test_greedy_coreset_does_not_depend_on_settings(setting):
    vectors = many_features("clusters", 0)
    expected = greedy_coreset(vectors, 300, torch.Generator().manual_seed(0))
    precision = torch.get_float32_matmul_precision()
    try:
        if setting == "bfloat16 products":
            torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", enabled=setting == "autocast"):
            found = greedy_coreset(vectors, 300, torch.Generator().manual_seed(0))
    finally:
        torch.set_float32_matmul_precision(precision)
    assert torch.equal(found, expected)


def test_greedy_coreset_after_projection():
    vectors = features("collapsed", 300, 0, n_features=500)
    # Clusters, so that a subset at random would cover badly.
    vectors += 1e-2 * (torch.arange(300).float().pow(2)[:, None] % 17)
    chosen = greedy_coreset(vectors, 30, torch.Generator().manual_seed(0), n_projections=64)
    greedy = brute_force_greedy(vectors, 30, int(chosen[0]))
    assert covering_radius(vectors, chosen) <= 2 * covering_radius(vectors, greedy)
    assert len(chosen.unique()) == 30


def test_coreset_of_copies_and_of_all():
    """More vectors than there are different ones, and all there are."""
    vectors = features("duplicates", 40, 0)
    chosen = greedy_coreset(vectors, 40, torch.Generator().manual_seed(0))
    assert sorted(chosen.tolist()) == list(range(40))
    assert len(vectors[chosen[:5]].unique(dim=0)) == 5


@pytest.mark.parametrize(
    "choose",
    [
        lambda generator: random_subset(200, 20, generator),
        lambda generator: greedy_coreset(features("plain", 200, 0, 150), 20, generator),
    ],
    ids=["random", "greedy"],
)
def test_subset_is_that_of_the_generator(choose):
    generators = [torch.Generator().manual_seed(seed) for seed in (0, 0, 1)]
    first, again, other = map(choose, generators)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len(first.unique()) == 20
    assert 0 <= first.min() <= first.max() < 200


def test_subset_of_the_wrong_size():
    generator = torch.Generator().manual_seed(0)
    with pytest.raises(ValueError, match=r"size=11 of 10 vectors\. Choose"):
        random_subset(10, 11, generator)
    with pytest.raises(ValueError, match=r"size=0 of 10 vectors\. Choose"):
        greedy_coreset(torch.zeros(10, 2), 0, generator)
