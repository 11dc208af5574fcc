import inspect

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from numpydoc.docscrape import ClassDoc, FunctionDoc
from PIL import Image
from sklearn.base import BaseEstimator, clone, is_outlier_detector
from sklearn.ensemble import IsolationForest
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.metrics import make_scorer, roc_auc_score
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    ParameterGrid,
    StratifiedGroupKFold,
    StratifiedKFold,
    cross_validate,
)
from sklearn.svm import OneClassSVM
from sklearn.utils.estimator_checks import check_estimator

import skocc.model_selection
from skocc.feature_extraction import DirectFeatures
from skocc.model_selection import (
    NormalOnly,
    OneClassKFold,
    OneClassSplit,
    SyntheticSplit,
    add_synthetic_anomalies,
    classical_detectors,
    two_protocol_split,
)
from tests.quick import ESTIMATORS, quick

SPLITTERS = [OneClassKFold, OneClassSplit, SyntheticSplit]
ARRANGEMENTS = ["k_fold", "split", "synthetic_split", "original", "synthetic"]
N_NORMAL, N_ANOMALIES = 21, 5


def in_pairs(values):
    """Return parameters: each value with an arrangement; all with all are slow."""
    n = len(ARRANGEMENTS)
    return [
        pytest.param(value, kind, marks=() if j == i % n else pytest.mark.slow)
        for i, value in enumerate(values)
        for j, kind in enumerate(ARRANGEMENTS)
    ]


def invert_a_square(images, random_state):
    """Invert 4 x 4 pixels, at another place for another seed."""
    rng = np.random.default_rng(random_state)
    row, column = rng.integers(0, images.shape[1] - 4), rng.integers(0, images.shape[2] - 4)
    masks = np.zeros(images.shape[:3], dtype=bool)
    masks[:, row : row + 4, column : column + 4] = True
    top = 255 if images.dtype == np.uint8 else 1
    # In place, which must not reach the image that it is made from.
    images[masks] = top - images[masks]
    return images, masks


def unchanged(images, random_state):
    return images, images > 0


