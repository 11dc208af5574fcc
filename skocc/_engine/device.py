"""Devices and precisions of tensors and networks."""

import copy
import math

import torch

from skocc._engine.ambient import is_forked
from skocc._samples.warnings import warn

# Samples of at most this size, 16 x 16 gray pixels, are scored in float64.
_DOUBLE_SIZE = 256


def resolve_device(
    device: str | torch.device | None, *, fall_back: bool = False
) -> torch.device:
    """Return the device to compute on.

    Parameters
    ----------
    device : None, str or torch.device
        Device to use. None means CUDA if available, else MPS, else the CPU.
    fall_back : bool, default=False
        Whether to warn and use the CPU if the device is not available: a model fitted on a
        GPU must still score on a machine without one.

    Returns
    -------
    device : torch.device

    Raises
    ------
    ValueError
        The name is invalid, or the device is not available and `fall_back` is False.
    """
    if device is None:
        if is_forked() and torch.cuda._is_in_bad_fork():
            warn(
                "This process was forked from one that had used CUDA, so it cannot use "
                "CUDA and computes on the CPU. Start processes with 'spawn' or "
                "'forkserver'."
            )
            return torch.device("cpu")
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except (OverflowError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"device={device!r} is not the name of a device. Use 'cpu', 'cuda', "
            "'cuda:1', 'mps', or None for the fastest device."
        ) from error
    is_lost = resolved.type == "cuda" and torch.cuda._is_in_bad_fork()
    if _is_available(resolved) and not is_lost:
        return resolved
    if fall_back:
        warn(
            f"device={device!r} is not available here; scoring on the CPU instead. "
            "set_params(device=None) selects the fastest device of each machine.",
        )
        return torch.device("cpu")
    if is_lost:
        raise ValueError(
            f"device={device!r} cannot be used in a process that was forked from one that "
            "had used CUDA. Start processes with 'spawn', or set device='cpu'."
        )
    raise ValueError(
        f"device={device!r} is not available: torch {torch.__version__} sees "
        f"{torch.cuda.device_count()} CUDA device(s). Set device=None for the fastest "
        "device, or device='cpu'."
    )


def _is_available(device):
    if device.type == "cuda":
        # An index of None is the current device.
        return (device.index or 0) < torch.cuda.device_count()
    if device.type == "mps":
        return torch.backends.mps.is_available()
    return device.type == "cpu"


def sent_to(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a tensor on `device`, without waiting for the GPU's pending computations.

    A plain ``tensor.to("cuda")`` returns only when the GPU has finished all earlier work,
    so that a training which copies a few numbers per step could never queue work ahead.

    Parameters
    ----------
    tensor : Tensor
        Tensor to copy. If it is in pinned memory, it must not be changed afterwards.
    device : torch.device

    Returns
    -------
    tensor : Tensor
        The same tensor if it is already on `device`.
    """
    # CUDA has read memory that is not pinned when the call returns. MPS does not guarantee
    # this, and a copy to the CPU would be read before its values arrive.
    return tensor.to(device, non_blocking=device.type == "cuda")


def on_device(
    module: torch.nn.Module, device: torch.device, dtype: torch.dtype = torch.float32
) -> torch.nn.Module:
    """Return `module` on `device` in `dtype`: itself if nothing changes, else a copy.

    A fitted network is float32, on the CPU, and never moved, so that several threads can
    score at the same time and an estimator can be pickled at any time.
    """
    if device.type == "cpu" and dtype == torch.float32:
        return module
    return copy.deepcopy(module).to(device, dtype)


def sample_without_values(sample_shape: tuple[int, ...]) -> torch.Tensor:
    """Return a batch of one sample on the device "meta", to find a network's output shapes.

    Parameters
    ----------
    sample_shape : tuple
        (H, W, C) of images, (T, H, W, C) of clips, or (d,) of rows.

    Returns
    -------
    batch : Tensor of shape (1, C, H, W), (1, C, T, H, W) or (1, d)
    """
    *rest, last = sample_shape
    return torch.empty(1, last, *rest, device="meta")


def inference_dtype(sample_shape: tuple[int, ...], device: torch.device) -> torch.dtype:
    """Return the precision of scores and features: float64 for small samples.

    For small samples, float64 costs little, and results agree to 1e-12 rather than 1e-6,
    for any batch size and any other images in X. MPS does not support float64.
    """
    is_small = math.prod(sample_shape) <= _DOUBLE_SIZE
    return torch.float64 if is_small and device.type != "mps" else torch.float32
