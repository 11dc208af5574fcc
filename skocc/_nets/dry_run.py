"""Runs of a network that tell the shapes of its outputs, on zeros or without values."""

import copy
from collections.abc import Iterator
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import nn

from skocc._nets.hooks import LayerError, first_tensor, run_on_images


def dry_run(network: nn.Module, shape: tuple[int, ...]) -> Any:
    """Return what a network makes of a batch of zeros.

    Parameters
    ----------
    network : nn.Module
        In eval mode, on any device, "meta" included. No other thread may use it meanwhile.
    shape : tuple
        Of the batch.

    Returns
    -------
    output : any
        Of tensors on the device "meta", which have a shape and no values, so that nothing
        is computed; or, where the network cannot run there, on its own device.
    """
    try:
        return _run_without_values(network, shape)
    except (LayerError, MemoryError):
        raise
    except Exception:  # whatever a forward may raise without values
        return _run_on_zeros(network, shape)


def layer_outputs(
    model: nn.Module, in_shape: tuple[int, ...]
) -> Iterator[list[tuple[str, torch.Tensor]]]:
    """Yield the name and the output of each layer that returns a tensor, in order.

    Parameters
    ----------
    model : nn.Module
        As of :func:`dry_run`.
    in_shape : tuple (C, H, W)
        Shape of an image.

    Yields
    ------
    outputs : list of tuple (str, Tensor)
        First of a run without values; then of a run on zeros, which may get further. A run
        may end with an error: what fails may lie behind the layers that are looked for.
    """
    for run in (_run_without_values, _run_on_zeros):
        outputs: list = []
        hooks = [
            module.register_forward_hook(partial(_note, name=name, outputs=outputs))
            for name, module in model.named_modules()
            if name
        ]
        try:
            run(model, (1, *in_shape))
        except MemoryError:
            raise
        except Exception:
            pass
        finally:
            for hook in hooks:
                hook.remove()
        yield outputs


def _note(module, args, output, *, name, outputs):
    output = first_tensor(output)
    if isinstance(output, torch.Tensor):
        outputs.append((name, output))


class _OnImages(nn.Module):
    """Network that is called as :func:`~skocc._nets.hooks.run_on_images` does it."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, batch):
        return run_on_images(self.network, batch)


@torch.no_grad()
def _run_without_values(network, shape):
    wrapped = _OnImages(network)
    state = {
        name: torch.empty_like(tensor, device="meta")
        for name, tensor in chain(
            wrapped.named_parameters(remove_duplicate=False),
            wrapped.named_buffers(remove_duplicate=False),
        )
    }
    batch = _zeros(network, shape, "meta")
    return torch.func.functional_call(wrapped, state, (batch,), tie_weights=False)


@torch.no_grad()
def _run_on_zeros(network, shape):
    device = next((t.device for t in _tensors(network)), torch.device("cpu"))
    if device.type == "meta":
        _check_attributes(network)
        # A copy, of the size of the network. Values are as good as any others.
        network = copy.deepcopy(network).to_empty(device="cpu")
        device = torch.device("cpu")
        for tensor in _tensors(network):
            tensor.zero_()
    return run_on_images(network, _zeros(network, shape, device))


def _check_attributes(network):
    """Raise a ValueError for tensors as plain attributes, which no file would hold."""
    for name, module in network.named_modules():
        for key, value in vars(module).items():
            if isinstance(value, torch.Tensor):
                place = f"{name}.{key}".lstrip(".")
                raise ValueError(f"{place} is a tensor, and no parameter or buffer")


def _tensors(network):
    return chain(network.parameters(), network.buffers())


def _zeros(network, shape, device):
    floats = (t.dtype for t in _tensors(network) if t.is_floating_point())
    return torch.zeros(shape, dtype=next(floats, torch.float32), device=device)
