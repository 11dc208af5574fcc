"""Disk cache of image features, shared by several fits.

Each key identifies one image, not a data set, because the folds of a search share images.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import joblib
import numpy as np
import torch
from sklearn.utils.validation import check_memory

from skocc._engine.whole_files import read_tensors, write_tensors
from skocc._samples.log import logger
from skocc._samples.warnings import warn


def cached(
    network: torch.nn.Module, memory: str | os.PathLike | joblib.Memory | None
) -> Callable[[torch.Tensor], tuple[torch.Tensor, ...]]:
    """Return a function that applies a frozen network once to each image.

    Parameters
    ----------
    network : torch.nn.Module
        Network in eval mode, which maps a batch (b, C, H, W) to a tuple of tensors whose
        first axis is the batch.
    memory : None, str, Path or joblib.Memory
        Where to keep the results: a folder, or the object that scikit-learn's Pipeline
        accepts. None keeps nothing and returns the network itself.

    Returns
    -------
    compute : callable
        Function with the same input and output as `network`. It warns of entries that are
        damaged or belong to another image, and computes them again. It also warns if it
        cannot write results.

    Raises
    ------
    ValueError
        `memory` is not a folder.

    Notes
    -----
    The key of an image consists of its pixels as they enter the network, their type and the
    device. The key of the network consists of its weights, its modules with their settings,
    and the code of traced parts. The images of a batch that are not in the cache are
    computed together. Results differ from those without a cache by rounding, which depends
    on the batch size.

    With a ``joblib.Memory``, the cache uses its folder, and ``clear`` and ``reduce_size``
    work. But joblib stores pickles, so anyone who can write to the folder could run code in
    the processes that read them. An entry of this cache is a safetensors file, which
    contains numbers and a digest of the numbers and the key. The digest reveals an entry
    that is truncated, changed or misplaced. It is not a signature: anyone who forges it can
    still provide wrong features.

    Several processes may use one folder at the same time. The cache never empties the
    folder; its content may be deleted at any time, by hand or with
    ``joblib.Memory.reduce_size``.
    """
    folder = _folder(memory)
    if folder is None:
        return network
    of_network = fingerprint(network)

    def compute(batch):
        prefix = f"{of_network} {batch.device.type} {batch.dtype} {tuple(batch.shape[1:])}"
        keys = [f"{prefix} {digest}" for digest in _digests(batch)]
        found = _read_entries(folder, keys)
        missing = [index for index, features in enumerate(found) if features is None]
        n_found = len(found) - len(missing)
        logger.debug("features of %d images, %d from files", len(found), n_found)
        if missing:
            results = [result.cpu().numpy() for result in network(batch[missing])]
            new = list(zip(*results, strict=True))
            for index, features in zip(missing, new, strict=True):
                found[index] = features
            _write_entries(folder, [keys[index] for index in missing], new)
        return tuple(
            torch.from_numpy(np.stack(part)).to(batch.device)
            for part in zip(*found, strict=True)
        )

    return compute


def _folder(memory):
    """Return the folder of the entries, or None if nothing is kept."""
    if memory is None:
        return None
    memory = check_memory(os.fspath(memory) if isinstance(memory, os.PathLike) else memory)
    if not isinstance(memory, joblib.Memory) or memory.backend != "local":
        raise ValueError(
            "memory must be a folder, or a joblib.Memory of one. Got "
            f"{memory!r}. Pass the path of a folder, or None to keep nothing."
        )
    # joblib removes whole folders with such names from its part of the folder.
    return memory.location and Path(memory.location, "joblib", "skocc", "features")


def _entry(folder, key):
    return folder / _digest(key.encode()).hexdigest() / "features.safetensors"


def _read_entries(folder, keys):
    """Return the features of each key, or None for keys without a valid entry."""
    found, damaged = [], []
    for key in keys:
        features = None
        try:
            metadata, arrays = read_tensors(_entry(folder, key))
            parts = [arrays[str(index)] for index in range(len(arrays))]
            if metadata.get("digest") == _digest_of_entry(key, parts):
                features = parts
            else:
                damaged.append("its digest does not match")
        except FileNotFoundError:
            pass
        except Exception as error:  # the file may hold anything
            damaged.append(repr(error)[:200])
        found.append(features)
    if damaged:
        warn(
            f"{len(damaged)} file(s) in {str(folder)!r} are damaged, or belong to other "
            f"images: {damaged[0]}. Their features are computed again. If this happens "
            "again, check the disk, and who else writes to the folder.",
        )
    return found


def _write_entries(folder, keys, results):
    try:
        for key, features in zip(keys, results, strict=True):
            entry = _entry(folder, key)
            entry.parent.mkdir(parents=True, exist_ok=True)
            arrays = {str(index): part for index, part in enumerate(features)}
            metadata = {"digest": _digest_of_entry(key, features)}
            write_tensors(entry, arrays, metadata, durable=False)
    except OSError as error:
        warn(
            f"Features cannot be kept: {error}. They are computed again in every fit. Free "
            "space, choose another folder, or set memory=None.",
        )


def _digest_of_entry(key, features):
    digest = _digest(key.encode())
    for part in features:
        digest.update(repr((part.dtype.name, part.shape)).encode())
        digest.update(part.tobytes())
    return digest.hexdigest()


def _digests(batch):
    images = batch.cpu().contiguous().numpy()
    return [_digest(image.tobytes()).hexdigest() for image in images]


def fingerprint(network: torch.nn.Module) -> str:
    """Return a digest that identifies a network and its weights."""
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
