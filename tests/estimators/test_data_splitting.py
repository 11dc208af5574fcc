import numpy as np
import pytest
import torch
from torch import nn

from skocc._ops.scores import structural_similarity
from skocc.estimators._data_splitting import (
    SplitNetworks,
    balanced_indices,
    kinds_of_batches,
    logits_and_sums,
    losses_of_kinds,
    pair_distances,
    reconstruction_similarities,
    split_typical,
    spread_from_sums,
    weight_groups,
)

SMALL = (4, 6, 8, 6, 6)


@pytest.mark.parametrize(
    ("n", "fraction", "n_atypical"),
    [(100, 0.07, 7), (101, 0.1, 11), (6000, 0.1, 600), (30, 0.01, 2), (7, 0.5, 4)],
)
def test_number_of_atypical_images(n, fraction, n_atypical):
    similarities = np.random.default_rng(0).random(n)
    typical = split_typical(similarities, fraction)
    assert (~typical).sum() == n_atypical
    assert similarities[~typical].max() <= similarities[typical].min()


def test_ties_are_split_by_index():
    similarities = np.array([0.5, 0.2, 0.5, 0.5, 0.5])
    np.testing.assert_array_equal(
        split_typical(similarities, 0.5), [False, False, False, True, True]
    )


def test_balanced_indices_repeat_atypical_samples():
    typical = np.array([True, False, True, True, False, True, True])
    indices = balanced_indices(typical)
    assert indices.tolist() == [0, 2, 3, 5, 6, 1, 4, 1, 4, 1]


@pytest.mark.parametrize(
    ("shape", "metric", "is_ssim"),
    [
        ((3, 1, 11, 12), "auto", True),
        ((3, 1, 11, 12), "ssim", True),
        ((3, 1, 11, 12), "mse", False),
        ((3, 2, 10, 12), "auto", False),
        ((3, 40), "auto", False),
    ],
)
def test_similarity_to_reconstructions(shape, metric, is_ssim):
    torch.manual_seed(0)
    first, second = torch.rand(shape), torch.rand(shape)
    expected = -((first - second) ** 2).reshape(3, -1).mean(dim=1)
    if is_ssim:
        expected = structural_similarity(first, second)
    found = reconstruction_similarities(first, second, metric)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("shape", "latent_dim", "size"),
    [
        ((28, 28, 1), None, 2),
        ((28, 28, 1), 7, 7),
        ((28, 28, 1), True, 1),
        ((28, 28, 1), "map", 4),
        ((32, 32, 3), None, 32),
        ((32, 32, 3), "map", 8),
        ((64, 64, 3), "map", 128),
        ((10,), None, 2),
        ((3,), None, 1),
        ((900,), None, 32),
    ],
)
def test_size_of_the_code(shape, latent_dim, size):
    assert SplitNetworks(shape, latent_dim=latent_dim).code_size() == size


@pytest.mark.parametrize(("latent_dim", "code"), [(5, (2, 5, 1, 1)), ("map", (2, 5, 2, 3))])
def test_codes_are_vectors_or_maps(latent_dim, code):
    networks = SplitNetworks((16, 24, 3), channels=SMALL, latent_dim=latent_dim)
    autoencoder = networks.autoencoder(5).eval()
    batch = torch.rand(2, 3, 16, 24)
    assert autoencoder.encoder(batch).shape == code
    assert autoencoder(batch).shape == batch.shape


@pytest.mark.parametrize(
    ("shape", "params", "n_features", "n_norms"),
    [
        ((16, 12, 1), {}, 12, 5),
        ((16, 12, 1), {"batch_norm": "none"}, 12, 0),
        ((16, 12, 3), {}, 12, 0),
        ((16, 12, 3), {"batch_norm": "train", "embedding_dim": 9}, 9, 5),
        ((7,), {"channels": (4, 3)}, 32, 0),
        ((7,), {"channels": (4, 3), "embedding_dim": 5}, 5, 0),
        ((9, 9, 1), {"backbone": nn.Sequential(nn.Conv2d(3, 4, 9), nn.Flatten())}, 4, 0),
    ],
)
def test_extractors(shape, params, n_features, n_norms):
    networks = SplitNetworks(shape, **{"channels": SMALL, **params})
    extractor, found = networks.extractor(weights=None)
    in_shape = shape if len(shape) == 1 else (shape[2], *shape[:2])
    assert found == n_features
    assert extractor.eval()(torch.rand(2, *in_shape)).shape == (2, n_features)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in extractor.modules()) == n_norms


