"""Which images are held out for a threshold, and the scores of several detectors as one."""

from numbers import Integral

import numpy as np
from sklearn.model_selection import (
    GroupKFold,
    GroupShuffleSplit,
    KFold,
    check_cv,
)
from sklearn.utils import check_random_state

from skocc.model_selection._maps import last_step
from skocc.model_selection._split import encode_groups

# Largest distance of a pooled score from the count below it. The distance from 1 is more
# than the rounding of a division by the number of images.
_BELOW_ONE = 1 - 1e-6


def check_leaves_one_out(estimator):
    """Raise a ValueError unless the training scores leave out the image itself."""
    detector = last_step(estimator)
    if not getattr(detector, "_train_scores_leave_one_out", False):
        raise ValueError(
            "cv='loo' needs a detector whose training scores leave out the image itself. "
            f"Got {type(detector).__name__}, which scores images that it was trained on. "
            "Use ResNetKNN or PatchSVDD, or set cv=5, which fits once for each of five "
            "parts of the images."
        )


def calibration_splits(tuner, y, groups, normal, n_samples):
    """Return the parts of the normal samples to train on and to calibrate with.

    Parameters
    ----------
    tuner : ThresholdTuner
        Its `cv`, `calibration_size` and `random_state` are read.
    y : array-like of shape (n_samples,) or None
        Labels, for a splitter of the user.
    groups : array-like of shape (n_samples,) or None
        Samples of one group are not trained on and held out in the same split.
    normal : ndarray of shape (n_normal,), int
        Indices of the normal samples, in ascending order.
    n_samples : int

    Returns
    -------
    splits : list of tuple (train, calibration)
        Indices in ascending order. No sample is in two calibration parts.

    Raises
    ------
    ValueError
        There are too few samples, or the splits of the user hold out a sample twice, train
        on what they hold out, or hold out nothing.
    """
    if isinstance(tuner.cv, str):
        return [(normal[:0] if tuner.cv == "prefit" else normal, normal)]
    if tuner.cv is None and groups is None:
        return [_hold_out(normal, tuner.calibration_size, tuner.random_state)]
    codes = None if groups is None else encode_groups(groups)
    if tuner.cv is None:
        size, seed = tuner.calibration_size, tuner.random_state
        splitter = GroupShuffleSplit(1, test_size=size, random_state=seed)
    elif isinstance(tuner.cv, Integral):
        folds = KFold if groups is None else GroupKFold
        splitter = folds(int(tuner.cv), shuffle=True, random_state=tuner.random_state)
    else:
        splits = _splits_of_user(tuner.cv, y, groups, n_samples)
        splits = [[np.intersect1d(part, normal) for part in split] for split in splits]
        return _checked(splits, codes)
    own_codes = None if codes is None else codes[normal]
    splits = splitter.split(normal, groups=own_codes)
    # Training keeps the order of X, on which an unshuffled batch may depend.
    return _checked([[np.sort(normal[part]) for part in split] for split in splits], codes)


def _hold_out(normal, size, random_state):
    """Return one split, drawn sample by sample."""
    n_calibration = size
    if not isinstance(n_calibration, Integral):
        n_calibration = int(np.ceil(n_calibration * len(normal)))
    if not 1 <= n_calibration < len(normal):
        raise ValueError(
            f"There must be normal images to train on besides the {n_calibration} that "
            f"are held out. Got n_samples = {len(normal)} normal ones, with "
            f"calibration_size={size!r}. Pass more images or lower calibration_size."
        )
    order = check_random_state(random_state).permutation(normal)
    # Training keeps the order of X, on which an unshuffled batch may depend.
    return np.sort(order[n_calibration:]), np.sort(order[:n_calibration])


def _splits_of_user(cv, y, groups, n_samples):
    """Return the splits of a splitter or an iterable, which are indices of X or masks."""
    splits = []
    try:
        for train, held_out in check_cv(cv).split(np.zeros((n_samples, 1)), y, groups):
            parts = [np.asarray(part) for part in (train, held_out)]
            parts = [part if part.size else part.astype(int) for part in parts]
            splits.append([np.arange(n_samples)[part].ravel() for part in parts])
    except (TypeError, IndexError) as error:
        raise ValueError(
            "cv must be a splitter, or an iterable of pairs (train, held out) of indices "
            f"into X. Got {type(cv).__name__}, whose entry {len(splits)} is no such pair "
            f"for {n_samples} samples: {error}. Set cv=5, or pass KFold(5, shuffle=True)."
        ) from error
    if not splits:
        raise ValueError(
            "cv must have at least one split into images to train on and to hold out. Got "
            f"none from {type(cv).__name__}. Set cv=5, or pass KFold(5, shuffle=True)."
        )
    return splits


