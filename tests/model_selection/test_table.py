import builtins
import copy
import errno
import io
import os

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline

from skocc import DeepSVDD, predict_table
from skocc.model_selection import ThresholdTuner
from tests.quick import quick


class Counting(BaseEstimator):
    """Remembers how many files it was given at once."""

    def __init__(self, detector):
        self.detector = detector
        self.counts = []

    def fit(self, X, y=None):
        self.fitted_ = True
        return self

    def score_samples(self, X):
        self.counts.append(len(X))
        return self.detector.score_samples(X)

    def predict(self, X):
        return self.detector.predict(X)


@pytest.fixture
def detector(image_files):
    return quick(DeepSVDD).fit(image_files[0])


def test_scores_and_labels(detector, image_files):
    _, paths = image_files
    table = predict_table(detector, iter(paths), batch_size=5)
    assert table.columns.tolist() == ["path", "score", "label", "error"]
    assert table["path"].tolist() == [str(path) for path in paths]
    np.testing.assert_allclose(table["score"], detector.score_samples(paths), rtol=1e-6)
    assert table["label"].tolist() == detector.predict(paths).tolist()
    assert -1 in table["label"].tolist()
    assert table["error"].isna().all()


def test_p_values(detector, image_files):
    images, paths = image_files
    tuner = ThresholdTuner(detector, max_fpr=0.3, cv="prefit").fit(images[:7])
    paths = paths[7:]  # scores of the others are equal to none but for rounding
    table = predict_table(tuner, [*paths, "missing.png"])
    assert table.columns.tolist() == ["path", "score", "p_value", "label", "error"]
    np.testing.assert_allclose(table["p_value"][:-1], tuner.p_values(paths))
    assert np.isnan(table["p_value"].iloc[-1])
    assert table["label"][:-1].tolist() == tuner.predict(paths).tolist()


def test_p_values_of_folds(image_files):
    images, paths = image_files
    tuner = ThresholdTuner(quick(DeepSVDD), max_fpr=0.3, cv=2, random_state=0).fit(images)
    table = predict_table(tuner, [*paths, "missing.png"])
    assert len(tuner.estimators_) == 2
    assert np.isnan(table["p_value"].iloc[-1])
    p_values = np.round(table["p_value"][:-1] * 13)
    assert p_values.between(1, 13).all()
    assert table["label"][:-1].tolist() == np.where(p_values <= 3, -1, 1).tolist()


def test_a_broken_file_costs_no_other(detector, image_files, tmp_path):
    _, paths = image_files
    broken = tmp_path / "broken.png"
    broken.write_bytes(paths[0].read_bytes()[:60])
    counting = Counting(detector)
    mixed = [*paths[:7], broken, *paths[7:], "missing.png"]
    table = predict_table(counting, mixed, batch_size=6)
    failed = table["error"].notna()
    assert table["path"][failed].tolist() == [str(broken), "missing.png"]
    assert "broken.png" in table["error"].iloc[7]
    assert table["score"][failed].isna().all()
    assert table["label"][failed].isna().all()
    whole = predict_table(detector, paths)
    np.testing.assert_allclose(table["score"][~failed], whole["score"], rtol=1e-6)
    assert table["label"][~failed].tolist() == whole["label"].tolist()
    # Only batches with such a file are taken apart.
    assert counting.counts == [6, 6, *[1] * 6, 2, 1, 1]


