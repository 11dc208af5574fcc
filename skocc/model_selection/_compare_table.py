"""The table of a comparison: metrics, bootstrap intervals, and tests against the best."""

import warnings
from functools import partial

import numpy as np
from scipy import stats
from sklearn.utils import Bunch

from skocc.metrics import auroc, excess_mass_auc, mass_volume_auc, recall_at_fpr
from skocc.metrics._weighted import MAX_FPR_OF_OVERLAP, WeightedCurve, pixel_curves

# Resamples that are in memory at a time.
_BATCH_SIZE = 100
_COSTS = ("fit_seconds", "ms_per_image", "peak_mib")


def make_tables(results, problem, bootstrap):
    """Return the table of the detectors, that of their splits, and the name of the best.

    Parameters
    ----------
    results : dict of str to list of (values, arrays), or str
        By detector, the result of each split, or the error of one that failed.
    problem : Problem
    bootstrap : dict
        `n_resamples` and `confidence_level` of ``scipy.stats.bootstrap``, and "seed".

    Returns
    -------
    table, by_split : dict of str to list
        Columns. The best detector is the first, those that failed are the last.
    best : str or None
    """
    rows, by_split, distributions = {}, [], {}
    for name, result in results.items():
        if not isinstance(result, str):
            result, splits = _metrics_of_splits(result, problem)
        if isinstance(result, str):
            rows[name] = {"detector": name, "error": result}
            continue
        by_split += [{"detector": name, "split": i} | row for i, row in enumerate(splits)]
        names = dict.fromkeys(key for split in splits for key in split)
        row = {key: float(_mean([s.get(key, np.nan) for s in splits])) for key in names}
        row["peak_mib"] = max(split["peak_mib"] for split in splits)
        intervals, distributions[name] = _intervals(result, problem, bootstrap)
        rows[name] = {"detector": name, "error": None} | row | intervals
    main, sign = _criterion(problem)
    fitted = sorted(distributions, key=lambda name: -sign * rows[name][main])
    for name in fitted[1:]:
        if main in distributions[name]:
            best, other = distributions[fitted[0]][main], distributions[name][main]
            rows[name]["p_value"] = _p_value(best - other)
    order = [*fitted, *(name for name in rows if name not in distributions)]
    table = _as_columns([rows[name] for name in order], _columns(problem))
    names = dict.fromkeys(key for row in by_split for key in row)
    splits = _as_columns(by_split, names or ["detector", "split"])
    return table, splits, fitted[0] if fitted else None


def _criterion(problem):
    """Return the metric that detectors are sorted by, and +1 where higher is better."""
    if problem.uniform is not None:
        return "mass_volume", -1
    return f"{_prefix(problem)}image_auroc", 1


def _prefix(problem):
    """Return how columns begin whose anomalies are not real."""
    return "synthetic_" if problem.criterion == "synthetic anomalies" else ""


def _columns(problem):
    """Return the names of the columns in their order."""
    if problem.uniform is not None:
        metrics = ["mass_volume", "excess_mass"]
    else:
        names = ["image_auroc", "recall_at_1_percent", "recall_at_5_percent"]
        if problem.masks is not None:
            names[1:1] = ["pixel_auroc", "aupro"]
        metrics = [
            f"{_prefix(problem)}{name}{end}"
            for name in names
            for end in ("", "_low", "_high")
        ]
        metrics.insert(3, "p_value")
    return ["detector", *metrics, *_COSTS, "error"]


def _as_columns(rows, names):
    return {
        name: [row.get(name, None if name == "error" else np.nan) for row in rows]
        for name in names
    }


def _metrics_of_splits(result, problem):
    """Return the result, or an error in its place, and metrics and costs of each split."""
    try:
        return result, [
            _metrics(*one, problem, fold) | {key: one[0][key] for key in _COSTS}
            for fold, one in enumerate(result)
        ]
    except ValueError as error:  # uniform samples far away from the normal ones
        return f"ValueError: {error}", []


def _metrics(values, arrays, problem, fold):
    """Return the metrics of one split."""
    scores, test = arrays["scores"], problem.folds[fold][1]
    if problem.uniform is not None:
        both = scores, arrays["uniform_scores"]
        return {
            "mass_volume": mass_volume_auc(*both),
            "excess_mass": excess_mass_auc(*both),
        }
    y = np.where(problem.is_anomaly[test], -1, 1)
    found = {
        "image_auroc": auroc(y, scores),
        "recall_at_1_percent": recall_at_fpr(y, scores, max_fpr=0.01),
        "recall_at_5_percent": recall_at_fpr(y, scores, max_fpr=0.05),
    }
    found |= {name: values[name] for name in ("pixel_auroc", "aupro") if name in values}
    return {f"{_prefix(problem)}{name}": value for name, value in found.items()}


