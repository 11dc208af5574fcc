"""Thresholds of heat maps through ThresholdTuner, DetectorEnsemble and NormalOnly."""

import pickle

import numpy as np
import pytest
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import skocc
from skocc import ConvAE, DeepSVDD, PatchSVDD, ResNetKNN
from skocc.model_selection import (
    DetectorEnsemble,
    NormalOnly,
    ThresholdTuner,
    conformal_p_values,
    find_threshold,
)
from skocc.model_selection._calibration import pooled_masks, pooled_p_values, pooled_scores
from tests.quick import quick

IMAGES = np.random.default_rng(0).random((60, 8, 8), dtype=np.float32)
NEW = np.random.default_rng(1).random((40, 8, 8), dtype=np.float32)
RATES = [0.05, 1 / 11, 0.2, 0.5]


class Unlike(OutlierMixin, BaseEstimator):
    """A method without options: the map is how far each pixel is from the first image."""

    n_most = 0

    def fit(self, X, y=None):
        self.first_ = X[0]
        return self

    def anomaly_map(self, X):
        type(self).n_most = max(type(self).n_most, len(X))
        return np.abs(np.asarray(X) - self.first_)

    def score_samples(self, X):
        return -np.abs(np.asarray(X) - self.first_).mean(axis=(1, 2))


class Scaled(Unlike):
    """On a scale that differs from fold to fold."""

    def anomaly_map(self, X):
        return super().anomaly_map(X) * 10 ** np.floor(self.first_[0, 0] * 7)


def maxima(maps):
    return np.max(maps, axis=(1, 2)).astype(np.float64)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("make", [Unlike, lambda: quick(ConvAE)], ids=["other", "ours"])
def test_an_image_is_marked_where_the_p_value_of_its_maximum_says_so(make, rate):
    """Which is all that the guarantee needs; the score is the negative maximum."""
    tuner = ThresholdTuner(make(), max_fpr=rate, calibration_size=20, random_state=0)
    tuner.fit(IMAGES)
    held_out = IMAGES[tuner.calibration_indices_]
    values = maxima(tuner.estimator_.anomaly_map(held_out))
    np.testing.assert_allclose(tuner.calibration_map_maxima_, values, rtol=1e-5)
    expected = tuner.estimator_.score_samples(held_out)
    np.testing.assert_allclose(tuner.calibration_scores_, expected, rtol=1e-5)
    p_values = conformal_p_values(
        -maxima(tuner.anomaly_map(NEW)), -tuner.calibration_map_maxima_
    )
    masks = tuner.anomaly_mask(NEW)
    assert masks.dtype == bool
    np.testing.assert_array_equal(masks, tuner.anomaly_map(NEW) > tuner.pixel_threshold_)
    np.testing.assert_array_equal(masks.any(axis=(1, 2)), p_values <= rate)


def test_maps_of_held_out_images_are_not_all_in_memory():
    Unlike.n_most = 0
    ThresholdTuner(Unlike(), max_fpr=0.1, calibration_size=40, random_state=0).fit(IMAGES)
    assert Unlike.n_most == 8


def test_maps_and_scores_of_folds_come_from_one_pass(monkeypatch):
    tuner = ThresholdTuner(quick(PatchSVDD), cv=3, random_state=0).fit(IMAGES)
    maps, scores = tuner.anomaly_map(NEW), tuner.score_samples(NEW)
    monkeypatch.delattr(PatchSVDD, "score_samples")
    found = tuner.anomaly_map(NEW, return_scores=True)
    np.testing.assert_array_equal(found[0], maps)
    np.testing.assert_allclose(found[1], scores, rtol=1e-6)


