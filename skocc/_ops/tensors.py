"""Tensors on the memory of arrays."""

import numpy as np
import torch


def tensor_view(array: np.ndarray) -> torch.Tensor:
    """Return a tensor on the memory of an array that nothing will write to.

    ``torch.from_numpy`` warns of an array that is read-only, as those of joblib's memory
    maps are. A filter for the warning would be one of the whole process, also of the
    threads beside.

    Parameters
    ----------
    array : ndarray
        Writable or not.
    """
    return torch.from_numpy(np.asarray(_Writable(array)))


class _Writable:
    def __init__(self, array):
        address, _ = array.__array_interface__["data"]
        self.__array_interface__ = {**array.__array_interface__, "data": (address, False)}
        self.array = array  # NumPy keeps the owner of the memory alive, and with it this
