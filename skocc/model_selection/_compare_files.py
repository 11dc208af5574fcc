"""Files that keep what a comparison has measured, so that it goes on where it ended."""

import hashlib
import json
import os
from itertools import chain

import joblib
import numpy as np
from sklearn.base import clone

from skocc._base.versions import installed_versions
from skocc._engine.whole_files import read_tensors, write_tensors
from skocc._samples.sources import ImageFile
from skocc._samples.warnings import warn

# Changes where files of earlier versions would be read wrongly.
_FORMAT = 1
_BLOCK = 2**20


class KeptResults:
    """Results in a folder, a safetensors file for each detector and split.

    Parameters
    ----------
    directory : str, Path or None
        Made if it does not exist. None keeps nothing.
    problem : Problem
        Its samples, labels and splits are part of every key.

    Raises
    ------
    ValueError
        `directory` is a file, or cannot be made.
    """

    def __init__(self, directory, problem):
        self._directory = directory and os.fsdecode(directory)
        if self._directory is None:
            return
        try:
            os.makedirs(self._directory, exist_ok=True)
        except OSError as error:
            raise ValueError(
                "directory must be a folder that results are kept in. Got "
                f"{self._directory!r}: {error.strerror}. Name a folder that can be made, "
                "or pass directory=None."
            ) from error
        self._shared = digest_of(
            problem.X,
            repr(problem.labels.tolist()),
            problem.units,
            *chain.from_iterable(problem.folds),
            *([] if problem.masks is None else [problem.masks]),
            repr((_FORMAT, problem.criterion, problem.n_examples, installed_versions())),
        )

    def key(self, name, detector, fold):
        """Return what identifies a result, None if nothing is kept."""
        if self._directory is None:
            return None
        try:
            detector_hash = joblib.hash(clone(detector))
        except Exception as error:  # of pickle, which knows many
            warn(
                f"The results of {name!r} are not kept: its parameters cannot be read, "
                f"{error}. Give it functions and classes that can be imported.",
            )
            return None
        return f"{self._shared} {detector_hash} {fold}"

    def read(self, key):
        """Return (values, arrays) of a key, None if there are none that are whole."""
        if key is None:
            return None
        path = self._path(key)
        try:
            metadata, arrays = read_tensors(path)
            if metadata["digest"] != _digest_of_result(key, metadata["values"], arrays):
                raise ValueError("its digest does not match")
            return json.loads(metadata["values"]), arrays
        except FileNotFoundError:
            return None
        except Exception as error:  # the file may hold anything
            warn(
                f"The kept result {path!r} is damaged: {str(error)[:200]}. The detector is "
                "fitted again. If this happens again, check the disk, and who else writes "
                "to the folder.",
            )
            return None

    def write(self, key, name, values, arrays):
        """Keep a result; warn if it cannot be written."""
        if key is None:
            return
        text = json.dumps(values)
        digest = _digest_of_result(key, text, arrays)
        metadata = {"detector": repr(name), "values": text, "digest": digest}
        try:
            write_tensors(self._path(key), arrays, metadata)
        except OSError as error:
            warn(
                f"The result of {name!r} cannot be kept: {error}. It is computed again the "
                "next time. Free space, or choose another folder.",
            )

    def _path(self, key):
        # No names of detectors, which may hold anything.
        return os.path.join(
            self._directory, f"{_blake(key.encode()).hexdigest()}.safetensors"
        )


def digest_of(*parts):
    """Return a digest of arrays, texts, tables, and lists of files or images by content."""
    digest = _blake()
    for part in parts:
        _add(digest, part)
    return digest.hexdigest()


def _add(digest, part):
    is_array = isinstance(part, np.ndarray) and part.dtype.kind in "biuf"
    if isinstance(part, str):
        digest.update(part.encode(errors="surrogatepass"))
    elif is_array or len(getattr(part, "shape", ())) > 1:
        array = np.asarray(part.cpu() if hasattr(part, "cpu") else part)
        digest.update(repr((array.dtype.str, array.shape)).encode())
        for row in array if array.ndim > 1 else [array]:
            digest.update(np.ascontiguousarray(row).tobytes())
    else:  # files, images, masks, or what a data set holds
        for index in range(len(part)):
            item = part.iloc[index] if hasattr(part, "iloc") else part[index]
            digest.update(_digest_of_item(item))


def _digest_of_item(item):
    if isinstance(item, str | os.PathLike):
        try:
            with open(item, "rb") as file:
                digest = _blake()
                while block := file.read(_BLOCK):
                    digest.update(block)
                return digest.digest()
        except OSError:  # said when it is read
            return os.fsencode(item)
    if isinstance(item, ImageFile):  # bytes, or a file in memory
        return _blake(
            bytes(item.getbuffer() if hasattr(item, "getbuffer") else item)
        ).digest()
    if hasattr(item, "tobytes"):  # an array, or an image of PIL
        header = repr((getattr(item, "shape", None), getattr(item, "size", None)))
        return _blake(header.encode() + item.tobytes()).digest()
    return joblib.hash(item).encode()


def _digest_of_result(key, text, arrays):
    digest = _blake(key.encode() + text.encode())
    for name in sorted(arrays):
        digest.update(repr((name, arrays[name].dtype.str, arrays[name].shape)).encode())
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()


def _blake(data=b""):
    return hashlib.blake2b(data, digest_size=16)
