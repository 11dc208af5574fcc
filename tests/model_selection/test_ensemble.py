import json
import pickle

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
from numpydoc.docscrape import ClassDoc
from scipy.stats import spearmanr
from sklearn.base import BaseEstimator, clone
from sklearn.ensemble import IsolationForest
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import OneClassSVM
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import check_estimator

import skocc
from skocc import MOCCA, ConvAE, DeepSVDD, ResNetKNN
from skocc._engine.whole_files import read_tensors
from skocc._persistence import model_files
from skocc.model_selection import (
    DetectorEnsemble,
    NormalOnly,
    OneClassKFold,
    ThresholdTuner,
    _scales,
)
from tests.quick import quick

SCALES = ["p-value", "rank", "robust"]
FUNCTIONS = {
    "p-value": _scales.log_p_values,
    "rank": _scales.ranks,
    "robust": _scales.robust,
}
every_scale = pytest.mark.parametrize("scale", SCALES)


class Column(BaseEstimator):
    """A detector whose score is one column, and what it was fitted on."""

    def __init__(self, column=0, factor=1.0):
        self.column = column
        self.factor = factor

    def fit(self, X, y=None):
        self.X_ = np.asarray(X)
        self.y_ = y
        return self

    def score_samples(self, X):
        return self.factor * np.asarray(X, dtype=float)[:, self.column]


def columns(n_samples=200, n_columns=2, seed=0):
    return np.random.default_rng(seed).normal(size=(n_samples, n_columns))


def forest_and_svm():
    forest = IsolationForest(n_estimators=5, random_state=0)
    return [("forest", forest), ("svm", OneClassSVM())]


# The scales


@every_scale
@pytest.mark.parametrize(
    "train_scores",
    [
        np.arange(1.0, 20),
        np.random.default_rng(0).normal(size=300),
        np.random.default_rng(0).exponential(size=40) * -1e-4,
        np.r_[np.zeros(50), np.arange(1.0, 51)],  # half of them equal
        np.r_[-1e6, np.random.default_rng(0).normal(size=99)],  # with an outlier
        np.full(30, 5.0),
        np.zeros(30),
        np.array([2.0]),
        np.array([1.0, 2.0]),
    ],
    ids=["steps", "normal", "small", "ties", "outlier", "equal", "zeros", "one", "two"],
)
def test_scales_increase_strictly_and_without_jumps(scale, train_scores):
    """Anomalies beyond all training images do not tie, nor do very normal images."""
    low, high = train_scores.min(), train_scores.max()
    width = (high - low) or max(abs(high), 1.0)
    scores = np.linspace(low - 3 * width, high + 3 * width, 4001)
    scaled = FUNCTIONS[scale](scores, train_scores)
    assert np.all(np.isfinite(scaled))
    assert np.all(np.diff(scaled) > 0)
    start, top, decay = _scales.ends(train_scores)
    ends = np.array([start, start, top, top]) + 1e-6 * decay * np.array([-1, 1, -1, 1])
    below, above, before, after = FUNCTIONS[scale](ends, train_scores)
    assert above - below < 1e-4
    assert after - before < 1e-4


@every_scale
def test_scales_do_not_depend_on_units_or_on_other_images(scale):
    train, scores = columns(100)[:, 0], 4 * columns(50, seed=1)[:, 0]
    scaled = FUNCTIONS[scale](scores, train)
    np.testing.assert_allclose(
        FUNCTIONS[scale](3 * scores - 7, 3 * train - 7), scaled, rtol=1e-9, atol=1e-12
    )
    one_by_one = [FUNCTIONS[scale](score[None], train)[0] for score in scores]
    np.testing.assert_array_equal(one_by_one, scaled)