@pytest.fixture(scope="module")
def images():
    """Dark noisy images, then five with a bright bar."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 100, (N_NORMAL + N_ANOMALIES, 16, 12), dtype=np.uint8)
    images[N_NORMAL:, 5:9] += 150
    return images


@pytest.fixture(scope="module")
def paths(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    paths = [folder / f"{index:02d}.png" for index in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    return paths


def labels():
    return np.r_[np.ones(N_NORMAL, dtype=int), np.full(N_ANOMALIES, -1)]


def arrange(X, arrangement):
    """Return X, y, groups and folds."""
    if arrangement == "k_fold":
        return X, labels(), None, OneClassKFold(2, random_state=0)
    if arrangement == "split":
        return X, labels(), None, OneClassSplit(random_state=0)
    if arrangement == "synthetic_split":
        data = add_synthetic_anomalies(X[:N_NORMAL], invert_a_square, random_state=0)
        return *data, SyntheticSplit(2, random_state=0)
    parts = two_protocol_split(
        X[:16],
        X[16:],
        labels()[16:],
        protocol=arrangement,
        make_anomalies=invert_a_square,
        random_state=0,
    )
    return parts.X, parts.y, None, parts.cv


@pytest.mark.parametrize(("estimator_class", "arrangement"), in_pairs(ESTIMATORS))
def test_search_of_each_method(estimator_class, arrangement, images, paths):
    best = []
    for data in [images, paths]:
        X, y, groups, folds = arrange(data, arrangement)
        if isinstance(folds, list):
            folds = folds[:1]  # all three train on the same images
        detector = quick(estimator_class)
        two = arrangement == "split" and data is images
        grid = {"batch_size": [4, 8] if two else [8]}
        search = GridSearchCV(detector, grid, cv=folds, scoring="roc_auc", refit=False)
        # That no label of -1 is among those trained on is checked by its warning.
        scores = search.fit(X, y, groups=groups).cv_results_["mean_test_score"]
        assert np.isfinite(scores).all()
        best.append(scores[-1])
    assert best[0] == best[1]


@pytest.mark.parametrize(("name", "arrangement"), in_pairs(classical_detectors()))
def test_search_of_each_classical_detector(name, arrangement, images, paths):
    params = {"n_components": 2, "n_samples": 9, "random_state": 0}
    on_rows, grid = classical_detectors(**params)[name]
    on_files, _ = classical_detectors(features=DirectFeatures(), **params)[name]
    if name == "IsolationForest":
        grid = {"detector__n_estimators": [5, 10]}
    one = {key: [value] for key, value in ParameterGrid(grid)[0].items()}
    for data, detector, candidates in [(images, on_rows, grid), (paths, on_files, one)]:
        X, y, groups, folds = arrange(data, arrangement)
        if data is images:
            X = X.reshape(len(X), -1)
        search = GridSearchCV(
            detector, candidates, cv=folds, scoring="roc_auc", refit=False
        ).fit(X, y, groups=groups)
        assert len(search.cv_results_["params"]) == len(ParameterGrid(candidates))
        assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    if arrangement in ("k_fold", "split", "original"):  # a bar, not a small square
        assert search.best_score_ > 0.8


def assert_sound(folds, normal, groups=None):
    """Check what holds for all: normal samples train, nothing is on both sides."""
    for train, validation in folds:
        assert normal[train].all()
        assert 0 < np.sum(normal[validation]) < len(validation)
        assert (np.diff(train) > 0).all()
        assert (np.diff(validation) > 0).all()
        assert not set(train) & set(validation)
        if groups is not None:
            assert not set(groups[train]) & set(groups[validation])


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_folds_have_a_part_of_each_kind(seed, shuffle):
    rng = np.random.default_rng(seed)
    # Some kinds are rarer than there are folds.
    y = rng.permutation(np.repeat([1, -1, -2, -3, -4], [33, 11, 6, 2, 1]))
    params = {"random_state": seed} if shuffle else {}
    folds = list(OneClassKFold(5, shuffle=shuffle, **params).split(y, y))
    assert len(folds) == 5
    assert_sound(folds, y == 1)
    validated = [validation for _, validation in folds]
    assert sorted(np.concatenate(validated)) == list(range(len(y)))
    for kind in np.unique(y):
        counts = [np.sum(y[part] == kind) for part in validated]
        assert np.ptp(counts) <= 1
    assert np.ptp([np.sum(y[part] < 0) for part in validated]) <= 1
    for train, validation in folds:
        assert len(train) == np.sum(y == 1) - np.sum(y[validation] == 1)


def test_single_anomalies_of_several_kinds_are_spread():
    # In the order of the samples, normal ones lie between the kinds.
    y = np.array([-1, -1, 1, 1, 1, 1, -2])
    for train, validation in OneClassKFold(3, random_state=0).split(y, y):
        assert np.sum(y[validation] < 0) == 1, train


@pytest.mark.parametrize("seed", range(3))
def test_groups_stay_together(seed):
    rng = np.random.default_rng(seed)
    objects = rng.integers(0, 30, 120)
    kind_of_object = np.repeat([1, -1, -2], [18, 6, 6])
    y = kind_of_object[objects]
    # One object is photographed with and without its defect.
    y[np.flatnonzero(objects == 20)[0]] = 1
    folds = list(OneClassKFold(3, random_state=seed).split(y, y, objects))
    assert_sound(folds, y == 1, objects)
    validated = [validation for _, validation in folds]
    assert sorted(np.concatenate(validated)) == list(range(len(y)))
    for part in validated:
        assert {1, -1, -2} <= set(y[part])
    names = np.array([f"object {number}" for number in objects])
    for (train, _), (other, _) in zip(
        folds, OneClassKFold(3, random_state=seed).split(y, y, names), strict=True
    ):
        assert len(train)
        assert len(other)
    split = OneClassSplit(3, random_state=seed).split(y, y, names)
    assert_sound(split, y == 1, names)


def test_labels_may_be_names_or_of_pandas_or_missing():
    y = np.array([1] * 6 + [-1] * 3 + [-2] * 3)
    names = np.array(["good"] * 6 + ["crack"] * 3 + ["stain"] * 3)
    splitter = OneClassKFold(3, random_state=0)
    expected = np.concatenate([validation for _, validation in splitter.split(y, y)])
    for given in [names, pd.Series(names), list(names), pd.Series(y), y.astype(float)]:
        folds = list(splitter.split(y, given))
        assert_sound(folds, y == 1)
        assert sorted(np.concatenate([v for _, v in folds])) == sorted(expected)
    for train, validation in splitter.split(y):
        assert (len(train), len(validation)) == (8, 4)
    ((train, validation),) = OneClassSplit(random_state=0).split(list(y))
    assert (len(train), len(validation)) == (9, 3)


def test_splits_validate_all_anomalies():
    y = np.repeat([1, -1], [40, 7])
    folds = list(OneClassSplit(4, test_size=0.2, random_state=0).split(y, y))
    assert_sound(folds, y == 1)
    assert [len(train) for train, _ in folds] == [32] * 4
    assert all(set(range(40, 47)) <= set(validation) for _, validation in folds)
    assert all(len(validation) == 15 for _, validation in folds)
    assert len({tuple(train) for train, _ in folds}) == 4
    ((train, _),) = OneClassSplit(test_size=3).split(y, y)
    assert len(train) == 37


@pytest.mark.parametrize("splitter_class", SPLITTERS)
def test_seeds_repr_and_clone(splitter_class):
    y = np.repeat([1, -1], 12)
    groups = np.tile(np.arange(12), 2) if splitter_class is SyntheticSplit else None

    def validated(random_state):
        splitter = splitter_class(3, random_state=random_state)
        return [tuple(part) for _, part in splitter.split(y, y, groups)]

    assert validated(0) == validated(0) != validated(1)
    assert validated(np.random.RandomState(0)) != validated(np.random.RandomState(1))
    splitter = splitter_class(3, random_state=0)
    assert splitter.get_n_splits() == splitter.get_n_splits(y, y, groups) == 3
    assert repr(splitter).startswith(f"{splitter_class.__name__}(")
    assert "n_splits=3, random_state=0" in repr(splitter)
    assert repr(clone(splitter, safe=False)) == repr(splitter)
    search = GridSearchCV(OneClassSVM(), {"nu": [0.1]}, cv=splitter)
    assert repr(clone(search).cv) == repr(splitter)


def test_without_shuffling_neighbors_stay_neighbors():
    y = np.repeat([1, -1], [6, 4])
    validated = [v.tolist() for _, v in OneClassKFold(2, shuffle=False).split(y, y)]
    assert validated == [[0, 1, 2, 6, 7], [3, 4, 5, 8, 9]]


@pytest.mark.parametrize("fraction", [0.2, 0.5, 0.75])
def test_synthetic_anomalies_are_validated_with_their_image(fraction, images):
    X, y, groups = add_synthetic_anomalies(images, invert_a_square, random_state=0)
    n = len(images)
    folds = list(SyntheticSplit(3, fraction=fraction, random_state=0).split(X, y, groups))
    assert_sound(folds, y == 1, groups)
    for train, validation in folds:
        held_out = n - len(train)
        n_anomalies = np.sum(y[validation] == -1)
        n_normal = len(validation) - n_anomalies
        assert n_anomalies / len(validation) == pytest.approx(fraction, abs=0.06)
        # Nothing is left out that need not be.
        assert max(n_anomalies, n_normal) == held_out
    # A group of several images stays together with all that is made from it.
    objects = np.arange(n) // 3
    X, y, groups = add_synthetic_anomalies(images, invert_a_square, groups=objects)
    assert_sound(SyntheticSplit(3).split(X, y, groups), y == 1, groups)


def test_anomalies_of_arrays_and_files_are_the_same(images, paths):
    before = images.copy()
    X, y, groups = add_synthetic_anomalies(images, invert_a_square, random_state=3)
    n = len(images)
    np.testing.assert_array_equal(images, before)
    np.testing.assert_array_equal(X[:n], images)
    assert X.dtype == np.uint8
    np.testing.assert_array_equal(y, np.repeat([1, -1], n))
    np.testing.assert_array_equal(groups, np.tile(np.arange(n), 2))
    changed = (X[:n] != X[n:]).sum(axis=(1, 2))
    assert ((changed > 12) & (changed <= 16)).all()
    again, _, _ = add_synthetic_anomalies(images, invert_a_square, random_state=3)
    np.testing.assert_array_equal(again, X)
    other, _, _ = add_synthetic_anomalies(images, invert_a_square, random_state=4)
    assert not np.array_equal(other, X)
    for files in [paths, [str(path) for path in paths], pd.Series(paths), np.array(paths)]:
        from_files, y_files, _ = add_synthetic_anomalies(
            files, invert_a_square, random_state=3
        )
        assert list(from_files[:n]) == list(files)
        np.testing.assert_array_equal(y_files, y)
        np.testing.assert_array_equal(
            np.stack([np.asarray(i) for i in from_files[n:]]), X[n:]
        )


def test_anomalies_of_files_of_any_kind(tmp_path):
    rng = np.random.default_rng(0)
    color = rng.integers(0, 256, (9, 8, 3), dtype=np.uint8)
    deep = rng.integers(0, 65536, (8, 10)).astype(np.uint16)
    Image.fromarray(color).save(tmp_path / "color.png")
    Image.fromarray(deep).save(tmp_path / "deep.png")
    pil = Image.fromarray(color[:, :, 0])
    X, _, _ = add_synthetic_anomalies(
        [tmp_path / "color.png", tmp_path / "deep.png", pil], invert_a_square
    )
    made = [np.asarray(image) for image in X[3:]]
    assert [(a.shape, a.dtype) for a in made] == [
        ((9, 8, 3), np.uint8), ((8, 10), np.uint16), ((9, 8), np.uint8)
    ]  # fmt: skip
    for anomaly, image in zip(made, [color, deep, np.asarray(pil)], strict=True):
        assert 0 < (anomaly != image).reshape(*image.shape[:2], -1).any(axis=2).sum() <= 16


BOTTLE = ["good"] * 20 + ["broken_large"] * 20 + ["broken_small"] * 22 + ["dirt"] * 21


def test_original_protocol():
    names = np.array(BOTTLE)
    train, test = np.zeros((209, 2)), np.arange(83 * 2).reshape(83, 2)
    parts = two_protocol_split(train, test, names, random_state=0)
    np.testing.assert_array_equal(parts.X, np.concatenate([train, test]))
    np.testing.assert_array_equal(parts.y[209:], np.where(names == "good", 1, -1))
    np.testing.assert_array_equal(parts.train, np.arange(209))
    assert (parts.y[:209] == 1).all()
    everything = np.concatenate([parts.train, parts.validation, parts.test])
    assert sorted(everything) == list(range(292))
    assert len(parts.test) == pytest.approx(0.4 * 83, abs=1.3)
    folds = [fold for _, fold in parts.cv]
    assert sorted(np.concatenate(folds)) == list(parts.validation)
    assert {len(fold) for fold in folds} <= {16, 17}
    for fold in folds:
        assert {np.sum(names[fold - 209] == name) for name in set(BOTTLE)} <= {4, 5}
    for name in set(BOTTLE):
        n_test = np.sum(names[parts.test - 209] == name)
        assert n_test == pytest.approx(0.4 * BOTTLE.count(name), abs=1.21)
    for train_of_fold, _ in parts.cv:
        np.testing.assert_array_equal(train_of_fold, parts.train)
    again = two_protocol_split(train, test, names, random_state=0)
    other = two_protocol_split(train, test, names, random_state=1)
    np.testing.assert_array_equal(again.test, parts.test)
    assert not np.array_equal(other.test, parts.test)


def test_synthetic_protocol(images, paths):
    n_train, n_test = 209, 83
    train = np.tile(images[:19], (11, 1, 1))
    test = np.tile(images[:1], (83, 1, 1))
    before = train.copy()
    parts = two_protocol_split(
        train, test, BOTTLE, protocol="synthetic", make_anomalies=invert_a_square,
        random_state=0,
    )  # fmt: skip
    np.testing.assert_array_equal(train, before)
    np.testing.assert_array_equal(parts.test, np.arange(n_train, n_train + n_test))
    np.testing.assert_array_equal(parts.y[n_train:] == 1, np.array(BOTTLE) == "good")
    assert len(parts.train) == 125  # 60 % of 209
    assert sorted([*parts.train, *parts.validation]) == list(range(n_train))
    assert [len(fold) for _, fold in parts.cv] == [28, 28, 28]
    for train_of_fold, fold in parts.cv:
        np.testing.assert_array_equal(train_of_fold, parts.train)
        assert np.mean(parts.y[fold] == -1) == 0.75
        assert set(fold) <= set(parts.validation)
    # Labels say which images were changed.
    changed = (parts.X[:n_train] != before).any(axis=(1, 2))
    np.testing.assert_array_equal(changed, parts.y[:n_train] == -1)
    np.testing.assert_array_equal(parts.X[n_train:], test)

    for n_normal, sizes in [(14, [2, 2, 2]), (19, [2, 2, 4])]:
        parts = two_protocol_split(
            paths[:n_normal], paths[n_normal:], labels()[n_normal:], protocol="synthetic",
            make_anomalies=invert_a_square,
        )  # fmt: skip
        assert [len(fold) for _, fold in parts.cv] == sizes
        assert_sound(parts.cv, parts.y == 1)
        for path, item, label in zip(paths[:n_normal], parts.X, parts.y, strict=False):
            assert (item == path) == (label == 1)


def test_cross_validate_and_a_scorer_for_kinds(images, paths):
    detector = quick(skocc.DeepSVDD)
    kinds = labels()
    kinds[-2:] = -2
    is_normal = make_scorer(
        lambda y, scores: roc_auc_score(y == 1, scores), response_method="decision_function"
    )
    folds = OneClassKFold(2, random_state=0)
    for X in [images, paths, pd.Series(paths)]:
        by_kind = cross_validate(detector, X, kinds, cv=folds, scoring=is_normal)
        binary = cross_validate(
            detector, X, labels(), cv=list(folds.split(X, kinds)), scoring="roc_auc"
        )
        np.testing.assert_array_equal(by_kind["test_score"], binary["test_score"])
        assert np.isfinite(binary["test_score"]).all()


@pytest.mark.parametrize(
    ("splitter", "as_paths"),
    [(OneClassKFold(2, random_state=0), True), (SyntheticSplit(2, random_state=0), False)],
)
def test_halving_by_epochs(splitter, as_paths, images, paths):
    X, y, groups = paths if as_paths else images, labels(), None
    if isinstance(splitter, SyntheticSplit):
        X, y, groups = add_synthetic_anomalies(X, invert_a_square, random_state=0)
    search = HalvingGridSearchCV(
        quick(skocc.DeepSVDD), {"batch_size": [4, 8]}, resource="n_epochs", min_resources=1,
        max_resources=2, factor=2, cv=splitter, scoring="roc_auc", refit=False,
        return_train_score=False,
    )  # fmt: skip
    search.fit(X, y, groups=groups)
    assert search.n_iterations_ == 2
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def rows_of(all_digits):
    """Return rows of one digit and of fewer others, with labels."""
    normal, others = all_digits
    X = np.concatenate([normal[:90], others[:45]]).reshape(135, -1)
    return X, np.repeat([1, -1], [90, 45])


@pytest.mark.parametrize("splitter_class", SPLITTERS)
def test_halving_by_samples(splitter_class, all_digits):
    X, y = rows_of(all_digits)
    groups = None
    if splitter_class is SyntheticSplit:
        X, y, groups = add_synthetic_anomalies(
            all_digits[0], invert_a_square, random_state=0
        )
        X = X.reshape(len(X), -1)
    search = HalvingGridSearchCV(
        OneClassSVM(), {"nu": [0.1, 0.3, 0.5]}, min_resources=50, factor=2, random_state=0,
        cv=splitter_class(2, random_state=0), scoring="roc_auc", refit=False,
        return_train_score=False,
    )  # fmt: skip
    search.fit(X, y, groups=groups)
    assert search.n_iterations_ == 2
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_halving_asks_for_folds_that_stay(all_digits):
    X, y = rows_of(all_digits)
    search = HalvingGridSearchCV(
        OneClassSVM(), {"nu": [0.1]}, cv=OneClassKFold(2), scoring="roc_auc"
    )
    with pytest.raises(ValueError, match="consistent folds"):
        search.fit(X, y)


@pytest.mark.parametrize(
    "detector", [OneClassSVM(), IsolationForest(n_estimators=5, random_state=0)]
)
def test_search_in_two_processes(detector, all_digits):
    X, y = rows_of(all_digits)
    grid = (
        {"nu": [0.1, 0.5]}
        if "nu" in detector.get_params()
        else {"max_features": [0.5, 1.0]}
    )
    params = {"cv": OneClassKFold(3, random_state=0), "scoring": "roc_auc"}
    two = GridSearchCV(NormalOnly(detector), with_prefix(grid), n_jobs=2, **params).fit(
        X, y
    )
    one = GridSearchCV(NormalOnly(detector), with_prefix(grid), **params).fit(X, y)
    np.testing.assert_array_equal(
        two.cv_results_["mean_test_score"], one.cv_results_["mean_test_score"]
    )
    assert one.best_score_ > 0.8


def with_prefix(grid):
    return {f"estimator__{name}": values for name, values in grid.items()}


def test_nested_search_without_labels_inside(images):
    """The inner search sees normal images only, and its winner is refitted on them."""
    inner = GridSearchCV(
        quick(skocc.DeepSVDD),
        {"batch_size": [4, 8]},
        cv=OneClassKFold(2, random_state=0),
        scoring=lambda detector, X, y=None: detector.score_samples(X).mean(),
    )
    folds = OneClassKFold(2, random_state=0)
    scores = cross_validate(inner, images, labels(), cv=folds, scoring="roc_auc")
    assert np.isfinite(scores["test_score"]).all()


def test_nested_search_with_labeled_anomalies(all_digits, paths):
    X, y = rows_of(all_digits)
    for detector, grid, data, target in [
        (OneClassSVM(), {"nu": [0.1, 0.5]}, X, y),
        (quick(skocc.DeepSVDD), {"batch_size": [4, 8]}, paths, labels()),
    ]:
        inner = GridSearchCV(
            NormalOnly(detector), with_prefix(grid), cv=OneClassKFold(2, random_state=0),
            scoring="roc_auc",
        )  # fmt: skip
        outer = StratifiedKFold(2, shuffle=True, random_state=0)
        scores = cross_validate(
            inner, data, target, cv=outer, scoring="roc_auc", return_estimator=True
        )
        assert np.isfinite(scores["test_score"]).all()
        for search in scores["estimator"]:
            assert np.isfinite(search.best_score_)


def test_nested_search_with_synthetic_anomalies(all_digits):
    X, y, groups = add_synthetic_anomalies(all_digits[0], invert_a_square, random_state=0)
    X = X.reshape(len(X), -1)
    with sklearn.config_context(enable_metadata_routing=True):
        inner = GridSearchCV(
            NormalOnly(OneClassSVM()), {"estimator__nu": [0.1, 0.5]},
            cv=SyntheticSplit(2, random_state=0), scoring="roc_auc",
        )  # fmt: skip
        outer = StratifiedGroupKFold(3)
        scores = cross_validate(
            inner, X, y, params={"groups": groups}, cv=outer, scoring="roc_auc"
        )
    assert (scores["test_score"] > 0.5).all()
    # Where only normal samples are trained on, the inner search has no anomalies.
    train, _ = next(SyntheticSplit(2).split(X, y, groups))
    with pytest.raises(ValueError, match=r"must be anomalies.*keep groups together"):
        next(SyntheticSplit(2).split(X[train], y[train], groups[train]))


def test_normal_only_fits_on_normal_samples(images, paths):
    y = labels()
    rows = images.reshape(len(images), -1).astype(float)
    for detector, X, normal in [
        (OneClassSVM(), rows, rows[y == 1]),
        (quick(skocc.DeepSVDD), images, images[y == 1]),
        (quick(skocc.DeepSVDD), paths, paths[:N_NORMAL]),
    ]:
        fitted = NormalOnly(detector).fit(X, y)
        expected = clone(detector).fit(normal)
        for method in ["decision_function", "predict", "score_samples"]:
            np.testing.assert_array_equal(
                getattr(fitted, method)(X), getattr(expected, method)(X)
            )
        assert fitted.offset_ == expected.offset_
        assert fitted.n_features_in_ == expected.n_features_in_
        assert is_outlier_detector(fitted)
        # No labels: all are normal.
        everything = NormalOnly(detector).fit(X)
        np.testing.assert_array_equal(
            everything.score_samples(X), clone(detector).fit(X).score_samples(X)
        )
        assert not np.array_equal(everything.score_samples(X), fitted.score_samples(X))
    search = GridSearchCV(
        NormalOnly(OneClassSVM()), {"estimator__nu": [0.2]}, scoring="roc_auc",
        cv=OneClassKFold(2, random_state=0),
    ).fit(rows, y)  # fmt: skip
    np.testing.assert_array_equal(
        search.decision_function(rows),
        OneClassSVM(nu=0.2).fit(rows[y == 1]).decision_function(rows),
    )


class UnlabeledNormalOnly(NormalOnly):
    """The labels of scikit-learn's suite are those of classes, which are refused."""

    def fit(self, X, y=None):
        return super().fit(X)


