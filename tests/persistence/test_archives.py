"""Files of scikit-learn's estimators around detectors."""

import json
import os
import random
import sys
import zipfile

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import OneClassSVM

import skocc
from skocc._base import versions
from skocc.feature_extraction import DeepFeatures, DirectFeatures, Pixels
from skocc.model_selection import (
    DetectorEnsemble,
    NormalOnly,
    OneClassKFold,
    ThresholdTuner,
    TiledDetector,
)
from tests.quick import quick

pytest.importorskip("skops")
SVDD = quick(skocc.DeepSVDD)
KNN = quick(skocc.ResNetKNN)
LABELS = np.where(np.arange(30) % 5 == 0, -1, 1)


class Halved(TransformerMixin, BaseEstimator):
    """A transformer that no library has."""

    def fit(self, X, y=None):
        self.factor_ = 0.5
        return self

    def transform(self, X):
        return self.factor_ * X


@pytest.fixture(scope="module")
def rows():
    return np.random.default_rng(0).random((30, 64)).astype(np.float32)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((12, 16, 16, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def pipeline(rows):
    return make_pipeline(MinMaxScaler(), SVDD).fit(rows)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.skocc"


def copied(estimator, path, **options):
    skocc.save(estimator, path)
    return skocc.load(path, **options)


@pytest.mark.parametrize(
    "estimator",
    [
        make_pipeline(MinMaxScaler(), SVDD),
        make_pipeline(FeatureUnion([("a", StandardScaler()), ("b", MinMaxScaler())]), SVDD),
        make_pipeline(SVDD, memory="folder"),
        ThresholdTuner(SVDD, max_fpr=0.3, random_state=0),
        ThresholdTuner(make_pipeline(MinMaxScaler(), SVDD), cv=KFold(3), max_fpr=0.3),
        ThresholdTuner(SVDD, cv=2, refit=True, max_fpr=0.3),
        DetectorEnsemble([("a", SVDD), ("b", make_pipeline(OneClassSVM()))]),
        ThresholdTuner(DetectorEnsemble([("a", SVDD), ("b", SVDD)]), max_fpr=0.3),
        NormalOnly(SVDD),
        OneClassSVM(),
    ],
    ids=lambda estimator: type(estimator).__name__,
)  # fmt: skip
def test_all_that_scores_is_the_same(estimator, rows, path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    estimator.fit(rows)
    loaded = copied(estimator, path)
    for method in ("score_samples", "predict", "p_values"):
        if hasattr(estimator, method):
            expected = getattr(estimator, method)(rows)
            np.testing.assert_array_equal(getattr(loaded, method)(rows), expected)
    assert repr(loaded.set_params(**_of_the_program(estimator))) == repr(estimator)
    loaded.fit(rows)


def _of_the_program(estimator):
    params = estimator.get_params(deep=False)
    return {name: params[name] for name in ("memory",) if name in params}


def test_maps_and_their_thresholds(images, path):
    tuner = ThresholdTuner(KNN, cv="loo", max_fpr=0.3).fit(images)
    loaded = copied(tuner, path)
    for method in ("anomaly_map", "anomaly_mask"):
        expected = getattr(tuner, method)(images)
        np.testing.assert_array_equal(getattr(loaded, method)(images), expected)
    assert loaded.pixel_threshold_ == tuner.pixel_threshold_
    tiled = TiledDetector(make_pipeline(KNN), tile_size=8).fit(images)
    expected = tiled.score_samples(images)
    np.testing.assert_array_equal(copied(tiled, path).score_samples(images), expected)


@pytest.mark.parametrize("first", [Pixels(), DirectFeatures(n_jobs=2), quick(DeepFeatures)])
def test_features_before_a_detector_of_scikit_learn(first, images, path):
    with joblib.parallel_config("threading"):
        whole = make_pipeline(first, StandardScaler(), OneClassSVM()).fit(images)
        expected = whole.score_samples(images)
    loaded = copied(whole, path)
    np.testing.assert_array_equal(loaded.score_samples(images), expected)


def test_a_search(rows, path):
    search = GridSearchCV(
        NormalOnly(SVDD), {"estimator__nu": [0.1, 0.2]}, scoring="roc_auc",
        cv=OneClassKFold(2), n_jobs=2,
    )  # fmt: skip
    with joblib.parallel_config("threading"):
        search.fit(rows, LABELS)
    loaded = copied(search, path)
    assert loaded.best_params_ == search.best_params_
    assert loaded.n_jobs is None
    np.testing.assert_array_equal(loaded.predict(rows), search.predict(rows))


def test_what_is_saved_stays_as_it_was(rows, path, tmp_path):
    first = skocc.DeepSVDD(pretrain_n_epochs=0, n_epochs=1, device="cpu", random_state=0)
    whole = make_pipeline(MinMaxScaler(), first, memory=str(tmp_path)).fit(rows)
    tuner = ThresholdTuner(whole, cv="prefit", max_fpr=0.3).fit(rows)
    state = whole.steps[-1][1].network_.state_dict()
    loaded = copied(tuner, path)
    assert tuner.estimator is tuner.estimator_ is whole
    assert whole.memory == str(tmp_path)
    assert whole.steps[-1][1].network_.state_dict().keys() == state.keys()
    # One detector that is in two places is still one.
    assert loaded.estimator is loaded.estimator_
    assert loaded.estimator.memory is None


def test_the_device_of_all_detectors(rows, path):
    detector = quick(skocc.DeepSVDD, device=None)
    tuner = ThresholdTuner(detector, cv=2, max_fpr=0.3).fit(rows)
    loaded = copied(tuner, path, device="cpu")
    assert [part.device for part in (loaded.estimator, *loaded.estimators_)] == 3 * ["cpu"]
    with pytest.raises(ValueError, match="device='nothing'"):
        skocc.load(path, device="nothing")


def test_a_network_of_ones_own_is_given_again(rows, path):
    network = torch.nn.Linear(64, 3, bias=False)
    detector = quick(skocc.DeepSVDD, backbone=network, pretrain_n_epochs=0)
    tuner = ThresholdTuner(make_pipeline(detector), max_fpr=0.3).fit(rows)
    loaded = copied(tuner, path, backbone=network)
    np.testing.assert_array_equal(loaded.p_values(rows), tuner.p_values(rows))
    with pytest.raises(ValueError, match=r"the user's\. Got none"):
        skocc.load(path)
    skocc.save(make_pipeline(SVDD).fit(rows), path)
    with pytest.raises(ValueError, match="no network"):
        skocc.load(path, backbone=network)


def test_only_types_that_are_trusted_are_made(rows, path):
    whole = make_pipeline(Halved(), SVDD).fit(rows)
    skocc.save(whole, path)
    name = f"{Halved.__module__}.Halved"
    with pytest.raises(ValueError, match=rf"neither skocc's.*{name}.*pass trusted="):
        skocc.load(path)
    loaded = skocc.load(path, trusted=[name])
    np.testing.assert_array_equal(loaded.score_samples(rows), whole.score_samples(rows))

    class Local(Halved):
        pass

    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"no other program can import.*Local"):
        skocc.save(make_pipeline(Local(), SVDD).fit(rows), path)
    assert path.read_bytes() == before


def test_classes_of_ones_own_are_registered(rows, path):
    class Own(skocc.DeepSVDD):
        pass

    whole = make_pipeline(Own(pretrain_n_epochs=0, n_epochs=0, device="cpu")).fit(rows)
    with pytest.raises(ValueError, match=r"Call skocc\.register\(Own\)"):
        skocc.save(whole, path)
    assert not path.exists()


def test_damage_is_noticed_or_harmless(pipeline, rows, path):
    expected = copied(pipeline, path).score_samples(rows)
    content = path.read_bytes()
    rng, n_noticed = random.Random(0), 0
    for _ in range(60):
        damaged = bytearray(content)
        damaged[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            scores = skocc.load(path).score_samples(rows)
        except ValueError as error:
            assert str(path) in str(error)  # noqa: PT017 - either is right
            n_noticed += 1
        else:
            np.testing.assert_array_equal(scores, expected)
    assert n_noticed > 40
    for size in (3, 10, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match="cannot be read as a model"):
            skocc.load(path)


def rewritten(source, target, changes, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(source) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for name, change in changes.items():
        members[name] = change(members.get(name))
    with zipfile.ZipFile(target, "w", compression) as archive:
        for name, data in members.items():
            if data is not None:
                archive.writestr(name, data)


def with_header(**values):
    return {"skocc.json": lambda text: json.dumps(json.loads(text) | values)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"more.txt": lambda data: b"x"}, "other parts than"),
        ({"../detectors/0": lambda data: b"x"}, "other parts than"),
        ({"detectors/7": lambda data: b"x" * 20}, "cannot be read"),
        ({"detectors/0": lambda data: None}, "cannot be read"),
        ({"estimator.skops": lambda data: None}, "other parts than"),
        ({"estimator.skops": lambda data: b"no zip"}, "cannot be read"),
        ({"skocc.json": lambda data: b"[]"}, "its header is no object"),
        (with_header(format=9), "in format 9 of archives.*install that version"),
        (with_header(versions={"skocc": 3}), "no version of skocc"),
        (with_header(unfitted={"0": {"estimator": "os", "params": {}}}), "cannot read"),
        (with_header(unfitted={"0": 3}), "cannot be read"),
    ],
)  # fmt: skip
def test_archives_that_are_none_of_ours(pipeline, path, tmp_path, changes, message):
    skocc.save(pipeline, path)
    rewritten(path, other := tmp_path / "other", changes)
    with pytest.raises(ValueError, match=message) as caught:
        skocc.load(other)
    assert str(other) in str(caught.value)


def test_archives_that_would_grow(pipeline, path, tmp_path):
    skocc.save(pipeline, path)
    rewritten(path, other := tmp_path / "other", {}, zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="it is compressed"):
        skocc.load(other)

    def compressed(content):
        (tmp_path / "inner").write_bytes(content)
        rewritten(tmp_path / "inner", tmp_path / "packed", {}, zipfile.ZIP_DEFLATED)
        return (tmp_path / "packed").read_bytes()

    rewritten(path, other, {"estimator.skops": compressed})
    with pytest.raises(ValueError, match=r"estimator\.skops is compressed"):
        skocc.load(other)


def test_parameters_that_no_fit_takes(rows, path):
    tuner = ThresholdTuner(SVDD, max_fpr=0.3).fit(rows)
    skocc.save(tuner.set_params(rule="none"), path)
    with pytest.raises(ValueError, match="'rule' parameter of ThresholdTuner"):
        skocc.load(path)


def test_banks_stay_in_files_of_detectors_alone(pipeline, path):
    skocc.save(pipeline, path)
    with pytest.raises(ValueError, match="mmap=True takes files of a detector alone"):
        skocc.load(path, mmap=True)


def test_without_skops(pipeline, path, monkeypatch):
    skocc.save(pipeline, path)
    monkeypatch.setitem(sys.modules, "skops.io", None)
    with pytest.raises(ImportError, match=r"pip install \"skocc\[skops\]\""):
        skocc.load(path)
    path.unlink()
    with pytest.raises(ImportError, match=r"pip install \"skocc\[skops\]\""):
        skocc.save(pipeline, path)
    assert not path.exists()


def test_another_minor_version_is_warned_about(pipeline, rows, path, monkeypatch):
    monkeypatch.setattr(versions, "__version__", "0.0.7")
    skocc.save(pipeline, path)
    monkeypatch.undo()
    with pytest.warns(InconsistentVersionWarning, match=r"Pipeline .* by skocc '0\.0\.7'"):
        loaded = skocc.load(path)
    np.testing.assert_array_equal(loaded.predict(rows), pipeline.predict(rows))


def test_a_file_in_a_folder_that_is_not_there(pipeline, tmp_path):
    with pytest.raises(OSError, match="Nothing was written"):
        skocc.save(pipeline, tmp_path / "none" / "model")
    assert os.listdir(tmp_path) == []