def test_p_values_by_hand():
    """19 scores: the i-th has the p-value i / 20, and 0.1 to 0.05 lie 1 apart."""
    train = np.arange(1.0, 20)
    scores = np.array([2.0, 10.0, 19.0, 2.5, 1.0, 0.0, -98.0])
    p = np.exp(_scales.log_p_values(scores, train))
    expected = [0.1, 0.5, 0.95, np.sqrt(0.1 * 0.15), 0.05, 0.025]
    np.testing.assert_allclose(p[:-1], expected)
    # Halved at each step.
    assert _scales.log_p_values(scores, train)[-1] == pytest.approx(
        np.log(0.1) - 100 * np.log(2)
    )
    ranks = _scales.ranks(scores, train)
    np.testing.assert_allclose(ranks[:4], [0.1, 0.5, 0.95, 0.125])
    assert ranks[-1] == pytest.approx(0.1 / (1 + 100 * np.log(2)))
    above = _scales.ranks(np.array([20.0, 1e9]), train)
    assert 0.95 < above[0] < above[1] < 1


def test_robust_scores_by_hand():
    train = np.array([1.0, 2, 3, 4, 100])
    scaled = _scales.robust(np.array([3.0, 4.4826, 100]), train)
    np.testing.assert_allclose(scaled, [0, 1, 97 / 1.4826])
    # As many deviations as of a normal distribution.
    train = columns(20000)[:, 0]
    assert _scales.robust(np.array([-2.0]), train)[0] == pytest.approx(-2, abs=0.05)


@every_scale
def test_p_values_of_new_normal_scores_are_nearly_uniform(scale):
    train, new = columns(2000)[:, 0], columns(20000, seed=1)[:, 0]
    if scale == "robust":
        return
    p = FUNCTIONS[scale](new, train)
    p = np.exp(p) if scale == "p-value" else p
    for level in (0.02, 0.05, 0.1, 0.5, 0.9):
        assert np.mean(p <= level) == pytest.approx(level, abs=0.02)


@every_scale
def test_nan_stays_and_infinite_scores_are_at_the_ends(scale):
    with np.errstate(all="ignore"):
        scaled = FUNCTIONS[scale](np.array([np.nan, -np.inf, 0, np.inf]), np.arange(30.0))
    assert np.isnan(scaled).tolist() == [True, False, False, False]
    assert scaled[1] < scaled[2] < scaled[3]


# The ensemble


@pytest.mark.filterwarnings("ignore")  # of labels that the checks pass
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("combine", ["mean", "max", "median"])
def test_scikit_learn_checks(scale, combine):
    results = check_estimator(
        DetectorEnsemble(forest_and_svm(), scale=scale, combine=combine),
        on_fail=None,
        on_skip=None,
    )
    assert len(results) > 40
    assert {
        result["check_name"]: result["status"]
        for result in results
        if result["status"] != "passed"
    }.items() <= {"check_array_api_input": "skipped"}.items()


@every_scale
@pytest.mark.parametrize("combine", ["mean", "max", "median"])
def test_one_part_ranks_as_it_does_alone(scale, combine):
    X, others = columns(100, 5), columns(300, 5, seed=1) * 3
    detector = IsolationForest(random_state=0).fit(X)
    ensemble = DetectorEnsemble(
        [("a", IsolationForest(random_state=0))], scale=scale, combine=combine
    ).fit(X)
    alone = detector.score_samples(others)
    order = np.argsort(alone, kind="stable")
    assert np.all(np.diff(ensemble.score_samples(others)[order]) >= 0)
    labels = np.where(np.abs(others).max(axis=1) > 4, -1, 1)
    assert roc_auc_score(labels, ensemble.score_samples(others)) == roc_auc_score(
        labels, alone
    )


@every_scale
def test_combinations_by_hand(scale):
    X, others = columns(100, 3), columns(30, 3, seed=1) * 3
    parts = [(f"c{i}", Column(i, factor=10.0**i)) for i in range(3)]
    scaled = [FUNCTIONS[scale](10.0**i * others[:, i], 10.0**i * X[:, i]) for i in range(3)]
    for combine, expected in [
        ("mean", np.mean(scaled, axis=0)),
        ("max", np.min(scaled, axis=0)),  # the most anomalous part decides
        ("median", np.median(scaled, axis=0)),
    ]:
        ensemble = DetectorEnsemble(parts, scale=scale, combine=combine).fit(X)
        np.testing.assert_allclose(ensemble.score_samples(others), expected, rtol=1e-12)
        one_by_one = [ensemble.score_samples(row[None])[0] for row in others]
        np.testing.assert_array_equal(ensemble.score_samples(others), one_by_one)