@pytest.mark.filterwarnings("ignore")
def test_normal_only_passes_the_suite_of_sklearn():
    detector = UnlabeledNormalOnly(IsolationForest(n_estimators=5, random_state=0))
    results = check_estimator(detector, on_fail=None, on_skip=None)
    assert len(results) > 40
    failed = [result["check_name"] for result in results if result["status"] == "failed"]
    assert not failed
    assert not hasattr(NormalOnly(_WithoutScores()), "score_samples")


class _WithoutScores(OneClassSVM):
    score_samples = property()


@pytest.mark.parametrize(
    ("y", "shown"),
    [
        ([0, 1, 1, 0], r"\[0, 1\].*np.where\(y == 1, -1, 1\)"),
        ([1, 2, 1, 2], r"\[1, 2\]"),
        ([-1, -1, -1, -1], "some must be normal.*-1"),
        ([1, 1, np.nan, -1], "nan"),
        ([True, False, True, True], "True, False"),
        (["ok", "crack", "ok", "ok"], "'ok', 'crack'"),
        (["good", "good", None, "crack"], "None"),
    ],
)
def test_labels_that_have_no_reading(y, shown):
    X = np.zeros((4, 2))
    for splitter in [OneClassKFold(2), OneClassSplit()]:
        with pytest.raises(ValueError, match=shown):
            next(splitter.split(X, y))
    with pytest.raises(ValueError, match=shown):
        next(SyntheticSplit(2).split(X, y, [0, 0, 1, 1]))
    with pytest.raises(ValueError, match=shown):
        NormalOnly(OneClassSVM()).fit(X, y)
    with pytest.raises(ValueError, match=shown):
        two_protocol_split(X, X, y)


