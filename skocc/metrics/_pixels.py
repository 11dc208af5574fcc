"""Metrics of heat maps, computed from all pixels in bounded memory."""

import os
from collections.abc import Iterable
from itertools import chain
from numbers import Real

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage

from skocc._base.private_sklearn import validate_params
from skocc.metrics._inputs import check_both_kinds, read_masks_and_maps

# Maximum number of kept values, and of values waiting to be thinned, both powers of two.
_MAX_KEPT = 2**26
_N_WAITING = 2**24
# Number of defect pixels whose points of the curve are computed at a time.
_N_POINTS = 2**20


@validate_params(
    {
        "masks": ["array-like", Iterable],
        "maps": ["array-like", Iterable],
    },
    prefer_skip_nested_validation=True,
)
def pixel_auroc(
    masks: ArrayLike | Iterable[ArrayLike | str | os.PathLike | None],
    maps: ArrayLike | Iterable[ArrayLike],
) -> float:
    """Return the area under the ROC curve over the pixels of all maps.

    This is the probability that a random pixel of a defect has a higher value than a random
    normal pixel, where equal values count one half. The pixels are drawn from all images,
    including those without a defect. Large defects have more weight than small ones. Read
    more in the :ref:`User Guide <metrics>`.

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
        differ in size: every pixel counts as it is, and nothing is padded.

    Returns
    -------
    auroc : float
        Area in [0, 1], higher is better; 0.5 is chance level.

    Raises
    ------
    ValueError
        The numbers of masks and maps differ, a mask differs in shape from its map,
        contains floats or cannot be read, or there is no pixel of a defect or no normal
        pixel.

    See Also
    --------
    aupro : Gives every defect the same weight, whatever its size.

    Notes
    -----
    The function takes 4 bytes per pixel, and at most about 1 GiB for any number of maps.
    The result is exact up to 2**26 pixels of either kind, about 1,000 maps of 256 x 256.
    For more pixels, only every second of the sorted values is kept, then every fourth and
    so on. This changes a rate on the curve by at most 3e-8 + 1e-15 N for N pixels, and
    therefore the area by at most twice that: less than 5e-7 for 2,000 such maps.

    Examples
    --------
    >>> import numpy as np
    >>> from skocc.metrics import pixel_auroc
    >>> mask = np.array([[False, True], [False, False]])
    >>> pixel_auroc([mask, None], [[[0.1, 0.7], [0.2, 0.3]], [[0.1, 0.1], [0.8, 0.0]]])
    0.857...
    """
    normal, defect = _read(masks, maps)
    return float(defect.probability_above(normal))


@validate_params(
    {
        "masks": ["array-like", Iterable],
        "maps": ["array-like", Iterable],
    },
    prefer_skip_nested_validation=True,
)
def pixel_average_precision(
    masks: ArrayLike | Iterable[ArrayLike | str | os.PathLike | None],
    maps: ArrayLike | Iterable[ArrayLike],
) -> float:
    """Return the average precision over the pixels of all maps, defects being positive.

    This is the area under the steps of the precision-recall curve, as in scikit-learn's
    :func:`~sklearn.metrics.average_precision_score`. Unlike :func:`pixel_auroc`, it depends
    on the fraction of pixels that belong to a defect: where this is small, a few false
    positives count much. Read more in the :ref:`User Guide <metrics>`.

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
        differ in size: every pixel counts as it is, and nothing is padded.

    Returns
    -------
    average_precision : float
        Average precision in (0, 1], higher is better; the fraction of pixels that belong to
        a defect is chance level.

    Raises
    ------
    ValueError
        The numbers of masks and maps differ, a mask differs in shape from its map,
        contains floats or cannot be read, or there is no pixel of a defect or no normal
        pixel.

    See Also
    --------
    pixel_f1 : F1 at a threshold, or the highest F1.
    average_precision : The same for images.

    Notes
    -----
    Pixels of equal value count together, and the result is exact up to 2**26 pixels of
    either kind. Memory and the thinning of more pixels are those of :func:`pixel_auroc`;
    they change each precision on the curve by the error of its two rates.

    Examples
    --------
    >>> import numpy as np
    >>> from skocc.metrics import pixel_average_precision
    >>> mask = np.array([[False, True], [False, False]])
    >>> maps = [[[0.1, 0.7], [0.2, 0.3]], [[0.1, 0.1], [0.8, 0.0]]]
    >>> pixel_average_precision([mask, None], maps)
    0.5
    """
    normal, defect = _read(masks, maps)
    total = 0.0
    for values, weight in defect.blocks():
        n_found, n_false = defect.counts(values)[1], normal.counts(values)[1]
        total += weight * np.sum(n_found / (n_found + n_false))
    return float(total / len(defect))


