"""Mixin for detectors that return heat maps at the size of the images."""

from collections.abc import Callable

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skocc._engine.ambient import isolated
from skocc._samples.sources import resize_array


class AnomalyMapMixin:
    """Mixin for detectors that locate anomalies within an image.

    The detector implements ``_anomaly_map(images, device)``, which returns the maps
    (n, H, W) of an image source, at the size that ``image_shape_`` gives.
    """

    _read: Callable
    _scoring_device: Callable
    _anomaly_map: Callable

    @isolated
    def anomaly_map(self, X) -> np.ndarray:
        """Score every pixel: higher is more anomalous.

        Parameters
        ----------
        X : images or paths
            As in `fit`.

        Returns
        -------
        maps : ndarray of shape (n_samples, H, W), float32
            Maps at the size of the images in X, even if `image_size` resizes the images
            before they are scored. If the images differ in size, the maps have the size
            `image_size`.

        Raises
        ------
        ValueError
            X is invalid, or its shape differs from that in `fit`.
        """
        check_is_fitted(self)
        images = self._read(X, reset=False)
        maps = self._anomaly_map(images, self._scoring_device())
        maps = maps.astype(np.float32, copy=False)
        size = images.original_size or images.shape[1:3]
        if maps.shape[1:] == tuple(size):
            return maps
        return np.stack([resize_array(m[:, :, np.newaxis], size)[:, :, 0] for m in maps])


def borders(border: int | None, size: tuple[int, ...], largest: int) -> tuple[int, int]:
    """Return how much to leave out at the top and bottom, and at the sides.

    Parameters
    ----------
    border : int or None
        Left out on all sides. None: an eighth of a side, at most `largest`.
    size : tuple (height, width)
    largest : int
    """
    height, width = size
    if border is not None:
        return border, border
    return min(largest, height // 8), min(largest, width // 8)