def test_too_few_samples():
    few_anomalies = np.repeat([1, -1], [20, 3])
    with pytest.raises(ValueError, match=r"no anomalies.*20 normal.*3 anom.*OneClassSplit"):
        next(OneClassKFold(5).split(few_anomalies, few_anomalies))
    few_normal = np.repeat([1, -1], [3, 20])
    with pytest.raises(ValueError, match=r"no normal samples to validate"):
        next(OneClassKFold(5).split(few_normal, few_normal))
    groups = np.r_[np.arange(20), 20, 20, 20]
    with pytest.raises(ValueError, match="no anomalies to validate"):
        next(OneClassKFold(2).split(few_anomalies, few_anomalies, groups))
    with pytest.raises(ValueError, match=r"in no group with an anomaly.*Got 0"):
        next(OneClassSplit().split(few_normal, few_normal, np.zeros(23)))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        next(OneClassKFold(2).split(groups, few_anomalies[:-1]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: OneClassKFold(1), "n_splits"),
        (lambda: SyntheticSplit(fraction=1), r"Got 1\. Set for example fraction=0.5"),
        (lambda: next(SyntheticSplit(2).split([1, 2], [1, -1])), "groups=None.*=groups"),
        (lambda: next(SyntheticSplit(2).split([1, 2], None, [0, 0])), "y=None"),
        (lambda: next(SyntheticSplit(2).split([1, 2], [1, -1], [0, 1])), "1 without their"),
        (
            lambda: two_protocol_split([[0]], [[1]], [-1], protocol="i"),
            "'original' or .*Got 'i'",
        ),
        (lambda: two_protocol_split([[0]], [[1]], [1]), "no anomalies to test on"),
        (
            lambda: two_protocol_split(
                np.zeros((20, 8, 8)), np.zeros((2, 8, 8)), [1, -1], protocol="synthetic"
            ),
            "Got make_anomalies=None",
        ),
        (
            lambda: two_protocol_split(
                np.zeros((12, 8, 8)), np.zeros((2, 8, 8)), [1, -1], protocol="synthetic",
                make_anomalies=invert_a_square,
            ),
            "Got 12 training images.*at least 13",
        ),
        (lambda: add_synthetic_anomalies(np.zeros((3, 5)), invert_a_square), "For a table"),
        (
            lambda: add_synthetic_anomalies(np.zeros((3, 9, 8, 8)), invert_a_square),
            "for a tensor",
        ),
        (lambda: add_synthetic_anomalies(np.zeros(3), invert_a_square), r"shape \(3,\)"),
        (lambda: add_synthetic_anomalies(["none.png"], invert_a_square), "'none.png'"),
        (
            lambda: add_synthetic_anomalies(np.ones((2, 8, 8)), unchanged),
            "must change the image",
        ),
        (
            lambda: add_synthetic_anomalies(
                np.ones((2, 8, 8), np.float32), lambda x, random_state: (2.0 * x[0], x)
            ),
            r"shape \(1, 8, 8\) and dtype float32\. Got shape \(8, 8\)",
        ),
        (
            lambda: add_synthetic_anomalies(
                np.ones((2, 8, 8)), invert_a_square, groups=[0, 1, 2]
            ),
            "inconsistent numbers",
        ),
    ],
)  # fmt: skip
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("name", ["NormalOnly", *(c.__name__ for c in SPLITTERS)])
def test_docstrings_of_classes(name):
    splitter_class = getattr(skocc.model_selection, name)
    doc = ClassDoc(splitter_class)
    names = [*inspect.signature(splitter_class).parameters]
    assert [p.name for p in doc["Parameters"]] == names
    for section in ["Summary", "See Also", "Notes", "Examples"]:
        assert doc[section], section


