"""Recall of the defect in each image at few false positives: AUPIMO."""

import os
from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

from skocc._base.private_sklearn import validate_params
from skocc.metrics._inputs import read_masks_and_maps


@validate_params(
    {
        "masks": ["array-like", Iterable],
        "maps": ["array-like", Iterable],
        "fpr_range": ["array-like"],
    },
    prefer_skip_nested_validation=True,
)
def aupimo(
    masks: ArrayLike | Iterable[ArrayLike | str | os.PathLike | None],
    maps: ArrayLike | Iterable[ArrayLike],
    *,
    fpr_range: tuple[float, float] = (1e-5, 1e-4),
) -> np.ndarray:
    """Return the area under the per-image overlap of each image with a defect (AUPIMO).

    For each image with a defect this is the fraction of the defect's pixels that is found,
    averaged over thresholds at which hardly a pixel of the images without a defect is
    called anomalous. One value for each image shows which defects are missed, and lets two
    detectors be compared image by image. Read more in the :ref:`User Guide <metrics>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    masks : array-like of shape (n, H, W), or iterable of n arrays (H, W), paths or None
        Masks that are True, or an integer other than 0, at the pixels of a defect; None for
        an image without a defect. A path names a file, as in the ``test_masks`` of
        :func:`~skocc.datasets.load_mvtec_layout`, whose pixels other than black are those
        of a defect. Generators and files are read one image at a time.
    maps : array-like of shape (n, H, W) or iterable of n arrays (H, W), float
        Heat maps from ``anomaly_map``, where HIGHER is more anomalous, unlike scores of
        images. They are compared as float32. NaN counts as +inf, an anomaly. Images may
        differ in size.
    fpr_range : (float, float), default=(1e-5, 1e-4)
        Lowest and highest false-positive rate, in (0, 1]: the fraction of the pixels of an
        image without a defect that are at or above the threshold, averaged over these
        images.

    Returns
    -------
    aupimo : ndarray of shape (n,), float64
        A value in [0, 1] for each image with a defect, higher is better, and NaN for each
        image without. ``numpy.nanmean`` gives the mean. Random maps have about
        ``(high - low) / log(high / low)``, which is 4e-5 for the default.

    Raises
    ------
    ValueError
        The numbers of masks and maps differ, a mask differs in shape from its map,
        contains floats or cannot be read, there is no image with or none without a defect,
        or `fpr_range` is invalid.

    See Also
    --------
    aupro : One value for all images, at rates up to 0.3.

    Notes
    -----
    The curve of an image is its recall as a function of the logarithm of the
    false-positive rate. The area under it, from the lowest to the highest rate, is divided
    by the width of this range [1]_. Normal pixels of images with a defect have no
    influence: near a defect they are often anomalous as well.

    The curve has a point for every distinct value of the normal images and is interpolated
    linearly between them, also at the ends of the range. The authors' code takes 300,000
    equidistant thresholds, and the nearest of these to the ends; both agree in the limit of
    many thresholds. It also raises an error if there are too few points in the range. Here,
    the recall below the lowest rate that the normal pixels can tell from 0 is that of the
    thresholds above all of them. With N normal images of M pixels this rate is 1 / (N M):
    the default needs at least 100,000 normal pixels to be what its name says.

    The function takes 4 bytes per pixel of the images without a defect, and of the defects.

    References
    ----------
    .. [1] J. P. C. Bertoldo, D. Ameln, A. Vaidya, S. Akçay (2024). AUPIMO: Redefining
       Visual Anomaly Detection Benchmarks with High Speed and Low Tolerance. British
       Machine Vision Conference. arXiv:2401.01984

    Examples
    --------
    The second image has no defect. The threshold is above 0.3, and half of the defect is
    above the threshold:

    >>> import numpy as np
    >>> from skocc.metrics import aupimo
    >>> mask = np.array([[True, True], [False, False]])
    >>> values = aupimo([mask, None], [[[0.2, 0.7], [0.1, 0.9]], [[0.1, 0.1], [0.3, 0.0]]])
    >>> values
    array([0.5, nan])
    >>> float(np.nanmean(values))
    0.5
    """
    low, high = _checked_range(fpr_range)
    normal, defects = [], []
    for mask, heat in read_masks_and_maps(masks, maps):
        is_normal = not mask.any()
        defects.append(None if is_normal else np.sort(heat[mask]))
        if is_normal:
            normal.append(heat.ravel())
    _check_images(len(normal), len(defects))
    thresholds, rates = _false_positive_rates(normal, high)
    return np.array(
        [
            np.nan if values is None else _area(values, thresholds, rates, low, high)
            for values in defects
        ]
    )


def _checked_range(fpr_range):
    """Return the lowest and the highest false-positive rate."""
    try:
        low, high = map(float, fpr_range)
    except (TypeError, ValueError):
        low = high = np.nan
    if not 0 < low < high <= 1:
        raise ValueError(
            "fpr_range must be two false-positive rates, the lower first, in (0, 1]. Got "
            f"{fpr_range!r}. Pass for example fpr_range=(1e-5, 1e-4)."
        )
    return low, high


def _check_images(n_normal, n_images):
    if not 0 < n_normal < n_images:
        missing = "with" if n_normal else "without"
        raise ValueError(
            "Images with and images without a defect are both needed. Got none "
            f"{missing} a defect among {n_images}. Pass the maps of both."
        )


def _false_positive_rates(normal, high):
    """Return distinct values of normal images, descending, and the rate at each.

    The last rate is the first that is at least `high`.
    """
    values, weights = [], []
    for heat in normal:
        # With one more pixel of this image alone, the mean rate would exceed `high`.
        n_needed = min(int(high * len(normal) * heat.size) + 1, heat.size)
        least = np.partition(heat, heat.size - n_needed)[heat.size - n_needed]
        values.append(heat[heat >= least])
        weights.append(np.full(len(values[-1]), 1 / (heat.size * len(normal))))
    values, weights = np.concatenate(values), np.concatenate(weights)
    order = np.argsort(values)[::-1]
    values, rates = values[order], np.cumsum(weights[order])
    is_last = np.append(values[1:] != values[:-1], True)
    values, rates = values[is_last], rates[is_last]
    # The sum of all weights may be 1 less rounding.
    n_points = min(int(np.searchsorted(rates, high)) + 1, len(rates))
    return values[:n_points], rates[:n_points]


def _area(values, thresholds, rates, low, high):
    """Return the mean recall over the logarithm of the rates, for one image.

    From one rate to the next the recall rises from that above a threshold to that at or
    above it, which are equal unless a pixel of the defect has the value of a normal one.
    """
    above = 1 - np.searchsorted(values, thresholds, side="right") / len(values)
    at_least = 1 - np.searchsorted(values, thresholds, side="left") / len(values)
    ends = np.log(np.append(rates[:-1], max(rates[-1], high)))
    left = np.clip(np.append(-np.inf, ends[:-1]), np.log(low), np.log(high))
    right = np.clip(ends, np.log(low), np.log(high))
    recall = above
    # The first step begins at a rate of 0, whose logarithm is infinite: nothing rises.
    rise = (at_least - above)[1:] / np.diff(ends)
    recall[1:] += rise * ((left + right)[1:] / 2 - ends[:-1])
    return float(np.average(recall, weights=right - left))