def test_max_is_the_part_that_finds_it_most_anomalous():
    X = columns(200, 2)
    new = np.array([[0.0, 0.0], [-9.0, 0.0], [0.0, -9.0]])
    ensemble = DetectorEnsemble(
        [("a", Column(0)), ("b", Column(1))], combine="max", scale="robust"
    ).fit(X)
    assert ensemble.predict(new).tolist() == [1, -1, -1]
    # Among three parts, the median is that of the two that find nothing.
    ensemble = DetectorEnsemble(
        [("a", Column(0)), ("b", Column(1)), ("c", Column(1))], combine="median"
    ).fit(X)
    assert ensemble.predict(new).tolist() == [1, 1, -1]


def test_threshold():
    X = columns(200, 2)
    ensemble = DetectorEnsemble(
        [("a", Column(0)), ("b", Column(1))], contamination=0.2
    ).fit(X)
    assert ensemble.offset_ == pytest.approx(np.percentile(ensemble.train_scores_, 20))
    assert np.mean(ensemble.predict(X) == -1) == 0.2
    np.testing.assert_array_equal(
        ensemble.decision_function(X), ensemble.score_samples(X) - ensemble.offset_
    )
    assert ensemble.set_contamination(0.05).contamination == 0.05
    assert np.mean(ensemble.predict(X) == -1) == 0.05
    offset = ensemble.offset_
    with pytest.raises(ValueError, match="contamination"):
        ensemble.set_contamination(0.7)
    assert (ensemble.contamination, ensemble.offset_) == (0.05, offset)
    ensemble.offset_ = offset - 1  # such as from find_threshold
    with pytest.warns(UserWarning, match=r"set by hand, and what it promised is gone"):
        ensemble.set_contamination(0.2)


def test_a_score_of_nan_is_an_anomaly():
    ensemble = DetectorEnsemble([("a", Column(0)), ("b", Column(1))]).fit(columns())
    new = np.array([[np.nan, 0.0], [0.0, np.nan], [0.0, 0.0]])
    assert ensemble.predict(new).tolist() == [-1, -1, 1]


def test_training_scores_are_those_that_leave_the_own_image_out(digits):
    """A memory bank, LocalOutlierFactor, and what is frozen."""
    images, _ = digits
    parts = [("knn", quick(ResNetKNN)), ("svdd", quick(DeepSVDD))]
    ensemble = DetectorEnsemble(parts).fit(images)
    for i, part in enumerate(ensemble.estimators_):
        np.testing.assert_array_equal(ensemble.part_train_scores_[:, i], part.train_scores_)
    X = columns()
    lof = LocalOutlierFactor(novelty=True)
    for part in [lof, make_pipeline(StandardScaler(), lof)]:
        ensemble = DetectorEnsemble([("lof", part)]).fit(X)
        fitted = ensemble.estimators_[0]
        np.testing.assert_array_equal(
            ensemble.part_train_scores_[:, 0],
            getattr(fitted, "steps", [("", fitted)])[-1][1].negative_outlier_factor_,
        )
    lof.fit(X)
    held_out = columns(seed=1)
    for frozen in [FrozenEstimator(lof), FrozenEstimator(make_pipeline(lof).fit(X))]:
        ensemble = DetectorEnsemble([("lof", frozen)]).fit(held_out)
        np.testing.assert_array_equal(
            ensemble.part_train_scores_[:, 0], frozen.score_samples(held_out)
        )


def test_parts_are_those_of_their_own_fits(digits):
    images, others = digits
    parts = [(f"s{seed}", quick(DeepSVDD, random_state=seed)) for seed in range(3)]
    ensemble = DetectorEnsemble(parts).fit(images)
    for (name, part), fitted in zip(parts, ensemble.estimators_, strict=True):
        assert not hasattr(part, "offset_")
        assert ensemble.named_estimators_[name] is fitted
        np.testing.assert_array_equal(
            fitted.score_samples(others), clone(part).fit(images).score_samples(others)
        )


