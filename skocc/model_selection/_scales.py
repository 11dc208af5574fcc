"""Scales on which the scores of different detectors can be compared and averaged."""

import numpy as np

from skocc._base.thresholds import TIE

# Levels of the p-value between which the lower tail is measured, and the middle.
_LEVELS = (0.05, 0.1, 0.5)
# Of a normal distribution, the standard deviation is this multiple of the median absolute
# deviation.
_NORMAL = 1.4826


def log_p_values(scores, train_scores):
    """Return logarithms of p-values, which decrease linearly beyond the training scores.

    Parameters
    ----------
    scores : ndarray of shape (n_samples,), float64
        Higher is more normal.
    train_scores : ndarray of shape (n_train,), float64
        Finite.

    Returns
    -------
    scaled : ndarray of shape (n_samples,), float64
        Negative, and strictly increasing with the score. NaN for NaN.
    """
    start, top, decay = ends(train_scores)
    values, p = distribution(train_scores)
    scaled = np.interp(scores, values, np.log(p))
    log_start = np.interp(start, values, np.log(p))
    scaled = np.where(scores < start, log_start - (start - scores) / decay, scaled)
    above = np.maximum(scores - top, 0) / decay
    return np.where(scores > top, np.log(p[-1]) / (1 + above), scaled)


def ranks(scores, train_scores):
    """Return p-values, which go to 0 and 1 slowly beyond the training scores.

    Parameters
    ----------
    scores, train_scores
        As in :func:`log_p_values`.

    Returns
    -------
    scaled : ndarray of shape (n_samples,), float64
        In [0, 1], and strictly increasing with the score. NaN for NaN.
    """
    start, top, decay = ends(train_scores)
    values, p = distribution(train_scores)
    scaled = np.interp(scores, values, p)
    below = np.maximum(start - scores, 0) / decay
    scaled = np.where(scores < start, np.interp(start, values, p) / (1 + below), scaled)
    above = np.maximum(scores - top, 0) / decay
    return np.where(scores > top, 1 - (1 - p[-1]) / (1 + above), scaled)


def robust(scores, train_scores):
    """Return differences from the median of the training scores, in deviations of these.

    Parameters
    ----------
    scores, train_scores
        As in :func:`log_p_values`.

    Returns
    -------
    scaled : ndarray of shape (n_samples,), float64
        Strictly increasing with the score. NaN for NaN.
    """
    return (scores - np.median(train_scores)) / deviation(train_scores)


def deviation(values):
    """Return the median absolute deviation, as a standard deviation, and never 0."""
    found = _NORMAL * np.median(np.abs(values - np.median(values)))
    return max(found, _rounding(values))


def distribution(train_scores):
    """Return the distinct training scores, ascending, and their p-values.

    The p-value of equal scores is that of their mean rank.
    """
    values, counts = np.unique(train_scores, return_counts=True)
    mean_ranks = np.cumsum(counts) - (counts - 1) / 2
    return values, mean_ranks / (len(train_scores) + 1)


def ends(train_scores):
    """Return where the lower and the upper tail begin, and the decay of both.

    The decay is the distance over which the p-value decreases by a factor of e, measured
    between the 5 % and the 10 % quantile. If these are equal, which they are if there are
    many ties or few images, it is measured between the 10 % quantile and the median.
    """
    values, p = distribution(train_scores)
    levels = np.clip(_LEVELS, p[0], p[-1])
    quantiles = np.interp(levels, p, values)
    distances, decreases = np.diff(quantiles), np.diff(np.log(levels))
    least = _rounding(train_scores)
    is_measured = distances > least
    decays = distances[is_measured] / decreases[is_measured]
    return quantiles[1], values[-1], decays[0] if len(decays) else least


def _rounding(scores):
    """Return the difference up to which scores are equal but for rounding, never 0."""
    return TIE * np.max(np.abs(scores)) or 1.0
