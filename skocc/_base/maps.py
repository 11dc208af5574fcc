"""Heat maps at the size of the images."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skocc._engine.ambient import isolated
from skocc._samples.sources import resize_array


class AnomalyMapMixin:
    """Heat maps for detectors that say where an image is anomalous.

    The detector implements ``_anomaly_map(images, device)``, from an image source to maps
    (n, H, W) of the size the images have in ``image_shape_``.
    """

    @isolated
    def anomaly_map(self, X):
        """Score every pixel: higher is more anomalous.

        Parameters
        ----------
        X : images or paths
            As in `fit`.

        Returns
        -------
        maps : ndarray of shape (n_samples, H, W), float32
            At the size of the images in X, also where `image_size` resizes them before
            they are scored. Files of different sizes have maps of `image_size`.

        Raises
        ------
        ValueError
            X is not usable, or has another shape than in `fit`.
        """
        check_is_fitted(self)
        images = self._read(X, reset=False)
        maps = self._anomaly_map(images, self._scoring_device())
        maps = maps.astype(np.float32, copy=False)
        size = images.original_size or images.shape[1:3]
        if maps.shape[1:] == tuple(size):
            return maps
        return np.stack([resize_array(m[:, :, np.newaxis], size)[:, :, 0] for m in maps])
