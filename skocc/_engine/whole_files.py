"""Atomic replacement of files, and safetensors files written that way."""

import errno
import json
import os
import re
import secrets
import stat
import struct
from contextlib import contextmanager, suppress

import numpy as np

_MAPPED_DTYPES = {"F32": "<f4", "I32": "<i4"}


@contextmanager
def replacing(path, *, durable=True):
    """Yield the name of a new, empty file that replaces `path` when the block ends.

    Parameters
    ----------
    path : str or Path
        File to replace. A symbolic link is followed and kept.
    durable : bool, default=True
        Whether to wait until the file is on the disk, so that it survives a power failure.

    Yields
    ------
    temporary : str
        Name of a file in the folder of `path`, which is removed if the block fails. The
        block may also replace this file by another one.

    Raises
    ------
    OSError
        `path` cannot be written, is a folder or not a regular file, or the disk is full.
        The error names `path`, which is then unchanged.
    """
    path = os.fsdecode(path)
    target = os.path.realpath(path)
    temporary = os.path.join(os.path.dirname(target), f".skocc-{secrets.token_hex(8)}")
    try:
        known = _status(path, target)
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        # The mode of the new file includes the umask, or the rules of the folder.
        mode = os.stat(temporary).st_mode if known is None else known.st_mode
        os.chmod(temporary, 0o600)
        yield temporary
        if durable:
            _synchronize(temporary, os.O_RDWR)
        if known is not None and hasattr(os, "chown"):
            with suppress(OSError):  # only root can change the owner
                os.chown(temporary, known.st_uid, known.st_gid)
        os.chmod(temporary, stat.S_IMODE(mode))
        os.replace(temporary, target)
        if durable:
            # The new name is on the disk once the folder is. Not all systems support this.
            with suppress(OSError):
                _synchronize(os.path.dirname(target), os.O_RDONLY)
    except OSError as error:
        raise OSError(
            error.errno or errno.EIO,
            f"{error.strerror or error}. Nothing was written, and an existing file is "
            "unchanged. Name another path, or free space and allow writing",
            path,
        ) from error
    finally:
        with suppress(OSError):
            os.unlink(temporary)


def write_tensors(path, arrays, metadata, *, durable=True):
    """Write a safetensors file.

    Parameters
    ----------
    path : str or Path
    arrays : dict of str to ndarray
    metadata : dict of str to str
    durable : bool, default=True
        As in :func:`replacing`.

    Raises
    ------
    OSError
        As in :func:`replacing`.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    arrays = _contiguous(arrays)
    with replacing(path, durable=durable) as temporary:
        if not arrays:
            # safetensors 0.4.0 writes a header without tensors that it cannot read.
            header = json.dumps({"__metadata__": metadata}).encode()
            header += b" " * (-len(header) % 8)
            with open(temporary, "wb") as file:
                file.write(struct.pack("<Q", len(header)) + header)
            return
        try:
            save_file(arrays, temporary, metadata)
        except SafetensorError as error:
            # Only its text contains the system's error number.
            found = re.search(r"(?:os error|code:) (\d+)", str(error))
            number = int(found[1]) if found else errno.EIO
            raise OSError(number, os.strerror(number)) from error


def _contiguous(arrays):
    """Return arrays that safetensors writes, of any number of axes."""
    return {
        name: array if array.flags.c_contiguous else array.copy()
        for name, array in arrays.items()
    }


def tensors_as_bytes(metadata, arrays):
    """Return the content of a safetensors file."""
    from safetensors.numpy import save

    return save(_contiguous(arrays), metadata)


def tensors_of_bytes(content):
    """Return metadata and arrays of a safetensors file's content, or raise an error."""
    from safetensors.numpy import load

    arrays = load(content)  # which checks the header
    (size,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + size]).get("__metadata__", {}), arrays


def read_tensors(path, mapped=()):
    """Return metadata and arrays of a safetensors file, or raise an error of any kind.

    Only a regular file is opened: a pipe would block until someone writes to it.

    Parameters
    ----------
    path : str or Path
    mapped : tuple of str, default=()
        Ends of the names of arrays, of float32 or int32, that stay in the file: they are
        mapped into memory, read-only, and read where they are used.
    """
    from safetensors import safe_open

    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError("it is not a regular file")
    with safe_open(path, framework="np") as file:
        names = file.keys()
        in_file = {name for name in names if name.endswith(mapped)}
        arrays = {name: file.get_tensor(name) for name in names if name not in in_file}
        return file.metadata() or {}, arrays | _mapped_arrays(path, in_file)


def _mapped_arrays(path, names):
    """Return memory maps of arrays in a valid safetensors file."""
    if not names:
        return {}
    with open(path, "rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
    arrays = {}
    for name in names:
        entry = header[name]
        if entry["dtype"] not in _MAPPED_DTYPES:
            raise ValueError(f"{name} is {entry['dtype']}, not float32 or int32")
        dtype, start = _MAPPED_DTYPES[entry["dtype"]], 8 + size + entry["data_offsets"][0]
        shape = tuple(entry["shape"])
        arrays[name] = np.memmap(path, dtype, "r", offset=start, shape=shape)
    return arrays


def _status(path, target):
    """Return the status of an existing file, or None if there is none."""
    if not os.path.basename(path):
        raise IsADirectoryError(errno.EISDIR, "The path names a folder, not a file in it")
    try:
        known = os.stat(path)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(known.st_mode):
        raise IsADirectoryError(errno.EISDIR, "The path is a folder")
    if not stat.S_ISREG(known.st_mode):
        raise OSError(errno.EINVAL, "The path is a device or a pipe, not a regular file")
    if not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, "The file is read-only")
    return known


def _synchronize(path, flags):
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
