import copy
import math

import joblib
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from sklearn.model_selection import GridSearchCV
from torch import nn
from torch.nn import functional

from skocc import ResNetKNN
from skocc._nets.backbones import FeatureMaps
from skocc._ops.memory_bank import MemoryBank
from skocc._ops.neighbors import PreparedBank
from skocc._ops.scores import reweighting
from tests.nets.test_layouts import FAMILIES, QUICK

N_CELLS = 10 * 9


@pytest.fixture(scope="module")
def images(smooth_images):
    return smooth_images


@pytest.fixture(scope="module")
def backbone():
    """Maps of 10 x 9 and, behind them, 5 x 5 cells."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 6, 5, stride=4, padding=2),
            nn.ReLU(),
            nn.Conv2d(6, 8, 3, stride=2, padding=1),
        )


@pytest.fixture(scope="module")
def make(backbone):
    def make_detector(**params):
        small = {"backbone": backbone, "layers": ("1", "2"), "image_size": None}
        return ResNetKNN(**(small | {"random_state": 0, "device": "cpu"} | params))

    return make_detector


@pytest.fixture(scope="module")
def fitted(make, images):
    return make().fit(images[:8])


def features(detector, images):
    """Features of all cells, one table for an image."""
    with torch.no_grad():
        maps = detector.network_(torch.from_numpy(images)[:, None])
    return maps.flatten(2).mT.double().numpy()


def distances_to(bank, vectors):
    return np.linalg.norm(vectors[:, None] - bank[None], axis=2)


def test_bank_holds_every_cell_in_order(fitted, images):
    assert fitted.grid_shape_ == (10, 9)
    assert fitted.bank_.vectors.shape == (8 * N_CELLS, 14)
    vectors = features(fitted, images[:8])
    np.testing.assert_allclose(fitted.bank_.vectors, np.concatenate(vectors), atol=1e-6)
    np.testing.assert_array_equal(fitted.bank_.images, np.repeat(np.arange(8), N_CELLS))


@pytest.mark.parametrize(("aggregation", "n_neighbors"), [("min", 1), ("mean", 3)])
def test_score_and_map_of_a_new_image(make, images, aggregation, n_neighbors):
    detector = make(neighbor_aggregation=aggregation, n_neighbors=n_neighbors)
    bank = np.concatenate(features(detector.fit(images[:8]), images[:8]))
    for image in images[8:10]:
        (vectors,) = features(detector, image[None])
        nearest = np.sort(distances_to(bank, vectors), axis=1)[:, :n_neighbors]
        cells = nearest.mean(axis=1)
        # The largest value of the map before it is brought to the size of the image.
        score = detector.score_samples(image[None])[0]
        assert score == pytest.approx(-cells.max(), rel=1e-5)
        expected = functional.interpolate(
            torch.from_numpy(cells).view(1, 1, 10, 9), (40, 36), mode="bilinear"
        )
        found = detector.anomaly_map(image[None])
        np.testing.assert_allclose(found[0], expected[0, 0], rtol=1e-4, atol=1e-6)


def test_training_images_are_scored_against_the_others(make, fitted, images):
    vectors = features(fitted, images[:8])
    others = np.concatenate(np.delete(vectors, 3, axis=0))
    expected = -distances_to(others, vectors[3]).min(axis=1).max()
    assert fitted.train_scores_[3] == pytest.approx(expected, rel=1e-5)
    scores = fitted.score_samples(np.concatenate([images[8:9], images[:8]]))
    np.testing.assert_allclose(scores[1:], fitted.train_scores_, rtol=1e-6)
    # Were it not recognized, it would find all its cells in the bank.
    stranger = make().fit(images[:8])
    bank = stranger.bank_
    stranger.bank_ = MemoryBank(bank.vectors, bank.images, np.zeros_like(bank.digests))
    np.testing.assert_allclose(stranger.score_samples(images[3:4]), 0, atol=1e-6)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"neighbor_aggregation": "mean", "n_neighbors": 3},
        {"reweighting": 3},
        {"n_top": 4},
        {"metric": "cosine", "pooling": None},
        {"metric": "cosine", "n_top": 3, "neighbor_aggregation": "mean", "n_neighbors": 2},
        {"score_normalization": "median"},
    ],
    ids=str,
)
def test_scores_search_few_cells_and_equal_those_of_a_full_search(
    make, images, params, monkeypatch
):
    detector = make(**params).fit(images[:8])
    searched = []
    search = PreparedBank.nearest

    def record(self, queries, *args, **options):
        searched.append(len(queries))
        return search(self, queries, *args, **options)

    monkeypatch.setattr(PreparedBank, "nearest", record)
    for X in (images, images[9:]):  # with training images, and without
        _, expected = detector.anomaly_map(X, return_scores=True)
        n_full = sum(searched)
        searched.clear()
        scores = detector.score_samples(X)
        np.testing.assert_array_equal(scores, expected)
        if "score_normalization" not in params:
            assert sum(searched) < 0.7 * n_full
        searched.clear()


def test_copies_of_a_training_image_are_normal(make, images):
    detector = make().fit(np.concatenate([images, images[:1]]))
    assert detector.train_scores_[0] == detector.train_scores_[-1] == 0
    assert detector.train_scores_[1] < 0


def test_more_images_in_the_bank_never_lower_a_score(make, fitted, images):
    more = make().fit(images[:10])
    assert (more.anomaly_map(images[10:]) <= fitted.anomaly_map(images[10:])).all()
    assert (more.score_samples(images[10:]) >= fitted.score_samples(images[10:])).all()


def test_mean_of_one_neighbor_is_the_minimum(make, fitted, images):
    mean = make(neighbor_aggregation="mean", n_neighbors=1).fit(images[:8])
    np.testing.assert_array_equal(mean.score_samples(images), fitted.score_samples(images))
    five = make(neighbor_aggregation="mean", n_neighbors=5).fit(images[:8])
    assert (five.score_samples(images) < fitted.score_samples(images)).all()


def test_scores_survive_a_rotation_of_the_features(backbone, make, images):
    turn = nn.Conv2d(8, 8, 1)
    turn.weight.data = torch.linalg.qr(torch.rand(8, 8))[0][:, :, None, None]
    turned = nn.Sequential(*backbone, turn)
    scores = [
        make(backbone=turned, layers=(layer,)).fit(images[:8]).score_samples(images)
        for layer in ("2", "3")
    ]
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-4)


def test_weights_of_patchcore():
    distances = torch.tensor([[2.0, 2.5, 3.0]])
    assert reweighting(distances, 1).item() == pytest.approx(0.81368, abs=1e-5)
    assert reweighting(distances, 4).item() == pytest.approx(0.74573, abs=1e-5)
    large = torch.tensor([[1e4, 1e4]])
    assert reweighting(large, 1).item() == pytest.approx(0.5)


def test_reweighting_by_hand(make, fitted, images):
    detector = make(reweighting=4).fit(images[:8])
    bank = np.concatenate(features(detector, images[:8]))
    for image in (images[8], images[3]):
        own = np.flatnonzero([np.array_equal(image, other) for other in images[:8]])
        allowed = bank[~np.isin(np.arange(len(bank)) // N_CELLS, own)]
        (vectors,) = features(detector, image[None])
        distances = distances_to(allowed, vectors)
        worst = distances.min(axis=1).argmax()
        neighbor = allowed[distances[worst].argmin()]
        around = allowed[np.argsort(distances_to(allowed, neighbor[None])[0])[:4]]
        logits = distances_to(around, vectors[worst : worst + 1])[0] / math.sqrt(14)
        weight = 1 - np.exp(logits[0]) / np.exp(logits).sum()
        score = detector.score_samples(image[None])[0]
        assert score == pytest.approx(-weight * distances[worst].min(), rel=1e-4)
    np.testing.assert_array_equal(
        detector.anomaly_map(images[8:]), fitted.anomaly_map(images[8:])
    )


def test_the_widest_smoothing_is_the_mean(make, images):
    detector = make().fit(images[:8])
    maps = detector.anomaly_map(images[:2])
    height, width = maps.shape[1:]
    # Of any width from twice the side on, in no time.
    for smoothing in [1e6, 1e300, 2 * max(height, width)]:
        flat = detector.set_params(smoothing=smoothing).anomaly_map(images[:2])
        means = maps.mean(axis=(1, 2), keepdims=True)
        np.testing.assert_allclose(flat, np.broadcast_to(means, maps.shape), rtol=1e-5)
    almost = detector.set_params(smoothing=1.99 * min(height, width)).anomaly_map(
        images[:2]
    )
    np.testing.assert_allclose(almost, flat, rtol=1e-3)
    expected = gaussian_filter(maps, (0, 3, 3))
    smooth = detector.set_params(smoothing=3).anomaly_map(images[:2])
    np.testing.assert_array_equal(smooth, expected)


def test_smoothing_changes_maps_and_not_scores(make, fitted, images):
    detector = make(smoothing=3).fit(images[:8])
    np.testing.assert_array_equal(detector.train_scores_, fitted.train_scores_)
    plain, smooth = (d.anomaly_map(images[8:10]) for d in (fitted, detector))
    np.testing.assert_allclose(smooth[1], gaussian_filter(plain[1], 3), rtol=1e-5)


@pytest.mark.parametrize("reweighting", [None, 3])
def test_scores_relative_to_the_image(make, fitted, images, reweighting):
    """The map is divided by its median, and the score with it; weights are as they were."""
    relative = make(score_normalization="median", reweighting=reweighting).fit(images[:8])
    plain = make(reweighting=reweighting).fit(images[:8])
    bank = np.concatenate(features(fitted, images[:8]))
    for image in images[8:10]:
        (vectors,) = features(fitted, image[None])
        cells = torch.from_numpy(distances_to(bank, vectors).min(axis=1))
        median = cells.median().item()
        score, expected = (
            detector.score_samples(image[None])[0] for detector in (relative, plain)
        )
        assert score == pytest.approx(expected / median, rel=1e-5)
        maps = relative.anomaly_map(image[None])
        np.testing.assert_allclose(
            maps, plain.anomaly_map(image[None]) / median, rtol=1e-5, atol=1e-6
        )
    assert not np.allclose(relative.train_scores_, plain.train_scores_)


@pytest.mark.parametrize("subsampling", ["random", "coreset"])
def test_bank_keeps_to_fraction_and_budget(make, fitted, images, subsampling):
    full = fitted.bank_bytes(8, (40, 36))
    assert full == fitted.bank_.vectors.nbytes
    vectors = {tuple(vector) for vector in fitted.bank_.vectors}
    for params, n_kept in [
        ({"bank_fraction": 0.25}, 180),
        ({"max_bank_bytes": full // 10}, 72),
        ({"bank_fraction": 0.05, "max_bank_bytes": full // 10}, 36),
    ]:
        detector = make(subsampling=subsampling, **params).fit(images[:8])
        assert detector.bank_.vectors.shape == (n_kept, 14)
        assert {tuple(vector) for vector in detector.bank_.vectors} <= vectors
        (own,) = features(detector, images[:1])
        for image, vector in zip(
            detector.bank_.images, detector.bank_.vectors, strict=True
        ):
            if image == 0:
                assert distances_to(own, vector[None]).min() < 1e-6
    with pytest.raises(ValueError, match="at least 56"):
        make(max_bank_bytes=50).fit(images)


def test_bank_bytes_of_the_default_network():
    detector = ResNetKNN()
    before = torch.get_rng_state()
    # 0.94 GiB for MVTec AD's bottle.
    assert detector.bank_bytes(209) == 209 * 784 * 1536 * 4
    assert detector.bank_bytes(1, (256, 320)) == 32 * 40 * 1536 * 4
    assert torch.equal(torch.get_rng_state(), before)


def test_pooling_interpolation_and_normalization(make, fitted, images):
    scores = fitted.score_samples(images)
    for params, n_features in [
        ({"pooling": "locally_aware", "embedding_dim": 20}, 20),
        ({"interpolation": "bilinear"}, 14),
        ({"normalization": "imagenet"}, 14),
        ({"layers": ("2",)}, 8),
    ]:
        detector = make(**params).fit(images[:8])
        assert detector.bank_.vectors.shape[1] == n_features
        assert not np.allclose(detector.score_samples(images), scores)


@pytest.mark.parametrize("n_top", [1, 5, 999])
def test_cosine_distances_and_the_mean_of_the_highest_cells(make, images, n_top):
    detector = make(metric="cosine", pooling=None, n_top=n_top).fit(images[:8])
    plain = make(pooling=None).fit(images[:8])
    bank = np.concatenate(features(plain, images[:8]))
    bank /= np.linalg.norm(bank, axis=1, keepdims=True)
    for image in images[8:10]:
        (vectors,) = features(plain, image[None])
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        cells = (1 - vectors @ bank.T).min(axis=1)
        expected = np.sort(cells)[::-1][:n_top].mean()
        assert detector.score_samples(image[None])[0] == pytest.approx(-expected, rel=1e-4)
        maps, scores = detector.anomaly_map(image[None], return_scores=True)
        assert scores[0] == detector.score_samples(image[None])[0]
        grid = torch.from_numpy(cells).view(1, 1, 10, 9)
        expected = functional.interpolate(grid, (40, 36), mode="bilinear")
        np.testing.assert_allclose(maps[0], expected[0, 0], rtol=1e-3, atol=1e-6)


def test_lengths_of_features_do_not_count_for_cosines(backbone, make, images):
    scores = make(metric="cosine", pooling=None).fit(images[:8]).score_samples(images)
    louder = nn.Sequential(*copy.deepcopy(backbone), nn.Identity())
    with torch.no_grad():
        louder[2].weight *= 4
        louder[2].bias *= 4
    params = {"backbone": louder, "layers": ("2",), "pooling": None}
    expected, found = (
        make(**params, metric=metric).fit(images[:8]).score_samples(images)
        for metric in ("euclidean", "cosine")
    )
    assert not np.allclose(found, scores)  # of other layers
    quiet = make(**params | {"backbone": backbone}, metric="cosine").fit(images[:8])
    np.testing.assert_allclose(found, quiet.score_samples(images), rtol=1e-4, atol=1e-7)
    assert not np.allclose(expected, found)


def test_threshold_of_the_source(make, images):
    detector = make(contamination="auto").fit(images)
    scores = detector.train_scores_
    assert detector.offset_ == pytest.approx(scores.mean() - 2 * scores.std())


def test_map_has_the_size_of_the_images(make, images):
    detector = make(image_size=(20, 24)).fit(images[:4])
    assert detector.image_shape_ == (20, 24, 1)
    maps = detector.anomaly_map(images[4:6])
    assert maps.shape == (2, 40, 36)
    assert maps.dtype == np.float32
    assert ResNetKNN().image_size == 224


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"layers": ("1", "layer2")}, "'layer2', which this Sequential does not.*'0', '1'"),
        (
            {"n_neighbors": 999, "neighbor_aggregation": "mean"},
            "needs 999 vectors.*n_neighbors=1",
        ),
        (
            {"n_neighbors": 2},
            "nearest neighbor alone. Got n_neighbors=2. Set n_neighbors=1, or neighbor_agg",
        ),
        ({"max_bank_bytes": 14 * 4}, "Got a bank of 1, 0 beside some image"),
        (
            {"image_shape": (40, 18, 2)},
            r"^backbone: your module .* \(2, 2, 40, 18\)",
        ),
        ({"reweighting": 1}, "reweighting"),
        ({"reweighting": 2, "n_top": 2}, "farthest cell. Got n_top=2 .* reweighting=None"),
        ({"reweighting": 2, "metric": "cosine"}, "metric='cosine'. Set reweighting=None"),
        ({"memory": 3}, "memory"),
    ],
)
def test_what_cannot_be_used(make, images, params, message):
    X = images.reshape(12, -1) if "image_shape" in params else images
    with pytest.raises(ValueError, match=message):
        make(**params).fit(X)


def test_progress_bars_are_called_by_class_and_stage(make, images, progress_labels):
    make(verbose=1, subsampling="coreset", bank_fraction=0.5).fit(images)
    stages = {"memory bank", "coreset", "scores"}
    assert progress_labels == {f"ResNetKNN: {stage}" for stage in stages}


def test_images_too_small_for_the_backbone(images):
    detector = ResNetKNN(
        backbone="squeezenet1_1", weights=None, layers=("features.5",), image_size=6
    )
    with pytest.raises(ValueError, match="cannot take images of 6 x 6 pixels"):
        detector.fit(images)


def count_images(monkeypatch):
    """Return a list to which the number of images of each real pass is added."""
    counts = []
    forward = FeatureMaps.forward

    def counting(self, batch):
        if batch.device.type != "meta":
            counts.append(len(batch))
        return forward(self, batch)

    monkeypatch.setattr(FeatureMaps, "forward", counting)
    return counts


MEAN = {"neighbor_aggregation": "mean"}
GRID = {
    "n_neighbors": [1, 5],
    "bank_fraction": [0.1, 0.5, 1.0],
    "interpolation": ["average", "bilinear"],
}


def mean_score(detector, X, y=None):
    return detector.score_samples(X).mean()


def test_a_search_computes_features_once(make, images, tmp_path, monkeypatch):
    counts = count_images(monkeypatch)
    search = GridSearchCV(make(memory=tmp_path, **MEAN), GRID, cv=3, scoring=mean_score)
    found = search.fit(images).cv_results_["mean_test_score"]
    assert len(found) == 12
    assert sum(counts) == len(images)
    assert max(counts) > 1
    counts.clear()
    alone = make().fit(images)
    assert counts == [12]
    kept = make(memory=tmp_path).fit(images)
    np.testing.assert_allclose(kept.train_scores_, alone.train_scores_, rtol=1e-5)
    assert counts == [12]


@pytest.mark.slow
def test_a_search_in_processes_shares_the_features(make, images, tmp_path):
    memory = joblib.Memory(tmp_path, verbose=0)
    search = GridSearchCV(
        make(memory=memory, **MEAN), GRID, cv=3, scoring=mean_score, n_jobs=2
    )
    parallel = search.fit(images).cv_results_["mean_test_score"]
    assert len(list(tmp_path.rglob("features.safetensors"))) == len(images)
    alone = GridSearchCV(make(**MEAN), GRID, cv=3, scoring=mean_score).fit(images)
    np.testing.assert_allclose(parallel, alone.cv_results_["mean_test_score"], rtol=1e-5)


@pytest.mark.parametrize(
    "name",
    [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in FAMILIES],
)
def test_a_network_of_every_family_fits_by_its_name(name):
    size = 64 if name in QUICK else 224
    X = np.random.default_rng(0).random((4, size, size), dtype=np.float32)
    detector = ResNetKNN(
        backbone=name, weights=None, image_size=size, bank_fraction=0.2, random_state=0,
        batch_size=4, device="cpu",
    ).fit(X)  # fmt: skip
    assert np.isfinite(detector.train_scores_).all()
    assert np.ptp(detector.train_scores_) > 0
    assert detector.anomaly_map(X[:1]).shape == (1, size, size)


@pytest.mark.parametrize("bank_fraction", [1.0, 0.5])
def test_fit_computes_features_once_where_they_fit(
    make, images, monkeypatch, bank_fraction
):
    """In the bank itself, or held until the scores are known."""
    counts = count_images(monkeypatch)
    fitted = make(bank_fraction=bank_fraction, smoothing=1.5).fit(images)
    assert counts == [12]
    counts.clear()
    monkeypatch.setattr("skocc._ops.memory_bank._HELD_BYTES", 0)
    other = make(bank_fraction=bank_fraction, smoothing=1.5).fit(images)
    assert counts == ([12] if bank_fraction == 1 else [12, 12])
    for name in ("train_scores_", "train_map_maxima_"):
        np.testing.assert_array_equal(getattr(other, name), getattr(fitted, name))
    # Those of a full search.
    maps, scores = fitted.anomaly_map(images, size="model", return_scores=True)
    np.testing.assert_array_equal(fitted.train_map_maxima_, maps.max(axis=(1, 2)))
    np.testing.assert_array_equal(fitted.train_scores_, scores)


def square(images):
    return np.ascontiguousarray(images[:, :36, :36])


def test_rotations_put_every_turn_into_the_bank(make, images):
    images = square(images)
    detector = make(bank_rotations=4).fit(images[:4])
    plain = make().fit(images[:4])
    n_cells = math.prod(detector.grid_shape_)
    assert detector.bank_.vectors.shape == (4 * 4 * n_cells, 14)
    np.testing.assert_array_equal(detector.bank_.images, np.repeat(range(4), 4 * n_cells))
    assert detector.bank_bytes(4, 36) == 4 * plain.bank_bytes(4, 36)
    assert detector.bank_bytes(4, 36) == detector.bank_.vectors.nbytes
    turns = detector.bank_.vectors.reshape(4, 4, n_cells, 14)
    for step in range(4):
        turned = np.rot90(images[:4], step, (1, 2)).copy()
        np.testing.assert_allclose(
            turns[:, step], features(detector, turned), rtol=1e-4, atol=1e-5
        )
        # An image is known as it is, and its turns are found.
        scores = detector.score_samples(turned)
        if step:
            np.testing.assert_allclose(scores, 0, atol=1e-4)
        else:
            np.testing.assert_array_equal(scores, detector.train_scores_)
    assert (detector.train_scores_ >= plain.train_scores_).all()
    assert (detector.score_samples(images[4:]) >= plain.score_samples(images[4:])).all()


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("params", [{}, {"bank_fraction": 0.3}])
def test_rotations_compare_a_training_image_as_it_is_with_turns_of_the_others(
    make, images, params, held, monkeypatch
):
    if not held:
        monkeypatch.setattr("skocc._ops.memory_bank._HELD_BYTES", 0)
    for X in (images[:6], square(images[:6])):
        detector = make(bank_rotations=3, **params).fit(X)
        bank = detector.bank_
        for index, vectors in enumerate(features(detector, X)):
            others = bank.vectors[bank.images != index]
            expected = -distances_to(others, vectors).min(axis=1).max()
            assert detector.train_scores_[index] == pytest.approx(expected, rel=1e-4)
        np.testing.assert_array_equal(detector.score_samples(X), detector.train_scores_)


def test_rotations_keep_to_the_budget(make, images):
    n_bytes = make().fit(images[:8]).bank_bytes(8, (40, 36))
    for params in ({"max_bank_bytes": n_bytes}, {"bank_fraction": 0.25}):
        detector = make(bank_rotations=4, **params).fit(images[:8])
        assert detector.bank_.vectors.nbytes == n_bytes
        assert set(detector.bank_.images) == {*range(8)}


def test_one_turn_is_none(make, fitted, images):
    detector = make(bank_rotations=1).fit(images[:8])
    np.testing.assert_array_equal(detector.bank_.vectors, fitted.bank_.vectors)
    with pytest.raises(ValueError, match="'bank_rotations' parameter"):
        make(bank_rotations=0).fit(images)
