"""Several detectors on the same images: accuracy with its uncertainty, and cost."""

import os
from collections.abc import Callable, Mapping
from numbers import Integral, Real

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import Bunch, check_random_state

from skocc._base.private_sklearn import HasMethods, Interval, validate_params
from skocc._samples.log import logger
from skocc._samples.progress import shown, track, waiting
from skocc.model_selection._compare_files import KeptResults
from skocc.model_selection._compare_fits import example_indices, fit_and_score
from skocc.model_selection._compare_problem import make_problem
from skocc.model_selection._compare_table import as_table, make_tables


@validate_params(
    {
        "detectors": [Mapping, list, tuple],
        "masks": ["array-like", None],
        "groups": ["array-like", None],
        "cv": [HasMethods("split"), "array-like", None],
        "make_anomalies": [callable, None],
        "n_resamples": [Interval(Integral, 10, None, closed="left")],
        "confidence_level": [Interval(Real, 0, 1, closed="neither")],
        "n_examples": [Interval(Integral, 0, None, closed="left")],
        "directory": [str, os.PathLike, None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    },
    prefer_skip_nested_validation=True,
)
def compare(
    detectors,
    X,
    y: ArrayLike | None = None,
    *,
    masks=None,
    groups: ArrayLike | None = None,
    cv=None,
    make_anomalies: Callable | None = None,
    n_resamples: int = 2000,
    confidence_level: float = 0.95,
    n_examples: int = 0,
    directory: str | os.PathLike | None = None,
    random_state: int | np.random.RandomState | None = None,
    verbose: int = 0,
) -> Bunch:
    """Fit and score several detectors on the same images, and return a table of them.

    Each detector is fitted on the normal samples of a split, and scores the samples that
    were left out. The table says how well it ranks them, how far that is by chance, and
    what it costs. A detector that fails has a row with its error, and the others go on.
    Read more in the :ref:`User Guide <comparing>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    detectors : dict of str to estimator, or list of tuple (str, estimator)
        Detectors of skocc, of scikit-learn, pipelines and meta-estimators, which are
        cloned. They have ``score_samples``, or else ``decision_function``.
    X : images, rows or paths
        Whatever the detectors take, of length n.
    y : array-like of shape (n,), default=None
        +1 or "good" for normal samples, negative numbers or other names for anomalies.
        None, or only normal samples: see Notes.
    masks : sequence of n arrays (H, W), paths or None, default=None
        True, or other than 0, at the pixels of a defect; None for a normal image. Pixels
        are ranked for detectors with ``anomaly_map``, at the size of the images. An
        anomaly without a mask counts as an image only.
    groups : array-like of shape (n,), default=None
        Samples of one group, such as photographs of one object, are not independent: `cv`
        keeps them together, and intervals count them as one.
    cv : splitter, iterable of tuple (train, test), or None, default=None
        How samples are divided. None: ``OneClassSplit(random_state=random_state)``, which
        holds out a quarter of the normal samples, and all anomalies.
    make_anomalies : callable, default=None
        Makes anomalies of normal images if there are none, as in
        :func:`add_synthetic_anomalies`. None: twists, cuts, scratches and stains.
    n_resamples : int, default=2000
        Resamples of the bootstrap, at least 10.
    confidence_level : float, default=0.95
        Of the intervals, in (0, 1).
    n_examples : int, default=0
        Number of worst misses and of worst false alarms whose heat maps are kept.
    directory : str or Path, default=None
        Folder that keeps the result of each detector and split, so that a comparison that
        was ended goes on, and only what is new is fitted. None keeps nothing.
    random_state : int, RandomState or None, default=None
        Of the split, the synthetic anomalies and the resamples. The detectors have their
        own. `directory` needs an int.
    verbose : int, default=0
        1 shows a progress bar over the detectors.

    Returns
    -------
    comparison : Bunch
        The tables, and what they were computed from:

        table : pandas.DataFrame, or Bunch of ndarray
            A row for each detector, the best first, those that failed last. A DataFrame if
            pandas is installed, else its columns as arrays. See Notes for the columns.
        by_split : pandas.DataFrame, or Bunch of ndarray
            Metrics and costs of each detector and split, without intervals.
        best : str or None
            Name of the detector with the highest AUROC (with the lowest mass-volume area
            where there are no anomalies); None if all failed.
        criterion : {"anomalies", "synthetic anomalies", "uniform samples"}
            What the normal samples are told from.
        X, y, masks : array or list
            What was divided: what was passed, and after it synthetic anomalies. Detectors
            and displays take ``X``; ``y`` are the labels, +1 if none were passed.
        test : list of ndarray of int
            By split, the rows of ``X`` that were scored.
        labels : list of ndarray of int
            By split, +1 or -1 for each of these rows.
        scores : dict of str to list of ndarray of float64
            By detector and split, the scores of these rows, for the metrics and for
            ``from_predictions`` of ``skocc.plotting``. Those that failed are missing.
        thresholds : dict of str to list of float or None
            By detector and split, ``offset_`` of the fitted detector.
        warnings : dict of str to list of str
            By detector, the texts of warnings while it was fitted and scored.
        examples : dict of str to Bunch
            By detector, of the first split: ``misses`` and ``false_alarms``, rows of ``X``,
            the worst first; ``maps``, a dictionary from row to heat map, of at most 256
            pixels a side; and ``pixel_threshold``, that of the detector, or, where it has
            none, what 5 % of the held-out normal images exceed anywhere; None without maps.

    Raises
    ------
    ValueError
        `detectors` are none, an argument has another length or form, a split trains on an
        anomaly or tests on samples of one kind only, there are neither anomalies nor images
        to make them of, or `directory` is used without an int as `random_state`.

    Warns
    -----
    UserWarning
        A kept result is damaged, or a result cannot be kept.

    See Also
    --------
    skocc.plotting.RocCurveDisplay : Draws curves of the scores.
    sklearn.model_selection.GridSearchCV : Chooses parameters of one detector.
    classical_detectors : Four detectors of scikit-learn to compare with.

    Notes
    -----
    The columns of the table:

    =====================  ==============================================================
    column                 is
    =====================  ==============================================================
    detector               the name
    image_auroc            area under the ROC curve of the images
    p_value                of the difference to the best one; NaN for the best
    pixel_auroc, aupro     of the heat maps, only with masks; NaN without maps
    recall_at_1_percent    anomalies found at a false-alarm rate of at most 1 %
    recall_at_5_percent    the same at 5 %
    fit_seconds            to fit, wall time
    ms_per_image           to score, wall time, in milliseconds
    peak_mib               memory that fitting and scoring add, in MiB
    error                  why the detector failed, else None
    =====================  ==============================================================

    The metrics have further columns that end in ``_low`` and ``_high``. Metrics and times
    are means over the splits, the memory is the highest of them.

    **Without anomalies** images get synthetic ones: one is made of each image that is held
    out, and scored by detectors that were not trained on it. The columns of metrics then
    begin with ``synthetic_``; which detector finds real defects best they only suggest.
    Rows of at most 8 columns are compared with uniform samples in their bounding box, by
    :func:`~skocc.metrics.mass_volume_auc` (lower is better) and
    :func:`~skocc.metrics.excess_mass_auc` (higher is better), in the columns
    ``mass_volume`` and ``excess_mass``, without intervals. All of these need no label.

    **Intervals** are percentiles of a bootstrap over images (``scipy.stats.bootstrap``):
    normal samples and anomalies are drawn with replacement, apart from each other; a group,
    and an image with its synthetic anomaly, is drawn as one. In each resample the metric is
    computed for each split, and averaged. Of each heat map, 256 quantiles of the normal
    pixels and 32 of each defect are resampled. The intervals hold for the detectors as they
    were fitted: how much another training set or seed would change is not in them.

    **The p-value** is that of a paired bootstrap: both detectors are evaluated on the same
    resamples, and it is twice the fraction in which the worse one is at least as good.
    Unlike DeLong's test, it takes groups and several splits into account. It is corrected
    neither for the number of detectors, nor for the choice of the best by the same images.

    **Costs.** Detectors are fitted one after another, in this process, and the first fit
    may include loading of libraries. Memory is the highest resident memory of the process,
    minus that before the fit, sampled every 10 ms: a shorter peak can be missed, memory
    that earlier detectors have not given back may be used again, and that of a GPU does not
    count. It is known on Linux only, else NaN.

    **The files** in `directory` are found by a digest of the parameters of the detector,
    of all samples, labels and splits, and of the versions of the packages. After a change
    of a parameter, only that detector is fitted again. They hold numbers and no code.
    Failures are not kept. Ctrl-C ends the comparison, not just a stage of a fit.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.ensemble import IsolationForest
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.svm import OneClassSVM
    >>> from skocc.datasets import make_textures, stain_defects
    >>> from skocc.feature_extraction import Pixels
    >>> from skocc.model_selection import compare
    >>> images = make_textures(60, size=32, random_state=0)
    >>> images[40:], masks = stain_defects(images[40:], random_state=0)
    >>> y = np.repeat([1, -1], [40, 20])
    >>> detectors = {
    ...     "SVM": make_pipeline(Pixels(), OneClassSVM()),
    ...     "forest": make_pipeline(Pixels(), IsolationForest(random_state=0)),
    ... }
    >>> comparison = compare(detectors, images, y, n_resamples=100, random_state=0)
    >>> sorted(comparison.table["detector"])
    ['SVM', 'forest']
    >>> comparison.best == comparison.table["detector"][0]
    True

    The curve of one of them:

    >>> from skocc.plotting import RocCurveDisplay
    >>> display = RocCurveDisplay.from_predictions(
    ...     comparison.labels[0], comparison.scores["SVM"][0], name="SVM"
    ... )
    """
    detectors = _read_detectors(detectors)
    if directory is not None and not isinstance(random_state, Integral):
        raise ValueError(
            "Results in a directory are found again if all that is drawn at random is "
            f"drawn again. Got random_state={random_state!r}. Pass an int, for example "
            "random_state=0, or directory=None."
        )
    problem = make_problem(
        X, y, masks, groups, cv, make_anomalies, n_examples, random_state
    )
    kept = KeptResults(directory, problem)
    results = {}
    with shown("compare", verbose):
        for name in track(list(detectors), "detectors", unit="detector"):
            with waiting(name):
                results[name] = _results_of(name, detectors[name], problem, kept)
    bootstrap = {
        "n_resamples": n_resamples,
        "confidence_level": confidence_level,
        "seed": check_random_state(random_state).randint(2**31 - 1),
    }
    table, by_split, best = make_tables(results, problem, bootstrap)
    tables = {"table": as_table(table), "by_split": as_table(by_split), "best": best}
    return Bunch(**tables, **_details(results, problem))


def _details(results, problem):
    """Return what the tables were computed from, but for detectors that failed."""
    fitted = {name: one for name, one in results.items() if not isinstance(one, str)}
    return {
        "criterion": problem.criterion,
        "X": problem.X,
        "y": problem.labels,
        "masks": problem.masks,
        "test": [test for _, test in problem.folds],
        "labels": [np.where(problem.is_anomaly[test], -1, 1) for _, test in problem.folds],
        "scores": {name: [a["scores"] for _, a in fitted[name]] for name in fitted},
        "thresholds": {name: [v["threshold"] for v, _ in fitted[name]] for name in fitted},
        "warnings": {name: _distinct_warnings(fitted[name]) for name in fitted},
        "examples": {name: _examples(fitted[name][0], problem) for name in fitted},
    }


def _results_of(name, detector, problem, kept):
    """Return the result of each split, or the error of one as text."""
    results = []
    for fold in range(len(problem.folds)):
        key = kept.key(name, detector, fold)
        result = kept.read(key)
        if result is None:
            try:
                result = fit_and_score(detector, problem, fold)
            except Exception as error:  # whatever it is, the others go on
                logger.warning("%s failed", name, exc_info=error)
                return f"{type(error).__name__}: {error}"
            kept.write(key, name, *result)
        results.append(result)
    return results


def _read_detectors(detectors):
    """Return the detectors by name, in their order."""
    try:
        pairs = list(detectors.items() if isinstance(detectors, Mapping) else detectors)
        named = dict(pairs)
    except (TypeError, ValueError):
        named = {}
    is_readable = named and all(isinstance(name, str) and name for name in named)
    if not is_readable or not all(_is_detector(one) for one in named.values()):
        raise ValueError(
            "detectors must be a dictionary, or pairs, of names and estimators with fit "
            f"and score_samples. Got {detectors!r:.300}. Pass for example "
            "{'forest': IsolationForest()}."
        )
    if len(named) < len(pairs):
        raise ValueError(
            "Each detector needs a name of its own. Got the names "
            f"{[name for name, _ in pairs]}. Number those of one class."
        )
    return named


def _is_detector(estimator):
    if isinstance(estimator, type) or not hasattr(estimator, "get_params"):
        return False
    can_score = any(
        hasattr(estimator, name) for name in ("score_samples", "decision_function")
    )
    return hasattr(estimator, "fit") and can_score


def _distinct_warnings(results):
    return list(dict.fromkeys(text for values, _ in results for text in values["warnings"]))


def _examples(result, problem):
    """Return the worst misses and false alarms of the first split, as indices of X."""
    (values, arrays), test = result, problem.folds[0][1]
    is_anomaly = problem.is_anomaly[test]
    chosen = example_indices(arrays["scores"], is_anomaly, problem.n_examples)
    examples = Bunch(pixel_threshold=values.get("pixel_threshold"), maps={})
    for name, places in zip(("misses", "false_alarms"), chosen, strict=True):
        examples[name] = test[places]
        for place in places:
            heat = arrays.get(f"examples/{name}/{place}")
            if heat is not None:
                examples.maps[int(test[place])] = heat
    return examples