@pytest.mark.parametrize("n_jobs", [2, -1])
def test_jobs_change_no_bit(n_jobs, digits):
    images, others = digits
    parts = [("a", quick(DeepSVDD)), ("b", quick(ConvAE)), ("c", quick(ResNetKNN))]
    serial = DetectorEnsemble(parts).fit(images)
    parallel = DetectorEnsemble(parts, n_jobs=n_jobs).fit(images)
    for name in ("train_scores_", "part_train_scores_", "map_scales_", "offset_"):
        np.testing.assert_array_equal(getattr(parallel, name), getattr(serial, name))
    np.testing.assert_array_equal(
        parallel.score_samples(others), serial.score_samples(others)
    )
    np.testing.assert_array_equal(
        parallel.anomaly_map(others[:3]), serial.anomaly_map(others[:3])
    )


def test_a_failed_fit_changes_nothing():
    X = columns()
    ensemble = DetectorEnsemble(forest_and_svm()).fit(X)
    before = ensemble.score_samples(X)
    with pytest.raises(ValueError, match="NaN"):
        ensemble.fit(np.full((20, 2), np.nan))
    np.testing.assert_array_equal(ensemble.score_samples(X), before)


# Parts and their parameters


def test_parameters_of_parts():
    ensemble = DetectorEnsemble(forest_and_svm())
    assert ensemble.get_params()["svm__nu"] == 0.5
    ensemble.set_params(svm__nu=0.2, forest="drop", combine="max")
    assert ensemble.estimators[0] == ("forest", "drop")
    X = columns()
    ensemble.fit(X)
    assert [part.nu for part in ensemble.estimators_] == [0.2]
    assert ensemble.named_estimators_["forest"] == "drop"
    assert ensemble.named_estimators_["svm"] is ensemble.estimators_[0]
    copied = clone(ensemble)
    assert copied.estimators[0] == ("forest", "drop")
    np.testing.assert_array_equal(copied.fit(X).score_samples(X), ensemble.score_samples(X))
    ensemble.set_params(forest=Column(1)).fit(X)
    assert len(ensemble.estimators_) == 2


def test_searches_over_parts_and_their_parameters():
    rng = np.random.default_rng(0)
    X = np.r_[rng.normal(size=(80, 2)), rng.normal(2.5, 1, size=(40, 2))]
    y = np.repeat([1, -1], [80, 40])
    # The second column is noise, and the first finds the anomalies by its negative.
    X[80:, 1] = rng.normal(size=40)
    ensemble = DetectorEnsemble([("a", Column(0, -1.0)), ("b", Column(1))])
    grid = {"a__factor": [1.0, -1.0], "b": [Column(1), "drop"]}
    search = GridSearchCV(
        NormalOnly(ensemble),
        {f"estimator__{name}": values for name, values in grid.items()},
        cv=OneClassKFold(3, random_state=0),
        scoring="roc_auc",
    ).fit(X, y)
    assert search.best_params_ == {"estimator__a__factor": -1.0, "estimator__b": "drop"}
    assert search.best_score_ > 0.9


@pytest.mark.parametrize("kind", ["frame", "polars", "list", "tensor"])
def test_what_x_may_be(kind):
    import polars
    import torch

    X = columns()
    given = {
        "frame": lambda: pd.DataFrame(X, columns=["a", "b"]),
        "polars": lambda: polars.DataFrame(X, schema=["a", "b"]),
        "list": X.tolist,
        "tensor": lambda: torch.from_numpy(X),
    }[kind]()
    ensemble = DetectorEnsemble(forest_and_svm()).fit(given)
    expected = DetectorEnsemble(forest_and_svm()).fit(X).score_samples(X)
    np.testing.assert_array_equal(ensemble.score_samples(given), expected)
    assert ensemble.n_features_in_ == 2
    if kind in ("frame", "polars"):
        assert ensemble.feature_names_in_.tolist() == ["a", "b"]
    else:
        assert not hasattr(ensemble, "feature_names_in_")