@pytest.mark.parametrize("function", [add_synthetic_anomalies, two_protocol_split])
def test_docstrings_of_functions(function):
    doc = FunctionDoc(function)
    code = inspect.unwrap(function).__code__
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    assert [p.name for p in doc["Parameters"]] == list(names)
    for section in ["Summary", "Returns", "Raises", "See Also", "Notes", "Examples"]:
        assert doc[section], section


def test_data_sets_are_split_and_stay_lazy():
    class Images(torch.utils.data.Dataset):
        def __len__(self):
            return 10

        def __getitem__(self, index):
            asked.append(index)
            return torch.full((1, 2, 2), index)

    class Detector(BaseEstimator):
        def fit(self, X):
            n_asked.append(len(asked))
            self.seen_ = [int(X[index][0, 0, 0]) for index in range(len(X))]
            return self

        def decision_function(self, X):
            return np.zeros(len(X))

    asked, n_asked, y = [], [], np.r_[1, -1, np.ones(7), -1]
    for train, _ in OneClassKFold(2, random_state=0).split(Images(), y):
        assert (y[train] == 1).all()
    detector = NormalOnly(Detector()).fit(Images(), y)
    assert n_asked == [0]
    assert detector.estimator_.seen_ == [0, 2, 3, 4, 5, 6, 7, 8]
    with pytest.raises(ValueError, match=r"Got a Images\. Pass the paths"):
        add_synthetic_anomalies(Images(), lambda images, random_state: (images, images))


