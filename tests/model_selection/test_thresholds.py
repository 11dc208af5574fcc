import numpy as np
import pandas as pd
import pytest
import torch
from numpydoc.docscrape import ClassDoc, FunctionDoc
from sklearn.base import BaseEstimator, clone
from sklearn.ensemble import IsolationForest
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import f1_score
from sklearn.model_selection import GridSearchCV, ParameterGrid, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM
from sklearn.utils.estimator_checks import check_estimator

import skocc.model_selection
from skocc import DeepSVDD, PatchSVDD
from skocc.model_selection import (
    ThresholdTuner,
    benjamini_hochberg,
    conformal_p_values,
    find_threshold,
)
from tests.quick import quick


class FirstColumn(BaseEstimator):
    """A detector whose score is the first column; keeps what it was fitted on."""

    def __init__(self, shift=0.0):
        self.shift = shift

    def fit(self, X, y=None):
        self.X_ = np.asarray(X)
        return self

    def score_samples(self, X):
        return np.asarray(X, dtype=float)[:, 0] + self.shift


def column(scores):
    return np.asarray(scores, dtype=float)[:, np.newaxis]


def mean_and_error(values):
    return np.mean(values), np.std(values, ddof=1) / np.sqrt(len(values))


# The promise


@pytest.mark.parametrize(("n_calibration", "rate"), [(19, 0.05), (50, 0.05), (99, 0.1)])
def test_false_alarms_of_a_conformal_threshold(n_calibration, rate):
    """Its expectation is known exactly for scores without ties."""
    rng = np.random.default_rng(0)
    calibration = rng.normal(size=(4000, n_calibration))
    new = rng.normal(size=(4000, 50))
    offsets = [find_threshold(scores, max_fpr=rate) for scores in calibration]
    mean, error = mean_and_error((new < column(offsets)).mean(axis=1))
    expected = np.floor(rate * (n_calibration + 1) + 1e-9) / (n_calibration + 1)
    assert expected <= rate + 1e-12
    assert mean == pytest.approx(expected, abs=4 * error)
    # A quantile of the same scores promises nothing.
    offsets = [
        find_threshold(scores, rule="percentile", max_fpr=rate) for scores in calibration
    ]
    mean, error = mean_and_error((new < column(offsets)).mean(axis=1))
    assert mean > rate + 4 * error


@pytest.mark.parametrize("n_values", [2, 5, 1000])
def test_p_values_are_no_smaller_than_uniform(n_values):
    """Also where many scores are equal."""
    rng = np.random.default_rng(1)
    scores = rng.integers(n_values, size=(5000, 40))
    p_values = np.array([conformal_p_values(row[:1], row[1:])[0] for row in scores])
    for level in (0.025, 0.05, 0.1, 0.5, 0.9):
        found = p_values <= level
        assert found.mean() <= level + 4 * np.sqrt(level * (1 - level) / len(found))


def test_false_discoveries_of_a_batch():
    """90 normal and 10 anomalous images, of which most are found."""
    rng = np.random.default_rng(2)
    false, power = [], []
    for _ in range(400):
        scores = np.r_[rng.normal(size=90), rng.normal(-4, 1, 10)]
        p_values = conformal_p_values(scores, rng.normal(size=500))
        found = benjamini_hochberg(p_values, rate=0.2) == -1
        false.append(found[:90].sum() / max(1, found.sum()))
        power.append(found[90:].mean())
    mean, error = mean_and_error(false)
    # 0.9 * rate, for nine tenths are normal; far more without the control.
    assert 0.1 < mean < 0.2 * 0.9 + 4 * error
    assert np.mean(power) > 0.7


def test_tuner_keeps_the_promise_where_the_training_images_do_not():
    """A detector that knows its training samples by heart."""
    rng = np.random.default_rng(3)
    alarms, optimistic = [], []
    for seed in range(40):
        X, new = rng.normal(size=(120, 8)), rng.normal(size=(300, 8))
        tuner = ThresholdTuner(
            OneClassSVM(gamma=1.0), max_fpr=0.1, calibration_size=49,
            random_state=seed,
        ).fit(X)  # fmt: skip
        alarms.append(np.mean(tuner.predict(new) == -1))
        train_scores = tuner.score_samples(X)
        optimistic.append(
            np.mean(tuner.score_samples(new) < np.quantile(train_scores, 0.1))
        )
    mean, error = mean_and_error(alarms)
    assert mean <= 0.1 + 4 * error
    assert mean >= 0.1 - 4 * error
    assert np.mean(optimistic) > 0.1 + 4 * error


# The rules


def test_p_values_by_hand():
    p_values = conformal_p_values([0, 1, 1.5, 2, 9, np.nan, -np.inf, np.inf], [1, 2, 2, 3])
    np.testing.assert_array_equal(p_values * 5, [1, 2, 2, 4, 5, 1, 1, 5])


