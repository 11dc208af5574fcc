import signal
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy import stats
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.ensemble import IsolationForest
from sklearn.pipeline import make_pipeline
from sklearn.svm import OneClassSVM

from skocc import ResNetKNN
from skocc.datasets import load_mvtec_layout, make_textures, stain_defects
from skocc.feature_extraction import Pixels
from skocc.metrics import aupro, auroc, mass_volume_auc, pixel_auroc, recall_at_fpr
from skocc.model_selection import (
    NormalOnly,
    OneClassKFold,
    OneClassSplit,
    SyntheticSplit,
    ThresholdTuner,
    _compare_fits,
    add_synthetic_anomalies,
    compare,
)
from skocc.model_selection._compare_files import digest_of
from skocc.model_selection._compare_table import as_table
from skocc.plotting import AnomalyMapDisplay, RocCurveDisplay, ScoreHistogramDisplay


class Darkness(OutlierMixin, BaseEstimator):
    """Score images by their distance from the mean of the training images."""

    fits = []

    def __init__(self, power=1.0, noise=0.0):
        self.power = power
        self.noise = noise

    def fit(self, X, y=None):
        self.fits.append((self.power, len(X)))
        self.mean_ = np.mean(X, axis=0)
        return self

    def anomaly_map(self, X):
        noise = np.random.default_rng(0).normal(size=np.shape(X))
        return np.abs(X - self.mean_) ** self.power + self.noise * noise

    def score_samples(self, X):
        return -self.anomaly_map(X).mean(axis=(1, 2))


class Failing(Darkness):
    """Raise an error when it is fitted, or scores."""

    def __init__(self, error=None, when="fit"):
        self.error = error
        self.when = when

    def fit(self, X, y=None):
        if self.when == "fit":
            raise self.error
        return self

    def score_samples(self, X):
        raise self.error


class Interrupted(Darkness):
    """Take Ctrl-C for the end of its training, as the detectors of the package do."""

    def fit(self, X, y=None):
        try:
            signal.raise_signal(signal.SIGINT)
            time.sleep(10)
        except KeyboardInterrupt:
            pass
        return super().fit(X)


@pytest.fixture(scope="module")
def textures():
    """Forty normal and twenty stained images (60, 16, 16), labels, masks."""
    images = make_textures(60, size=16, random_state=0)
    images[40:], stains = stain_defects(images[40:], random_state=0)
    masks = [None] * 40 + list(stains)
    return images, np.repeat([1, -1], [40, 20]), masks


@pytest.fixture
def fits():
    Darkness.fits.clear()
    return Darkness.fits


TWO = {"square": Darkness(2.0), "plain": Darkness(noise=1.0)}
FAST = {"n_resamples": 200, "random_state": 0}


def rows_of(comparison):
    return comparison.table.set_index("detector").to_dict("index")


def test_the_table_is_that_of_the_metrics(textures):
    X, y, masks = textures
    split = OneClassSplit(random_state=1)
    found = compare(TWO, X, y, masks=masks, cv=split, **FAST)
    ((train, test),) = split.split(X, y)
    rows = rows_of(found)
    assert found.criterion == "anomalies"
    assert (
        found.best
        == found.table["detector"][0]
        == max(rows, key=lambda name: rows[name]["image_auroc"])
    )
    for name, detector in TWO.items():
        scores = detector.fit(X[train]).score_samples(X[test])
        np.testing.assert_array_equal(found.scores[name][0], scores)
        row = rows[name]
        assert row["image_auroc"] == auroc(y[test], scores)
        assert row["recall_at_1_percent"] == recall_at_fpr(y[test], scores, max_fpr=0.01)
        assert row["recall_at_5_percent"] == recall_at_fpr(y[test], scores, max_fpr=0.05)
        maps, parts = detector.anomaly_map(X[test]), [masks[i] for i in test]
        # Noise is drawn anew for each sixteen images, as maps are computed.
        if not detector.noise:
            assert row["pixel_auroc"] == pytest.approx(pixel_auroc(parts, maps), abs=1e-12)
            assert row["aupro"] == pytest.approx(aupro(parts, maps), abs=1e-12)
        for metric in ("image_auroc", "pixel_auroc", "aupro", "recall_at_5_percent"):
            assert row[f"{metric}_low"] <= row[metric] + 1e-3
            assert row[metric] <= row[f"{metric}_high"] + 1e-3
        assert row["fit_seconds"] > 0 < row["ms_per_image"]
        assert row["error"] is None
    assert np.isnan(rows[found.best]["p_value"])
    assert list(found.by_split["detector"]) == list(TWO)


