"""Heat maps and masks of the detector within a meta-estimator, or at a pipeline's end."""

import numpy as np
from sklearn.pipeline import Pipeline

from skocc._base.thresholds import highest_value, is_above
from skocc.model_selection._indexing import take

# Images whose maps are computed at a time, where only their maxima are kept.
_N_AT_A_TIME = 8


def last_step(estimator):
    """Return the detector at the end of a pipeline, and other estimators as they are."""
    while isinstance(estimator, Pipeline):
        estimator = estimator.steps[-1][1]
    return estimator


def has_maps(detector) -> bool:
    """Return whether a detector, or the one at the end of a pipeline, has heat maps."""
    return hasattr(last_step(detector), "anomaly_map")


def gives_maps(meta_estimator) -> bool:
    """Return whether the detector of a meta-estimator has heat maps, for `available_if`.

    Parameters
    ----------
    meta_estimator : estimator
        With the detector, or a pipeline that ends with it, as `estimator_` or `estimator`.

    Raises
    ------
    AttributeError
        It has none; the message names the class.
    """
    detector = getattr(meta_estimator, "estimator_", meta_estimator.estimator)
    return callable(last_step(detector).anomaly_map)


def gives_masks(meta_estimator) -> bool:
    """Return whether that detector marks pixels, as :func:`gives_maps` does."""
    detector = getattr(meta_estimator, "estimator_", meta_estimator.estimator)
    return callable(last_step(detector).anomaly_mask)


def anomaly_map_of(detector, X, **options):
    """Return the heat maps of a fitted detector, or of one at the end of a pipeline.

    Parameters
    ----------
    detector : estimator
        Fitted detector, or pipeline whose steps before the detector return images.
    X : images or paths
    **options
        Of ``anomaly_map`` of the detector, such as ``size`` and ``return_scores``.
    """
    detector, X = _at_the_end(detector, X)
    return detector.anomaly_map(X, **options)


def anomaly_mask_of(detector, X, **options):
    """Return the masks of a fitted detector, as :func:`anomaly_map_of` returns its maps."""
    detector, X = _at_the_end(detector, X)
    return detector.anomaly_mask(X, **options)


def masks_above(maps, threshold):
    """Return which pixels of maps are above a threshold.

    Parameters
    ----------
    maps : ndarray of shape (n_samples, H, W), or sequence of ndarray (H, W)
    threshold : float

    Returns
    -------
    masks : ndarray of shape (n_samples, H, W) or list of ndarray (H, W), bool
        An array if `maps` is one.
    """
    masks = [is_above(heat, threshold) for heat in maps]
    return np.stack(masks) if isinstance(maps, np.ndarray) else masks


def scores_and_map_maxima(detector, X):
    """Return the scores of images, and the highest value of each heat map.

    Parameters
    ----------
    detector : estimator
        Fitted detector, or pipeline that ends with one.
    X : images or paths
        Can be indexed.

    Returns
    -------
    scores : ndarray of shape (n_samples,)
        Those of `score_samples`.
    maxima : ndarray of shape (n_samples,), float64, or None
        None for a detector without heat maps, or that fails to give them. Those of maps at
        ``size="model"``, where the detector has it. Only a few maps are in memory at a
        time.
    """
    last = last_step(detector)
    if not hasattr(last, "anomaly_map"):
        return detector.score_samples(X), None
    # A subclass of a user may score otherwise, and needs a pass for each.
    is_ours = type(last).__module__.startswith("skocc.")
    if is_ours and hasattr(last, "_scores_and_map_maxima"):
        last, X = _at_the_end(detector, X)
        return last._scores_and_map_maxima(X)
    scores = detector.score_samples(X)
    options = {"size": "model"} if hasattr(last, "_scores_and_map_maxima") else {}
    maxima = []
    for start in range(0, len(scores), _N_AT_A_TIME):
        part = take(X, np.arange(start, min(start + _N_AT_A_TIME, len(scores))))
        try:
            maps = anomaly_map_of(detector, part, **options)
        except ValueError:  # such as parts of an ensemble whose maps differ in size
            return scores, None
        maxima += [highest_value(heat) for heat in maps]
    return scores, np.array(maxima)


def _at_the_end(detector, X):
    """Return the detector at the end of a pipeline, and the images that reach it."""
    while isinstance(detector, Pipeline):
        if len(detector) > 1:
            X = detector[:-1].transform(X)
        detector = detector[-1]
    return detector, X
