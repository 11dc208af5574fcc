import pytest
import torch

from skocc._ops.coreset import greedy_coreset, random_subset
from tests.ops.test_neighbors import brute_force, features


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
