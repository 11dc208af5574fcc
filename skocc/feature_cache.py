"""Features of images, computed once and kept on disk for the next fit that wants them.

The key is one of an image, not of a data set: the folds of a search overlap, and the images
of one are those of the others.
"""

import hashlib
import os
from collections.abc import Callable

import joblib
import numpy as np
import torch
from sklearn.utils.validation import check_memory


class _NotStored(Exception):
    """Nothing is stored under this key."""


def _stored(key, features):
    """Return the features, for joblib to store and to find again by the key alone."""
    if features is None:
        raise _NotStored(key)
    return features


def cached(
    network: torch.nn.Module, memory: str | os.PathLike | joblib.Memory | None
) -> Callable[[torch.Tensor], tuple[torch.Tensor, ...]]:
    """Return a frozen network that computes what is asked for once for each image.

    Parameters
    ----------
    network : torch.nn.Module
        In eval mode; from a batch (b, C, H, W) to a tuple of tensors, whose first axis is
        the batch.
    memory : None, str, Path or joblib.Memory
        Where to keep the results: a folder, or what scikit-learn's Pipeline takes. None
        keeps nothing and returns the network as it is.

    Returns
    -------
    compute : callable
        As `network`.

    Notes
    -----
    An image is known by its pixels as they enter the network, their type and the device;
    the network by its weights, its modules with their settings, and the code of traced
    parts. Images of a batch that are not found are computed together. Results differ from
    those without a cache by the rounding that differs with the size of a batch.

    Several processes may use one folder at once. It is never emptied here; what is in it
    may be deleted at any time, by hand or ``joblib.Memory.reduce_size``.
    """
    if memory is None:
        return network
    memory = check_memory(os.fspath(memory) if isinstance(memory, os.PathLike) else memory)
    # joblib has no way to store a value under a key, but it keeps what a function returns
    # and can be told to take no notice of an argument.
    stored = memory.cache(_stored, ignore=["features"], verbose=0)
    fingerprint = _fingerprint(network)

    def look_up(key):
        try:
            return stored(key, None)
        except _NotStored:
            return None

    def compute(batch):
        prefix = f"{fingerprint} {batch.device.type} {batch.dtype} {tuple(batch.shape[1:])}"
        keys = [f"{prefix} {digest}" for digest in _digests(batch)]
        found = [look_up(key) for key in keys]
        missing = [index for index, features in enumerate(found) if features is None]
        if missing:
            results = [result.cpu().numpy() for result in network(batch[missing])]
            for index, features in zip(missing, zip(*results, strict=True), strict=True):
                # Copies: a row of a batch would be stored as it lies in memory.
                features = tuple(np.ascontiguousarray(part) for part in features)
                found[index] = stored(keys[index], features)
        return tuple(
            torch.from_numpy(np.stack(part)).to(batch.device)
            for part in zip(*found, strict=True)
        )

    return compute


def _digests(batch):
    images = batch.cpu().contiguous().numpy()
    return [_digest(image.tobytes()).hexdigest() for image in images]


def _fingerprint(network):
    """Return a text that another network, or the same with other weights, has not."""
    digest = _digest()
    for name, module in network.named_modules():
        code = getattr(module, "code", "")  # what torch.fx traced
        entry = (name, type(module).__qualname__, module.extra_repr(), str(code))
        digest.update(repr(entry).encode())
    for name, tensor in network.state_dict().items():
        digest.update(repr((name, tensor.dtype, tuple(tensor.shape))).encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _digest(data=b""):
    return hashlib.blake2b(data, digest_size=16)