def test_methods_of_skocc_and_scikit_learn_side_by_side(digits):
    images, others = (part.reshape(len(part), -1) for part in digits)
    ensemble = DetectorEnsemble(
        [
            ("svdd", quick(DeepSVDD, image_shape=(8, 8))),
            ("svm", make_pipeline(StandardScaler(), OneClassSVM())),
        ]
    ).fit(images)
    scores = np.r_[ensemble.score_samples(images), ensemble.score_samples(others)]
    assert roc_auc_score(np.repeat([1, -1], [60, 120]), scores) > 0.9
    assert ensemble.n_features_in_ == 64


def test_labels_of_anomalies_warn_once_and_reach_no_part():
    X = columns(20)
    with pytest.warns(UserWarning, match="labels 1 of 20 training images") as seen:
        ensemble = DetectorEnsemble([("a", Column()), ("b", Column(1))]).fit(
            X, np.r_[-1, np.ones(19)]
        )
    assert len(seen) == 1
    assert all(part.y_ is None for part in ensemble.estimators_)


def test_tags_are_those_of_all_parts():
    both = get_tags(DetectorEnsemble([("a", DeepSVDD()), ("b", OneClassSVM())]))
    assert not both.input_tags.three_d_array
    assert not both.input_tags.string
    assert both.input_tags.two_d_array
    assert both.estimator_type == "outlier_detector"
    images = get_tags(DetectorEnsemble([("a", DeepSVDD()), ("b", ConvAE())])).input_tags
    assert images.string
    assert images.three_d_array
    assert not images.two_d_array
    get_tags(DetectorEnsemble(None))  # fit says what is wrong


def test_pickle_and_html():
    X = columns()
    ensemble = DetectorEnsemble(forest_and_svm()).fit(X)
    again = pickle.loads(pickle.dumps(ensemble))
    np.testing.assert_array_equal(again.score_samples(X), ensemble.score_samples(X))
    html = ensemble._repr_html_()
    assert all(name in html for name in ["DetectorEnsemble", "forest", "OneClassSVM"])
    assert "OneClassSVM" in repr(ensemble)


def test_not_fitted():
    ensemble = DetectorEnsemble(forest_and_svm())
    for name in ("score_samples", "decision_function", "predict", "set_contamination"):
        with pytest.raises(NotFittedError):
            getattr(ensemble, name)(columns())
    for name in ("n_features_in_", "feature_names_in_", "named_estimators_"):
        assert not hasattr(ensemble, name)


@pytest.mark.parametrize(
    ("estimators", "message"),
    [
        ([], r"at least one of them not dropped. Got \[\]. Pass for example"),
        ([("a", "drop")], "not dropped"),
        ([OneClassSVM()], "pairs of a name and a detector"),
        ([("a", OneClassSVM()), (1, OneClassSVM())], "pairs of a name"),
        ([("a", OneClassSVM()), ("a", OneClassSVM())], "not unique"),
        ([("a__b", OneClassSVM())], "must not contain __"),
        ([("combine", OneClassSVM())], "conflict with constructor arguments"),
        (
            [("a", StandardScaler())],
            "The part 'a' must be a detector .* Got StandardScaler",
        ),
        ([("a", OneClassSVM)], "Pass an instance"),
        ([("a", LocalOutlierFactor())], "with fit and score_samples"),
        ([("a", "dropped")], "Got 'dropped'"),
        ("abc", "'estimators' parameter"),
    ],
)
def test_errors(estimators, message):
    with pytest.raises(ValueError, match=message):
        DetectorEnsemble(estimators).fit(columns())


def test_the_part_whose_scores_are_not_finite_is_named():
    X = columns()
    X[3, 1] = np.inf
    with pytest.raises(ValueError, match=r"The part 'b' gives .* Got 1 of 200\. Check"):
        DetectorEnsemble([("a", Column(0)), ("b", Column(1))]).fit(X)


