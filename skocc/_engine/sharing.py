"""One GPU for the fits of several processes: one that has no room is repeated alone."""

import gc
import os
import tempfile
import threading
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from skocc._samples.progress import waiting
from skocc._samples.warnings import warn

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# What torch says if CUDA, cuBLAS or cuDNN has no memory left, and not what it says of the
# CPU's. A MemoryError of an inner fit repeats it.
_PHRASES = ("out of memory", "STATUS_ALLOC_FAILED", "CUBLAS_STATUS_NOT_INITIALIZED")
_thread = threading.local()
# Whether a fit of this process has met another on its GPU.
_has_met_others = False


def fit_beside_others(
    fit: Callable[[], Any], device: torch.device, random_state: Any = None
) -> None:
    """Call `fit`, and once more without other fits on its GPU if they leave no memory.

    Parameters
    ----------
    fit : callable
        Changes nothing if it fails, but `random_state`.
    device : torch.device
        Device that it computes on.
    random_state : None, int or RandomState, default=None
        What it draws its seed from: an instance is set back before the second call.

    Warns
    -----
    UserWarning
        The memory of the GPU did not suffice beside other fits.

    Notes
    -----
    Fits of a user on a GPU know of each other, in whichever process or thread. Scores do
    not: their batches are halved. Windows has no such locks, and there `fit` is called
    once. A fit must not wait for fits of other threads or processes on the same GPU.
    """
    # A fit within a fit fails with it: alone, it would wait for the fit that it is in.
    name = None if getattr(_thread, "is_fitting", False) else _physical_name(device)
    place = None if name is None else _place(name)
    if place is None:
        fit()
        return
    _thread.is_fitting = True
    try:
        _fit_in_place(fit, place, random_state)
    finally:
        _thread.is_fitting = False
        place.leave()


def _fit_in_place(fit, place, random_state):
    has_state = isinstance(random_state, np.random.RandomState)
    state = random_state.get_state() if has_state else None
    try:
        fit()
        return
    except (RuntimeError, MemoryError) as error:
        if place.was_alone() or not any(phrase in str(error) for phrase in _PHRASES):
            raise
        said = str(error).strip().splitlines()[0]
    # From here on without the error, whose traceback holds the memory.
    warn(
        "The memory of the GPU does not suffice for this fit beside others. Got "
        f"{said!r}; the fit begins again, with the same seed, when the others have "
        "ended. Set a smaller n_jobs or batch_size to avoid failed tries."
    )
    place.clear()
    if has_state:
        random_state.set_state(state)
    fit()


def make_room() -> None:
    """Give back unused memory that torch keeps, in a process that shares a GPU.

    Other processes cannot have it, and this one may be idle from now on. Where a GPU is not
    shared, asking for it again would only take time.
    """
    if _has_met_others:
        torch.cuda.empty_cache()


def _physical_name(device):
    """Return a name of the GPU that is the same in all processes, or None for others."""
    if device.type != "cuda" or fcntl is None:
        return None
    properties = torch.cuda.get_device_properties(device)
    if hasattr(properties, "uuid"):
        return str(properties.uuid)
    # Of an earlier torch the number, which CUDA_VISIBLE_DEVICES changes.
    return str(torch.cuda.current_device() if device.index is None else device.index)


def _place(name):
    """Return a place on a GPU, or None where files cannot be made or locked."""
    try:
        return _Place(name)
    except OSError:
        return None


class _Place:
    """Place of one fit on a GPU, beside those of other processes and threads of the user.

    Every fit shares the lock of a file; who has to be alone takes all of it. Fits that
    overlap would keep it for ever, so who waits closes the gate, another file, which all
    have to pass that begin. The system opens the locks of a process that ends, also of one
    that is killed.
    """

    def __init__(self, name):
        self._lock, self._gate = _opened(f"{name}.lock"), _opened(f"{name}.gate")
        _wait(self._gate, fcntl.LOCK_SH)
        fcntl.flock(self._gate, fcntl.LOCK_UN)
        self._mark = uuid.uuid4().bytes
        self._was_first = _try(self._lock, fcntl.LOCK_EX)
        if not self._was_first:
            _wait(self._lock, fcntl.LOCK_SH)
        # The first writes before it lets others in, so that their marks follow its own.
        os.pwrite(self._lock.fileno(), self._mark, 0)
        fcntl.flock(self._lock, fcntl.LOCK_SH)

    def was_alone(self):
        """Return whether no other fit has been here since this one came."""
        return self._was_first and os.pread(self._lock.fileno(), 16, 0) == self._mark

    def clear(self):
        """Wait until all others have left, and let none in until this fit leaves."""
        global _has_met_others
        _has_met_others = True
        gc.collect()  # errors on the way may hold their tracebacks in circles
        make_room()
        fcntl.flock(self._lock, fcntl.LOCK_UN)
        _wait(self._gate, fcntl.LOCK_EX)
        _wait(self._lock, fcntl.LOCK_EX)
        fcntl.flock(self._gate, fcntl.LOCK_UN)

    def leave(self):
        global _has_met_others
        _has_met_others = _has_met_others or not self.was_alone()
        make_room()
        for file in (self._lock, self._gate):
            # A process that was forked meanwhile has the file as well, and its lock.
            fcntl.flock(file, fcntl.LOCK_UN)
            file.close()


def _opened(name):
    def opener(path, flags):
        return os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW, 0o600)

    path = os.path.join(tempfile.gettempdir(), f"skocc-{os.getuid()}-{name}")
    file = open(path, "r+b", buffering=0, opener=opener)  # noqa: SIM115
    if os.fstat(file.fileno()).st_uid != os.getuid():
        file.close()
        raise PermissionError(path)  # another user could lock it for ever
    return file


def _wait(file, kind):
    """Lock a file; who has to wait for it leaves what memory it can to the others."""
    if not _try(file, kind):
        torch.cuda.empty_cache()
        with waiting("other fits on the GPU"):
            fcntl.flock(file, kind)


def _try(file, kind):
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
