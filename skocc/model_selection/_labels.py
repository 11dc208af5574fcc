import numpy as np
from sklearn.utils import column_or_1d


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
        Labels are not of that form.
    """
    y = column_or_1d(y)
    if y.dtype.kind in "iuf":
        normal = y == 1
        understood = normal | (y < 0)
    else:
        normal = y == "good"
        understood = np.array([isinstance(label, str) for label in y], dtype=bool)
    if not normal.any() or not understood.all():
        shown = list(dict.fromkeys(y.tolist()))[:6]
        raise ValueError(
            "Labels must be +1 for normal samples and -1 for anomalies (or several "
            'negative numbers, one for each kind), or names with "good" for normal '
            f"samples, and some must be normal. Got {shown!r}. For labels in which 1 is an "
            "anomaly pass np.where(y == 1, -1, 1)."
        )
    return np.where(normal, 0, np.unique(y, return_inverse=True)[1] + 1)