@pytest.mark.parametrize("n_calibration", [9, 10, 19, 20, 37, 99, 100, 399])
@pytest.mark.parametrize("rate", [0.1, 0.15, 0.3, 0.7, 1 / 3])
def test_labels_and_p_values_agree(n_calibration, rate):
    rng = np.random.default_rng(n_calibration)
    scores = np.round(rng.normal(size=n_calibration), 1)  # with ties
    tuner = ThresholdTuner(FirstColumn().fit([[0]]), max_fpr=rate, cv="prefit")
    tuner.fit(column(scores))
    new = np.r_[scores, scores + 1e-9, scores - 1e-9, rng.normal(size=50)]
    expected = np.where(conformal_p_values(new, scores) <= rate, -1, 1)
    np.testing.assert_array_equal(tuner.predict(column(new)), expected)
    np.testing.assert_array_equal(
        tuner.p_values(column(new)), conformal_p_values(new, scores)
    )


def test_simple_rules_by_hand():
    scores = [1.0, 2.0, 3.0, 6.0]
    assert find_threshold(scores, rule="median") == 2.5
    assert find_threshold(scores, rule="percentile", max_fpr=0.5) == 2.5
    assert find_threshold(scores, rule="std", k=2) == pytest.approx(3 - 2 * np.sqrt(3.5))
    assert find_threshold(scores, max_fpr=0.4) == 2.0
    # Anomalies have no part in them.
    y = [1, 1, 1, 1, -1]
    for rule in ("median", "percentile", "std", "conformal"):
        params = {"rule": rule, "max_fpr": 0.4}
        assert find_threshold([*scores, -9.0], y, **params) == find_threshold(
            scores, **params
        )


@pytest.mark.parametrize("seed", range(20))
def test_best_f1_against_all_thresholds(seed):
    rng = np.random.default_rng(seed)
    y = np.where(rng.random(40) < 0.3, -1, 1)
    y[:2] = -1, 1
    scores = np.round(rng.normal(size=40) + y, 1)  # with ties
    offset = find_threshold(scores, y, rule="f1")
    candidates = np.r_[scores, scores.max() + 1]
    f1s = [f1_score(y == -1, scores < candidate) for candidate in candidates]
    assert f1_score(y == -1, scores < offset) == pytest.approx(max(f1s))
    assert offset not in scores or offset > scores.max()


def test_best_f1_at_the_ends():
    assert find_threshold([1.0, 3.0, 5.0], [-1, 1, 1], rule="f1") == 2.0
    assert find_threshold([1.0, 3.0], [1, -1], rule="f1") > 3.0
    low, high = 1.0, np.nextafter(1.0, 2)
    assert find_threshold([low, high], [-1, 1], rule="f1") == high


# The meta-estimator


@pytest.mark.filterwarnings("ignore:.*labels in y are neither")
@pytest.mark.parametrize("params", [{"max_fpr": 0.5}, {"rule": "std"}])
def test_scikit_learn_checks(params):
    """At a rate of 0.5, for the checks have few samples and 0.05 refuses these."""
    forest = IsolationForest(n_estimators=5, random_state=0)
    results = check_estimator(
        ThresholdTuner(forest, random_state=0, **params), on_fail=None, on_skip=None
    )
    assert len(results) > 40
    assert {
        result["check_name"]: result["status"]
        for result in results
        if result["status"] != "passed"
    }.items() <= {"check_array_api_input": "skipped"}.items()


def test_anomalies_are_never_trained_on():
    X = column(np.arange(200))
    y = np.where(np.arange(200) % 4 == 0, -1, 1)
    for rule in ("conformal", "f1"):
        tuner = ThresholdTuner(FirstColumn(), rule=rule, random_state=0).fit(X, y)
        trained, held_out = tuner.estimator_.X_[:, 0], tuner.calibration_scores_
        assert len(held_out) == 30
        assert len(trained) == 120
        np.testing.assert_array_equal(
            np.sort(np.r_[trained, held_out]), np.flatnonzero(y == 1)
        )
        assert (np.diff(trained) > 0).all()
        np.testing.assert_array_equal(tuner.fit_predict(X, y), tuner.predict(X))
        assert -1 not in y[tuner.estimator_.X_[:, 0].astype(int)]


@pytest.mark.parametrize("dtype", [int, float, object, "series"])
def test_labels_of_any_kind(dtype):
    y = (
        pd.Series([1] * 80 + [-1] * 20)
        if dtype == "series"
        else np.repeat([1, -1], [80, 20])
    )
    y = y if dtype == "series" else y.astype(dtype)
    tuner = ThresholdTuner(FirstColumn(), calibration_size=30).fit(column(range(100)), y)
    assert tuner.estimator_.X_.max() < 80
    assert len(tuner.estimator_.X_) == 50


