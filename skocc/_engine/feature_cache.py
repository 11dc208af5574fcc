"""Features of images, computed once and kept on disk for the next fit that wants them.

The key is one of an image, not of a data set: the folds of a search overlap, and the images
of one are those of the others.
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
from skocc._samples.warnings import warn


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
        As `network`. It warns of entries that are damaged, or not those of their image,
        and computes them anew; and of results that it cannot write.

    Raises
    ------
    ValueError
        `memory` names no folder.

    Notes
    -----
    An image is known by its pixels as they enter the network, their type and the device;
    the network by its weights, its modules with their settings, and the code of traced
    parts. Images of a batch that are not found are computed together. Results differ from
    those without a cache by the rounding that differs with the size of a batch.

    Of a ``joblib.Memory`` the folder is used, and its ``clear`` and ``reduce_size`` work.
    But what joblib keeps are pickles, and whoever can write to the folder could have code
    run by those who read them. An entry here is a safetensors file: numbers, and a digest
    of them and of the key, by which one that is cut short, changed or misplaced is known.
    The digest is no signature: somebody who forges it can still give wrong features.

    Several processes may use one folder at once. It is never emptied here; what is in it
    may be deleted at any time, by hand or ``joblib.Memory.reduce_size``.
    """
    folder = _folder(memory)
    if folder is None:
        return network
    fingerprint = _fingerprint(network)

    def compute(batch):
        prefix = f"{fingerprint} {batch.device.type} {batch.dtype} {tuple(batch.shape[1:])}"
        keys = [f"{prefix} {digest}" for digest in _digests(batch)]
        found = _read_entries(folder, keys)
        missing = [index for index, features in enumerate(found) if features is None]
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
    """Return where entries are kept, None for nowhere."""
    if memory is None:
        return None
    memory = check_memory(os.fspath(memory) if isinstance(memory, os.PathLike) else memory)
    if not isinstance(memory, joblib.Memory) or memory.backend != "local":
        raise ValueError(
            "memory must be a folder, or a joblib.Memory of one. Got "
            f"{memory!r}. Pass the path of a folder, or None to keep nothing."
        )
    # joblib empties its own part of the folder, in units of folders with such names.
    return memory.location and Path(memory.location, "joblib", "skocc", "features")


def _entry(folder, key):
    return folder / _digest(key.encode()).hexdigest() / "features.safetensors"


def _read_entries(folder, keys):
    """Return the features of each key, None where there are none that can be used."""
    found, damaged = [], []
    for key in keys:
        features = None
        try:
            metadata, arrays = read_tensors(_entry(folder, key))
            parts = [arrays[str(index)] for index in range(len(arrays))]
            if metadata.get("digest") == _digest_of_entry(key, parts):
                features = parts
            else:
                damaged.append("its digest is another")
        except FileNotFoundError:
            pass
        except Exception as error:  # of whatever the file holds
            damaged.append(repr(error)[:200])
        found.append(features)
    if damaged:
        warn(
            f"{len(damaged)} file(s) in {str(folder)!r} are damaged, or not of the images "
            f"they should be of: {damaged[0]}. Their features are computed anew. Look who "
            "else writes to the folder, and check the disk, if this happens again.",
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
            f"Features cannot be kept: {error}. They are computed again in every fit. Make "
            "room or name another folder, or set memory=None.",
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
