"""Networks of torchvision, or the user's own, as feature extractors.

torchvision is imported when a network is asked for by name: methods without a backbone
work where it is missing or broken.
"""

import copy
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TypeGuard

import torch
from torch import fx, nn


class BackboneEncoder(nn.Module):
    """A network without its classifier, from images to one feature vector each.

    Parameters
    ----------
    backbone : str or nn.Module
        Name of a classification network of torchvision, built without its last linear
        layers; or a module, copied, whose output is flattened.
    weights : "imagenet", None, str or Path, default="imagenet"
        torchvision's best weights or those it has under a name such as "IMAGENET1K_V1"
        (downloaded once, into torch's cache), random ones, or the file of a state dict
        (``.pt``, ``.pth`` or ``.safetensors``).
    hidden : bool, default=False
        Whether the hidden linear layers of a classifier, such as AlexNet's, are kept, and
        only its output layer is left out.
    n_channels : int, default=3
        Channels that grey images are repeated to.

    Raises
    ------
    ImportError
        torchvision cannot be imported.
    ValueError
        No such network, or no such weights.
    """

    def __init__(
        self,
        backbone: str | nn.Module,
        weights: str | os.PathLike | None = "imagenet",
        hidden: bool = False,
        n_channels: int = 3,
    ):
        super().__init__()
        self.n_channels = n_channels
        if isinstance(backbone, nn.Module):
            self.body = copy.deepcopy(backbone)
            if weights not in ("imagenet", None):
                load_weights(self.body, weights)
        else:
            self.body = _build(backbone, weights)
            _remove_classifier(self.body, backbone, hidden)
        keep_strided_layers_safe(self.body)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Map (b, 3, H, W), or (b, 1, H, W) with grey repeated, to (b, d).

        Rows go to a module as they are.
        """
        if batch.dim() == 4 and batch.shape[1] == 1:
            batch = batch.expand(-1, self.n_channels, -1, -1)
        return self.body(batch).flatten(1)


def keep_strided_layers_safe(module: nn.Module) -> None:
    """Keep layers that can end the process out of the channels_last layout.

    These are convolutions of 1x1 with a stride, on fewer than eight channels, and their
    transposes: on processors with AVX2 and nothing newer, torch (2.4 to 2.14 at least)
    writes beyond its memory when it computes the gradient of their weights in this layout.

    Parameters
    ----------
    module : torch.nn.Module
        Changed in place: such layers get a hook, and weights in the other layout.
    """
    for layer in module.modules():
        if not isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            continue
        is_transposed = isinstance(layer, nn.ConvTranspose2d)
        n_channels = layer.out_channels if is_transposed else layer.in_channels
        is_strided = max(layer.kernel_size) == 1 < max(layer.stride)
        if (
            is_strided
            and n_channels < 8
            and _contiguous_input not in (layer._forward_pre_hooks.values())
        ):
            layer.weight.data = _in_contiguous_layout(layer.weight.data)
            layer.register_forward_pre_hook(_contiguous_input)


def _contiguous_input(layer, args):
    return tuple(_in_contiguous_layout(value) for value in args)


def _in_contiguous_layout(tensor):
    # Not .contiguous(): a tensor of one channel counts as being in both layouts.
    return tensor.clone(memory_format=torch.contiguous_format)


@torch.no_grad()
def count_features(module: nn.Module, sample_shape: tuple[int, ...]) -> int:
    """Return the d of a module that maps samples to vectors (b, d).

    Parameters
    ----------
    module : torch.nn.Module
        On the CPU; its mode is left as it is.
    sample_shape : tuple
        (C, H, W), or (d,) for rows.

    Raises
    ------
    ValueError
        The module does not take such samples, or gives no vectors.
    """
    modes = [part.training for part in module.modules()]
    try:
        features = module.eval()(torch.zeros(1, *sample_shape))
        if features.dim() != 2:
            raise RuntimeError(f"it gives a tensor of shape {tuple(features.shape)}")
    except Exception as error:  # whatever the forward of a user's module may raise
        raise ValueError(
            f"The backbone cannot turn samples of shape {tuple(sample_shape)} into "
            f"vectors: {str(error)[:300]}. Pass a module that maps (b, C, H, W), or (b, d) "
            "for plain rows, to (b, features); or set image_size to what the network was "
            "made for."
        ) from error
    finally:
        for part, mode in zip(module.modules(), modes, strict=True):
            part.training = mode
    return features.shape[1]


class FeatureMaps(nn.Module):
    """A frozen network, from images to what some of its layers give.

    All layers are read in one pass, and what lies behind the last of them is not computed.
    The network is neither trained nor changed: it has no gradients, stays in eval mode, and
    carries no hooks.

    Parameters
    ----------
    backbone : str or nn.Module
        Name of a classification network of torchvision; or a module, copied, whose
        ``forward`` torch.fx can trace.
    layers : sequence of str
        Names as in ``named_modules()``, such as "layer2" or "features.6". A layer that is
        used several times gives what it does the first time.
    weights : "imagenet", None, str or Path, default="imagenet"
        As for :class:`BackboneEncoder`.

    Raises
    ------
    ImportError
        torchvision cannot be imported.
    ValueError
        No such network, weights or layer, or a module that cannot be traced.

    Notes
    -----
    The layers are values in the graph that torch.fx makes of ``forward``, in eval mode. It
    follows one path through the code, so a module must not branch on what is in a tensor.
    Operations in place are undone, or a layer would hold what the next one made of it.
    """

    def __init__(
        self,
        backbone: str | nn.Module,
        layers: Sequence[str],
        weights: str | os.PathLike | None = "imagenet",
    ):
        super().__init__()
        if isinstance(backbone, nn.Module):
            model = copy.deepcopy(backbone)
            if weights not in ("imagenet", None):
                load_weights(model, weights)
        else:
            model = _build(backbone, weights)
        self.layers = tuple(layers)
        self.body = _trace(model.eval(), self.layers)
        self.requires_grad_(False)
        self.eval()

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Map (b, 3, H, W), or (b, 1, H, W) with grey repeated, to a tensor a layer."""
        if batch.shape[1] == 1:
            batch = batch.expand(-1, 3, -1, -1)
        return self.body(batch)

    def train(self, mode: bool = True) -> "FeatureMaps":
        """Stay in eval mode, whatever the network is part of."""
        return super().train(False)

    def extra_repr(self) -> str:
        """Return the names of the layers."""
        return f"layers={self.layers}"

    @torch.no_grad()
    def shapes(
        self, height: int, width: int, *, only_maps: bool = True
    ) -> list[tuple[int, ...]]:
        """Return the shape of each layer for one image, without the batch axis.

        Parameters
        ----------
        height, width : int
            Size of the image in pixels.
        only_maps : bool, default=True
            Whether every layer must give a map (C, h, w), or may give a vector (d,).

        Raises
        ------
        ValueError
            The network does not take images of this size, or a layer gives no map.
        """
        # Tensors of the device "meta" have a shape and no values: nothing is computed.
        state = {
            name: torch.empty_like(value, device="meta")
            for name, value in self.state_dict().items()
        }
        dtype = next(self.parameters(), torch.empty(())).dtype
        image = torch.empty(1, 3, height, width, dtype=dtype, device="meta")
        try:
            layers = torch.func.functional_call(self, state, (image,))
            shapes = [tuple(layer.shape[1:]) for layer in layers]
        except (RuntimeError, AssertionError) as error:
            raise ValueError(
                f"The backbone cannot take images of {height} x {width} pixels: "
                f"{str(error)[:300]}. Set image_size=224, or what the network was made for."
            ) from error
        allowed = (3,) if only_maps else (1, 3)
        for name, shape in zip(self.layers, shapes, strict=True):
            if len(shape) not in allowed:
                raise ValueError(
                    f"layers names {name!r}, which gives {shape} for an image. Name layers "
                    f"that give {'maps (C, h, w)' if only_maps else 'maps or vectors'}, "
                    "such as the stages of a convolutional network."
                )
        return shapes


