"""Arrays as tensors that share their memory, and how much features vary."""

import numpy as np
import torch


def relative_spread(features: np.ndarray) -> float:
    """Return the mean standard deviation of features, relative to their magnitude.

    Parameters
    ----------
    features : ndarray of shape (n, d)
    """
    size = max(float(np.abs(features).mean()), 1e-30)
    return float(features.std(axis=0).mean() / size)


def tensor_view(array: np.ndarray) -> torch.Tensor:
    """Return a tensor that shares the memory of an array, and must not be written to.

    ``torch.from_numpy`` warns if an array is read-only, like joblib's memory maps. A filter
    for the warning would affect all threads of the process.

    Parameters
    ----------
    array : ndarray
        Array, which may be read-only.
    """
    return torch.from_numpy(np.asarray(_Writable(array)))


class _Writable:
    def __init__(self, array):
        address, _ = array.__array_interface__["data"]
        self.__array_interface__ = {**array.__array_interface__, "data": (address, False)}
        self.array = array  # NumPy keeps this object alive, and it keeps the memory
