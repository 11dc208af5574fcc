"""Files that others find old or new, never half; those of tensors among them."""

import errno
import os
import re
import secrets
import stat
from contextlib import contextmanager, suppress


@contextmanager
def replacing(path, *, durable=True):
    """Yield the name of a new, empty file that takes the place of `path` at the end.

    Parameters
    ----------
    path : str or Path
        A symbolic link is followed, and stays.
    durable : bool, default=True
        Whether the file is on the disk at the end, even if the machine stops then.

    Yields
    ------
    temporary : str
        In the folder of `path`, and removed if the block fails. A file that replaces this
        one serves as well.

    Raises
    ------
    OSError
        `path` cannot be written, is a folder or no regular file, or the disk is full; it
        is as it was then, and named in the error.
    """
    path = os.fsdecode(path)
    target = os.path.realpath(path)
    temporary = os.path.join(os.path.dirname(target), f".skocc-{secrets.token_hex(8)}")
    try:
        known = _status(path, target)
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        # The system has applied the umask, or the rules of the folder.
        mode = os.stat(temporary).st_mode if known is None else known.st_mode
        os.chmod(temporary, 0o600)
        yield temporary
        if durable:
            _synchronize(temporary, os.O_RDWR)
        if known is not None and hasattr(os, "chown"):
            with suppress(OSError):  # only root can give a file away
                os.chown(temporary, known.st_uid, known.st_gid)
        os.chmod(temporary, stat.S_IMODE(mode))
        os.replace(temporary, target)
        if durable:
            # The new name is on the disk when the folder is. Not every system can do this.
            with suppress(OSError):
                _synchronize(os.path.dirname(target), os.O_RDONLY)
    except OSError as error:
        raise OSError(
            error.errno or errno.EIO,
            f"{error.strerror or error}. Nothing was written, and what was there is as it "
            "was. Name another place, or make room and allow writing",
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
        As for :func:`replacing`.

    Raises
    ------
    OSError
        As by :func:`replacing`.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    arrays = {
        name: array if array.flags.c_contiguous else array.copy()
        for name, array in arrays.items()
    }
    with replacing(path, durable=durable) as temporary:
        try:
            save_file(arrays, temporary, metadata)
        except SafetensorError as error:
            # It has the number of the system's error in its text alone.
            found = re.search(r"(?:os error|code:) (\d+)", str(error))
            number = int(found[1]) if found else errno.EIO
            raise OSError(number, os.strerror(number)) from error


def read_tensors(path):
    """Return metadata and arrays of a safetensors file, or raise an error of any kind.

    Nothing is opened that is no regular file: a pipe would wait for who writes to it.
    """
    from safetensors import safe_open

    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError("it is no regular file")
    with safe_open(path, framework="np") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return file.metadata() or {}, arrays


def _status(path, target):
    """Return the status of the file that is there, None where there is none."""
    if not os.path.basename(path):
        raise IsADirectoryError(errno.EISDIR, "The path names a folder, and no file in it")
    try:
        known = os.stat(path)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(known.st_mode):
        raise IsADirectoryError(errno.EISDIR, "The path is a folder")
    if not stat.S_ISREG(known.st_mode):
        raise OSError(errno.EINVAL, "The path is a device or a pipe, and no regular file")
    if not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, "The file is read-only")
    return known


def _synchronize(path, flags):
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