# While one thread traces, torch has exchanged `nn.Module.__call__` for the whole process.
_tracing = threading.Lock()


class _LayerTracer(fx.Tracer):
    """Keeps, beside the graph, the value that each module returned first.

    Modules that other threads call, or look into, while this one traces are left alone.
    """

    def __init__(self):
        super().__init__()
        self.values = {}
        self._thread = threading.get_ident()

    def trace(self, root, concrete_args=None):
        # Two threads would put one another's exchanged methods back.
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


def _trace(model, layers):
    """Return a module from images to what the layers give, and nothing computed beyond."""
    _check_layers(model, layers)
    for module in model.modules():
        if getattr(module, "inplace", False):
            module.inplace = False
    tracer = _LayerTracer()
    try:
        graph = tracer.trace(model)
    except Exception as error:  # whatever the forward of a user's module may raise
        raise ValueError(
            f"backbone: torch.fx cannot trace this {type(model).__name__}: "
            f"{str(error)[:300]}. Pass a module whose forward takes one batch of images "
            "and does not branch on what is in a tensor, or a network of torchvision."
        ) from error
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
    """Raise an error unless `layers` names modules of the model."""
    names = [name for name, _ in model.named_modules() if name]
    if not layers:
        raise ValueError(
            f"layers must name a layer at least. Got {layers!r}. Use names of modules of "
            f"this {type(model).__name__}, among them {_some_of(names)}."
        )
    for name in layers:
        if name not in names:
            raise ValueError(
                f"layers names {name!r}, which this {type(model).__name__} has not. Use "
                f"names of its modules, among them {_some_of(names)}."
            )


