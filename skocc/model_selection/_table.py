"""A table of scores, p-values and labels of files."""

import os
from collections.abc import Iterable
from contextlib import nullcontext
from functools import partial
from numbers import Integral
from typing import TYPE_CHECKING

import numpy as np
from sklearn.exceptions import NotFittedError

from skocc._samples.progress import progress_bar, shown
from skocc.model_selection._table_parts import table_in_parts

if TYPE_CHECKING:
    import pandas as pd

# Characters that are shown of what is no path.
_N_SHOWN = 80


def predict_table(
    detector,
    paths: Iterable[str | os.PathLike],
    *,
    batch_size: int = 256,
    directory: str | os.PathLike | None = None,
    chunk_size: int = 4096,
    n_jobs: int | None = None,
    verbose: int = 0,
) -> "pd.DataFrame":
    """Score files, and return a table with a row for each.

    The files are scored in batches, and one that cannot be read costs no other its score.
    Nothing is written to disk without `directory`; the table has ``to_csv``. Needs pandas.
    Read more in the :ref:`User Guide <many_files>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    detector : estimator
        Fitted; a detector of skocc, a :class:`~skocc.model_selection.ThresholdTuner`, or
        a Pipeline that starts from files.
    paths : iterable of str or Path
        Files of images.
    batch_size : int, default=256
        Files that are given to the detector at once. It has its own batches within these.
    directory : str or Path, default=None
        Folder in which the table is kept in Parquet files, a file for `chunk_size` rows, as
        soon as these are there. After a stop, the same call goes on with what is missing.
        Needs pyarrow. None: nothing is written.
    chunk_size : int, default=4096
        Rows of a file, which are computed by one process. With `directory`.
    n_jobs : int, default=None
        Number of processes that score chunks side by side, as of joblib, also on the
        workers of :func:`joblib.parallel_config`. Each has a copy of the detector. With
        `directory`.
    verbose : int, default=0
        Whether one progress bar over all files is shown, in place of those of the detector.

    Returns
    -------
    table : pandas.DataFrame
        In the order of `paths`, with the columns

        - ``path``: the file, as text;
        - ``score``: ``score_samples``, higher is more normal; NaN where the file cannot be
          scored;
        - ``p_value``, if the detector is a
          :class:`~skocc.model_selection.ThresholdTuner`: small for anomalies;
        - ``label``: +1 normal, -1 anomalous, missing where the file cannot be scored;
        - ``error``: why the file cannot be scored, else None.

    Raises
    ------
    ImportError
        pandas is not installed.
    ValueError
        There are no paths, a number or the detector is none, none of the files can be
        scored, the message is then that of the first; or `directory` holds the table of
        other files or of another detector.
    OSError
        `directory` cannot be written to. What is there stays.
    sklearn.exceptions.NotFittedError
        The detector is not fitted.

    See Also
    --------
    skocc.model_selection.ThresholdTuner : Gives a detector p-values.

    Notes
    -----
    An entry of `paths` that is no path, such as a missing value of a table, has a row with
    an error too. Names that are not UTF-8 are kept as Python keeps them: to write such a
    table use ``table.to_csv(path, errors="surrogateescape")``. In the files of `directory`
    their bytes are written with escapes.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from PIL import Image
    >>> from skocc import DeepSVDD, predict_table
    >>> images = np.random.default_rng(0).integers(0, 256, (20, 8, 8), dtype=np.uint8)
    >>> detector = DeepSVDD(pretrain_n_epochs=1, n_epochs=1, device="cpu").fit(images)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for i, image in enumerate(images[:3]):
    ...         Image.fromarray(image).save(pathlib.Path(folder) / f"{i}.png")
    ...     paths = sorted(pathlib.Path(folder).glob("*.png"))
    ...     table = predict_table(detector, [*paths, "missing.png"])
    >>> table.columns.tolist()
    ['path', 'score', 'label', 'error']
    >>> table["error"].notna().tolist()
    [False, False, False, True]
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError(
            "predict_table returns a DataFrame, and pandas cannot be imported. Install it, "
            "for example by pip install pandas, or call detector.score_samples(paths)."
        ) from error
    paths = _checked_paths(paths)
    _check_count("batch_size", "files that are scored at once", batch_size, 256)
    _check_count("chunk_size", "rows of a file of the table", chunk_size, 4096)
    with shown("predict_table", verbose, inner=False) if verbose else nullcontext():
        if directory is not None:
            _check_detector(detector)
            make_frame = partial(_scored, detector, batch_size=int(batch_size))
            parts = table_in_parts(make_frame, paths, directory, int(chunk_size), n_jobs)
            table = pd.concat(parts, ignore_index=True)
            if table["score"].isna().all():
                raise ValueError(table["error"][0])
            return table
        if n_jobs is not None:
            raise ValueError(
                f"Several processes keep a table in a folder. Got n_jobs={n_jobs} and no "
                "directory. Set directory as well, or leave n_jobs out."
            )
        rows = [row for batch in score_files(detector, paths, batch_size) for row in batch]
    errors = [row[-1] for row in rows]
    if None not in errors:
        raise errors[0]
    return _frame(detector, rows)


def _scored(detector, paths, batch_size):
    """Return the table of some files, all of which may have errors."""
    batches = score_files(detector, paths, batch_size)
    return _frame(detector, [row for batch in batches for row in batch])


def _frame(detector, rows):
    """Return a DataFrame of rows of `score_files`."""
    import pandas as pd

    names, scores, labels, errors = zip(*rows, strict=True)
    failed = np.array([error is not None for error in errors])
    # Objects, because other columns of text cannot hold names that are not UTF-8.
    table = {"path": pd.Series(names, dtype=object), "score": np.array(scores)}
    if hasattr(detector, "p_values"):
        p_values = detector._p_values_of(table["score"])
        table["p_value"] = np.where(failed, np.nan, p_values)
    table["label"] = pd.array([label or pd.NA for label in labels], dtype="Int64")
    reasons = [None if error is None else str(error) for error in errors]
    table["error"] = pd.Series(reasons, dtype=object)
    return pd.DataFrame(table)


def score_files(detector, paths, batch_size):
    """Score files, and yield their rows a batch at a time.

    Parameters
    ----------
    detector, paths, batch_size : as in `predict_table`

    Yields
    ------
    rows : list of tuple (path, score, label, error)
        Text, a float, +1 or -1, and None; or text, NaN, None and the exception that says
        why the file cannot be scored.

    Raises
    ------
    ValueError, sklearn.exceptions.NotFittedError
        As `predict_table`, but for files none of which can be scored.
    """
    paths = _checked_paths(paths)
    _check_count("batch_size", "files that are scored at once", batch_size, 256)
    _check_detector(detector)
    with progress_bar("files", len(paths), unit="file") as progress:
        for start in range(0, len(paths), batch_size):
            batch = paths[start : start + batch_size]
            try:
                rows = _score(detector, [_file_name(path) for path in batch])
            except NotFittedError:
                raise
            # Whatever one file has done to a batch, it must not cost the others their
            # scores.
            except Exception:
                rows = [_score_alone(detector, path) for path in batch]
            yield rows
            progress.update(len(batch))


def _checked_paths(paths) -> list:
    """Return paths as a list, or raise a ValueError for what is no collection of them."""
    if isinstance(paths, str | bytes | os.PathLike):
        raise ValueError(
            f"paths must be a collection of files. Got the single path {str(paths)!r}. "
            "Pass a list, for a folder sorted(folder.glob('*.png'))."
        )
    try:
        paths = list(paths)
    except TypeError as error:
        raise ValueError(
            f"paths must be a collection of files. Got {type(paths).__name__}, which holds "
            "nothing. Pass a list of str or Path."
        ) from error
    if not paths:
        raise ValueError(
            "There are no files to score. Got an empty collection of paths. Pass at "
            "least one."
        )
    return paths


def _check_count(name, what, value, usual):
    """Raise a ValueError unless a parameter is a positive integer."""
    is_number = isinstance(value, Integral) and not isinstance(value, bool)
    if not is_number or value < 1:
        raise ValueError(
            f"{name}, the number of {what}, must be a positive integer. Got {value!r}. "
            f"Pass for example {name}={usual}."
        )


def _check_detector(detector):
    """Raise a ValueError for what has no scores."""
    if not hasattr(detector, "score_samples"):
        raise ValueError(
            "A detector has score_samples, by which files are scored. Got "
            f"{type(detector).__name__}, which does not have it. Pass a fitted detector."
        )


def _file_name(path):
    """Return a path as text; raise a TypeError for what is none, as an image's bytes."""
    if isinstance(path, bytes) and b"\0" in path:
        raise TypeError("no name of a file holds a null byte")
    return os.fsdecode(path)


def _score_alone(detector, path):
    """Return the row of a file, whatever becomes of it."""
    try:
        name = _file_name(path)
    except TypeError:
        error = ValueError(
            f"This is no path: got {type(path).__name__}. Pass a str or Path, or leave it "
            "out; images in memory are scored by score_samples."
        )
        return str(path)[:_N_SHOWN], np.nan, None, error
    try:
        return _score(detector, [name])[0]
    except Exception as error:
        return name, np.nan, None, error


def _score(detector, paths):
    """Return the rows of files that can all be scored."""
    scores = detector.score_samples(paths)
    if hasattr(detector, "offset_"):
        labels = np.where(scores >= detector.offset_, 1, -1)
    else:  # a Pipeline keeps its threshold to itself
        labels = detector.predict(paths)
    return [
        (path, float(score), int(label), None)
        for path, score, label in zip(paths, scores, labels, strict=True)
    ]