@validate_params(
    {
        "masks": ["array-like", Iterable],
        "maps": ["array-like", Iterable],
        "threshold": [Real, None],
        "return_threshold": ["boolean"],
    },
    prefer_skip_nested_validation=True,
)
def pixel_f1(
    masks: ArrayLike | Iterable[ArrayLike | str | os.PathLike | None],
    maps: ArrayLike | Iterable[ArrayLike],
    *,
    threshold: float | None = None,
    return_threshold: bool = False,
) -> float | tuple[float, float]:
    """Return F1 over the pixels of all maps, at a threshold or the highest of all.

    The highest F1, which others call F1-max, is that of a threshold chosen with the same
    masks from which the result is computed. Therefore it is an upper bound for thresholds
    chosen beforehand, such as one from other images. Read more in the :ref:`User Guide
    <metrics>`.

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
        differ in size: every pixel counts as it is, and nothing is padded.
    threshold : float or None, default=None
        A pixel whose value is at least this is labeled as one of a defect. None: the
        threshold with the highest F1; if there are several, the highest of these.
    return_threshold : bool, default=False
        Whether the threshold is returned as well.

    Returns
    -------
    f1 : float
        F1 in [0, 1], higher is better. The highest F1 is at least 2 p / (1 + p) for a
        fraction p of pixels that belong to a defect, the F1 if all are labeled as such.
    threshold : float
        The threshold. Only with ``return_threshold=True``.

    Raises
    ------
    ValueError
        The numbers of masks and maps differ, a mask differs in shape from its map,
        contains floats or cannot be read, `threshold` is NaN, or there is no pixel of a
        defect or no normal pixel.

    See Also
    --------
    pixel_average_precision : The mean precision over all recalls.
    best_f1 : The highest F1 of images.

    Notes
    -----
    The highest F1 is exact up to 2**26 pixels of either kind. Memory and the thinning of
    more pixels are those of :func:`pixel_auroc`.

    Examples
    --------
    >>> import numpy as np
    >>> from skocc.metrics import pixel_f1
    >>> mask = np.array([[False, True], [False, False]])
    >>> maps = [[[0.1, 0.75], [0.2, 0.3]], [[0.1, 0.1], [0.8, 0.0]]]
    >>> pixel_f1([mask, None], maps, return_threshold=True)
    (0.666..., 0.75)
    >>> pixel_f1([mask, None], maps, threshold=0.25)
    0.5
    """
    if threshold is not None and np.isnan(threshold):
        raise ValueError(
            "threshold must be a number or None. Got nan. Pass None for the threshold with "
            "the highest F1."
        )
    normal, defect = _read(masks, maps)
    if threshold is None:
        f1, chosen = _best_f1(normal, defect)
    else:
        with np.errstate(over="ignore"):  # overflow becomes infinite, as in the maps
            chosen = float(np.float32(threshold))
        f1 = float(_f1(normal, defect, np.array([chosen]))[0])
    return (f1, chosen) if return_threshold else f1