# Thresholds and maps


def test_false_alarms_with_a_tuner_around_it():
    """The promise is about any detector; the ensemble's own threshold is too tight."""
    rng = np.random.default_rng(3)
    alarms, optimistic = [], []
    for seed in range(40):
        X, new = rng.normal(size=(120, 8)), rng.normal(size=(300, 8))
        ensemble = DetectorEnsemble(
            [("a", OneClassSVM(gamma=1.0)), ("b", OneClassSVM(gamma=0.3))]
        )
        tuner = ThresholdTuner(
            ensemble, max_fpr=0.1, calibration_size=49, random_state=seed
        ).fit(X)
        alarms.append(np.mean(tuner.predict(new) == -1))
        optimistic.append(np.mean(tuner.estimator_.predict(new) == -1))
    error = np.std(alarms, ddof=1) / np.sqrt(40)
    assert np.mean(alarms) == pytest.approx(0.1, abs=4 * error)
    assert np.mean(optimistic) > 0.1 + 4 * error


def test_maps_are_those_of_the_parts_that_have_them(digits):
    images, others = digits
    knn, conv, svdd = quick(ResNetKNN), quick(ConvAE), quick(DeepSVDD)
    ensemble = DetectorEnsemble([("knn", knn), ("svdd", svdd), ("conv", conv)]).fit(images)
    assert np.isnan(ensemble.map_scales_).any(axis=1).tolist() == [False, True, False]
    scaled = []
    for part in (clone(knn).fit(images), clone(conv).fit(images)):
        chosen = np.linspace(0, 59, 32).astype(int)
        pixels = part.anomaly_map(images[chosen]).astype(float)
        middle = np.median(pixels)
        deviation = 1.4826 * np.median(np.abs(pixels - middle))
        scaled.append((part.anomaly_map(others[:5]) - middle) / deviation)
    for combine, expected in [
        ("mean", np.mean(scaled, axis=0)),
        ("max", np.max(scaled, axis=0)),
        ("median", np.median(scaled, axis=0)),
    ]:
        maps = ensemble.set_params(combine=combine).anomaly_map(others[:5])
        assert maps.dtype == np.float32
        np.testing.assert_allclose(maps, expected, rtol=1e-3, atol=1e-3)
    scores = ensemble.score_samples(others[:5])
    with_scores = ensemble.anomaly_map(others[:5], size=(4, 6), return_scores=True)
    assert with_scores[0].shape == (5, 4, 6)
    np.testing.assert_allclose(with_scores[1], scores, rtol=1e-6)
    alone = DetectorEnsemble([("svdd", svdd)]).fit(images)
    assert not hasattr(alone, "anomaly_map")
    assert not hasattr(DetectorEnsemble(forest_and_svm()), "anomaly_map")
    # A part that has maps only with some parameters.
    assert not hasattr(DetectorEnsemble([("a", MOCCA())]), "anomaly_map")
    assert hasattr(DetectorEnsemble([("a", MOCCA(patch_size=8))]), "anomaly_map")


def test_maps_of_one_part_are_its_maps_in_other_units(digits, image_files):
    _, paths = image_files
    conv = quick(ConvAE, image_size=(8, 6))
    ensemble = DetectorEnsemble([("conv", conv)]).fit(paths)
    alone, maps = clone(conv).fit(paths).anomaly_map(paths), ensemble.anomaly_map(paths)
    assert maps.shape == (12, 16, 12)
    assert spearmanr(alone.ravel(), maps.ravel())[0] > 0.999999


def test_maps_of_a_part_at_the_end_of_a_pipeline(digits):
    images, others = digits
    pipeline = make_pipeline(FunctionTransformer(np.sqrt), quick(ConvAE))
    ensemble = DetectorEnsemble([("conv", pipeline)]).fit(images)
    alone = clone(pipeline).fit(images)
    expected = alone[-1].anomaly_map(np.sqrt(others[:5]))
    maps = ensemble.anomaly_map(others[:5])
    assert spearmanr(expected.ravel(), maps.ravel())[0] > 0.999999


