"""The label convention for normal samples and anomalies, shared by the whole package."""

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
        Either numbers, +1 for normal samples and negative numbers for anomalies, or names,
        "good" for normal samples.

    Returns
    -------
    kinds : ndarray of shape (n_samples,), int
        Equal labels have the same number.

    Raises
    ------
    ValueError
        The labels have another form, or no sample is normal.
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
    """Return which samples are labeled as anomalies, for labels of any form.

    Detectors use this function, because scikit-learn passes them classes of all kinds,
    which they ignore.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        Labels as in :func:`anomaly_kinds`. Labels of any other form mark no sample.

    Returns
    -------
    marked : ndarray of shape (n_samples,), bool
        Of shape (0,) if y cannot be converted to an array.
    """
    try:
        return _split_labels(y)[2]
    except ValueError:  # y cannot be labels
        return np.zeros(0, dtype=bool)


def are_zeros_and_ones(y):
    """Return whether the labels are exactly 0 and 1, which is ambiguous.

    Parameters
    ----------
    y : array-like of shape (n_samples,)

    Returns
    -------
    ambiguous : bool
        In skocc, 1 is normal; in other libraries, such as PyOD, it is an anomaly.
    """
    try:
        y = _split_labels(y)[0]
    except ValueError:
        return False
    return y.dtype.kind in "biuf" and np.unique(y).tolist() == [0, 1]


def marked_or_warned(y):
    """Return the marked anomalies, and warn if unknown labels are treated as normal."""
    y, normal, anomalous = _split_labels(y)
    if n_unread := int(np.sum(~normal & ~anomalous)):
        warn(
            f"{n_unread} of {len(y)} labels in y are neither normal (+1) nor anomalies "
            '(negative numbers, or names other than "good"), so these samples are treated '
            f"as normal. Got {_shown(y)}. For labels in which 1 is an anomaly pass "
            "np.where(y == 1, -1, 1).",
        )
    return anomalous


def _split_labels(y):
    """Return labels as an array, and masks of the normal samples and the anomalies."""
    y = as_array("y", y).ravel()
    if y.dtype.kind == "O" and all(isinstance(label, Real) for label in y):
        y = as_array("y", y, np.float64)
    if y.dtype.kind in "iuf":
        return y, y == 1, y < 0
    normal = np.array([isinstance(label, str) and label == "good" for label in y], bool)
    named = np.array([isinstance(label, str) for label in y], bool)
    # If no name is "good", the names are classes of another problem.
    return y, normal, named & ~normal & normal.any()


def _shown(y):
    # Compared by their text, because some labels cannot be compared directly.
    labels = list({repr(label): label for label in y.tolist()}.values())
    return repr(labels[:6]) + (" and more" if len(labels) > 6 else "")