def test_intervals_and_p_value_are_those_of_scipy():
    """On rows that are scored by their first column, without the code of the package."""
    rng = np.random.default_rng(0)
    good, bad = rng.normal(size=(40, 2)), rng.normal([1.2, 0.8], 1, size=(30, 2))
    X = np.concatenate([np.zeros((2, 2)), good, bad])[:, :, None]
    y = np.repeat([1, -1], [42, 30])
    fold = [(np.arange(2), np.arange(2, 72))]
    columns = {"first": Column(0), "second": Column(1)}
    found = compare(columns, X, y, cv=fold, n_resamples=4000, random_state=0)

    def area(normal, anomalous, column):
        return np.mean(normal[:, None, column] < anomalous[None, :, column])

    rows = rows_of(found)
    draws = [
        (good[rng.integers(40, size=40)], bad[rng.integers(30, size=30)])
        for _ in range(4000)
    ]
    areas = np.array([[area(*draw, column) for column in (0, 1)] for draw in draws])
    for column, name in enumerate(columns):
        assert rows[name]["image_auroc"] == pytest.approx(area(good, bad, column))
        expected = np.quantile(areas[:, column], [0.025, 0.975])
        shown = rows[name]["image_auroc_low"], rows[name]["image_auroc_high"]
        # Two quantiles of 4,000 draws of a deviation of 0.05 differ by about 0.003.
        np.testing.assert_allclose(shown, expected, atol=0.012)
    assert found.best == "first"
    difference = areas[:, 0] - areas[:, 1]
    p_value = 2 * np.mean(difference <= 0)
    assert 0.02 < p_value < 0.9
    assert rows["second"]["p_value"] == pytest.approx(p_value, abs=0.06)


class Column(OutlierMixin, BaseEstimator):
    """Score rows by a column, which is small for normal ones."""

    def __init__(self, column=0):
        self.column = column

    def fit(self, X, y=None):
        return self

    def score_samples(self, X):
        return -np.asarray(X)[:, self.column].ravel()


def test_the_same_detector_twice_does_not_differ(textures):
    X, y, _ = textures
    rows = rows_of(compare({"a": Darkness(2.0), "b": Darkness(2.0)}, X, y, **FAST))
    assert rows["b"]["p_value"] == 1
    assert rows["a"]["image_auroc_low"] == rows["b"]["image_auroc_low"]


def test_several_splits_are_averaged_and_never_pooled(textures):
    X, y, masks = textures
    # Scores of a fit are shifted: pooled, they would rank worse.
    folds = OneClassKFold(2, random_state=0)
    found = compare({"a": Darkness(2.0)}, X, y, masks=masks, cv=folds, **FAST)
    parts = list(folds.split(X, y))
    areas = [
        auroc(y[part], s) for (_, part), s in zip(parts, found.scores["a"], strict=True)
    ]
    row = rows_of(found)["a"]
    assert row["image_auroc"] == pytest.approx(np.mean(areas))
    assert found.by_split["image_auroc"].tolist() == areas
    assert row["image_auroc_low"] <= row["image_auroc"] <= row["image_auroc_high"]
    for labels, test, (_, expected) in zip(found.labels, found.test, parts, strict=True):
        np.testing.assert_array_equal(test, expected)
        np.testing.assert_array_equal(labels, y[expected])


def test_groups_are_drawn_as_one(textures):
    X, y, _ = textures
    # Every image four times: the interval is that of a quarter of the images.
    four = [np.repeat(part, 4, axis=0) for part in (X, y, np.arange(60))]
    options = {"cv": OneClassSplit(random_state=0), **FAST}
    alone = rows_of(compare(TWO, X, y, **options))
    grouped = rows_of(compare(TWO, *four[:2], groups=four[2], **options))
    apart = rows_of(compare(TWO, *four[:2], **options))

    def width(rows):
        return rows["square"]["image_auroc_high"] - rows["square"]["image_auroc_low"]

    assert width(grouped) > 0.7 * width(alone)
    assert width(apart) < 0.7 * width(grouped)