def test_maps_of_different_sizes_are_refused():
    class Maps(Column):
        def anomaly_map(self, X):
            return np.ones((len(X), self.column + 1, 2), np.float32)

    ensemble = DetectorEnsemble([("a", Maps(0)), ("b", Maps(1))]).fit(columns())
    with pytest.raises(ValueError, match=r"Got the sizes \[\(1, 2\), \(2, 2\)\]"):
        ensemble.anomaly_map(columns(3))


def test_training_scores_leave_one_out_if_those_of_all_parts_do(digits):
    images, _ = digits
    knn = [("a", quick(ResNetKNN)), ("b", make_pipeline(quick(ResNetKNN)))]
    tuner = ThresholdTuner(DetectorEnsemble(knn), cv="loo").fit(images)
    np.testing.assert_array_equal(
        tuner.calibration_scores_, np.sort(tuner.estimator_.train_scores_)
    )
    mixed = DetectorEnsemble([*knn, ("c", quick(DeepSVDD))])
    with pytest.raises(ValueError, match="Got DetectorEnsemble, which scores images"):
        ThresholdTuner(mixed, cv="loo").fit(images)


def test_docstring_is_complete():
    doc = ClassDoc(DetectorEnsemble)
    parameters = [p.name for p in doc["Parameters"]]
    assert sorted(parameters) == [*DetectorEnsemble([]).get_params(deep=False)]
    X = pd.DataFrame(columns(), columns=["a", "b"])
    ensemble = DetectorEnsemble(forest_and_svm()).fit(X)
    attributes = {attribute.name for attribute in doc["Attributes"]}
    missing = {name for name in attributes if not hasattr(ensemble, name)}
    assert missing == {"pixel_threshold_", "train_map_maxima_"}  # no part has maps
    assert skocc.model_selection.DetectorEnsemble is DetectorEnsemble


# Files


def deep_ensemble(**params):
    """Return an unfitted ensemble with another in it, and a part that is dropped."""
    inner = DetectorEnsemble([("conv", quick(ConvAE))], combine="max")
    parts = [("knn", quick(ResNetKNN)), ("none", "drop"), ("inner", inner)]
    return DetectorEnsemble([*parts, ("svdd", quick(DeepSVDD))], **params)


def read(path):
    """Return header and arrays of a model file."""
    metadata, arrays = read_tensors(str(path))
    return json.loads(metadata["skocc"]), arrays


def write(path, header, arrays):
    """Write a model file with a digest that agrees."""
    header["digest"] = model_files._digest(header, arrays)
    path.write_bytes(safetensors.numpy.save(arrays, {"skocc": json.dumps(header)}))


def test_save_and_load(digits, tmp_path):
    images, others = digits
    path = tmp_path / "ensemble.safetensors"
    ensemble = deep_ensemble(scale="rank", contamination=0.2, n_jobs=1).fit(images)
    skocc.save(ensemble, path)
    loaded = skocc.load(path)
    for name in ("score_samples", "predict", "anomaly_map"):
        np.testing.assert_array_equal(
            getattr(loaded, name)(others), getattr(ensemble, name)(others)
        )
    assert (loaded.offset_, loaded.scale, loaded.n_jobs) == (ensemble.offset_, "rank", None)
    assert [name for name, _ in loaded.estimators] == ["knn", "none", "inner", "svdd"]
    assert loaded.estimators[1] == ("none", "drop")
    assert loaded.get_params()["inner__conv__base_channels"] == 4
    # It can be fitted again, searched, and saved again as the same file.
    clone(loaded).fit(images)
    skocc.save(loaded, tmp_path / "again")
    header, arrays = read(path)
    again, arrays_again = read(tmp_path / "again")
    header.pop("digest"), again.pop("digest")
    assert header == again
    assert arrays.keys() == arrays_again.keys()