def _checked(splits, codes):
    """Return splits; raise a ValueError where a held-out sample is known to a detector."""
    held_out = np.concatenate([calibration for _, calibration in splits])
    values, counts = np.unique(held_out, return_counts=True)
    if np.any(counts > 1):
        raise ValueError(
            "Each image may be held out in one split only, so that all count alike. "
            f"Got splits that hold out image {values[np.argmax(counts)]} "
            f"{counts.max()} times. Set cv=5, or pass KFold(5, shuffle=True)."
        )
    for train, calibration in splits:
        if not len(train) or not len(calibration):
            raise ValueError(
                "Each split must have normal images to train on, and to hold out. Got a "
                f"split of {len(train)} and {len(calibration)}, of n_samples = "
                f"{len(held_out)} that are held out. Pass more images, or fewer splits."
            )
        both = np.isin(train, calibration)
        if codes is not None:
            both = np.isin(codes[train], codes[calibration])
        if both.any():
            raise ValueError(
                "Images must not be trained on and held out in the same split, nor others "
                f"of their group. Got image {train[np.argmax(both)]} on both sides. Set "
                "cv=5, or pass GroupKFold(5) where there are groups."
            )
    return splits


def pooled_scores(scores, calibration_scores, folds):
    """Combine the scores that several detectors give to the same images.

    Parameters
    ----------
    scores : ndarray of shape (n_samples, n_folds), float64
        A column is of one detector.
    calibration_scores : ndarray of shape (n_calibration,), float64
        Of held-out images, in ascending order.
    folds : ndarray of shape (n_calibration,), int
        Which detector has given each of them.

    Returns
    -------
    pooled : ndarray of shape (n_samples,), float64
        In [0, 1), and NaN where a score is. Times ``n_calibration + 1``, it is the number
        of held-out images that score no more than the new one does by the same detector,
        and a fraction in [0, 1) that orders new images of one such number.
    """
    n_folds = scores.shape[1]
    counts = np.zeros(len(scores))
    for fold in range(n_folds):
        own = calibration_scores[folds == fold]
        counts += np.searchsorted(own, scores[:, fold], side="right")
    with np.errstate(all="ignore"):
        scale = np.std(calibration_scores)
        scale = scale if 0 < scale < np.inf else 1.0
        middle = calibration_scores[len(calibration_scores) // 2]
        distances = (scores - middle) / scale
    between = (np.arctan(distances) / np.pi + 0.5).mean(axis=1)
    return (counts + np.clip(between, 0, _BELOW_ONE)) / (len(calibration_scores) + 1)


def pooled_p_values(pooled, n_calibration):
    """Return the p-values (n_samples,) of pooled scores; NaN counts as the lowest score."""
    counts = np.where(np.isnan(pooled), 0, pooled) * (n_calibration + 1)
    # A whole count may have been rounded down.
    return (1 + np.floor(counts + 1e-7)) / (n_calibration + 1)


def pooled_masks(maps, calibration_maxima, folds, n_allowed):
    """Return the pixels that all detectors together find too high, as pooled scores do.

    Parameters
    ----------
    maps : list of ndarray (n_samples, H, W), or of list of ndarray (H, W)
        An entry is of one detector.
    calibration_maxima : ndarray of shape (n_calibration,), float64
        Highest value of the map of each held-out image.
    folds : ndarray of shape (n_calibration,), int
        Which detector has given each of them.
    n_allowed : int
        A p-value of the false-alarm rate, times ``n_calibration + 1``.

    Returns
    -------
    masks : ndarray of shape (n_samples, H, W), or list of ndarray (H, W), bool
        True where fewer than `n_allowed` held-out images have a value as high or higher
        in the map by the same detector.
    """
    own = [np.sort(calibration_maxima[folds == fold]) for fold in range(len(maps))]
    masks = []
    for of_one in zip(*maps, strict=True):
        counts = np.zeros(of_one[0].shape, dtype=int)
        for heat, values in zip(of_one, own, strict=True):
            # NaN is sorted to the end, above all values.
            counts += len(values) - np.searchsorted(values, heat, side="left")
        masks.append(counts < n_allowed)
    return np.stack(masks) if isinstance(maps[0], np.ndarray) else masks


def mean_maps(maps):
    """Return the mean of the heat maps by several detectors.

    Parameters
    ----------
    maps : list of ndarray (n_samples, H, W), or of list of ndarray (H, W)
        An entry is of one detector.

    Returns
    -------
    mean : ndarray of shape (n_samples, H, W), or list of ndarray (H, W)
    """
    if isinstance(maps[0], list):  # of photographs that differ in size
        return [np.mean(of_one, axis=0) for of_one in zip(*maps, strict=True)]
    return np.mean(maps, axis=0)
