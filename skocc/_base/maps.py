"""Mixin for detectors that return heat maps at the size of the images."""

from collections.abc import Callable
from numbers import Integral

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skocc._engine.ambient import isolated
from skocc._samples.progress import track
from skocc._samples.sources import resize_array
from skocc._samples.validation import check_image_size


class AnomalyMapMixin:
    """Mixin for detectors that locate anomalies within an image.

    The detector implements ``_maps_and_scores(images, device)``, which returns the maps
    (n, H, W) of an image source, at the size that ``image_shape_`` gives, and the scores
    (n,), from one pass over the images.
    """

    _read: Callable
    _scoring_device: Callable
    _maps_and_scores: Callable

    @isolated
    def anomaly_map(self, X, *, size="input", return_scores=False):
        """Score every pixel: higher is more anomalous.

        Parameters
        ----------
        X : images or paths
            As in `fit`.
        size : {"input", "model"}, int or tuple (H, W), default="input"
            Size of the maps in pixels. "input" is the size of each image in X, even if
            `image_size` resizes the images before they are scored; "model" is the size at
            which they are scored, that of ``image_shape_``. Maps are resized bilinearly.
        return_scores : bool, default=False
            Whether to return the scores of the images as well, from the same pass.

        Returns
        -------
        maps : ndarray of shape (n_samples, H, W), or list of ndarray (H, W), float32
            A map for each image. With ``size="input"``, images of several sizes have maps
            in a list, each at the size of its own image.
        scores : ndarray of shape (n_samples,), float64
            Those of `score_samples`. Only returned if `return_scores` is True.

        Raises
        ------
        ValueError
            X is invalid, its shape differs from that in `fit`, or `size` is no size.

        Notes
        -----
        All maps are in memory, 4 bytes per pixel: 48 MB for a photograph of 12 megapixels.
        For many photographs use ``size="model"``, or pass them in parts.
        """
        check_is_fitted(self)
        size = _checked_size(size)
        images = self._read(X, reset=False)
        maps, scores = self._maps_and_scores(images, self._scoring_device())
        maps = maps.astype(np.float32, copy=False)
        if size == "input":
            maps = _in_sizes(maps, images.original_sizes())
        elif size != "model":
            maps = _in_sizes(maps, [size] * len(maps))
        # As float64, with 0.0 in place of -0.0, like score_samples.
        return (maps, np.asarray(scores, dtype=np.float64) + 0.0) if return_scores else maps


def _checked_size(size):
    """Return the size of maps as "input", "model" or (H, W)."""
    if isinstance(size, str) and size in ("input", "model"):
        return size
    if isinstance(size, Integral | tuple | list):
        try:
            return check_image_size(size)
        except ValueError:
            pass
    raise ValueError(
        'size must be "input", "model", one number of pixels or (H, W), both positive. Got '
        f"{size!r}. Pass for example size=(256, 256)."
    )


def _in_sizes(maps, sizes):
    """Return maps (n, h, w) in the size (H, W) of each, as one array if all are equal."""
    if len(set(sizes)) > 1:
        maps = track(maps, "heat maps", unit="map")
        return [_resized(heat, size) for heat, size in zip(maps, sizes, strict=True)]
    if maps.shape[1:] == tuple(sizes[0]):
        return maps
    resized = np.empty((len(maps), *sizes[0]), dtype=np.float32)
    for place, heat in zip(resized, track(maps, "heat maps", unit="map"), strict=True):
        place[:] = _resized(heat, sizes[0])
    return resized


def _resized(heat, size):
    if heat.shape == tuple(size):
        return heat.copy()  # a view would keep all other maps in memory
    return resize_array(heat[:, :, np.newaxis], size)[:, :, 0]


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