@pytest.mark.parametrize("make", [Scaled, lambda: quick(PatchSVDD)], ids=["other", "ours"])
@pytest.mark.parametrize("groups", [None, np.arange(60) // 2], ids=["images", "pieces"])
def test_folds_that_are_kept_mark_by_p_values(make, groups):
    tuner = ThresholdTuner(make(), cv=3, max_fpr=0.2, random_state=0)
    tuner.fit(IMAGES, groups=groups)
    own = [
        maxima(detector.anomaly_map(IMAGES[tuner.calibration_indices_]))
        for detector in tuner.estimators_
    ]
    expected = np.choose(tuner.calibration_folds_, own)
    np.testing.assert_allclose(tuner.calibration_map_maxima_, expected, rtol=1e-5)
    # A p-value of each pixel by hand, as of images.
    new = NEW.copy()
    new[::2, 2:6, 2:6] = 3  # of detectors that agree on nothing else
    maps = np.stack([detector.anomaly_map(new) for detector in tuner.estimators_])
    reference = tuner.calibration_map_maxima_
    higher = reference >= maps[tuner.calibration_folds_].transpose(1, 2, 3, 0)
    p_values = (1 + higher.sum(axis=-1)) / 61
    masks = tuner.anomaly_mask(new)
    np.testing.assert_array_equal(masks, p_values <= 0.2)
    is_marked = masks.any(axis=(1, 2))
    assert is_marked[::2].all()
    assert is_marked[1::2].mean() < 0.5
    # Any pixel is marked only where the image would be, were the maximum its score.
    order = np.argsort(-reference, kind="stable")
    pooled = pooled_scores(
        np.stack([-maxima(of_one) for of_one in maps], axis=1),
        -reference[order],
        tuner.calibration_folds_[order],
    )
    assert np.all(pooled_p_values(pooled, 60)[is_marked] <= 0.2)
    # There is no single threshold, which the mean of maps on other scales could not have.
    assert not hasattr(tuner, "pixel_threshold_")
    with pytest.raises(AttributeError, match=r"no threshold.*Got cv=3.*set refit=True"):
        tuner.pixel_threshold_  # noqa: B018
    threshold = float(np.median(tuner.anomaly_map(new)))
    given = tuner.anomaly_mask(new, threshold=threshold)
    np.testing.assert_array_equal(given, tuner.anomaly_map(new) > threshold)


def test_pixels_of_photographs_of_several_sizes_and_nan():
    maps = [[np.array([[1.0, np.nan]]), np.array([[3.0], [0.0]])]] * 2
    masks = pooled_masks(maps, np.array([0.5, 2.0, 1.0, 2.0]), np.array([0, 0, 1, 1]), 3)
    assert [mask.tolist() for mask in masks] == [[[False, True]], [[True], [False]]]


def test_rate_of_folds_is_at_most_the_promised_one():
    """Over 60 sets: 0.014 +- 0.004 for kept folds, 0.103 +- 0.008 with a refit."""
    rates = {True: [], False: []}
    for seed in range(60):
        images = np.random.default_rng(seed).random((90, 4, 4), dtype=np.float32)
        for refit, found in rates.items():
            tuner = ThresholdTuner(
                Unlike(), cv=3, refit=refit, max_fpr=0.1, random_state=seed
            ).fit(images[:50])
            found.append(tuner.anomaly_mask(images[50:]).any(axis=(1, 2)).mean())
    for found in rates.values():
        assert np.mean(found) < 0.1 + 3 * np.std(found) / np.sqrt(60)


def test_leave_one_out_and_refit_and_prefit():
    knn = quick(ResNetKNN)
    tuner = ThresholdTuner(knn, cv="loo", max_fpr=0.1).fit(IMAGES)
    fitted = knn.fit(IMAGES)
    expected = -find_threshold(-fitted.train_map_maxima_, max_fpr=0.1)
    assert tuner.pixel_threshold_ == expected
    np.testing.assert_array_equal(
        tuner.calibration_map_maxima_, fitted.train_map_maxima_[tuner.calibration_indices_]
    )
    prefit = ThresholdTuner(fitted, cv="prefit", max_fpr=0.1).fit(NEW)
    expected = -find_threshold(-maxima(fitted.anomaly_map(NEW)), max_fpr=0.1)
    assert prefit.pixel_threshold_ == pytest.approx(expected, rel=1e-5)
    refit = ThresholdTuner(knn, cv=3, refit=True, max_fpr=0.1, random_state=0).fit(IMAGES)
    expected = -find_threshold(-refit.calibration_map_maxima_, max_fpr=0.1)
    assert refit.pixel_threshold_ == expected
    # Another fit leaves nothing behind.
    refit.set_params(refit=False).fit(IMAGES)
    assert not hasattr(refit, "pixel_threshold_")
    refit.set_params(estimator=quick(DeepSVDD), cv=None).fit(IMAGES)
    assert not hasattr(refit, "calibration_map_maxima_")
    assert not hasattr(refit, "anomaly_mask")


@pytest.mark.parametrize("rule", ["percentile", "median", "std", "f1"])
def test_other_rules_take_the_maximum_for_the_score(rule):
    X, y = np.concatenate([IMAGES, NEW + 0.6]), np.repeat([1, -1], [60, 40])
    tuner = ThresholdTuner(
        Unlike(), rule=rule, calibration_size=0.5, max_fpr=0.2, random_state=0
    ).fit(X, y)
    scores, labels = -tuner.calibration_map_maxima_, np.ones(30)
    if rule == "f1":
        scores = np.append(scores, -maxima(tuner.anomaly_map(X[60:])))
        labels = np.append(labels, -np.ones(40))
    expected = -find_threshold(scores, labels, rule=rule, max_fpr=0.2)
    assert tuner.pixel_threshold_ == pytest.approx(expected)


def test_pipelines_and_what_is_around_them():
    half = FunctionTransformer(lambda X: X[:, ::2, ::2])
    pipeline = make_pipeline(half, quick(ConvAE))
    tuner = ThresholdTuner(pipeline, max_fpr=0.1, calibration_size=20, random_state=0)
    with pytest.raises(NotFittedError):
        tuner.anomaly_mask(NEW)
    tuner.fit(IMAGES)
    masks = tuner.anomaly_mask(NEW, size=6)
    maps = tuner.estimator_[-1].anomaly_map(NEW[:, ::2, ::2], size=6)
    np.testing.assert_array_equal(masks, maps > tuner.pixel_threshold_)
    only = NormalOnly(pipeline).fit(IMAGES)
    detector = only.estimator_[-1]
    assert only.pixel_threshold_ == detector.pixel_threshold_
    np.testing.assert_array_equal(
        only.anomaly_mask(NEW), detector.anomaly_mask(NEW[:, ::2, ::2])
    )
    threshold = detector.pixel_threshold_ / 2
    np.testing.assert_array_equal(
        only.anomaly_mask(NEW, threshold=threshold),
        detector.anomaly_mask(NEW[:, ::2, ::2], threshold=threshold),
    )
    nested = ThresholdTuner(only, max_fpr=0.1, cv="prefit").fit(NEW)
    assert nested.pixel_threshold_ == pytest.approx(
        -find_threshold(-maxima(detector.anomaly_map(NEW[:, ::2, ::2])), max_fpr=0.1)
    )
    assert not hasattr(NormalOnly(quick(DeepSVDD)).fit(IMAGES), "pixel_threshold_")
    assert not hasattr(NormalOnly(quick(DeepSVDD)), "anomaly_mask")


def test_a_subclass_that_scores_otherwise_keeps_its_scores():
    class Other(ConvAE):
        def score_samples(self, X):
            return np.arange(len(X), dtype=float)

    small = {"n_epochs": 1, "base_channels": 2, "augmentation": False, "device": "cpu"}
    detector = Other(**small, random_state=0).fit(IMAGES)
    tuner = ThresholdTuner(detector, cv="prefit", max_fpr=0.1).fit(NEW)
    np.testing.assert_array_equal(tuner.calibration_scores_, np.arange(40))
    expected = maxima(detector.anomaly_map(NEW))[tuner.calibration_indices_]
    np.testing.assert_allclose(tuner.calibration_map_maxima_, expected, rtol=1e-5)


@pytest.mark.parametrize("combine", ["mean", "max", "median"])
def test_no_map_of_an_ensemble_is_above_its_maximum(combine, tmp_path):
    parts = [("knn", quick(ResNetKNN)), ("svdd", quick(DeepSVDD)), ("conv", quick(ConvAE))]
    ensemble = DetectorEnsemble(parts, combine=combine, contamination=0.25).fit(IMAGES)
    found = maxima(ensemble.anomaly_map(IMAGES))
    margin = 1e-5 * np.abs(found)
    assert np.all(found <= ensemble.train_map_maxima_ + margin)
    if combine == "max":
        np.testing.assert_allclose(ensemble.train_map_maxima_, found, rtol=1e-4)
    expected = np.percentile(ensemble.train_map_maxima_, 75)
    assert ensemble.pixel_threshold_ == pytest.approx(expected, rel=1e-5)
    masks = ensemble.anomaly_mask(IMAGES)
    maps = ensemble.anomaly_map(IMAGES)
    np.testing.assert_array_equal(masks, maps > ensemble.pixel_threshold_)
    assert masks.any(axis=(1, 2)).mean() <= 0.25
    skocc.save(ensemble, tmp_path / "ensemble.safetensors")
    for other in (
        skocc.load(tmp_path / "ensemble.safetensors"),
        pickle.loads(pickle.dumps(ensemble)),
    ):
        np.testing.assert_array_equal(other.anomaly_mask(NEW), ensemble.anomaly_mask(NEW))
    before = ensemble.pixel_threshold_
    assert ensemble.set_contamination(0.5).pixel_threshold_ < before
    # Other parts leave nothing behind.
    ensemble.set_params(knn="drop", conv="drop").fit(IMAGES)
    assert not {"pixel_threshold_", "train_map_maxima_"} & vars(ensemble).keys()
    with pytest.raises(AttributeError, match=r"needs a part with heat maps. Got .*Add one"):
        ensemble.pixel_threshold_  # noqa: B018


def test_parts_of_other_kinds_have_their_maxima_computed():
    frozen = FrozenEstimator(quick(ConvAE).fit(NEW))
    pipeline = make_pipeline(FunctionTransformer(np.sqrt), quick(ConvAE))
    for part, model, images in [
        (Unlike(), None, IMAGES),
        (frozen, frozen.estimator, IMAGES),
        (pipeline, None, IMAGES),
    ]:
        ensemble = DetectorEnsemble([("part", part)]).fit(images)
        maps = ensemble.anomaly_map(images)
        np.testing.assert_allclose(
            ensemble.train_map_maxima_, maxima(maps), rtol=1e-4, atol=1e-4
        )
        assert model is None or ensemble.estimators_[0].estimator is model


def test_parts_whose_maps_do_not_fit_together_have_a_threshold_of_scores_alone():
    half = FunctionTransformer(lambda X: X[:, ::2, ::2])
    parts = [("half", make_pipeline(half, quick(ConvAE))), ("whole", quick(ConvAE))]
    tuner = ThresholdTuner(
        DetectorEnsemble(parts), max_fpr=0.1, calibration_size=20, random_state=0
    ).fit(IMAGES)
    assert len(tuner.calibration_scores_) == 20
    with pytest.raises(AttributeError, match=r"no pixel_threshold_.*Got .*Fit again"):
        tuner.pixel_threshold_  # noqa: B018
