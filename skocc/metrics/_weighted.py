"""ROC curves of images that count several times or not at all, to resample images.

A bootstrap over images draws each of them several times or never. What does not change, the
ranks of the scores or of the pixels of each image, is computed once.
"""

import numpy as np
from scipy import sparse

from skocc.metrics._inputs import check_both_kinds, read_masks_and_maps
from skocc.metrics._pixels import Regions, Values, trapezoids

# Values by which the pixels of an image, and those of one defect, are represented.
_N_OF_IMAGE, _N_OF_DEFECT = 256, 32
# Points of a curve of pixels: its area changes by less than one in a thousand.
_MAX_BINS = 1000
# That of AUPRO.
MAX_FPR_OF_OVERLAP = 0.3


class WeightedCurve:
    """The ROC curve of points that belong to images, for any weights of the images.

    Parameters
    ----------
    values : array of shape (n_points,)
        Higher is more anomalous.
    images : array of shape (n_points,), int
        The image that each point belongs to.
    weights : array of shape (n_points,)
        What a point counts.
    is_anomaly : array of shape (n_points,), bool
    n_images : int
    max_bins : int or None, default=None
        Neighbors in the ranking are joined, so that there are about as many points at most.
    """

    def __init__(self, values, images, weights, is_anomaly, n_images, max_bins=None):
        distinct, bins = np.unique(-np.asarray(values, np.float64), return_inverse=True)
        if max_bins is not None and len(distinct) > max_bins:
            n_before = np.cumsum(np.bincount(bins)) - 1
            bins = (n_before * max_bins // len(bins))[bins]
            bins = np.unique(bins, return_inverse=True)[1]
        shape = (n_images, bins.max() + 1)
        self._histograms = [
            sparse.csr_matrix((weights[part], (images[part], bins[part])), shape=shape)
            for part in (~is_anomaly, is_anomaly)
        ]

    def rates(self, weights):
        """Return rates of false alarms and of anomalies found, each (n_draws, n_bins + 1).

        Parameters
        ----------
        weights : ndarray of shape (n_draws, n_images)
            How often an image counts. Without images of one kind, its rates are NaN.
        """
        found = []
        for histogram in self._histograms:
            total = np.cumsum(weights @ histogram, axis=1)
            with np.errstate(invalid="ignore"):
                rates = total / total[:, -1:]
            found.append(np.concatenate([np.zeros((len(rates), 1)), rates], axis=1))
        return found

    def area(self, weights, max_fpr=1.0):
        """Return the area up to a rate of false alarms, as a fraction of this rate."""
        return trapezoids(*self.rates(weights), max_fpr) / max_fpr

    def recall(self, weights, max_fpr):
        """Return the highest rate of anomalies found at a rate of false alarms."""
        fpr, tpr = self.rates(weights)
        return np.where(fpr <= max_fpr, tpr, 0).max(axis=1) + 0 * fpr[:, -1]


def summarize_pixels(masks, maps):
    """Return metrics of heat maps, and what they are resampled from, in one pass.

    Parameters
    ----------
    masks, maps : as in :func:`~skocc.metrics.aupro`

    Returns
    -------
    metrics : dict of str to float
        "pixel_auroc" and "aupro", as the functions of these names return them.
    points : dict of str to ndarray of shape (n_points,)
        Quantiles of the normal pixels of each image and of the pixels of each defect:
        "values", "images", "is_defect", "n_pixels" that a point stands for, and "overlap",
        that part of its defect; for normal pixels the same number.
    """
    normal, defect, regions, points = Values(), Values(), Regions(), []
    for index, (mask, heat) in enumerate(read_masks_and_maps(masks, maps)):
        normal.add(heat[~mask])
        points.append(_quantiles(heat[~mask], _N_OF_IMAGE, index, False))
        values, numbers = regions.add(mask, heat)
        defect.add(values)
        order, ends = np.argsort(numbers, kind="stable"), np.cumsum(np.bincount(numbers))
        for part in np.split(values[order], ends[1:-1]) if len(values) else []:
            points.append(_quantiles(part, _N_OF_DEFECT, index, True))
    check_both_kinds(len(defect), len(normal))
    metrics = {
        "pixel_auroc": float(defect.probability_above(normal)),
        "aupro": float(regions.aupro(normal, MAX_FPR_OF_OVERLAP)),
    }
    names = ("values", "images", "is_defect", "n_pixels", "overlap")
    columns = zip(*points, strict=True)
    return metrics, dict(zip(names, map(np.concatenate, columns), strict=True))


def pixel_curves(points, n_images):
    """Return the ROC curve of the pixels, and that of the overlap with defects."""
    fixed = points["values"], points["images"]
    return [
        WeightedCurve(*fixed, points[weight], points["is_defect"], n_images, _MAX_BINS)
        for weight in ("n_pixels", "overlap")
    ]


def _quantiles(values, n, image, is_defect):
    """Return some of the values, equally far apart in their order, as columns of points."""
    if len(values) > n:
        places = ((np.arange(n) + 0.5) * len(values) / n).astype(int)
        chosen = np.sort(values)[places]
    else:
        chosen = values
    n_chosen = len(chosen)
    n_pixels = np.full(n_chosen, len(values) / max(n_chosen, 1))
    overlap = np.full(n_chosen, 1 / max(n_chosen, 1)) if is_defect else n_pixels
    kind = np.full(n_chosen, is_defect)
    return chosen, np.full(n_chosen, image), kind, n_pixels, overlap
