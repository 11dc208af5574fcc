"""How labels of normal samples and anomalies are read, the same everywhere."""

from numbers import Real

import numpy as np
from sklearn.utils import column_or_1d

from skocc._samples.arrays import as_array
from skocc._samples.warnings import warn


def anomaly_kinds(y):
    """Return 0 for normal samples and 1, 2, ... for kinds of anomalies.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        Numbers, +1 for normal and negative ones for anomalies; or names, "good" for normal.

    Returns
    -------
    kinds : ndarray of shape (n_samples,), int
        The same number for the same label.

    Raises
    ------
    ValueError
        Labels are not of that form, or none is normal.
    """
    y, normal, anomalous = _split_labels(as_array("y", y, read=column_or_1d))
    if not normal.any() or not (normal | anomalous).all():
        raise ValueError(
            "Labels must be +1 for normal samples and -1 for anomalies (or several "
            'negative numbers, one for each kind), or names with "good" for normal '
            f"samples, and some must be normal. Got {_shown(y)}. For labels in which 1 is "
            "an anomaly pass np.where(y == 1, -1, 1)."
        )
    return np.where(normal, 0, np.unique(y, return_inverse=True)[1] + 1)


def marked_anomalies(y):
    """Return which samples are labeled as anomalies, whatever the other labels are.

    For detectors, which scikit-learn fits with classes of all sorts, and which ignore them.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        As of :func:`anomaly_kinds`, or anything else, which marks nothing.

    Returns
    -------
    marked : ndarray of shape (n_samples,), bool
        Of shape (0,) where y is no array at all.
    """
    try:
        return _split_labels(y)[2]
    except ValueError:  # nothing that could be labels
        return np.zeros(0, dtype=bool)


def are_zeros_and_ones(y):
    """Return whether labels are both 0 and 1 and nothing else, which has two readings.

    Parameters
    ----------
    y : array-like of shape (n_samples,)

    Returns
    -------
    ambiguous : bool
        Here 1 is normal; for others, PyOD among them, it is an anomaly.
    """
    try:
        y = _split_labels(y)[0]
    except ValueError:
        return False
    return y.dtype.kind in "biuf" and np.unique(y).tolist() == [0, 1]


def marked_or_warned(y):
    """Return the same, and warn where labels that cannot be read are taken as normal."""
    y, normal, anomalous = _split_labels(y)
    if n_unread := int(np.sum(~normal & ~anomalous)):
        warn(
            f"{n_unread} of {len(y)} labels in y are neither normal (+1) nor anomalies "
            '(negative numbers, or names beside "good"), and these samples are taken as '
            f"normal. Got {_shown(y)}. For labels in which 1 is an anomaly pass "
            "np.where(y == 1, -1, 1).",
        )
    return anomalous


def _split_labels(y):
    """Return labels as an array, and which mean normal and which an anomaly."""
    y = as_array("y", y).ravel()
    if y.dtype.kind == "O" and all(isinstance(label, Real) for label in y):
        y = as_array("y", y, np.float64)
    if y.dtype.kind in "iuf":
        return y, y == 1, y < 0
    normal = np.array([isinstance(label, str) and label == "good" for label in y], bool)
    named = np.array([isinstance(label, str) for label in y], bool)
    # Names without a normal one among them are classes of another problem.
    return y, normal, named & ~normal & normal.any()


def _shown(y):
    # By their text: there are labels that cannot be compared.
    labels = list({repr(label): label for label in y.tolist()}.values())
    return repr(labels[:6]) + (" and more" if len(labels) > 6 else "")