def _intervals(result, problem, bootstrap):
    """Return intervals as columns of the table, and the resampled values by metric."""
    columns, distributions = {}, {}
    for name, metric in _resampled_metrics(result, problem).items():
        name = f"{_prefix(problem)}{name}"
        found = _bootstrap(metric, problem, **bootstrap)
        if found is not None:
            (columns[f"{name}_low"], columns[f"{name}_high"]), distributions[name] = found
    return columns, distributions


def _resampled_metrics(result, problem):
    """Return the metrics, as functions of how often each sample counts."""
    if problem.uniform is not None:
        return {}
    n = len(problem.is_anomaly)
    images, pixels, overlaps = [], [], []
    for (_, test), (_, arrays) in zip(problem.folds, result, strict=True):
        # Ranks are of the scores of one fit: those of another cannot be compared.
        anomalousness = np.where(np.isnan(arrays["scores"]), np.inf, -arrays["scores"])
        ones, is_anomaly = np.ones(len(test)), problem.is_anomaly[test]
        images.append(WeightedCurve(anomalousness, test, ones, is_anomaly, n))
        points = {key[7:]: arrays[key] for key in arrays if key.startswith("pixels/")}
        if points:
            curves = pixel_curves(points, n)
            pixels.append(curves[0])
            overlaps.append(curves[1])
    metrics = {
        "image_auroc": partial(_mean_area, images, 1.0),
        "recall_at_1_percent": partial(_mean_recall, images, 0.01),
        "recall_at_5_percent": partial(_mean_recall, images, 0.05),
    }
    if pixels:
        metrics["pixel_auroc"] = partial(_mean_area, pixels, 1.0)
        metrics["aupro"] = partial(_mean_area, overlaps, MAX_FPR_OF_OVERLAP)
    return metrics


def _mean_area(curves, max_fpr, weights):
    return _mean([curve.area(weights, max_fpr) for curve in curves])


def _mean_recall(curves, max_fpr, weights):
    return _mean([curve.recall(weights, max_fpr) for curve in curves])


def _mean(values):
    """Return the mean over splits, without those in which no sample of a kind was drawn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmean(values, axis=0)


def _bootstrap(metric, problem, n_resamples, confidence_level, seed):
    """Return the interval of a metric and its resampled values; None of too few samples.

    Units are drawn with replacement, those with an anomaly and those without it apart. The
    same seed draws the same ones for each detector, so that differences are paired.
    """
    tested = np.unique(np.concatenate([test for _, test in problem.folds]))
    with_anomaly = np.unique(problem.units[tested[problem.is_anomaly[tested]]])
    others = np.setdiff1d(problem.units[tested], with_anomaly)
    strata = tuple(part for part in (others, with_anomaly) if len(part))
    if min(map(len, strata)) < 2:
        return None
    n_units = problem.units.max() + 1

    def statistic(*draws, axis=-1):
        rows = [np.reshape(draw, (-1, draw.shape[-1])) for draw in draws]
        counts = np.stack([np.bincount(row, minlength=n_units) for row in np.hstack(rows)])
        return metric(counts[:, problem.units]).reshape(draws[0].shape[:-1])

    found = stats.bootstrap(
        strata,
        statistic,
        vectorized=True,
        n_resamples=n_resamples,
        confidence_level=confidence_level,
        # Of the common intervals, the one that stays in [0, 1] and has a length of 0 where
        # all normal samples rank above all anomalies.
        method="percentile",
        batch=_BATCH_SIZE,
        random_state=np.random.default_rng(seed),
    )
    return tuple(map(float, found.confidence_interval)), found.bootstrap_distribution


def _p_value(differences):
    """Return the two-sided p-value of differences that are resampled around their mean."""
    differences = differences[~np.isnan(differences)]
    n_below = min(np.sum(differences <= 0), np.sum(differences >= 0))
    return float(min(1, 2 * (n_below + 1) / (len(differences) + 1)))


def as_table(columns):
    """Return columns as a DataFrame, without pandas as a Bunch of arrays."""
    arrays = {name: _as_column(column) for name, column in columns.items()}
    try:
        import pandas as pd
    except ImportError:
        return Bunch(**arrays)
    # As they are: a column of texts would have NaN in place of None.
    return pd.DataFrame(
        {name: pd.Series(array, dtype=array.dtype) for name, array in arrays.items()}
    )


def _as_column(column):
    is_text = any(isinstance(value, str) for value in column)
    return np.array(column, dtype=object if is_text or None in column else None)