def test_parts_of_scikit_learn_are_in_an_archive(digits, tmp_path):
    pytest.importorskip("skops")
    images = digits[0].reshape(60, -1)
    svdd = quick(DeepSVDD, image_shape=(8, 8))
    for parts in (
        [("deep", svdd), ("svm", OneClassSVM())],
        [("deep", FrozenEstimator(svdd.fit(images)))],
    ):
        ensemble = DetectorEnsemble(parts).fit(images)
        skocc.save(ensemble, tmp_path / "a")
        scores = skocc.load(tmp_path / "a").score_samples(images)
        np.testing.assert_array_equal(scores, ensemble.score_samples(images))


def many(header):
    header["parts"] *= 60


def deep(header):
    """Three ensembles in one another are read, as they are in the next test."""
    for _ in range(4):
        header["parts"] = [["a", {key: header[key] for key in header if key != "digest"}]]


CHANGES = {
    "a part too many": lambda header: header["parts"].append(header["parts"][0]),
    "a part too few": lambda header: header["parts"].pop(),
    "a part with more": lambda header: header["parts"][0][1].update(format="3"),
    "a part dropped": lambda header: header["parts"][0].__setitem__(1, None),
    "parts swapped": lambda header: header["parts"].reverse(),
    "one name twice": lambda header: header["parts"][0].__setitem__(0, "svdd"),
    "a name that is no text": lambda header: header["parts"][0].__setitem__(0, 7),
    "a name with __": lambda header: header["parts"][0].__setitem__(0, "a__b"),
    "no parts": lambda header: header.pop("parts"),
    "parts of no ensemble": lambda header: header.update(estimator="DeepSVDD"),
    "another class": lambda header: header["parts"][0][1].update(estimator="MOCCA"),
    "a class of scikit-learn": lambda header: header["parts"][0][1].update(
        estimator="OneClassSVM"
    ),
    "parts among the parameters": lambda header: header["params"].update(estimators=[]),
    "many": many,
    "deep": deep,
}


@pytest.mark.parametrize("name", CHANGES)
def test_files_that_are_changed_are_refused(name, ensemble_file, tmp_path):
    header, arrays = read(ensemble_file)
    del header["digest"]
    CHANGES[name](header)
    write(tmp_path / "a", header, arrays)
    with pytest.raises(ValueError, match="cannot be read as a model"):
        skocc.load(tmp_path / "a")


@pytest.mark.parametrize(
    "key", ["parts/9/offset_", "parts/00/x", "parts/x/y", "parts", "x"]
)
def test_arrays_that_belong_to_no_part_are_refused(key, ensemble_file, tmp_path):
    header, arrays = read(ensemble_file)
    del header["digest"]
    arrays[key] = np.zeros(3)
    write(tmp_path / "a", header, arrays)
    with pytest.raises(ValueError, match="cannot be read as a model"):
        skocc.load(tmp_path / "a")


def test_the_memory_of_all_parts_is_limited(ensemble_file, monkeypatch):
    """What is not in the file but follows from sizes counts together, not part by part."""
    monkeypatch.setattr(model_files, "_other_bytes", lambda network: 2**28)
    with pytest.raises(ValueError, match=r"parts would take \d+ bytes beside the file's"):
        skocc.load(ensemble_file)  # of three networks, each of half of what one may have


def test_ensembles_in_ensembles(digits, tmp_path):
    detector = DetectorEnsemble([("a", quick(ResNetKNN))])
    for depth in range(2, 5):
        detector = DetectorEnsemble([("a", detector)])
        fitted = clone(detector).fit(digits[0][:20])
        if depth <= 3:
            skocc.save(fitted, tmp_path / "a")
            scores = skocc.load(tmp_path / "a").score_samples(digits[0])
            np.testing.assert_array_equal(scores, fitted.score_samples(digits[0]))
        else:
            with pytest.raises(ValueError, match="could not put it together"):
                skocc.save(fitted, tmp_path / "a")


@pytest.fixture(scope="module")
def ensemble_file(digits, tmp_path_factory):
    path = tmp_path_factory.mktemp("ensemble") / "file"
    skocc.save(deep_ensemble().fit(digits[0][:40]), path)
    return path