@validate_params(
    {
        "masks": ["array-like", Iterable],
        "maps": ["array-like", Iterable],
        "max_fpr": [Real],
    },
    prefer_skip_nested_validation=True,
)
def aupro(
    masks: ArrayLike | Iterable[ArrayLike | str | os.PathLike | None],
    maps: ArrayLike | Iterable[ArrayLike],
    *,
    max_fpr: float = 0.3,
) -> float:
    """Return the area under the per-region overlap, up to a false-positive rate.

    The per-region overlap at a threshold is the fraction of a defect's pixels above it,
    averaged over the defects, so that a small defect has the same weight as a large one. A
    defect is a connected region of a mask, whose pixels touch at a side or a corner. Read
    more in the :ref:`User Guide <metrics>`.

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
        differ in size: every pixel counts as it is, and nothing is padded.
    max_fpr : float, default=0.3
        Maximum false-positive rate, in (0, 1]: the fraction of the normal pixels of all
        images that are above the threshold.

    Returns
    -------
    aupro : float
        The area divided by `max_fpr`, in [0, 1], higher is better. ``max_fpr / 2`` is
        chance level.

    Raises
    ------
    ValueError
        The numbers of masks and maps differ, a mask differs in shape from its map,
        contains floats or cannot be read, there is no pixel of a defect or no normal pixel,
        or `max_fpr` is not in (0, 1].

    See Also
    --------
    pixel_auroc : Gives every pixel the same weight.

    Notes
    -----
    The curve has a point for every distinct value of the maps. It is interpolated linearly
    between these points, also at `max_fpr`. The area up to `max_fpr` is divided by
    `max_fpr`, as in [1]_.

    The function takes 4 bytes per normal pixel, at most about 0.5 GiB for any number of
    maps, and about 40 bytes per pixel of a defect. The curve is exact up to 2**26 normal
    pixels, about 1,000 maps of 256 x 256. For more pixels, only every second of the sorted
    values of normal pixels is kept, then every fourth and so on. This changes a
    false-positive rate by at most 3e-8 + 1e-15 N for N pixels, and the result by at most
    that divided by `max_fpr`: less than 1e-6 for 2,000 such maps. Regions and their overlap
    remain exact.

    References
    ----------
    .. [1] P. Bergmann, K. Batzner, M. Fauser, D. Sattlegger, C. Steger (2021). The MVTec
       Anomaly Detection Dataset. International Journal of Computer Vision 129, Section 5.
       doi:10.1007/s11263-020-01400-4

    Examples
    --------
    >>> import numpy as np
    >>> from skocc.metrics import aupro
    >>> mask = np.array([[False, True], [False, False]])
    >>> aupro([mask, None], [[[0.1, 0.7], [0.2, 0.3]], [[0.1, 0.1], [0.8, 0.0]]])
    0.523...
    """
    if not 0 < max_fpr <= 1:
        raise ValueError(
            f"max_fpr must be a rate in (0, 1]. Got {max_fpr!r}. Pass for example "
            "max_fpr=0.3."
        )
    normal, regions = Values(), Regions()
    for mask, heat in read_masks_and_maps(masks, maps):
        normal.add(heat[~mask])
        regions.add(mask, heat)
    check_both_kinds(regions.n_regions, len(normal))
    return regions.aupro(normal, float(max_fpr))  # of a float32, it would be one as well


class Regions:
    """Values of the pixels of defects, and the size of the region that each belongs to."""

    def __init__(self):
        self.n_regions = 0
        self._values, self._sizes = [], []

    def add(self, mask, heat):
        """Add the defects of an image.

        Parameters
        ----------
        mask : ndarray of shape (H, W), bool
        heat : ndarray of shape (H, W), float32

        Returns
        -------
        values : ndarray of shape (n_pixels,), float32
            Values of the pixels of all defects.
        regions : ndarray of shape (n_pixels,), int
            The defect, 1, 2, ..., that each belongs to.
        """
        regions, n_found = ndimage.label(mask, structure=np.ones((3, 3)))
        regions, values = regions[mask], heat[mask]
        if n_found:
            self._values.append(values)
            self._sizes.append(np.bincount(regions)[regions].astype(np.uint32))
            self.n_regions += n_found
        return values, regions

    def aupro(self, normal, max_fpr):
        """Return the area up to a false-positive rate; the values are gone afterwards."""
        thresholds, overlaps = _overlaps(self._values, self._sizes, self.n_regions)
        return _area(normal, thresholds, overlaps, max_fpr) / max_fpr


