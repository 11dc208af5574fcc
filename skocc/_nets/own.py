"""Networks of the user: how they are built, tried out, and spoken of in messages.

A parameter such as `backbone` takes an ``nn.Module``, which is copied, or a class or
function that builds one when it is called without arguments. A batch of zeros shows which
channels the network takes and what it returns, before anything is trained.
"""

import copy
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from itertools import chain
from typing import Any, TypeGuard

import torch
from torch import nn

from skocc._nets.hooks import LayerError


def is_own(network: Any) -> TypeGuard[nn.Module | Callable[[], nn.Module]]:
    """Return whether a parameter is a network of the user, not a name and not None."""
    return network is not None and not isinstance(network, str)


def own_module(network: nn.Module | Callable[[], nn.Module], name: str) -> nn.Module:
    """Return a copy of a module, or the module that a class or function builds.

    Parameters
    ----------
    network : nn.Module, class or function
    name : str
        Name of the parameter, for messages.

    Returns
    -------
    module : nn.Module
        In float32. If tensors are made on the device "meta", the module is moved there
        after it is built, because a constructor may compute with the values of tensors.

    Raises
    ------
    ValueError
        The module cannot be copied, or the class or function builds none.
    """
    on_meta = torch.empty(0).device.type == "meta"
    try:
        with torch.device("cpu") if on_meta else nullcontext():
            module = copy.deepcopy(network) if isinstance(network, nn.Module) else network()
        if not isinstance(module, nn.Module):
            raise TypeError(f"it returned {_described(module)}")
        return module.float().to("meta") if on_meta else module.float()
    except MemoryError:
        raise
    except Exception as error:  # code of the user may raise anything
        if isinstance(network, nn.Module):
            what, do = "cannot be copied", "Pass a class or function that builds it."
        else:
            what = "builds no module when it is called without arguments"
            do = "Pass one that returns an nn.Module, such as lambda: Net(16)."
        raise ValueError(
            f"{name}: {subject(network)} {what}. Got {_shown(error)}. {do}"
        ) from error


def subject(network: Any) -> str:
    """Return how a message speaks of a network of the user."""
    if isinstance(network, nn.Module):
        return f"your module {type(network).__name__}"
    kind = "class" if isinstance(network, type) else "function"
    return f"your {kind} {getattr(network, '__qualname__', type(network).__name__)}"


def try_out(
    module: nn.Module, in_shape: tuple[int, ...], name: str, returns: str
) -> tuple[int, torch.Tensor]:
    """Give zeros to a module, and return the channels it takes and what it returns.

    Parameters
    ----------
    module : nn.Module
        On any device, "meta" included. Its mode and its statistics are not changed.
    in_shape : tuple
        (C, H, W), (C, T, H, W) of clips, or (d,) of rows. A module that refuses a gray
        channel is given three.
    name : str
        Name of the parameter, for messages.
    returns : str
        What the module should return, for messages.

    Returns
    -------
    n_channels : int
        First entry of the shape that the module takes.
    output : Tensor of shape (2, ...)

    Raises
    ------
    ValueError
        The module raises an error, returns no tensor of two samples, or has nothing that a
        training could change.
    """
    n_channels, output = taken_channels(module, in_shape, name, returns)
    _check_output(output, module, (2, n_channels, *in_shape[1:]), name, returns)
    return n_channels, output


def taken_channels(
    module: nn.Module,
    in_shape: tuple[int, ...],
    name: str,
    returns: str,
    run: Callable[[tuple[int, ...]], Any] | None = None,
) -> tuple[int, Any]:
    """Return the channels that a module takes, and anything that it returns.

    Parameters, errors and first result are those of :func:`try_out`, which checks the
    second. `run` maps the shape of a batch to the second; None: the module does, given
    zeros.
    """
    run = partial(_output_of_zeros, module) if run is None else run
    errors = []
    for shape in possible_shapes(in_shape):
        try:
            return shape[0], run((2, *shape))
        except (MemoryError, LayerError):
            raise
        except Exception as error:  # the forward of the user's module may raise anything
            errors.append(f"{_shown(error)} for a batch of shape {(2, *shape)}")
    raise ValueError(
        f"{name}: {subject(module)} does not take these samples. Got "
        f"{', and '.join(errors)}. Pass a module that maps such a batch to {returns}, or "
        "set image_size to the size for which it was made."
    )


def possible_shapes(in_shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return the shapes in which a sample can be given to a module, the first preferred."""
    is_gray = in_shape[0] == 1 and len(in_shape) > 1
    return [in_shape, (3, *in_shape[1:])] if is_gray else [in_shape]


def _output_of_zeros(module, shape):
    tensors = chain(module.parameters(), module.buffers())
    device = next((tensor.device for tensor in tensors), torch.device("cpu"))
    modes = [(part, part.training) for part in module.modules()]
    try:
        with torch.enable_grad():
            return module.eval()(torch.zeros(shape, device=device))
    finally:
        for part, mode in modes:
            part.training = mode


def _check_output(output, module, shape, name, returns):
    is_tensor = isinstance(output, torch.Tensor) and output.is_floating_point()
    if not is_tensor or output.dim() < 2 or len(output) != 2 or not output.numel():
        raise ValueError(
            f"{name}: {subject(module)} must return {returns}, one tensor of floats. Got "
            f"{_described(output)} for a batch of shape {shape}. Return the tensor alone, "
            "its first axis being the batch."
        )
    if not output.requires_grad:
        raise ValueError(
            f"{name}: {subject(module)} has nothing to train. Got an output that depends "
            "on no parameter with requires_grad. Pass a module with weights, or call "
            "module.requires_grad_(True) before."
        )


def _described(value):
    """Return what a value is, in few words."""
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)} and {value.dtype}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"


def _shown(error):
    return f"{type(error).__name__}: {str(error)[:300]}"


def channels_first(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return (C, H, W) for (H, W, C), (C, T, H, W) for (T, H, W, C), and (d,) for (d,)."""
    return (shape[-1], *shape[:-1])


def in_channels(batch: torch.Tensor, n_channels: int) -> torch.Tensor:
    """Return images or clips (b, C, ...), a gray channel repeated; rows as they are."""
    if batch.dim() < 4 or batch.shape[1] != 1:
        return batch
    return batch.expand(-1, n_channels, *[-1] * (batch.dim() - 2))
