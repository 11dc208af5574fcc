"""Metrics of the ranking of images, from labels and scores."""

from numbers import Real

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import (
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)
from sklearn.utils import check_consistent_length, column_or_1d

from skocc._base.private_sklearn import validate_params
from skocc._samples.arrays import as_array


@validate_params(
    {
        "y_true": ["array-like"],
        "y_score": ["array-like"],
    },
    prefer_skip_nested_validation=True,
)
def auroc(y_true: ArrayLike, y_score: ArrayLike) -> float:
    """Return the area under the ROC curve, with anomalies as the positive class.

    This is the probability that a random anomaly has a lower score than a random normal
    sample, where equal scores count one half. Read more in the :ref:`User Guide <metrics>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    y_true : array-like of shape (n_samples,), int
        Labels, +1 for normal samples and -1 for anomalies.
    y_score : array-like of shape (n_samples,), float
        Scores from ``score_samples``, higher is more normal. NaN counts as -inf, an
        anomaly, as in ``predict``.

    Returns
    -------
    auroc : float
        Area in [0, 1], higher is better; 0.5 is chance level.

    Raises
    ------
    ValueError
        `y_true` contains other labels than +1 and -1, or only one of the two, or differs
        from `y_score` in length.

    See Also
    --------
    average_precision : Emphasizes the top of the ranking, and depends on the fraction of
        anomalies.
    recall_at_fpr : Depends on a single false-positive rate.

    Examples
    --------
    >>> from skocc.metrics import auroc
    >>> auroc([1, 1, -1, -1], [0.9, 0.4, 0.5, 0.1])
    0.75
    """
    is_anomaly, rank = _rank(y_true, y_score)
    return float(roc_auc_score(is_anomaly, rank))


@validate_params(
    {
        "y_true": ["array-like"],
        "y_score": ["array-like"],
    },
    prefer_skip_nested_validation=True,
)
def average_precision(y_true: ArrayLike, y_score: ArrayLike) -> float:
    """Return the average precision, with anomalies as the positive class.

    This is the area under the steps of the precision-recall curve. Read more in the
    :ref:`User Guide <metrics>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    y_true : array-like of shape (n_samples,), int
        Labels, +1 for normal samples and -1 for anomalies.
    y_score : array-like of shape (n_samples,), float
        Scores from ``score_samples``, higher is more normal. NaN counts as -inf, an
        anomaly, as in ``predict``.

    Returns
    -------
    average_precision : float
        Average precision in (0, 1], higher is better; the fraction of anomalies is chance
        level.

    Raises
    ------
    ValueError
        `y_true` contains other labels than +1 and -1, or only one of the two, or differs
        from `y_score` in length.

    See Also
    --------
    auroc : Does not depend on the fraction of anomalies.

    Examples
    --------
    >>> from skocc.metrics import average_precision
    >>> round(average_precision([1, 1, -1, -1], [0.9, 0.4, 0.5, 0.1]), 4)
    0.8333
    """
    is_anomaly, rank = _rank(y_true, y_score)
    return float(average_precision_score(is_anomaly, rank))


@validate_params(
    {
        "y_true": ["array-like"],
        "y_score": ["array-like"],
    },
    prefer_skip_nested_validation=True,
)
def best_f1(y_true: ArrayLike, y_score: ArrayLike) -> float:
    """Return the maximum F1 of the anomalies over all thresholds.

    The threshold is chosen with the same labels from which the result is computed.
    Therefore the result is an upper bound for thresholds chosen beforehand. Read more in
    the :ref:`User Guide <metrics>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    y_true : array-like of shape (n_samples,), int
        Labels, +1 for normal samples and -1 for anomalies.
    y_score : array-like of shape (n_samples,), float
        Scores from ``score_samples``, higher is more normal. NaN counts as -inf, an
        anomaly, as in ``predict``.

    Returns
    -------
    f1 : float
        F1 in (0, 1], higher is better. It is at least 2 p / (1 + p) for a fraction p of
        anomalies, the F1 if all samples are labeled as anomalies.

    Raises
    ------
    ValueError
        `y_true` contains other labels than +1 and -1, or only one of the two, or differs
        from `y_score` in length.

    See Also
    --------
    max_balanced_accuracy : Does not depend on the fraction of anomalies.

    Examples
    --------
    >>> from skocc.metrics import best_f1
    >>> best_f1([1, 1, -1, -1], [0.9, 0.4, 0.5, 0.1])
    0.8
    """
    is_anomaly, rank = _rank(y_true, y_score)
    precision, recall, _ = precision_recall_curve(is_anomaly, rank)
    # If no anomaly is found, precision and recall are 0, and so is F1. The last point of
    # the curve has recall 0 and precision 1.
    total = precision + recall
    f1 = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)
    return float(f1.max())


