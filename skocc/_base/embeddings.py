"""Mixin for detectors that map an image to a vector before they score it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from skocc._engine.ambient import isolated
from skocc._engine.batches import ImageBatches
from skocc._engine.inference import map_batches


class EmbeddingMixin:
    """Mixin for detectors whose network embeds images.

    The detector implements ``_embeddings(network, batch)``, which returns the embeddings
    (b, d) of a batch, or else ``_embed(images, device)``, which returns those of an image
    source.
    """

    batch_size: int
    network_: torch.nn.Module
    _read: Callable
    _scoring_device: Callable
    _on_device: Callable
    _dtype: Callable
    _embeddings: Any

    @isolated
    def embed(self, X) -> np.ndarray:
        """Return the vector that the network maps each sample to.

        .. versionadded:: 0.1

        Parameters
        ----------
        X : images, rows or paths
            As in `fit`.

        Returns
        -------
        embeddings : ndarray of shape (n_samples, n_dimensions), float32
            A vector for each sample, see the :ref:`User Guide <embeddings>` for what it is
            of each method.

        Raises
        ------
        ValueError
            X is not usable, or has another shape than in `fit`.
        """
        check_is_fitted(self)
        images = self._read(X, reset=False)
        embeddings = self._embed(images, self._scoring_device())
        return embeddings.astype(np.float32, copy=False)

    def _embed(self, images, device):
        """Return the embeddings (n, d) of an image source."""
        network, dtype = self._on_device(self.network_, device), self._dtype(device)
        batches = ImageBatches(images, self.batch_size, device=device)
        return map_batches(
            network,
            batches,
            lambda batch: self._embeddings(network, batch.to(dtype)),
            stage="embeddings",
        )
