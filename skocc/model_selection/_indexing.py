"""Selection of samples by index from any kind of input."""

import sys

from skocc._base.private_sklearn import safe_indexing
from skocc._samples.sources import is_data_set
from skocc._samples.tiles import Tiles


def take(X, indices):
    """Return the samples of X at some indices; those of a data set are read later.

    Parameters
    ----------
    X : array, tensor, table, list, Dataset or Tiles
    indices : ndarray of shape (n,), int
    """
    if isinstance(X, Tiles):
        return X.take(indices)
    if is_data_set(X):
        return sys.modules["torch.utils.data"].Subset(X, indices.tolist())
    return safe_indexing(X, indices)
