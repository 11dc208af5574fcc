import os

import numpy as np
from sklearn.exceptions import NotFittedError

from skocc.model_selection import conformal_p_values


def predict_table(detector, paths, *, batch_size=256):
    """Score files, and return a table with a row for each.

    The files are scored in batches, and one that cannot be read costs no other its score.
    Nothing is written to disk; the table has ``to_csv``. Needs pandas.

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
        There are no paths, or none of the files can be scored; the message is that of the
        first.
    sklearn.exceptions.NotFittedError
        The detector is not fitted.

    See Also
    --------
    skocc.model_selection.ThresholdTuner : Gives a detector p-values.

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
    if isinstance(paths, str | os.PathLike):
        raise ValueError(
            f"paths must be a collection of files. Got the single path {str(paths)!r}. "
            "Pass a list, for a folder sorted(folder.glob('*.png'))."
        )
    paths = [os.fspath(path) for path in paths]
    if not paths:
        raise ValueError(
            "There are no files to score. Got an empty collection of paths. Pass at "
            "least one."
        )
    scores = np.full(len(paths), np.nan)
    labels = np.zeros(len(paths), dtype=int)
    errors = {}
    for start in range(0, len(paths), batch_size):
        batch = range(start, min(start + batch_size, len(paths)))
        try:
            _score(detector, paths, batch, scores, labels)
        except NotFittedError:
            raise
        except (ValueError, OSError):
            # Which file it was: one after another.
            for index in batch:
                try:
                    _score(detector, paths, [index], scores, labels)
                except (ValueError, OSError) as error:
                    errors[index] = error
    if len(errors) == len(paths):
        raise errors[0]
    table = {"path": paths, "score": scores}
    if hasattr(detector, "p_values"):
        p_values = conformal_p_values(scores, detector.calibration_scores_)
        p_values[list(errors)] = np.nan
        table["p_value"] = p_values
    failed = np.isin(np.arange(len(paths)), list(errors))
    table["label"] = pd.array(labels, dtype="Int64")
    table["label"][failed] = pd.NA
    table["error"] = [str(errors[i]) if i in errors else None for i in range(len(paths))]
    return pd.DataFrame(table)


def _score(detector, paths, indices, scores, labels):
    """Write scores and labels of the paths at `indices` into the arrays."""
    batch = [paths[index] for index in indices]
    batch_scores = detector.score_samples(batch)
    if hasattr(detector, "offset_"):
        batch_labels = np.where(batch_scores >= detector.offset_, 1, -1)
    else:  # a Pipeline keeps its threshold to itself
        batch_labels = detector.predict(batch)
    scores[list(indices)], labels[list(indices)] = batch_scores, batch_labels
