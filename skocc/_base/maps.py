"""Mixin for detectors that return heat maps at the size of the images."""

from collections.abc import Callable

import numpy as np
import torch
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from skocc._base.thresholds import PixelThresholdMixin, is_above, pixel_threshold
from skocc._engine.ambient import isolated
from skocc._samples.progress import track
from skocc._samples.sources import resize_array
from skocc._samples.validation import check_map_size


def _has_maps(detector):
    """Return True, or raise an AttributeError that says why there are no maps."""
    return detector._check_maps() is None


class AnomalyMapMixin(PixelThresholdMixin):
    """Mixin for detectors that locate anomalies within an image.

    The detector implements ``_maps_and_scores(images, device, of_maps)``: for each batch of
    an image source, it gives the maps (b, H, W), a float32 Tensor at the size in
    ``image_shape_``, to the function `of_maps`. It returns what the function has returned,
    joined, and the scores (n,), from one pass over the images. Where the highest value of a
    map takes less work than the map, it overrides ``_maxima_and_scores`` as well.
    """

    _read: Callable
    _scoring_device: Callable
    _maps_and_scores: Callable

    @available_if(_has_maps)
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

        See Also
        --------
        anomaly_mask : The pixels above a threshold.

        Notes
        -----
        All maps are in memory, 4 bytes per pixel: 48 MB for a photograph of 12 megapixels.
        For many photographs use ``size="model"``, or pass them in parts.
        """
        maps, scores = self._maps_in_size(X, size, np.float32, lambda heat: heat)
        # As float64, with 0.0 in place of -0.0, like score_samples.
        return (maps, np.asarray(scores, dtype=np.float64) + 0.0) if return_scores else maps

    @available_if(_has_maps)
    @isolated
    def anomaly_mask(self, X, *, size="input", threshold=None):
        """Mark the pixels whose value in `anomaly_map` is above a threshold.

        .. versionadded:: 0.1

        Parameters
        ----------
        X : images or paths
            As in `fit`.
        size : {"input", "model"}, int or tuple (H, W), default="input"
            Size of the masks in pixels, as in `anomaly_map`.
        threshold : float, default=None
            Value of a map above which a pixel is anomalous. None: `pixel_threshold_`.

        Returns
        -------
        masks : ndarray of shape (n_samples, H, W), or list of ndarray (H, W), bool
            True is anomalous, and so is a value of NaN. A list where `anomaly_map` returns
            one.

        Raises
        ------
        ValueError
            X is invalid, its shape differs from that in `fit`, `size` is no size, or
            `threshold` is no number.
        AttributeError
            `threshold` is None, and the detector comes from a file of skocc before maps had
            a threshold.

        See Also
        --------
        skocc.model_selection.ThresholdTuner : Its masks keep a rate of false alarms.

        Notes
        -----
        `pixel_threshold_` is the threshold that `contamination` gives if the highest value
        of its map at ``size="model"`` is taken for the score of an image: about the
        fraction `contamination` of the training images have a pixel that is marked. Maps of
        other sizes are averages of these, in which no more images have one. Masks take 1
        byte per pixel.
        """
        check_is_fitted(self)
        threshold = pixel_threshold(self, threshold)
        masks, _ = self._maps_in_size(X, size, bool, lambda heat: is_above(heat, threshold))
        return masks

    def _maps_in_size(self, X, size, dtype, of_map):
        """Return a function of each map (H, W) in a size, and the scores (n,)."""
        check_is_fitted(self)
        size = check_map_size(size)
        images = self._read(X, reset=False)
        maps, scores = self._maps_and_scores(
            images, self._scoring_device(), lambda maps: maps
        )
        if size == "input":
            sizes = images.original_sizes()
        else:
            sizes = [maps.shape[1:] if size == "model" else size] * len(maps)
        if len(set(sizes)) > 1:
            pairs = zip(track(maps, "heat maps", unit="map"), sizes, strict=True)
            return [of_map(_resized(heat, size)) for heat, size in pairs], scores
        if dtype == maps.dtype and maps.shape[1:] == tuple(sizes[0]):
            return maps, scores
        in_size = np.empty((len(maps), *sizes[0]), dtype=dtype)
        for place, heat in zip(in_size, track(maps, "heat maps", unit="map"), strict=True):
            place[:] = of_map(_resized(heat, sizes[0]))
        return in_size, scores

    def _score_training(self, images, run):
        """Return the scores of the training images, and set `train_map_maxima_`."""
        for name in ("train_map_maxima_", "pixel_threshold_"):
            vars(self).pop(name, None)  # of an earlier fit, maybe with maps
        result = super()._score_training(images, run)
        if hasattr(self, "anomaly_map"):
            maxima = result.map_maxima
            if maxima is None:
                maxima, _ = self._maxima_and_scores(images, run.device)
            self.train_map_maxima_ = maxima
        return result

    def _maxima_and_scores(self, images, device):
        """Return the highest value of each map, and the scores, both (n,)."""
        return self._maps_and_scores(images, device, map_maxima)

    @isolated
    def _scores_and_map_maxima(self, X):
        """Return scores and the maxima of maps, both (n,), without keeping the maps."""
        check_is_fitted(self)
        images = self._read(X, reset=False)
        maxima, scores = self._maxima_and_scores(images, self._scoring_device())
        return np.asarray(scores, dtype=np.float64) + 0.0, maxima


def map_maxima(maps: torch.Tensor) -> torch.Tensor:
    """Return the highest value of each map, as a finite number.

    Parameters
    ----------
    maps : Tensor of shape (b, H, W), float32
        NaN is the highest value, as it is in masks.

    Returns
    -------
    maxima : Tensor of shape (b,), float64
    """
    maxima = maps.amax(dim=(1, 2))
    highest = torch.finfo(maps.dtype).max
    maxima = torch.nan_to_num(maxima, nan=highest, posinf=highest, neginf=-highest)
    return maxima.cpu().double()  # MPS has no float64


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