def test_anomalies_of_deep_files_are_as_deep(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 4096, (6, 8)).astype(np.uint16)
    Image.fromarray(pixels).save(tmp_path / "a.png")

    def brighter(images, random_state):
        return images + np.float32(100 / 65535), None

    X, _, _ = add_synthetic_anomalies([tmp_path / "a.png"], brighter)
    np.testing.assert_array_equal(np.asarray(X[1]), pixels + 100)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_splits": 0}, "n_splits must be a whole number of at least 1. Got 0"),
        ({"n_splits": "x"}, "n_splits must be a whole number"),
        ({"n_splits": True}, "n_splits must be a whole number"),
        ({"test_size": (1, 2)}, r"test_size is a fraction .*Got \(1, 2\)"),
        ({"test_size": -0.5}, "test_size is a fraction"),
        ({"test_size": True}, "test_size is a fraction"),
        ({"test_size": np.nan}, "test_size is a fraction"),
    ],
)
def test_parameters_of_one_class_split_are_checked(params, message):
    with pytest.raises(ValueError, match=message):
        OneClassSplit(**params)


@pytest.mark.parametrize(
    "groups", [[1, [2]] * 4, np.zeros((8, 8)), np.array([1, "a"] * 4, dtype=object)]
)
@pytest.mark.parametrize("splitter", [OneClassKFold(2), OneClassSplit()])
def test_groups_that_are_no_row_of_one_type(splitter, groups):
    with pytest.raises(ValueError, match=r"^groups must"):
        next(splitter.split(np.zeros(8), None, groups))


