"""Isolation of fits and scores from the process's settings for torch and NumPy.

A user may have chosen another default dtype or device, disabled gradients, entered
``torch.autocast``, or forked the process. These settings must not affect skocc's networks,
whose results must equal those of a process with torch's default settings.
"""

import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import wraps
from typing import TypeVar, cast

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from skocc._engine.memory import memory_errors_named
from skocc._engine.sharing import make_room
from skocc._samples.progress import stages_of
from skocc._samples.warnings import warn

# Functions that make tensors of the default dtype unless another is given.
_FLOAT_MAKERS = frozenset(
    getattr(torch, name)
    for name in (
        "empty", "zeros", "ones", "eye", "linspace", "logspace", "rand", "randn",
        "bartlett_window", "blackman_window", "hamming_window", "hann_window",
        "kaiser_window",
    )
)  # fmt: skip
# Functions that infer the dtype from their arguments, where floats give the default dtype.
_INFERRING_MAKERS = frozenset(
    (torch.tensor, torch.as_tensor, torch.asarray, torch.full, torch.arange,
     torch.range, torch.scalar_tensor)
)  # fmt: skip
# Functions that make tensors of integers, which depend only on the default device.
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
    """Mode in which new tensors are float32 and on the CPU by default.

    The mode applies to one thread. ``torch.set_default_dtype`` applies to the whole process
    and would change the results of other threads.
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
        return func(*args, **as_float)  # made again: the default may have fewer digits


@contextmanager
def own_settings() -> Iterator[None]:
    """Run the block with torch's default settings.

    In the block, the default dtype is float32 and the default device is the CPU. Gradients
    are enabled, and inference mode and autocast are disabled. NumPy neither warns nor
    raises if numbers overflow. All of these settings belong to the thread, so other threads
    of the process see no change. A forked process computes with one thread.

    Notes
    -----
    Some settings of the process stay in effect: the number of threads, deterministic
    algorithms, and ``torch.set_float32_matmul_precision``, which the user sets for speed.
    """
    _leave_threads_of_parent()
    with ExitStack() as stack:
        # skocc raises its own error, which says what to do, if results are not finite.
        stack.enter_context(np.errstate(all="ignore"))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in _autocast_devices():
            stack.enter_context(torch.autocast(kind, enabled=False))
        if _has_other_defaults():
            stack.enter_context(_PlainDefaults())
        yield


class WholeInterrupts:
    """Context in which Ctrl-C leaves the modes of torch as they were before it.

    torch takes a mode off its stack for the length of every operation, and puts it back, in
    Python. Ctrl-C in between would leave the mode off, or on, for all that follows, and
    becomes a RuntimeError where torch misses the mode.

    It is no generator: one that Ctrl-C ends at the wrong moment would be finished later, by
    the garbage collector, and set the modes of whatever runs then.
    """

    def __enter__(self):
        self._modes, self._has_grad = _function_modes(), torch.is_grad_enabled()

    def __exit__(self, kind, error, trace):
        is_interrupt = error is not None and _is_of_interrupt(error)
        if is_interrupt:
            # The contexts of torch are generators, which end now and not later.
            _clear_frames(error)
        if _function_modes() != self._modes:
            while torch._C._len_torch_function_stack():
                torch._C._pop_torch_function_stack()
            for mode in self._modes:
                torch._C._push_on_torch_function_stack(mode)
        torch.set_grad_enabled(self._has_grad)
        if is_interrupt and isinstance(error, RuntimeError):
            raise KeyboardInterrupt from error


def _function_modes():
    n_modes = torch._C._len_torch_function_stack()
    return [torch._C._get_function_stack_at(index) for index in range(n_modes)]


def _is_of_interrupt(error):
    """Return whether an error was raised while Ctrl-C was on its way."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__context__
    return False


def _clear_frames(error):
    """Let go of what the frames of an error hold, and of those of the errors before it."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__


def isolated(function: _Function) -> _Function:
    """Decorate a method to run in a block of :func:`own_settings`.

    If memory runs out, the method raises a MemoryError that says what to do. Its stages are
    shown if `verbose` of its estimator says so. It leaves no unused memory of a GPU that
    other processes share.
    """

    @wraps(function)
    def run(self, *args, **kwargs):
        with (
            WholeInterrupts(),
            own_settings(),
            memory_errors_named(),
            stages_of(self),
        ):
            result = function(self, *args, **kwargs)
            make_room()
            return result

    return cast(_Function, run)


def without_modes() -> AbstractContextManager:
    """Return a context that disables function modes unless the default dtype requires them.

    A mode intercepts every operation, which takes longer than some of the operations.
    """
    if torch.get_default_dtype() != torch.float32:
        return nullcontext()
    return torch._C.DisableTorchFunction()


def _has_other_defaults():
    # torch.set_default_device and device contexts are modes as well.
    has_mode = torch._C._len_torch_function_stack() > 0
    return has_mode or torch.get_default_dtype() != torch.float32


def _autocast_devices():
    """Return the kinds of devices for which autocast is enabled."""
    kinds = ["cpu"]
    kinds += ["cuda"] if torch.cuda.is_available() else []
    kinds += ["mps"] if torch.backends.mps.is_available() else []
    return [kind for kind in kinds if torch.is_autocast_enabled(kind)]


def _leave_threads_of_parent():
    """Compute with one thread in a forked process.

    The threads that OpenMP has started in the parent do not exist in the child, which would
    wait for them forever.
    """
    if _is_forked and torch.get_num_threads() > 1:
        n_threads = torch.get_num_threads()
        torch.set_num_threads(1)
        warn(
            f"This process was forked from one that has loaded torch, and cannot use its "
            f"{n_threads} threads; torch computes with one thread here. To use more, start "
            "processes with 'spawn' or 'forkserver'. If one thread is enough, call "
            "torch.set_num_threads(1) before the fork."
        )
