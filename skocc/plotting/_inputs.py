"""What displays draw: scores, labels, and images of any form as pictures."""

import warnings

import numpy as np
from sklearn.utils import check_consistent_length, column_or_1d

from skocc._samples.arrays import as_array
from skocc._samples.labels import anomaly_kinds
from skocc._samples.validation import read_images
from skocc.model_selection._maps import last_step


def inner_detector(estimator):
    """Return the detector within pipelines and meta-estimators, or what is given."""
    estimator = last_step(estimator)
    inner = getattr(estimator, "estimator_", None)
    # An IsolationForest has an `estimator_` as well, a tree.
    return inner_detector(inner) if hasattr(inner, "score_samples") else estimator


def name_of(estimator, name):
    """Return the name that a legend gives an estimator."""
    return type(inner_detector(estimator)).__name__ if name is None else name


def as_scores(scores):
    """Return scores as an array (n_samples,), float64."""
    return as_array("scores", scores, np.float64, read=column_or_1d)


def is_anomaly(y, scores):
    """Return which samples are anomalies, and check that there are both kinds.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        +1 or "good" for normal samples, negative numbers or other names for anomalies.
    scores : array-like of shape (n_samples,)
        One for each label.

    Raises
    ------
    ValueError
        The labels have another form, or no sample is an anomaly, or none is normal, or
        there are more or fewer labels than scores.
    """
    anomalous = anomaly_kinds(y) > 0
    check_consistent_length(anomalous, scores)
    if not anomalous.any():
        raise ValueError(
            "y must hold both normal and anomalous samples, because otherwise nothing can "
            f"be compared. Got only normal ones in {len(anomalous)} samples. Pass samples "
            "of both kinds."
        )
    return anomalous


def label_groups(y, n_samples):
    """Return the name of each kind of samples, and which samples are of that kind.

    Parameters
    ----------
    y : array-like of shape (n_samples,) or None
        As in `is_anomaly`. None: nothing is known of the samples.
    n_samples : int

    Returns
    -------
    groups : dict of str to ndarray of shape (n_samples,), bool
        The normal samples come first.
    """
    if y is None:
        return {"samples": np.ones(n_samples, bool)}
    kinds = anomaly_kinds(y)
    check_consistent_length(kinds, np.empty(n_samples))
    labels = np.asarray(y, dtype=object).ravel()
    n_kinds = len(np.unique(kinds[kinds > 0]))
    groups = {}
    for kind in np.unique(kinds):
        label = labels[np.flatnonzero(kinds == kind)[0]]
        if isinstance(label, str):
            name = label
        elif kind == 0:
            name = "normal"
        else:
            name = "anomalous" if n_kinds == 1 else f"anomalous ({label:g})"
        groups[name] = kinds == kind
    return groups


def read_pictures(X, image_shape=None):
    """Yield each image as what matplotlib's ``imshow`` takes.

    Parameters
    ----------
    X : images or paths
        As detectors take them; images may differ in size.
    image_shape : tuple, default=None
        Shape of the images if X holds them as rows.

    Yields
    ------
    picture : ndarray of shape (H, W) or (H, W, 3)
        Gray or color, uint8, or float32 in [0, 1]. Images of another number of channels
        are averaged over them.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is odd in X has been said when it was scored
        images = read_images(
            X, image_shape=image_shape, mixed_sizes=True, name="The display"
        )
        for index in range(len(images)):
            yield _picture(np.asarray(images.load(slice(index, index + 1)))[0])


def show_picture(ax, picture):
    """Draw a picture without axes."""
    highest = 255 if picture.dtype == np.uint8 else 1
    ax.imshow(picture, cmap="gray", vmin=0, vmax=highest)
    ax.set_axis_off()


def _picture(image):
    if image.shape[2] != 3:
        mean = image.mean(axis=2)
        image = mean if image.dtype != np.uint8 else np.rint(mean).astype(np.uint8)
    if image.dtype == np.uint8:
        return image
    low, high = image.min(), image.max()
    if low < 0 or high > 1:
        image = (image - low) / (high - low or 1)
    return image