def test_labels_without_a_length():
    with pytest.raises(ValueError, match="groups=a list_iterator"):
        next(SyntheticSplit().split(np.zeros(3), None, iter([1, 2, 3])))


@pytest.mark.parametrize("result", [3, None, (1, 2, 3)])
def test_what_makes_anomalies_returns_a_pair(result):
    with pytest.raises(ValueError, match="make_anomalies must return a pair"):
        add_synthetic_anomalies(np.ones((2, 8, 8)), lambda images, random_state: result)


def test_parts_of_a_report_are_of_one_kind():
    with pytest.raises(ValueError, match="must hold samples of one kind and shape"):
        two_protocol_split(np.zeros((5, 8, 8)), np.zeros((5, 9, 9)), [1, 1, 1, -1, -1])
    with pytest.raises(ValueError, match="must hold samples of one kind and shape"):
        two_protocol_split(["a.png"] * 5, np.zeros((5, 9, 9)), [1, 1, 1, -1, -1])


@pytest.mark.parametrize("X", [np.full((3, 8, 8), None), np.array([1, None, "a"], object)])
def test_objects_that_are_no_files_are_refused(X):
    with pytest.raises(ValueError, match="X must be an array of samples, or a list of"):
        add_synthetic_anomalies(X, invert_a_square)


@pytest.mark.parametrize("splitter", [OneClassKFold(2), OneClassSplit()])
def test_no_samples_cannot_be_split(splitter):
    for groups in (None, []):
        with pytest.raises(ValueError, match="no samples to split"):
            next(splitter.split([], None, groups))


def test_a_single_number_is_no_data_set():
    with pytest.raises(ValueError, match="X must be an array of samples"):
        add_synthetic_anomalies(np.array(1.5), invert_a_square)