@pytest.mark.parametrize("anomalies", [[-1, -2, -2, -7], ["cut", "stain", "cut", "dent"]])
def test_kinds_of_anomalies_are_anomalies(anomalies):
    normal = "good" if isinstance(anomalies[0], str) else 1
    y = np.array([normal] * 80 + anomalies * 5)
    tuner = ThresholdTuner(FirstColumn(), rule="f1", calibration_size=30, random_state=0)
    tuner.fit(column(range(100)), y)
    assert tuner.estimator_.X_.max() < 80
    assert len(tuner.estimator_.X_) == 50
    assert find_threshold(range(100), y, rule="percentile") == np.quantile(range(80), 0.05)


@pytest.mark.parametrize("y", [[0, 1] * 50, ["normal"] * 100, [1, np.nan] * 50])
def test_labels_that_cannot_be_read_warn_and_are_normal(y):
    tuner = ThresholdTuner(FirstColumn(), calibration_size=30)
    with pytest.warns(UserWarning, match="neither normal.*treated as normal. Got") as seen:
        tuner.fit(column(range(100)), y)
    assert seen[0].filename == __file__
    assert len(tuner.estimator_.X_) == 70
    with pytest.raises(ValueError, match="Labels must be"):
        find_threshold(range(100), y)


def test_best_f1_of_the_held_out():
    rng = np.random.default_rng(0)
    X, y = column(rng.normal(size=200)), np.repeat([1, -1], [150, 50])
    X[y == -1] -= 3
    tuner = ThresholdTuner(FirstColumn(), rule="f1", calibration_size=50, random_state=0)
    tuner.fit(X, y)
    judged = np.r_[tuner.calibration_scores_, X[y == -1, 0]]
    assert tuner.offset_ == find_threshold(judged, np.repeat([1, -1], 50), rule="f1")


def test_random_state_and_clone():
    X = column(np.arange(100))
    tuner = ThresholdTuner(FirstColumn(), random_state=1).fit(X)
    again = clone(tuner).fit(X)
    np.testing.assert_array_equal(tuner.calibration_scores_, again.calibration_scores_)
    other = clone(tuner).set_params(random_state=2).fit(X)
    assert not np.array_equal(tuner.calibration_scores_, other.calibration_scores_)
    assert not hasattr(tuner.estimator, "X_")


def test_prefit():
    detector = FirstColumn().fit(column([7.0]))
    tuner = ThresholdTuner(detector, cv="prefit").fit(column(np.arange(39)))
    assert tuner.estimator_ is detector
    np.testing.assert_array_equal(detector.X_, [[7.0]])
    np.testing.assert_array_equal(tuner.calibration_scores_, np.arange(39))
    assert tuner.offset_ == 1
    frozen = clone(ThresholdTuner(FrozenEstimator(detector), cv="prefit"))
    assert frozen.fit(column(np.arange(39))).offset_ == 1
    with pytest.raises(NotFittedError):
        ThresholdTuner(OneClassSVM(), cv="prefit").fit(column(np.arange(39)))


def test_searches_over_parameters_of_the_detector():
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(size=(90, 3)), rng.normal(2, 1, size=(30, 3))])
    y = np.repeat([1, -1], [90, 30])
    pipeline = make_pipeline(StandardScaler(), OneClassSVM())
    tuner = ThresholdTuner(pipeline, max_fpr=0.1, random_state=0)
    grid = {"estimator__oneclasssvm__nu": [0.1, 0.5], "max_fpr": [0.1, 0.2]}
    search = GridSearchCV(tuner, grid, scoring="roc_auc", cv=StratifiedKFold(3)).fit(X, y)
    assert len(search.cv_results_["params"]) == len(ParameterGrid(grid))
    assert search.best_score_ > 0.8
    assert search.best_estimator_.estimator_[0].n_samples_seen_ == 72  # of 90 normal ones
    assert set(search.predict(X)) == {-1, 1}


@pytest.mark.parametrize(
    "kind",
    ["array", "tensor", "paths", "strings", "series", "array of paths", "data set"],
)
def test_what_x_may_be(kind, image_files):
    images, paths = image_files
    X = {
        "array": images,
        "tensor": torch.from_numpy(images)[:, None],
        "paths": paths,
        "strings": [str(path) for path in paths],
        "series": pd.Series(paths, index=range(5, 17)),
        "array of paths": np.array([str(path) for path in paths]),
        "data set": torch.utils.data.TensorDataset(torch.from_numpy(images)),
    }[kind]
    tuner = ThresholdTuner(
        quick(DeepSVDD), max_fpr=0.5, calibration_size=4, random_state=0
    ).fit(X, [1] * 11 + [-1])
    assert len(tuner.estimator_.train_scores_) == 7
    expected = ThresholdTuner(
        quick(DeepSVDD), max_fpr=0.5, calibration_size=4, random_state=0
    ).fit(images[:11])
    np.testing.assert_allclose(tuner.p_values(X), expected.p_values(images), atol=1e-9)