def test_what_a_list_of_paths_may_hold(detector, image_files, tmp_path):
    _, paths = image_files
    copy = os.fsencode(tmp_path) + b"/caf\xe9.png"
    with open(copy, "wb") as file:
        file.write(paths[0].read_bytes())
    os.mkfifo(tmp_path / "pipe.png")
    odd = [
        None, np.nan, 3, Image.new("L", (4, 4)), "", "nul\0.png", "a\rb.png", "x" * 5000,
        tmp_path, tmp_path / "pipe.png", ["a.png"], pd.NA, paths[0].read_bytes(),
        io.BytesIO(paths[0].read_bytes()),
    ]  # fmt: skip
    table = predict_table(detector, [*odd, copy, paths[0], str(paths[0]), paths[1]])
    assert len(table) == len(odd) + 4
    failed = table["error"].notna()
    assert failed.tolist() == [True] * len(odd) + [False] * 4
    assert table["error"][0].startswith("This is no path: got NoneType.")
    # The bytes of an image are not the name of a file, and too many to be shown.
    assert table["error"][12].startswith("This is no path: got bytes.")
    assert table["error"][13].endswith("images in memory are scored by score_samples.")
    assert table["path"][[12, 13]].str.len().max() <= 80
    # One file at a time has no place among others to be told by.
    assert not table["error"].str.contains("index").any()
    named = [(4, "''"), (6, r"'a\rb.png'"), (9, "pipe.png")]
    assert all(name in table["error"][row] for row, name in named)
    whole = predict_table(detector, paths)
    expected = whole["score"][[0, 0, 0, 1]]
    np.testing.assert_allclose(table["score"][~failed], expected, rtol=1e-6)
    # The csv module of Python 3.10 writes no NUL.
    table = table[table["path"].map(lambda path: "\0" not in str(path))]
    table.to_csv(tmp_path / "table.csv", errors="surrogateescape", index=False)
    assert copy in (tmp_path / "table.csv").read_bytes()


def test_one_bad_file_in_ten_thousand(detector, image_files):
    class Fast(Counting):
        def score_samples(self, X):
            if "bad.png" in X:
                raise MemoryError
            return np.arange(len(X), dtype=float)

        def predict(self, X):
            return np.ones(len(X))

    paths = ["good.png"] * 10_000
    paths[7_123] = "bad.png"
    table = predict_table(Fast(detector), paths)
    assert table["path"].tolist() == paths
    assert np.flatnonzero(table["score"].isna()).tolist() == [7_123]
    assert np.flatnonzero(table["label"].isna()).tolist() == [7_123]
    assert np.flatnonzero(table["error"].notna()).tolist() == [7_123]


def test_a_pipeline(detector, image_files):
    _, paths = image_files
    pipeline = make_pipeline("passthrough", Counting(detector)).fit(paths)
    table = predict_table(pipeline, paths)
    assert table["label"].tolist() == detector.predict(paths).tolist()


def test_nothing_is_written_unless_asked(detector, image_files, tmp_path):
    _, paths = image_files
    before = sorted(tmp_path.iterdir())
    table = predict_table(detector, paths)
    assert sorted(tmp_path.iterdir()) == before
    table.to_csv(tmp_path / "table.csv", index=False)
    read = pd.read_csv(tmp_path / "table.csv")
    np.testing.assert_allclose(read["score"], table["score"])


def test_errors(detector, image_files, monkeypatch):
    _, paths = image_files
    with pytest.raises(ValueError, match=r"nothing\.png.*cannot be read"):
        predict_table(detector, ["nothing.png", "missing.png"])
    with pytest.raises(ValueError, match=r"no files.*Got an empty.*Pass at least one"):
        predict_table(detector, [])
    with pytest.raises(ValueError, match=r"Got the single path.*Pass a list"):
        predict_table(detector, paths[0])
    for batch_size in [-1, 0, 2.5, None, True, "4"]:
        with pytest.raises(ValueError, match=r"batch_size.*Got .*Pass for example"):
            predict_table(detector, paths, batch_size=batch_size)
    with pytest.raises(ValueError, match=r"Got NoneType, which holds nothing"):
        predict_table(detector, None)
    with pytest.raises(ValueError, match=r"Got int, which does not have it. Pass a fitted"):
        predict_table(3, paths)
    with pytest.raises(NotFittedError):
        predict_table(DeepSVDD(), paths)

    def without_pandas(name, *args, **kwargs):
        if name == "pandas":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    real_import = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", without_pandas)
    with pytest.raises(ImportError, match="pip install pandas"):
        predict_table(detector, paths)