class Values:
    """Sample of the float32 values of many pixels, which is thinned if it is too large.

    Each kept value represents `weight` values. Each waiting value represents itself.
    """

    def __init__(self, max_kept=None, n_waiting=None):
        self._max_kept = max_kept or _MAX_KEPT
        self._n_waiting = n_waiting or _N_WAITING
        self._kept, self._n_kept = np.empty(0, np.float32), 0
        self._waiting = []
        self._n_in_waiting = 0
        self._weight = 1
        self._sorted = False

    def __len__(self):
        return self._weight * self._n_kept + self._n_in_waiting

    def add(self, values):
        """Add a 1-D array of values."""
        self._sorted = False
        while len(values):
            taken = values[: self._n_waiting - self._n_in_waiting]
            values = values[len(taken) :]
            self._waiting.append(taken)
            self._n_in_waiting += len(taken)
            if self._n_in_waiting == self._n_waiting:
                self._keep()

    def _keep(self):
        """Move the full block of waiting values to the kept ones, and thin if needed."""
        batch = np.concatenate(self._waiting)
        self._waiting, self._n_in_waiting = [], 0
        if self._n_kept + len(batch) // self._weight > self._max_kept:
            self._kept.sort()
            self._n_kept //= 2
            self._kept = self._kept[1::2].copy()
            self._weight *= 2
        if self._weight > 1:
            batch.sort()
            batch = batch[self._weight // 2 :: self._weight]
        # In place, because a copy would take twice the memory.
        self._kept.resize(self._n_kept + len(batch), refcheck=False)
        self._kept[self._n_kept :] = batch
        self._n_kept += len(batch)

    def counts(self, thresholds):
        """Return the numbers of values above, and at or above, each threshold."""
        self._sort()
        counts = []
        for side in ("right", "left"):
            below = self._weight * np.searchsorted(self._kept, thresholds, side=side)
            for waiting in self._waiting:
                below += np.searchsorted(waiting, thresholds, side=side)
            counts.append(len(self) - below)
        return counts

    def _sort(self):
        """Sort the kept and the waiting values, unless they are."""
        if not self._sorted:
            self._kept.sort()
            self._waiting = (
                [np.sort(np.concatenate(self._waiting))] if self._waiting else []
            )
            self._sorted = True

    def probability_above(self, other):
        """Return P(value > other value) + P(equal) / 2."""
        n_pairs = 0.0
        for values, weight in self.blocks():
            above, at_least = other.counts(values)
            # Pairs in which the other value is above, plus half of the equal ones.
            n_not_above = (above.sum() + at_least.sum()) / 2
            n_pairs += weight * (len(above) * len(other) - n_not_above)
        return n_pairs / (len(self) * len(other))

    def blocks(self):
        """Yield sorted blocks of values, each with the number of values one stands for."""
        self._sort()
        arrays = chain([(self._kept, self._weight)], ((a, 1) for a in self._waiting))
        for array, weight in arrays:
            for start in range(0, len(array), _N_POINTS):
                yield array[start : start + _N_POINTS], weight


def _read(masks, maps):
    """Return the values of normal pixels and of those of defects."""
    normal, defect = Values(), Values()
    for mask, heat in read_masks_and_maps(masks, maps):
        normal.add(heat[~mask])
        defect.add(heat[mask])
    check_both_kinds(len(defect), len(normal))
    return normal, defect


def _best_f1(normal, defect):
    """Return the highest F1, and the highest threshold that has it."""
    best = -1.0, 0.0
    for values, _ in defect.blocks():
        f1 = _f1(normal, defect, values)
        last = len(values) - 1 - int(np.argmax(f1[::-1]))
        best = max(best, (float(f1[last]), float(values[last])))
    return best


def _f1(normal, defect, thresholds):
    """Return F1 at each threshold."""
    n_found, n_false = defect.counts(thresholds)[1], normal.counts(thresholds)[1]
    return 2 * n_found / (n_found + n_false + len(defect))


def _overlaps(values, sizes, n_regions):
    """Return the distinct values, descending, and the mean overlap at each."""
    # The lists are cleared, because the caller keeps them while the curve is computed.
    all_values, all_sizes = np.concatenate(values), np.concatenate(sizes)
    values.clear()
    sizes.clear()
    values, sizes = all_values, all_sizes
    order = np.argsort(values)[::-1]
    values = values[order]
    overlaps = np.cumsum(1 / sizes[order].astype(np.float64))
    del order, sizes
    is_last = np.append(values[1:] != values[:-1], True)
    return values[is_last], overlaps[is_last] / n_regions


def _area(normal, thresholds, overlaps, max_fpr):
    """Return the area under the overlaps, from a false-positive rate of 0 to max_fpr."""
    area, last_fpr, last_overlap = 0.0, 0.0, 0.0
    for start in range(0, len(thresholds), _N_POINTS):
        after = overlaps[start : start + _N_POINTS]
        before = np.concatenate([[last_overlap], after[:-1]])
        above, at_least = normal.counts(thresholds[start : start + _N_POINTS])
        # The overlap is constant from one value of a defect to the next. It rises together
        # with the false-positive rate if normal pixels have the same value.
        fpr = np.stack([above, at_least], axis=1).ravel() / len(normal)
        overlap = np.stack([before, after], axis=1).ravel()
        fpr = np.concatenate([[last_fpr], fpr])
        overlap = np.concatenate([[last_overlap], overlap])
        area += float(trapezoids(fpr, overlap, max_fpr))
        last_fpr, last_overlap = fpr[-1], overlap[-1]
        if last_fpr >= max_fpr:
            return float(area)
    return float(area + trapezoids(np.array([last_fpr, 1.0]), np.ones(2), max_fpr))


def trapezoids(x, y, limit):
    """Return areas under piecewise linear curves (..., n_points), up to a limit of x."""
    width = np.diff(x)
    cut = np.clip(limit - x[..., :-1], 0, width)
    rise = np.divide(np.diff(y), width, out=np.zeros_like(width), where=width > 0)
    return np.sum(cut * (y[..., :-1] + rise * cut / 2), axis=-1)