def test_maps_where_the_detector_has_them(image_files):
    images, _ = image_files
    assert not hasattr(ThresholdTuner(quick(DeepSVDD)), "anomaly_map")
    tuner = ThresholdTuner(
        quick(PatchSVDD), max_fpr=0.5, calibration_size=4, random_state=0
    )
    with pytest.raises(NotFittedError):
        tuner.anomaly_map(images)
    maps = tuner.fit(images).anomaly_map(images[:2])
    np.testing.assert_array_equal(maps, tuner.estimator_.anomaly_map(images[:2]))


def test_threshold_is_one_for_offset():
    X = np.random.default_rng(0).normal(size=(200, 2))
    forest = IsolationForest(n_estimators=10, random_state=0).fit(X[:100])
    forest.offset_ = find_threshold(forest.score_samples(X[100:]), max_fpr=0.1)
    tuner = ThresholdTuner(forest, max_fpr=0.1, cv="prefit").fit(X[100:])
    np.testing.assert_array_equal(forest.predict(X), tuner.predict(X))


# Errors


def test_too_few_images_are_refused_before_training():
    tuner = ThresholdTuner(FirstColumn(), calibration_size=18)
    message = r"0\.05 cannot be promised.*Got 18 normal.*19 are needed\. Hold out more"
    with pytest.raises(ValueError, match=message):
        tuner.fit(column(np.arange(100)))
    tuner.set_params(calibration_size=19).fit(column(np.arange(100)))
    with pytest.raises(ValueError, match="99 are needed"):
        find_threshold(np.arange(98), max_fpr=0.01)
    find_threshold(np.arange(99), max_fpr=0.01)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: find_threshold([1, 2], rule="best"),
            r"one of .*Got 'best'.*Set for example",
        ),
        (
            lambda: find_threshold([1, 2], max_fpr=1),
            "max_fpr must be a number",
        ),
        (
            lambda: find_threshold([1, np.nan]),
            r"finite numbers.*1 of them not finite.*Pass",
        ),
        (lambda: find_threshold([]), r"shape \(0,\)"),
        (lambda: find_threshold([1, 2], [1]), r"one label.*\(1,\) for 2 samples"),
        (lambda: find_threshold([1, 2], [-1, -1]), "some must be normal"),
        (lambda: find_threshold([1, 2], rule="f1"), r"needs labeled anomalies.*Pass y"),
        (lambda: conformal_p_values([1], []), "at least one"),
        (lambda: benjamini_hochberg([0.1, 2]), r"in \[0, 1\].*to 2\.0.*Pass"),
        (lambda: benjamini_hochberg([0.1], rate=0), "rate must be a number"),
        (
            lambda: ThresholdTuner(FirstColumn(), rule="f1").fit(column(range(50))),
            "Got none among 50 samples",
        ),
        (
            lambda: ThresholdTuner(FirstColumn(), calibration_size=9).fit(column(range(9))),
            "n_samples = 9 normal ones, with calibration_size=9",
        ),
        (lambda: ThresholdTuner(StandardScaler()).fit(column(range(50))), "score_samples"),
        (lambda: ThresholdTuner(FirstColumn(), cv=1).fit(column(range(50))), "'cv'"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        call()


def test_nothing_found_in_nothing():
    assert benjamini_hochberg([]).shape == (0,)


def test_docstrings_are_complete():
    params = ThresholdTuner(None).get_params(deep=False)
    doc = ClassDoc(ThresholdTuner)
    assert sorted(p.name for p in doc["Parameters"]) == sorted(params)
    for name in ("find_threshold", "conformal_p_values", "benjamini_hochberg"):
        doc = FunctionDoc(getattr(skocc.model_selection, name))
        for section in ["Parameters", "Returns", "Raises", "See Also", "Notes", "Examples"]:
            assert doc[section], (name, section)


@pytest.mark.parametrize("rule", ["median", "percentile", "std"])
def test_thresholds_beyond_all_floats_are_refused(rule):
    scores = [-1.7e308, 1.7e308] if rule == "std" else [1.7e308, 1.7e308]
    if rule == "percentile":
        scores = [-1.7e308, 1.7e308]
    with pytest.raises(ValueError, match=f"too large for rule='{rule}'.*Divide"):
        find_threshold(scores, rule=rule)