def _output_nodes(model, layers, values):
    """Return the nodes of a graph that compute what the layers give."""
    nodes = []
    for name in layers:
        value = values.get(name)
        if not isinstance(value, fx.Proxy):
            usable = [n for n, v in values.items() if isinstance(v, fx.Proxy)]
            raise ValueError(
                f"layers names {name!r}, which gives no single tensor when this "
                f"{type(model).__name__} is used. Name a layer within or beside it, among "
                f"{_some_of(usable)}."
            )
        nodes.append(value.node)
    return nodes


def _some_of(names):
    """Return some names of modules for a message: the outermost, which are the fewest."""
    depths = [name.count(".") for name in names]
    outer = [name for name, depth in zip(names, depths, strict=True) if depth == 0]
    inner = [name for name, depth in zip(names, depths, strict=True) if depth == 1]
    return ", ".join(repr(name) for name in (outer + inner)[:24])


def _build(name, weights):
    try:
        from torchvision import models
    # A torchvision that does not fit its torch fails with RuntimeError.
    except (ImportError, RuntimeError) as error:
        raise ImportError(
            f"backbone={name!r} needs torchvision, which cannot be imported: {error}. "
            "Install the torchvision that belongs to your torch, or pass an nn.Module."
        ) from error
    if name not in models.list_models(module=models):
        raise ValueError(
            f"backbone={name!r} is no classification network of torchvision. Use for "
            "example 'resnet18' or 'mobilenet_v2', or pass an nn.Module."
        )
    published = models.get_model_weights(name).__members__
    if weights == "imagenet":
        weights = "DEFAULT"
    elif weights not in published or Path(weights).is_file():
        model = models.get_model(name, weights=None)
        return model if weights is None else load_weights(model, weights)
    try:
        return models.get_model(name, weights=weights)
    except OSError as error:  # URLError among them
        raise ValueError(
            f"The ImageNet weights of {name} cannot be downloaded: {error}. Without "
            "internet, copy the file from a machine that has it and pass its path as "
            "weights; or set weights=None to start from random weights."
        ) from error


def load_weights(model: nn.Module, path: str | os.PathLike) -> nn.Module:
    """Load the file of a state dict into a network, which is returned."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(
            f"weights={str(path)!r} is no file. Pass None, the path of a .pt, .pth or "
            ".safetensors state dict, or, for networks of torchvision, 'imagenet' or a "
            "name of its weights, such as 'IMAGENET1K_V1'."
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(state)
    except Exception as error:
        raise ValueError(
            f"weights={str(path)!r} does not hold a state dict of this "
            f"{type(model).__name__}: {str(error)[:300]}. Save one with "
            "torch.save(model.state_dict(), path)."
        ) from error
    return model


def _remove_classifier(model: nn.Module, name: str, hidden: bool) -> None:
    """Replace the last linear layers, or with `hidden` the last one, by the identity."""
    for attribute in ("fc", "classifier", "heads", "head"):
        classifier = getattr(model, attribute, None)
        if isinstance(classifier, nn.Module):
            if hidden and _ends_linear(classifier):
                classifier[-1] = nn.Identity()
            else:
                setattr(model, attribute, nn.Identity())
            return
    raise ValueError(
        f"backbone={name!r} has no classifier under a known name. Pass the network as an "
        "nn.Module that returns features (n, d)."
    )


def _ends_linear(module: nn.Module) -> TypeGuard[nn.Sequential]:
    return isinstance(module, nn.Sequential) and isinstance(module[-1], nn.Linear)
