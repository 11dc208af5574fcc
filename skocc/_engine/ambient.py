"""What a process has set for torch, kept out of fits and scores.

A user may have chosen another default dtype or device, switched gradients off, be within
``torch.autocast``, or have forked the process. None of it is about our networks, whose
numbers must be those of a process that has set nothing.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import wraps
from typing import TypeVar, cast

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from skocc._engine.memory import memory_errors_named
from skocc._samples.warnings import warn

# Makers of tensors whose dtype is the default one unless it is given, ...
_FLOAT_MAKERS = frozenset(
    getattr(torch, name)
    for name in (
        "empty", "zeros", "ones", "eye", "linspace", "logspace", "rand", "randn",
        "bartlett_window", "blackman_window", "hamming_window", "hann_window",
        "kaiser_window",
    )
)  # fmt: skip
# ... those whose dtype follows from numbers, floats giving the default one, ...
_INFERRING_MAKERS = frozenset(
    (torch.tensor, torch.as_tensor, torch.asarray, torch.full, torch.arange,
     torch.range, torch.scalar_tensor)
)  # fmt: skip
# ... and those of integers, which have a device only.
_INTEGER_MAKERS = frozenset(
    (torch.randint, torch.randperm, torch.tril_indices, torch.triu_indices)
)
_Function = TypeVar("_Function", bound=Callable)
_MAKERS = _FLOAT_MAKERS | _INFERRING_MAKERS | _INTEGER_MAKERS

_is_forked = False


def _note_fork():
    global _is_forked
    _is_forked = True


# Windows has no fork.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


def is_forked() -> bool:
    """Return whether the process was forked from one that had loaded this module."""
    return _is_forked


class _PlainDefaults(TorchFunctionMode):
    """Makes tensors float32 and on the CPU where their maker names nothing else.

    As a mode of the thread: ``torch.set_default_dtype`` is one of the whole process, and
    would change what other threads compute.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func not in _MAKERS:
            return func(*args, **kwargs)
        has_values = any(hasattr(value, "dtype") for value in args)
        # torch.as_tensor(t) stays on the device of t.
        is_elsewhere = any(isinstance(value, torch.Tensor) for value in args)
        if kwargs.get("device") is None and not is_elsewhere:
            kwargs = {**kwargs, "device": "cpu"}
        if kwargs.get("dtype") is not None:
            return func(*args, **kwargs)
        as_float = {**kwargs, "dtype": torch.float32}
        if func in _FLOAT_MAKERS:
            return func(*args, **as_float)
        made = func(*args, **kwargs)
        if func in _INTEGER_MAKERS or has_values or not made.is_floating_point():
            return made
        return func(*args, **as_float)  # anew: the default may have fewer digits


@contextmanager
def own_settings() -> Iterator[None]:
    """Compute as in a process that has set nothing for torch.

    In the block the default dtype is float32 and the default device the CPU; gradients are
    on, and neither inference mode nor autocast is; NumPy neither warns nor raises for
    numbers that overflow. All of these are the thread's, so that other threads of the
    process see no change. A forked process computes with one thread.

    Notes
    -----
    What is left as the process has it: the number of threads, deterministic algorithms, and
    ``torch.set_float32_matmul_precision``, a wish for speed of the whole process.
    """
    _leave_threads_of_parent()
    with ExitStack() as stack:
        # Numbers that overflow end in an error of ours that says what to do.
        stack.enter_context(np.errstate(all="ignore"))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in _autocast_devices():
            stack.enter_context(torch.autocast(kind, enabled=False))
        if _has_other_defaults():
            stack.enter_context(_PlainDefaults())
        yield


def isolated(function: _Function) -> _Function:
    """Decorate a function to run in a block of :func:`own_settings`.

    Where memory runs out, it raises a MemoryError that says what to do.
    """

    @wraps(function)
    def run(*args, **kwargs):
        with own_settings(), memory_errors_named():
            return function(*args, **kwargs)

    return cast(_Function, run)


def without_modes() -> AbstractContextManager:
    """Return a context without modes such as those here, where none of them is needed.

    A mode sees every operation, which takes longer than some of them.
    """
    if torch.get_default_dtype() != torch.float32:
        return nullcontext()
    return torch._C.DisableTorchFunction()


def _has_other_defaults():
    # A default device is a mode as well, set by torch.set_default_device or a context.
    has_mode = torch._C._len_torch_function_stack() > 0
    return has_mode or torch.get_default_dtype() != torch.float32


def _autocast_devices():
    """Return the kinds of devices that autocast is on for."""
    kinds = ["cpu"]
    kinds += ["cuda"] if torch.cuda.is_available() else []
    kinds += ["mps"] if torch.backends.mps.is_available() else []
    return [kind for kind in kinds if torch.is_autocast_enabled(kind)]


def _leave_threads_of_parent():
    """Compute with one thread in a forked process.

    The threads that OpenMP had started in the parent are missing in the child, which would
    wait for them without end.
    """
    if _is_forked and torch.get_num_threads() > 1:
        n_threads = torch.get_num_threads()
        torch.set_num_threads(1)
        warn(
            f"This process was forked from one that has loaded torch, whose {n_threads} "
            "threads it cannot use; torch computes with one thread here. Start processes "
            "by 'spawn' or 'forkserver' to have more, or call torch.set_num_threads(1) "
            "first where one is enough."
        )
