"""Thresholds from the scores of images that a detector was not trained on."""

from numbers import Real

import numpy as np

from skocc._base.private_sklearn import validate_params
from skocc._base.renamed import renamed_parameters
from skocc._samples.arrays import as_array
from skocc._samples.labels import anomaly_kinds
from skocc.model_selection._conformal import check_rate, finite_scores

RULES = ("conformal", "percentile", "median", "std", "f1")


@renamed_parameters
@validate_params(
    {
        "scores": ["array-like"],
        "y": ["array-like", None],
        "rule": [str],
        "k": [Real],
    },
    prefer_skip_nested_validation=True,
)
def find_threshold(scores, y=None, *, rule="conformal", max_fpr=0.05, k=3):
    """Find the threshold for scores of images that the detector was not trained on.

    A score below the threshold is an anomaly. Set it as ``detector.offset_ = ...``; for a
    detector without ``offset_`` use :class:`ThresholdTuner`. Read more in the :ref:`User
    Guide <thresholds>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    scores : array-like of shape (n_samples,)
        ``score_samples`` of held-out images; higher is more normal.
    y : array-like of shape (n_samples,), default=None
        +1 or "good" for normal, negative numbers or other names for anomalous. Needed for
        ``rule="f1"``; the other rules leave the anomalies out. None: all are normal.
    rule : {"conformal", "percentile", "median", "std", "f1"}, default="conformal"
        - "conformal": the rate of false alarms among new normal images is at most
          `max_fpr`, on average over sets of held-out images;
        - "percentile": the `max_fpr` quantile of the scores, interpolated, without this
          guarantee;
        - "median": the median of the scores, which calls half of such images anomalous;
        - "std": the mean of the scores less `k` standard deviations (divided by n);
        - "f1": where F1 of the anomalies is best; of equally good thresholds the lowest.
    max_fpr : float in (0, 1), default=0.05
        Highest rate of false alarms (false-positive rate), for "conformal" and
        "percentile".
    k : float, default=3
        For "std".

    Returns
    -------
    offset : float
        ``score < offset`` is an anomaly.

    Raises
    ------
    ValueError
        A parameter or label is none of the above; a score is not finite; there is no normal
        sample, or for "f1" no anomaly; or there are too few normal samples for a conformal
        threshold: fewer than ``1 / max_fpr - 1``.

    See Also
    --------
    ThresholdTuner : Holds out the images, and fits and sets the threshold in one.
    conformal_p_values : How unusual a score is among those held out.

    Notes
    -----
    The conformal threshold is the m-th lowest of n scores, with m = ``max_fpr * (n + 1)``
    rounded down: exactly the images with a conformal p-value of `max_fpr` or less are below
    it [1]_.

    If `scores` are those of the images to be labeled instead of held-out ones, "median" and
    "percentile" label a fixed fraction of them anomalous, whatever they show.

    References
    ----------
    .. [1] V. Vovk, A. Gammerman, G. Shafer, "Algorithmic Learning in a Random World",
       Springer, 2005.

    Examples
    --------
    >>> import numpy as np
    >>> from skocc.model_selection import find_threshold
    >>> scores = np.arange(1, 40)
    >>> find_threshold(scores)
    2.0
    >>> find_threshold(scores, rule="median")
    20.0
    """
    if rule not in RULES:
        raise ValueError(
            f"rule must be one of {list(RULES)}. Got {rule!r}. Set for example "
            "rule='conformal'."
        )
    check_rate("max_fpr", max_fpr)
    scores = finite_scores(scores)
    anomalous = np.zeros(len(scores), dtype=bool)
    if y is not None:
        anomalous = anomaly_kinds(checked_labels(y, len(scores))) > 0
    normal = scores[~anomalous]
    if rule == "f1":
        return _f1_optimal(scores, anomalous)
    if rule == "conformal":
        rank = conformal_rank(len(normal), max_fpr)
        return float(np.sort(normal)[rank - 1])
    with np.errstate(over="ignore", invalid="ignore"):
        if rule == "median":
            offset = np.median(normal)
        elif rule == "percentile":
            offset = np.quantile(normal, max_fpr)
        else:
            offset = np.mean(normal) - k * np.std(normal)
    if not np.isfinite(offset):
        raise ValueError(
            f"The scores, or k, are too large for rule={rule!r}: the threshold is not "
            f"finite. Got scores from {normal.min():.3g} to {normal.max():.3g}, k={k!r}. "
            "Divide the scores by a number, or set rule='conformal'."
        )
    return float(offset)


def checked_labels(y, n_samples):
    """Return labels of which there is one for each sample."""
    y = as_array("y", y)
    if y.shape[:1] != (n_samples,) or y.ndim > 2 or y.size != n_samples:
        raise ValueError(
            f"y must have one label for each sample of X. Got shape {y.shape} for "
            f"{n_samples} samples. Pass 1 for normal and -1 for anomalous ones, or None."
        )
    return y.ravel()


def no_anomalies(n_samples):
    return ValueError(
        "rule='f1' needs labeled anomalies to find the threshold by. Got none among "
        f"{n_samples} samples. Pass y with -1 for anomalies, or set rule='conformal', "
        "which needs normal images only."
    )


def conformal_rank(n_calibration, rate):
    """Return how many calibration scores, from the lowest, a p-value of `rate` allows."""
    # Divided as the p-values are, so that both agree to the last bit.
    p_values = np.arange(1, n_calibration + 1) / (n_calibration + 1)
    rank = int(np.sum(p_values <= rate))
    if rank == 0:
        needed = int(np.ceil(1 / rate - 1 - 1e-9))
        raise ValueError(
            f"A false-alarm rate of {rate:g} cannot be promised with so few images: no "
            f"p-value is below {1 / (n_calibration + 1):.3g}. Got {n_calibration} normal "
            f"images to calibrate with (n_samples = {n_calibration}), and {needed} are "
            "needed. Hold out more of them (calibration_size), set cv=5 in ThresholdTuner, "
            "which holds out each image once, or cv='loo' for ResNetKNN and PatchSVDD, or "
            "raise max_fpr."
        )
    return rank


def _f1_optimal(scores, anomalous):
    """Return the threshold of the best F1, anomalies being the positive class."""
    if not anomalous.any():
        raise no_anomalies(len(scores))
    values, inverse = np.unique(scores, return_inverse=True)
    n_found = np.bincount(inverse, weights=anomalous).cumsum()
    n_called = np.bincount(inverse).cumsum()
    best = int(np.argmax(2 * n_found / (n_called + anomalous.sum())))
    if best == len(values) - 1:
        return float(np.nextafter(values[best], np.inf))
    middle = values[best] / 2 + values[best + 1] / 2
    # Between neighboring floats there is no middle.
    return float(middle if middle > values[best] else values[best + 1])