def test_distance_comes_and_goes_with_the_objective():
    networks = SplitNetworks((7,), channels=(3,), difference="abs")
    network = networks.with_distance(networks.classifier(weights=None))
    assert network["distance"].difference == "abs"
    again = SplitNetworks((7,), difference="signed").with_distance(network)
    assert again["distance"].difference == "signed"
    assert again is network
    assert sorted(SplitNetworks((7,)).with_distance(network)) == ["classifier", "extractor"]


class FirstValues(nn.Module):
    """A distance that says which samples are paired."""

    def forward(self, first, second):
        return torch.stack([first[:, 0], second[:, 0]])


@pytest.mark.parametrize("n", [2, 3, 9])
def test_each_sample_has_another_as_its_partner(n):
    network = {"extractor": nn.Identity(), "distance": FirstValues()}
    batch = torch.arange(float(n))[:, None]
    generator = torch.Generator().manual_seed(0)
    first, second = pair_distances(network, batch, generator)
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(n))
    assert (first != second).all()
    if n == 9:
        again = pair_distances(network, batch, generator)
        assert not torch.equal(again, torch.stack([first, second]))


class Numbers:
    """An image source of six samples, which are their indices."""

    shape, dtype, n_ahead = (6, 1), np.dtype(float), 0

    def __len__(self):
        return 6

    def load(self, indices):
        return np.arange(6)[indices]


@pytest.mark.parametrize(
    ("constrained", "balanced", "expected"),
    [
        (False, False, [[0, 1, 2, 3, 4, 5]]),
        (False, True, [[0, 1, 3, 5, 2, 4, 2, 4]]),
        (True, False, [[0, 1, 3, 5], [0, 1, 2, 3, 4, 5], [2, 4]]),
    ],
)
def test_kinds_of_batches_and_their_losses(constrained, balanced, expected):
    typical = np.array([True, True, False, True, False, True])

    def batches_of(source, targets=None):
        rows = source.load(np.arange(len(source)))
        if targets is not None:
            np.testing.assert_array_equal(targets.numpy(), ~typical[rows])
        return rows.tolist(), targets is not None

    kinds = kinds_of_batches(Numbers(), typical, batches_of, constrained, balanced)
    assert [rows for rows, _ in kinds] == expected
    # Only the mixed batches say which samples are atypical.
    assert [has_targets for _, has_targets in kinds] == [
        rows in expected[len(expected) // 2 :][:1] for rows in expected
    ]
    assert len(losses_of_kinds(None, None, constrained)) == len(expected)


def test_all_typical_samples_cannot_be_balanced():
    """As for ``objective="naive"``."""
    typical = np.ones(6, dtype=bool)
    (kind,) = kinds_of_batches(Numbers(), typical, lambda s, targets: s, False, True)
    assert len(kind) == 6


def test_spread_of_features_by_hand():
    network = {"extractor": nn.Identity(), "classifier": nn.Linear(4, 1)}
    features = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    parts = [logits_and_sums(network, part) for part in features.split(8)]
    logits, *sums = (torch.cat(part).detach().numpy() for part in zip(*parts, strict=True))
    np.testing.assert_allclose(logits, network["classifier"](features).detach()[:, 0])
    values = features.double().numpy()
    expected = values.std(axis=0).mean() / np.abs(values).mean()
    assert spread_from_sums(sums, 20) == pytest.approx(expected, rel=1e-5)


def test_weights_of_convolutions_come_first():
    layers = [nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(4, 1)]
    first, others = weight_groups(nn.Sequential(*layers))
    assert [p.shape for p in first["params"]] == [(2, 1, 3, 3)]
    assert len(others["params"]) == 5
    assert "weight_decay" not in first
    assert others["weight_decay"] == 0