def test_one_bar_over_all_files(detector, image_files, progress_labels):
    paths = image_files[1]
    predict_table(detector, paths)
    assert not progress_labels
    predict_table(detector.set_params(verbose=1), paths, verbose=1)
    assert progress_labels == {"predict_table: files"}


@pytest.fixture
def many(image_files, tmp_path):
    """Paths of which some are missing, broken, repeated, or not UTF-8."""
    paths = [*image_files[1], "missing.png", *image_files[1][:3]]
    if os.name == "posix":
        name = os.fsdecode(b"\xff.png")
        (tmp_path / name).write_bytes(image_files[1][0].read_bytes())
        paths.append(tmp_path / name)
    return paths


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_a_table_in_parts_is_the_table(detector, many, tmp_path, n_jobs):
    pytest.importorskip("pyarrow")
    expected = predict_table(detector, many)
    directory = tmp_path / "new" / "table"
    options = {"directory": directory, "chunk_size": 4, "n_jobs": n_jobs}
    table = predict_table(detector, many, **options)
    assert table["path"].tolist() == expected["path"].tolist()
    assert table["label"].tolist() == expected["label"].tolist()
    assert table["error"].tolist() == expected["error"].tolist()
    np.testing.assert_allclose(table["score"], expected["score"], rtol=1e-6)
    n_parts = -(-len(many) // 4)
    assert len(list(directory.glob("part-*.parquet"))) == n_parts
    whole = pd.read_parquet(directory)  # by other programs
    np.testing.assert_array_equal(whole["score"], table["score"])


def test_a_table_goes_on_with_what_is_missing(detector, many, tmp_path):
    pytest.importorskip("pyarrow")
    counting = Counting(detector).fit(None)
    options = {"directory": tmp_path, "chunk_size": 4}
    table = predict_table(counting, many, **options)
    (tmp_path / "part-000001.parquet").unlink()
    (tmp_path / ".skocc-left").write_bytes(b"of a process that was killed")
    counting.counts.clear()
    again = predict_table(counting, many, **options)
    pd.testing.assert_frame_equal(again, table)
    assert counting.counts == [1, 4]  # to compare the detector, and the missing part
    with pytest.raises(ValueError, match=r"parts of another table.*in chunks of 4"):
        predict_table(counting, many[1:], **options)
    with pytest.raises(ValueError, match="parts of another table"):
        predict_table(counting, many, directory=tmp_path, chunk_size=5)
    other = copy.deepcopy(detector)
    other.offset_ = table["score"].max() + 1
    with pytest.raises(ValueError, match="scores of another detector"):
        predict_table(other, many, **options)


def test_a_table_in_parts_without_scores_and_without_a_folder(detector, tmp_path):
    pytest.importorskip("pyarrow")
    with pytest.raises(ValueError, match="missing"):
        predict_table(detector, ["missing.png"] * 3, directory=tmp_path, chunk_size=2)
    with pytest.raises(ValueError, match="Got n_jobs=2 and no directory"):
        predict_table(detector, ["missing.png"], n_jobs=2)
    with pytest.raises(ValueError, match="chunk_size, the number of rows"):
        predict_table(detector, ["missing.png"], directory=tmp_path, chunk_size=0)


def test_a_full_disk_keeps_the_parts(detector, image_files, tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    paths, write = image_files[1], pd.DataFrame.to_parquet
    n_written = []

    def full(self, path, *args, **kwargs):
        if n_written:
            raise OSError(errno.ENOSPC, "No space left on device")
        n_written.append(path)
        return write(self, path, *args, **kwargs)

    monkeypatch.setattr(pd.DataFrame, "to_parquet", full)
    with pytest.raises(OSError, match="No space left"):
        predict_table(detector, paths, directory=tmp_path, chunk_size=4)
    assert [path.name for path in tmp_path.glob("*.parquet")] == ["part-000000.parquet"]
    monkeypatch.setattr(pd.DataFrame, "to_parquet", write)
    table = predict_table(detector, paths, directory=tmp_path, chunk_size=4)
    assert table["path"].tolist() == [str(path) for path in paths]