ERRORS = [ValueError("no $x < y$"), MemoryError("too much"), FloatingPointError("nan")]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("when", ["fit", "score"])
def test_a_failure_costs_its_row_only(textures, error, when):
    X, y, _ = textures
    found = compare({"bad": Failing(error, when), **TWO}, X, y, **FAST)
    assert found.table["detector"].iloc[-1] == "bad"
    row = rows_of(found)["bad"]
    assert row["error"] == f"{type(error).__name__}: {error}"
    assert np.isnan(row["image_auroc"])
    assert "bad" not in found.scores
    assert not found.table["image_auroc"].iloc[:2].isna().any()
    alone = compare({"bad": Failing(error, when)}, X, y, **FAST)
    assert alone.best is None
    assert alone.table["error"].notna().all()


@pytest.fixture
def ctrl_c():
    """Ctrl-C raises KeyboardInterrupt, also where tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_ends_all(textures, tmp_path, fits):
    X, y, _ = textures
    before = signal.getsignal(signal.SIGINT)
    for detector in (Failing(KeyboardInterrupt()), Interrupted()):
        with pytest.raises(KeyboardInterrupt):
            compare({"a": Darkness(), "b": detector}, X, y, directory=tmp_path, **FAST)
    assert signal.getsignal(signal.SIGINT) is before
    # What had been finished was kept, and what was interrupted was not.
    assert len(list(tmp_path.iterdir())) == 1


def test_resumed(textures, tmp_path, fits):
    X, y, masks = textures
    options = {
        "masks": masks,
        "directory": tmp_path / "new" / "kept",
        "n_examples": 2,
        **FAST,
    }
    first = compare(TWO, X, y, **options)
    assert len(fits) == 2
    again = compare(TWO, X.copy(), y.tolist(), **options)
    assert len(fits) == 2
    pd.testing.assert_frame_equal(first.table, again.table)
    assert first.examples.keys() == again.examples.keys()
    np.testing.assert_array_equal(first.scores["plain"][0], again.scores["plain"][0])
    # What is new is fitted, and nothing else.
    compare({**TWO, "plain": Darkness(3.0)}, X, y, **options)
    assert [power for power, _ in fits[2:]] == [3.0]
    renamed = compare({"other": TWO["square"]}, X, y, **options)
    assert len(fits) == 3
    assert renamed.best == "other"
    changed = X.copy()
    changed[0, 0, 0] += 1e-3
    compare({"square": TWO["square"]}, changed, y, **options)
    assert len(fits) == 4
    compare({"square": TWO["square"]}, X, np.roll(y, 1), **options | {"masks": None})
    assert len(fits) == 5


@pytest.mark.parametrize("damage", ["cut", "changed", "other", "empty"])
def test_damaged_files_are_computed_again(textures, tmp_path, damage, fits):
    X, y, _ = textures
    options = {"directory": tmp_path, **FAST}
    first = compare(TWO, X, y, **options)
    one, other = sorted(tmp_path.iterdir())
    content = bytearray(one.read_bytes())
    if damage == "changed":
        content[-3] ^= 1
    one.write_bytes(
        {"cut": content[:-8], "other": other.read_bytes(), "empty": b""}.get(
            damage, content
        )
    )
    with pytest.warns(UserWarning, match=f"{one.name}.* is damaged"):
        again = compare(TWO, X, y, **options)
    assert len(fits) == 3
    np.testing.assert_array_equal(first.table["image_auroc"], again.table["image_auroc"])
    compare(TWO, X, y, **options)  # the file has been replaced
    assert len(fits) == 3


def test_what_cannot_be_kept_is_said(textures, tmp_path):
    X, y, _ = textures
    with pytest.raises(ValueError, match="Pass an int, for example random_state=0"):
        compare(TWO, X, y, directory=tmp_path)
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ValueError, match="directory must be a folder"):
        compare(TWO, X, y, directory=file, **FAST)
    odd = make_pipeline(Darkness(power=lambda: 1))
    with pytest.warns(UserWarning, match="The results of 'odd' are not kept"):
        found = compare({"odd": odd, **TWO}, X, y, directory=tmp_path / "kept", **FAST)
    assert rows_of(found)["odd"]["error"].startswith("TypeError")
    assert len(list((tmp_path / "kept").iterdir())) == 2


def test_digests_know_content_and_nothing_else(tmp_path, image_files):
    images, paths = image_files
    copies = []
    for path in paths:
        copies.append(tmp_path / f"copy of {path.name}")
        copies[-1].write_bytes(path.read_bytes())
    digests = {
        digest_of([str(path) for path in paths]),
        digest_of(paths),
        digest_of(copies),
        digest_of(np.array(paths, dtype=object)),
        digest_of(np.array([str(path) for path in paths])),
        digest_of(pd.Series(copies)),
        digest_of([path.read_bytes() for path in paths]),
    }
    assert len(digests) == 1
    pictures = [Image.fromarray(image) for image in images]
    in_memory = digest_of(pictures)
    assert in_memory == digest_of([picture.copy() for picture in pictures])
    assert digest_of(images) == digest_of(images.copy(order="F")) != digest_of(images[::-1])
    tensor = torch.from_numpy(images)
    assert digest_of(tensor) == digest_of(images)
    others = [paths[::-1], paths[:-1], pictures[::-1], images.astype(int), [*paths, "none"]]
    assert len({digest_of(other) for other in others} | digests | {in_memory}) == 7


def test_without_anomalies_images_get_some(textures):
    X = textures[0][:40]
    found = compare(TWO, X, n_examples=2, **FAST)
    assert found.criterion == "synthetic anomalies"
    names = [name for name in found.table if name not in ("detector", "p_value", "error")]
    costs = ["fit_seconds", "ms_per_image", "peak_mib"]
    assert names[-3:] == costs
    assert all(name.startswith("synthetic_") for name in names[:-3])
    assert "synthetic_aupro_high" in names
    ((test,), (labels,)) = found.test, found.labels
    assert len(test) == 20
    np.testing.assert_array_equal(labels, np.repeat([1, -1], 10))
    np.testing.assert_array_equal(found.X[:40], X)
    for normal, made in zip(test[:10], test[10:], strict=True):
        mask = found.masks[made]
        assert mask.any()
        np.testing.assert_array_equal(found.X[normal][~mask], found.X[made][~mask])
        assert not np.array_equal(found.X[normal], found.X[made])
    # Labels that are all normal say no more.
    again = compare(TWO, X, ["good"] * 40, n_examples=2, **FAST)
    np.testing.assert_array_equal(again.X, found.X)
    own = compare(TWO, X, make_anomalies=lambda x, random_state: (1 - x, None), **FAST)
    assert "synthetic_aupro" not in own.table
    np.testing.assert_allclose(own.X[40:], 1 - X[own.test[0][:10]])


def test_synthetic_anomalies_of_files_and_of_splits(image_files):
    _, paths = image_files
    forest = make_pipeline(Pixels(image_size=8), IsolationForest(random_state=0))
    found = compare({"forest": forest}, paths, cv=OneClassKFold(3, random_state=0), **FAST)
    assert len(found.X) == 24
    assert isinstance(found.X[0], Path)
    assert isinstance(found.X[12], Image.Image)
    for test in found.test:
        np.testing.assert_array_equal(test[4:], test[:4] + 12)
    # Made beforehand, with the splitter that keeps each with its image.
    X, y, groups = add_synthetic_anomalies(paths, stain_defects, random_state=0)
    split = SyntheticSplit(2, random_state=0)
    found = compare({"forest": forest}, X, y, groups=groups, cv=split, **FAST)
    assert found.criterion == "anomalies"
    assert not found.table["image_auroc_low"].isna().any()


def test_rows_without_anomalies_are_told_from_uniform_samples():
    X = np.random.default_rng(0).normal(size=(120, 2))
    good = OneClassSVM(nu=0.1)
    found = compare({"bad": Column(0), "svm": good}, X, random_state=0)
    assert found.criterion == "uniform samples"
    assert found.best == "svm"
    rows = rows_of(found)
    assert rows["svm"]["mass_volume"] < rows["bad"]["mass_volume"]
    ((test,), (scores,)) = found.test, found.scores["svm"]
    train = np.setdiff1d(np.arange(120), test)
    uniform = np.random.RandomState(0).uniform(X.min(axis=0), X.max(axis=0), (10_000, 2))
    expected = mass_volume_auc(scores, good.fit(X[train]).score_samples(uniform))
    assert rows["svm"]["mass_volume"] == expected
    with pytest.raises(ValueError, match=r"at most 8 columns. Got rows of 9"):
        compare({"svm": good}, np.zeros((20, 9)))


def test_displays_draw_what_is_kept(textures):
    X, y, masks = textures
    names = np.where(y == 1, "good", "stain")
    found = compare(TWO, X, names, masks=masks, n_examples=3, **FAST)
    assert found.y.tolist() == names.tolist()
    roc = RocCurveDisplay.from_predictions(found.labels[0], found.scores["plain"][0])
    assert roc.roc_auc == pytest.approx(rows_of(found)["plain"]["image_auroc"])
    test = found.test[0]
    ScoreHistogramDisplay.from_predictions(found.scores["plain"][0], found.y[test])
    examples = found.examples["square"]
    assert len(examples.misses) == len(examples.false_alarms) == 3
    assert (y[examples.misses] == -1).all()
    assert (y[examples.false_alarms] == 1).all()
    scores = dict(zip(test.tolist(), found.scores["square"][0].tolist(), strict=True))
    anomalous = [scores[i] for i in test if y[i] == -1]
    assert [scores[i] for i in examples.misses] == sorted(anomalous, reverse=True)[:3]
    normal = [scores[i] for i in test if y[i] == 1]
    assert [scores[i] for i in examples.false_alarms] == sorted(normal)[:3]
    chosen = np.concatenate([examples.misses, examples.false_alarms])
    AnomalyMapDisplay.from_predictions(
        found.X[chosen],
        [examples.maps[i] for i in chosen.tolist()],
        threshold=examples.pixel_threshold,
    )


def test_anomalies_without_a_mask_have_no_normal_pixels(textures):
    X, y, masks = textures
    kept = [*masks[:50], *[None] * 10]
    split = [(np.arange(30), np.arange(30, 60))]
    found = compare({"square": TWO["square"]}, X, y, masks=kept, cv=split, **FAST)
    maps = Darkness(2.0).fit(X[:30]).anomaly_map(X[30:50])
    expected = pixel_auroc(masks[30:50], maps)
    assert rows_of(found)["square"]["pixel_auroc"] == pytest.approx(expected)
    # A split without masks has no metrics of pixels, and the others have.
    folds = [*split, (np.arange(30), np.r_[30:40, 50:60])]
    found = compare({"square": TWO["square"]}, X, y, masks=kept, cv=folds, **FAST)
    assert found.by_split["pixel_auroc"].isna().tolist() == [False, True]
    row = rows_of(found)["square"]
    assert row["pixel_auroc"] == pytest.approx(expected)
    assert row["pixel_auroc_low"] <= expected <= row["pixel_auroc_high"]


def test_detectors_of_all_kinds_on_files(image_files, tmp_path):
    _, paths = image_files
    y = ["good"] * 9 + ["scratch", "scratch", "stain"]
    knn = ResNetKNN(
        backbone="shufflenet_v2_x0_5", weights=None, layers=("conv1",), image_size=16,
        device="cpu", random_state=0,
    )  # fmt: skip
    svm = make_pipeline(Pixels(image_size=8), OneClassSVM())
    detectors = [
        ("knn", knn),
        ("normal only", NormalOnly(knn)),
        ("tuner", ThresholdTuner(svm, max_fpr=0.4, random_state=0)),
        ("svm", svm),
    ]
    masks = [None] * 9 + [np.eye(16, 12, dtype=bool)] * 3
    options = {"masks": masks, "n_examples": 2, "directory": tmp_path / "kept", **FAST}
    found = compare(detectors, pd.Series(paths), y, **options)
    rows = rows_of(found)
    assert [row["error"] for row in rows.values()] == [None] * 4
    assert rows["knn"]["pixel_auroc"] == rows["normal only"]["pixel_auroc"]
    assert np.isnan(rows["svm"]["pixel_auroc"])
    assert found.thresholds["knn"][0] == found.thresholds["normal only"][0]
    assert found.examples["svm"].maps == {}
    assert found.examples["svm"].pixel_threshold is None
    (heat, *_) = found.examples["knn"].maps.values()
    assert heat.shape == (16, 12)
    assert len(list((tmp_path / "kept").iterdir())) == 4


def test_without_pandas_the_table_is_a_bunch(textures, monkeypatch):
    X, y, _ = textures
    frame = compare({**TWO, "bad": Failing(ValueError("no"))}, X, y, **FAST).table
    assert isinstance(frame, pd.DataFrame)
    columns = {name: frame[name].tolist() for name in frame}
    monkeypatch.setitem(sys.modules, "pandas", None)
    table = as_table(columns)
    assert list(table) == list(frame)
    assert table.error.tolist() == [None, None, "ValueError: no"]
    for name in table:
        np.testing.assert_array_equal(table[name], frame[name].to_numpy())


def test_warnings_are_noted_and_raised(textures):
    X, y, _ = textures
    with pytest.warns(UserWarning, match="^careful$"):
        found = compare({"a": Warning_(), **TWO}, X, y, **FAST)
    assert found.warnings == {"a": ["careful"], "square": [], "plain": []}


class Warning_(Darkness):
    """Warn."""

    def fit(self, X, y=None):
        warnings.warn("careful", stacklevel=1)
        return super().fit(X)


def test_memory_that_is_added(monkeypatch):
    with _compare_fits.PeakMemory() as memory:
        block = np.ones(2**23)  # 64 MiB
        time.sleep(0.05)
        del block
    if sys.platform.startswith("linux"):
        assert 60 < memory.peak_mib < 80
    monkeypatch.setattr(sys, "platform", "other")
    with _compare_fits.PeakMemory() as memory:
        pass
    assert np.isnan(memory.peak_mib)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"detectors": {}}, "detectors must be a dictionary"),
        ({"detectors": {"a": Darkness}}, "detectors must be a dictionary"),
        ({"detectors": {"a": Pixels()}}, "detectors must be a dictionary"),
        ({"detectors": {1: Darkness()}}, "detectors must be a dictionary"),
        ({"detectors": [("a", Darkness()), ("a", Darkness())]}, "a name of its own"),
        ({"y": np.repeat([1, -1], [30, 20])}, "inconsistent numbers"),
        ({"masks": [None] * 3}, "inconsistent numbers"),
        ({"y": None, "masks": [None] * 60}, "masks are those of anomalies"),
        ({"masks": [None] * 60}, "None for each of 20"),
        ({"make_anomalies": stain_defects}, "make_anomalies is for normal samples alone"),
        ({"cv": [(np.arange(50), np.arange(50, 60))]}, "trains on 10 of 20"),
        ({"cv": [(np.arange(30), np.arange(30, 40))]}, "10 normal and 0 anomalous"),
        ({"cv": [(np.arange(30), np.arange(40, 60))]}, "0 normal and 20 anomalous"),
        ({"cv": [(np.arange(30), np.arange(30, 70))]}, "cv must be a splitter"),
        ({"cv": []}, "cv must be a splitter"),
        ({"cv": [1, 2]}, "cv must be a splitter"),
        ({"cv": "kfold"}, "cv must be a splitter"),
        ({"n_resamples": 3}, "n_resamples"),
        ({"confidence_level": 1.0}, "confidence_level"),
    ],
)
def test_what_does_not_fit_is_refused(textures, arguments, message):
    X, y, _ = textures
    with pytest.raises(ValueError, match=message):
        compare(**{"detectors": TWO, "X": X, "y": y, **FAST} | arguments)


@pytest.mark.data
@pytest.mark.slow
def test_magnetic_tiles(data_dir):
    tiles = load_mvtec_layout(data_dir / "magnetic_tile")
    paths = [*tiles.train_paths[:60], *tiles.test_paths]
    y = np.r_[np.ones(60, int), tiles.test_labels]
    knn = ResNetKNN(
        backbone="mobilenet_v2", weights=data_dir / "mobilenet_v2_imagenet.pt",
        layers=("features.13",), image_size=128, random_state=0,
    )  # fmt: skip
    masks = [None] * 60 + tiles.test_masks
    fold = [(np.arange(60), np.arange(60, len(paths)))]
    svm = make_pipeline(Pixels(), OneClassSVM())
    found = compare({"knn": knn, "svm": svm}, paths, y, masks=masks, cv=fold, **FAST)
    rows = rows_of(found)
    assert found.best == "knn"
    assert rows["knn"]["image_auroc_low"] > rows["svm"]["image_auroc_high"] - 0.1
    assert stats.norm.isf(rows["svm"]["p_value"]) > 1
