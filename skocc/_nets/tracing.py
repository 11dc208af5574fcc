"""Layers of a network as the outputs of a graph that torch.fx traces."""

import threading
from collections.abc import Sequence

from torch import fx, nn

# While one thread traces, torch replaces `nn.Module.__call__` for the whole process.
_tracing = threading.Lock()


class _LayerTracer(fx.Tracer):
    """Tracer that also keeps the first value that each module returns.

    It ignores modules that other threads call or inspect while this one traces.
    """

    def __init__(self):
        super().__init__()
        self.values = {}
        self._thread = threading.get_ident()

    def trace(self, root, concrete_args=None):
        # Two threads would restore each other's replaced methods.
        with _tracing:
            return super().trace(root, concrete_args)

    def call_module(self, m, forward, args, kwargs):
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        value = super().call_module(m, forward, args, kwargs)
        self.values.setdefault(self.path_of_module(m), value)
        return value

    def getattr(self, attr, attr_val, parameter_proxy_cache):
        if threading.get_ident() != self._thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)


def trace(model: nn.Module, layers: Sequence[str]) -> fx.GraphModule | None:
    """Return a module that maps images to the layers' outputs and computes nothing else.

    Parameters
    ----------
    model : nn.Module
        Network in eval mode. It gives its parts to the result, and is not used afterwards
        unless there is none.
    layers : sequence of str

    Returns
    -------
    body : GraphModule or None
        None if torch.fx cannot follow the code of ``forward``.

    Raises
    ------
    ValueError
        A layer does not exist, or returns no tensor.
    """
    _check_layers(model, layers)
    for module in model.modules():
        if getattr(module, "inplace", False):
            vars(module)["inplace"] = False
    tracer = _LayerTracer()
    try:
        graph = tracer.trace(model)
    except MemoryError:
        raise
    except Exception:  # whatever a forward raises that is given no tensors
        return None
    nodes = _output_nodes(model, layers, tracer.values)
    for node in reversed(graph.nodes):  # all behind the last layer, from the end
        if node in nodes:
            break
        graph.erase_node(node)
    graph.output(tuple(nodes))
    for node in graph.nodes:
        if node.kwargs.get("inplace"):
            node.update_kwarg("inplace", False)
    body = fx.GraphModule(model, graph, type(model).__name__)
    graph.eliminate_dead_code()
    body.delete_all_unused_submodules()
    body.recompile()
    return body


def _check_layers(model, layers):
    """Raise a ValueError unless `layers` names modules of the model."""
    names = [name for name, _ in model.named_modules() if name]
    if not layers:
        raise ValueError(
            f"layers must name at least one layer. Got {layers!r}. Use names of modules of "
            f"this {type(model).__name__}, among them {_some_of(names)}."
        )
    for name in layers:
        if name not in names:
            raise ValueError(
                f"layers names {name!r}, which this {type(model).__name__} does not have. "
                f"Use names of its modules, among them {_some_of(names)}."
            )


def _hidden(value):
    """Return what stands for the first tensor in what a module returns."""
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, tuple | list):
        value = next((item for item in value if isinstance(item, fx.Proxy)), None)
    return value


def _output_nodes(model, layers, values):
    """Return the nodes of a graph that compute the outputs of the layers."""
    nodes = []
    for name in layers:
        value = _hidden(values.get(name))
        if not isinstance(value, fx.Proxy):
            usable = [n for n, v in values.items() if isinstance(v, fx.Proxy)]
            raise ValueError(
                f"layers names {name!r}, which does not return a tensor when this "
                f"{type(model).__name__} is used. Choose a layer within or near it, among "
                f"{_some_of(usable)}."
            )
        nodes.append(value.node)
    return nodes


def _some_of(names):
    """Return some module names for a message, the outermost ones first."""
    depths = [name.count(".") for name in names]
    outer = [name for name, depth in zip(names, depths, strict=True) if depth == 0]
    inner = [name for name, depth in zip(names, depths, strict=True) if depth == 1]
    return ", ".join(repr(name) for name in (outer + inner)[:24])