@validate_params(
    {
        "y_true": ["array-like"],
        "y_score": ["array-like"],
    },
    prefer_skip_nested_validation=True,
)
def max_balanced_accuracy(y_true: ArrayLike, y_score: ArrayLike) -> float:
    """Return the maximum balanced accuracy over all thresholds.

    This is the maximum of (TPR + 1 - FPR) / 2 on the ROC curve, with anomalies as the
    positive class. As in :func:`best_f1`, the threshold is chosen with the same labels from
    which the result is computed. Read more in the :ref:`User Guide <metrics>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    y_true : array-like of shape (n_samples,), int
        Labels, +1 for normal samples and -1 for anomalies.
    y_score : array-like of shape (n_samples,), float
        Scores from ``score_samples``, higher is more normal. NaN counts as -inf, an
        anomaly, as in ``predict``.

    Returns
    -------
    balanced_accuracy : float
        Balanced accuracy in [0.5, 1], higher is better. It is at least 0.5, the value for a
        threshold that labels all samples as anomalies.

    Raises
    ------
    ValueError
        `y_true` contains other labels than +1 and -1, or only one of the two, or differs
        from `y_score` in length.

    See Also
    --------
    best_f1 : Weighs the classes by their number of samples.

    Examples
    --------
    >>> from skocc.metrics import max_balanced_accuracy
    >>> max_balanced_accuracy([1, 1, -1, -1], [0.9, 0.4, 0.5, 0.1])
    0.75
    """
    is_anomaly, rank = _rank(y_true, y_score)
    fpr, tpr, _ = roc_curve(is_anomaly, rank, drop_intermediate=False)
    return float((tpr + 1 - fpr).max() / 2)


@validate_params(
    {
        "y_true": ["array-like"],
        "y_score": ["array-like"],
        "max_fpr": [Real],
    },
    prefer_skip_nested_validation=True,
)
def recall_at_fpr(y_true: ArrayLike, y_score: ArrayLike, *, max_fpr: float = 0.05) -> float:
    """Return the fraction of the anomalies that are found at a false-positive rate.

    This is the maximum recall over the thresholds that label at most this fraction of the
    normal samples as anomalous. Read more in the :ref:`User Guide <metrics>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    y_true : array-like of shape (n_samples,), int
        Labels, +1 for normal samples and -1 for anomalies.
    y_score : array-like of shape (n_samples,), float
        Scores from ``score_samples``, higher is more normal. NaN counts as -inf, an
        anomaly, as in ``predict``.
    max_fpr : float, default=0.05
        Maximum false-positive rate, in [0, 1].

    Returns
    -------
    recall : float
        Recall in [0, 1], higher is better.

    Raises
    ------
    ValueError
        `y_true` contains other labels than +1 and -1, or only one of the two, or differs
        from `y_score` in length; or `max_fpr` is not in [0, 1].

    See Also
    --------
    auroc : The mean recall over all false-positive rates.

    Notes
    -----
    The recall is not interpolated between thresholds. With n normal samples, the
    false-positive rate is a multiple of 1/n. With fewer than 20 normal samples,
    ``max_fpr=0.05`` therefore allows no false positive at all.

    Examples
    --------
    >>> from skocc.metrics import recall_at_fpr
    >>> recall_at_fpr([1, 1, -1, -1], [0.9, 0.4, 0.5, 0.1], max_fpr=0.0)
    0.5
    """
    if not 0 <= max_fpr <= 1:
        raise ValueError(
            f"max_fpr must be a rate in [0, 1]. Got {max_fpr!r}. Pass for example "
            "max_fpr=0.05."
        )
    is_anomaly, rank = _rank(y_true, y_score)
    fpr, tpr, _ = roc_curve(is_anomaly, rank, drop_intermediate=False)
    return float(tpr[fpr <= max_fpr].max())


def _rank(y_true, y_score):
    """Return a mask of the anomalies, and ranks, higher for more anomalous samples."""
    y_true = as_array("y_true", y_true, read=column_or_1d)
    y_score = as_array("y_score", y_score, np.float64, read=column_or_1d)
    check_consistent_length(y_true, y_score)
    try:
        labels = np.unique(y_true)
    except TypeError:  # objects that have no order
        labels = np.unique([str(label) for label in y_true])
    if y_true.dtype == bool or not np.isin(labels, (-1, 1)).all():
        shown = ", ".join(str(label) for label in labels[:5])
        raise ValueError(
            "y_true must hold +1 for normal and -1 for anomalous samples. Got the labels "
            f"{shown}{', ...' if len(labels) > 5 else ''}. If 1 or True means anomalous, "
            "pass np.where(y_true, -1, 1)."
        )
    if len(labels) < 2:
        held = {-1: "only anomalies (-1)", 1: "only normal samples (+1)"}
        given = held[int(labels[0])] if len(labels) else "no label"
        raise ValueError(
            "y_true must hold both normal and anomalous samples, because otherwise nothing "
            f"can be ranked. Got {given} in {len(y_true)} samples. Validate on both."
        )
    # Ranks, because scikit-learn's curves reject infinite scores.
    return y_true == -1, anomaly_ranks(y_score)


def anomaly_ranks(scores):
    """Return ranks (n,), higher for more anomalous samples, equal for equal scores.

    Infinite scores are ranked as well. NaN counts as -inf, an anomaly.
    """
    lowest_first = np.where(np.isnan(scores), -np.inf, scores)
    return -np.unique(lowest_first, return_inverse=True)[1]
