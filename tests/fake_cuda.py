"""A CUDA device on machines that have none: tensors with shapes and no values.

:func:`fake_cuda` makes ``device="cuda"`` usable. What is on the CPU stays real and is
computed. What is on "cuda" are torch's fake tensors: they know shape, dtype and device, and
torch refuses operations that mix devices, as it does on a card. So whole fits run through,
and a line that would fail on a card for a tensor left behind fails here too.

What comes back to the CPU has made-up values: zeros for integers, true for booleans,
numbers in [0, 1) for others. ``backward`` only gives each parameter that took part a
gradient. Waits of the CPU for the device are counted, as
``torch.cuda.set_sync_debug_mode`` does.
"""

import collections
import contextlib
from unittest import mock

import torch
from torch import nn
from torch._subclasses.fake_tensor import (
    FakeTensor,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from skocc._engine import seeding

aten = torch.ops.aten
CUDA = torch.device("cuda", 0)


class _FakeCuda(TorchDispatchMode):
    """Computes on the CPU what is there, and fakes the rest."""

    def __init__(self):
        super().__init__()
        self.waits = collections.Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        fakes = [x for x in tensors if isinstance(x, FakeTensor)]
        target = kwargs.get("device")
        on_cuda = target is not None and torch.device(target).type == "cuda"
        if not fakes and not on_cuda:
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        if func is aten._local_scalar_dense.default:
            self.waits["value read by the CPU"] += 1
            return True if args[0].dtype == torch.bool else 1
        if func is aten._unique2.default:  # all different: the shape is known then
            self.waits["number of different values"] += 1
            flat = args[0].flatten()
            return flat, torch.zeros_like(flat, dtype=torch.int64), torch.ones_like(flat)
        if func is aten.nonzero.default:  # all true: the shape is known then
            self.waits["number of true values"] += 1
            shape = args[0].shape
            zeros = torch.zeros(shape.numel(), len(shape), dtype=torch.int64)
            return zeros.to(args[0].device)
        self._count_copies(func, args, kwargs, tensors)
        if func is aten.copy_.default and not isinstance(args[0], FakeTensor):
            return args[0]  # into host memory: values that nobody knows
        if func in (aten.index.Tensor, aten.index_put_.default, aten.index_put.default):
            args = (args[0], self._check_indices(*args[:2]), *args[2:])
        for generator in tree_leaves((args, kwargs)):
            if isinstance(generator, torch.Generator) and not _is_there(generator):
                raise RuntimeError("numbers on cuda:0 need a generator there")
        with unset_fake_temporarily():
            args, kwargs = tree_map(_detached, (args, kwargs))
        result = func(*args, **kwargs)
        with unset_fake_temporarily():
            return tree_map(_to_host, result)

    def _count_copies(self, func, args, kwargs, tensors):
        """Count copies between the devices, which wait unless told not to."""
        if func is aten._to_copy.default and kwargs.get("device") is not None:
            is_blocking = not kwargs.get("non_blocking")
            there = torch.device(kwargs["device"]).type
        elif func is aten.copy_.default:
            is_blocking = not (args[2] if len(args) > 2 else kwargs.get("non_blocking"))
            there = args[0].device.type
            args = args[1:]
        else:
            return
        here = args[0].device.type
        if here != there and (is_blocking or there == "cpu"):
            self.waits[f"copy from {here} to {there}"] += 1

    def _check_indices(self, values, indices):
        """Refuse what torch refuses on a card only, and take masks to be all true."""
        checked = []
        for index in indices:
            if index is None:
                checked.append(None)
                continue
            if values.device.type == "cpu" and index.device.type == "cuda":
                raise RuntimeError("indices on cuda:0 cannot index a tensor on the CPU")
            if values.device.type == "cuda" and index.device.type == "cpu" and index.dim():
                self.waits["indices on the CPU"] += 1
            if index.dtype in (torch.bool, torch.uint8):
                self.waits["mask as index"] += 1
                places = index.shape
                index = torch.zeros(places.numel(), dtype=torch.int64, device=index.device)
                checked += [index] * len(places)
            else:
                checked.append(index)
        return checked


def _is_there(generator):
    own = {known._cdata for known in _generators}
    return generator.device.type == "cuda" or generator._cdata in own


_backward = torch.Tensor.backward


def _backward_without_engine(loss, *args, **kwargs):
    """Stand in for `backward`: its engine wants a device for each gradient."""
    if isinstance(loss, FakeTensor):
        return _give_gradients(loss)
    return _backward(loss, *args, **kwargs)


class _ValuesOfFakes(TorchFunctionMode):
    """Methods of tensors that torch has no fake of."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        is_fake = args and isinstance(args[0], FakeTensor)
        if func is torch.Tensor.tolist and is_fake:
            return args[0].cpu().tolist()
        if func is torch.Tensor.__deepcopy__ and is_fake:
            return args[0].detach().clone().requires_grad_(args[0].requires_grad)
        return func(*args, **kwargs)


def _give_gradients(loss):
    """Give all leaves of the graph a gradient."""
    nodes, seen = [loss.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            node.variable.grad = torch.zeros_like(node.variable)
        nodes += [following for following, _ in node.next_functions]


def _real(function):
    """Return a function whose tensors on the CPU are real: torch.load would fake them."""

    def call(*args, **kwargs):
        with unset_fake_temporarily():
            return function(*args, **kwargs)

    return call


def _detached(value):
    """Return a real tensor as one without a gradient, which torch would look at."""
    if isinstance(value, torch.Tensor) and not isinstance(value, FakeTensor):
        return value.detach()
    return value


def _to_host(value):
    """Return a fake tensor of the CPU as a real one with made-up values."""
    if not isinstance(value, FakeTensor) or value.device.type != "cpu":
        return value
    n = value.numel()
    if value.dtype == torch.bool:
        flat = torch.ones(n, dtype=torch.bool)
    elif value.dtype.is_floating_point:
        flat = (torch.arange(n) * 0.6180339887 % 1).to(value.dtype)
    else:
        flat = torch.zeros(n, dtype=value.dtype)
    return flat.view(value.shape)


def _apply(module, function, recurse=True):
    """Stand in for ``nn.Module._apply``, which swaps fake tensors in place, and fails."""
    for child in module.children():
        _apply(child, function)
    with torch.no_grad():
        for name, value in module._parameters.items():
            if value is not None:
                new = nn.Parameter(function(value), value.requires_grad)
                module._parameters[name] = new
        for name, value in module._buffers.items():
            if value is not None:
                module._buffers[name] = function(value)
    return module


_generators = []  # that pass for generators of the card
_on = seeding._Streams.on


def _stream_on(streams, kind):
    """Stand in for a method that makes generators, which torch has for a card it sees."""
    if kind != "cuda":
        return _on(streams, kind)
    _generators.append(torch.Generator())
    return _generators[-1]


class FakeProperties:
    uuid = "made up"


@contextlib.contextmanager
def fake_cuda():
    """Let ``device="cuda"`` be used, and yield the counter of waits."""
    state = torch.get_rng_state()
    with contextlib.ExitStack() as stack:
        for target, name, stand_in in (
            (torch.cuda, "device_count", lambda: 1),
            (torch.cuda, "mem_get_info", lambda device=None: (2**36, 2**36)),
            (torch.cuda, "get_device_properties", lambda device=None: FakeProperties),
            (torch.cuda, "get_rng_state", lambda device=None: state),
            (torch.cuda, "set_rng_state", lambda state, device=None: None),
            (torch.cuda, "manual_seed", lambda seed: None),
            (torch.cuda, "device", contextlib.nullcontext),
            (nn.Module, "_apply", _apply),
            (torch.Tensor, "backward", _backward_without_engine),
            (torch, "load", _real(torch.load)),
            (seeding._Streams, "on", _stream_on),
            (nn.RNNBase, "flatten_parameters", lambda network: None),
        ):
            stack.enter_context(mock.patch.object(target, name, stand_in))
        # Its recurrent networks ask the driver; those without it give the same shapes.
        stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        mode = stack.enter_context(_FakeCuda())
        stack.enter_context(_ValuesOfFakes())
        yield mode.waits
