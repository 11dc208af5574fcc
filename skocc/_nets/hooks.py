"""Outputs of layers, kept by forward hooks while a network runs."""

import copy
import inspect
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from skocc._nets.own_code import code_of

# What the layers of this thread's network are to keep: a dictionary, or nothing.
_current = threading.local()
# While hooks are put on a network or taken off it.
_changing = threading.RLock()


class LayerError(ValueError):
    """A layer that was asked for gives nothing to use; the message says what to do."""


class _AllKept(BaseException):
    """Ends a forward pass after its last layer. No code of a user catches it by chance."""


class HookedLayers(nn.Module):
    """Network that returns the outputs of some of its layers, whatever its ``forward`` is.

    It computes what a traced graph would, layer by layer, up to the last layer. The hooks
    are on the network while it runs, and gone afterwards.

    Parameters
    ----------
    model : nn.Module
        Network in eval mode, which is not copied.
    layers : tuple of str
        Names as in ``named_modules()``. If a layer is used several times, its first output
        is returned.

    Notes
    -----
    Threads may run one network at the same time: the first puts the hooks on, the last
    takes them off, and a hook keeps outputs for its own thread only. A hook that a copy
    made meanwhile has brought along therefore does nothing.
    """

    def __init__(self, model: nn.Module, layers: Sequence[str]):
        super().__init__()
        self.model = model
        self.layers = tuple(layers)
        self._n_running = 0
        self._hooks: list = []

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Map images to the outputs of the layers."""
        self._start()
        try:
            kept = keep_layers(lambda: run_on_images(self.model, batch), self.layers)
        finally:
            self._stop()
        for name, output in kept.items():
            if output is None:
                raise LayerError(
                    f"layers names {name!r}, which does not run when this "
                    f"{type(self.model).__name__} is used. Got {self.layers}. Choose "
                    "layers that its forward calls as modules."
                )
        return tuple(kept[name] for name in self.layers)

    @property
    def code(self) -> str:
        """What the network computes with beside its weights, for keys of a cache."""
        return code_of(self.model)

    def extra_repr(self) -> str:
        """Return the names of the layers."""
        return f"layers={self.layers}"

    def _start(self):
        with _changing:
            if not self._n_running:
                self._hooks = [
                    self.model.get_submodule(name).register_forward_hook(
                        partial(keep, name=name, reduce=_copied)
                    )
                    for name in self.layers
                ]
            self._n_running += 1

    def _stop(self):
        with _changing:
            self._n_running -= 1
            if not self._n_running:
                for hook in self._hooks:
                    hook.remove()
                self._hooks = []

    def __getstate__(self):
        return {**vars(self), "_n_running": 0, "_hooks": []}

    def __deepcopy__(self, memo):
        copied = memo[id(self)] = type(self).__new__(type(self))
        with _changing:
            vars(copied).update(copy.deepcopy(self.__getstate__(), memo))
        return copied


def keep_layers(run: Callable[[], Any], layers: Sequence) -> dict:
    """Run a network whose hooks keep outputs, and return these, or None for each layer.

    Parameters
    ----------
    run : callable
        Runs the network, whose layers have the hook :func:`keep`. The run ends with the
        last layer. What it returns is kept as layer -1, if that is asked for.
    layers : sequence of str or int
    """
    kept: dict = dict.fromkeys(layers)
    outer = getattr(_current, "kept", None)
    _current.kept = kept
    try:
        output = run()
        if -1 in kept:
            kept[-1] = output
    except _AllKept:
        pass
    finally:
        _current.kept = outer
    return kept


def keep(module, args, output, *, name, reduce):
    """Keep what a function makes of a layer's output, if it is asked for and the first."""
    kept = getattr(_current, "kept", None)
    if kept is None or name not in kept or kept[name] is not None:
        return
    kept[name] = reduce(output)
    # While a graph is exported, the modules around this one have to end as well.
    is_exported = torch.compiler.is_compiling()
    if not is_exported and all(value is not None for value in kept.values()):
        raise _AllKept


def _copied(output):
    # The next layer may change it in place.
    output = first_tensor(output)
    return output.clone() if isinstance(output, torch.Tensor) else output


def first_tensor(output: Any) -> Any:
    """Return the tensor in what a layer returns, or the output itself if it has none.

    Parameters
    ----------
    output : Tensor, tuple, list or dict
        Of several tensors, the first one is taken. Layers of Hugging Face's transformers
        return their hidden state there, alone or before weights of attention.
    """
    if isinstance(output, Mapping):
        output = tuple(output.values())
    if isinstance(output, tuple | list):
        tensors = (item for item in output if isinstance(item, torch.Tensor))
        return next(tensors, output)
    return output


def run_on_images(model: nn.Module, batch: torch.Tensor) -> Any:
    """Return what a network makes of images.

    Networks of Hugging Face's transformers are asked to interpolate their position
    embeddings if the images have another size than they were made for.
    """
    config = getattr(model, "config", None)
    if config is None or "interpolate_pos_encoding" not in _parameters(model):
        return model(batch)
    size = getattr(config, "image_size", None)
    size = (size, size) if isinstance(size, int) else size
    is_other = size is None or tuple(size) != tuple(batch.shape[2:])
    return model(batch, interpolate_pos_encoding=is_other)


def _parameters(model):
    try:
        return inspect.signature(model.forward).parameters
    except (TypeError, ValueError):  # a forward that is not written in Python
        return {}
