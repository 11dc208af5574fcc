"""Where tensors and networks live."""

import copy
import math

import torch

from skocc._engine.ambient import is_forked
from skocc._samples.warnings import warn

# Values per sample, 16 x 16 grey pixels, up to which results are computed in float64.
_DOUBLE_SIZE = 256


def resolve_device(
    device: str | torch.device | None, *, fall_back: bool = False
) -> torch.device:
    """Return the device to compute on.

    Parameters
    ----------
    device : None, str or torch.device
        None takes CUDA, then MPS, then the CPU.
    fall_back : bool, default=False
        Whether a device that is not there is replaced by the CPU, with a warning: a
        model fitted on a GPU must still score on a machine without one.

    Returns
    -------
    device : torch.device

    Raises
    ------
    ValueError
        The device has no valid name, or is not there and `fall_back` is False.
    """
    if device is None:
        if is_forked() and torch.cuda._is_in_bad_fork():
            warn(
                "This process was forked from one that had used CUDA, which cannot be used "
                "here; computing on the CPU. Start processes by 'spawn' or 'forkserver'."
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
            "'cuda:1', 'mps', or None to take the fastest there is."
        ) from error
    is_lost = resolved.type == "cuda" and torch.cuda._is_in_bad_fork()
    if _is_available(resolved) and not is_lost:
        return resolved
    if fall_back:
        warn(
            f"device={device!r} is not available here; scoring on the CPU instead. "
            "set_params(device=None) takes the fastest device of each machine.",
        )
        return torch.device("cpu")
    if is_lost:
        raise ValueError(
            f"device={device!r} cannot be used in a process that was forked from one that "
            "had used CUDA. Start processes by 'spawn', or set device='cpu'."
        )
    raise ValueError(
        f"device={device!r} is not available: torch {torch.__version__} sees "
        f"{torch.cuda.device_count()} CUDA device(s). Set device=None to take the "
        "fastest there is, or device='cpu'."
    )


def _is_available(device):
    if device.type == "cuda":
        # An index of None is the current device.
        return (device.index or 0) < torch.cuda.device_count()
    if device.type == "mps":
        return torch.backends.mps.is_available()
    return device.type == "cpu"


def sent_to(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a tensor on `device`, without a wait for what a GPU is still computing.

    A plain ``tensor.to("cuda")`` returns when all that was asked of the GPU before is done,
    so that a training which copies a few numbers a step would never be ahead of it.

    Parameters
    ----------
    tensor : Tensor
        Not changed afterwards, if it is in pinned memory.
    device : torch.device

    Returns
    -------
    tensor : Tensor
        The same one where it is there already.
    """
    # From memory that is not pinned, CUDA has read everything when the call returns. MPS
    # gives no such promise, and to the CPU the values would come too late.
    return tensor.to(device, non_blocking=device.type == "cuda")


def on_device(
    module: torch.nn.Module, device: torch.device, dtype: torch.dtype = torch.float32
) -> torch.nn.Module:
    """Return `module` on `device` in `dtype`: itself where nothing changes, else a copy.

    A fitted network, float32 and on the CPU, is never moved, so that several threads may
    score at once and an estimator can be pickled at any time.
    """
    if device.type == "cpu" and dtype == torch.float32:
        return module
    return copy.deepcopy(module).to(device, dtype)


def sample_without_values(sample_shape: tuple[int, ...]) -> torch.Tensor:
    """Return a batch of one sample on the device "meta", to ask a network for shapes.

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
    """Return the precision to compute scores and features in: float64 for small samples.

    It costs little there, and results then agree to 1e-12, not 1e-6, whatever the batch
    size and whatever else is in X. MPS has no float64.
    """
    is_small = math.prod(sample_shape) <= _DOUBLE_SIZE
    return torch.float64 if is_small and device.type != "mps" else torch.float32
