"""Feature extractors: torchvision's networks, or the user's own.

torchvision is imported only when a network is requested by name, so methods without a
backbone work if it is missing or broken.
"""

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import fx, nn

from skocc._nets.layouts import as_map, default_layers, layout_of
from skocc._nets.own import (
    in_channels,
    is_own,
    own_module,
    possible_shapes,
    taken_channels,
    try_out,
)


class BackboneEncoder(nn.Module):
    """Network without its classifier, which maps each image to one feature vector.

    Parameters
    ----------
    backbone : str, nn.Module, class or function
        Name of a classification network of torchvision, which is built without its last
        linear layers; or a network of the user, as in :mod:`skocc._nets.own`. The output is
        flattened.
    weights : "imagenet", None, str or Path, default="imagenet"
        "imagenet" loads torchvision's best weights. A name such as "IMAGENET1K_V1" loads
        those weights of torchvision. Both are downloaded once, into torch's cache. None
        means random weights. Otherwise, the path of a state dict (``.pt``, ``.pth`` or
        ``.safetensors``).
    hidden : bool, default=False
        Whether to keep the hidden linear layers of a classifier such as AlexNet's, and
        remove only its output layer.
    n_channels : int, default=3
        Number of channels to which gray images are repeated.

    Raises
    ------
    ImportError
        torchvision cannot be imported.
    ValueError
        The network or the weights do not exist.
    """

    def __init__(
        self,
        backbone: Any,
        weights: str | os.PathLike | None = "imagenet",
        hidden: bool = False,
        n_channels: int = 3,
    ):
        super().__init__()
        self.n_channels = n_channels
        self.is_own = is_own(backbone)
        self.body = _built(backbone, weights)
        if not self.is_own:
            _remove_classifier(self.body, backbone, hidden)
        keep_strided_layers_safe(self.body)

    def adapt(self, in_shape: tuple[int, ...]) -> int:
        """Choose the channels that the network takes, and return the number of features.

        Parameters
        ----------
        in_shape : tuple
            (C, H, W), (C, T, H, W) of clips, or (d,) of rows.

        Raises
        ------
        ValueError
            The network does not take such samples, or returns no features.
        """
        if not self.is_own:
            return count_features(self, in_shape)
        returns = "vectors (b, features)"
        self.n_channels, output = try_out(self.body, in_shape, "backbone", returns)
        return output.flatten(1).shape[1]

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Map (b, C, H, W), a gray channel repeated to `n_channels`, to (b, d).

        Rows are passed to a module unchanged.
        """
        return self.body(in_channels(batch, self.n_channels)).flatten(1)


def keep_strided_layers_safe(module: nn.Module) -> None:
    """Prevent layers that can crash the process from using the channels_last layout.

    These layers are 1x1 convolutions with a stride, on fewer than eight channels, and their
    transposes. On processors with AVX2 and nothing newer, torch (2.4 to 2.14 at least)
    writes beyond its memory when it computes the gradient of their weights in this layout.

    Parameters
    ----------
    module : torch.nn.Module
        Module that is changed in place: such layers get a hook, and their weights get the
        contiguous layout.
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
    """Return the vector size d of a module that maps samples to vectors (b, d).

    Parameters
    ----------
    module : torch.nn.Module
        Module on the CPU, whose mode is not changed.
    sample_shape : tuple
        (C, H, W), or (d,) for rows.

    Raises
    ------
    ValueError
        The module does not accept such samples, or does not return vectors.
    """
    modes = [part.training for part in module.modules()]
    try:
        features = module.eval()(torch.zeros(1, *sample_shape))
        if features.dim() != 2:
            raise RuntimeError(f"it returns a tensor of shape {tuple(features.shape)}")
    except Exception as error:  # the forward of a user's module may raise anything
        raise ValueError(
            f"The backbone cannot turn samples of shape {tuple(sample_shape)} into "
            f"vectors: {str(error)[:300]}. Pass a module that maps (b, C, H, W), or (b, d) "
            "for plain rows, to (b, features), or set image_size to the size for which the "
            "network was made."
        ) from error
    finally:
        for part, mode in zip(module.modules(), modes, strict=True):
            part.training = mode
    return features.shape[1]


class FeatureMaps(nn.Module):
    """Frozen network that maps images to the outputs of some of its layers.

    One pass computes all requested layers, and stops after the last of them. The network is
    neither trained nor changed: it has no gradients, stays in eval mode, and has no hooks.

    Parameters
    ----------
    backbone : str, nn.Module, class or function
        Name of a classification network of torchvision; or a network of the user, as in
        :mod:`skocc._nets.own`, whose ``forward`` torch.fx can trace.
    layers : sequence of str or None
        Names as in ``named_modules()``, such as "layer2" or "features.6". If a layer is
        used several times, its first output is returned. None: those of
        :func:`~skocc._nets.layouts.default_layers`.
    weights : "imagenet", None, str or Path, default="imagenet"
        As in :class:`BackboneEncoder`.
    in_shape : tuple (C, H, W), default=None
        Shape of the images, which a network of the user must take. None: its channels are
        not chosen, and are three.
    strides : tuple of int, default=(8, 16)
        Strides of the default layers.

    Raises
    ------
    ImportError
        torchvision cannot be imported.
    ValueError
        The network, weights or a layer do not exist, or the module cannot be traced.

    Notes
    -----
    The layers are nodes of the graph that torch.fx traces from ``forward``, in eval mode.
    torch.fx follows one path through the code, so a module must not branch on the values of
    a tensor. In-place operations are replaced; otherwise the next layer would overwrite the
    output of a layer.
    """

    def __init__(
        self,
        backbone: Any,
        layers: Sequence[str] | None,
        weights: str | os.PathLike | None = "imagenet",
        in_shape: tuple[int, ...] | None = None,
        strides: tuple[int, ...] = (8, 16),
    ):
        super().__init__()
        model = _built(backbone, weights).eval()
        if not is_own(backbone):
            in_shape = None
        if layers is None:
            shapes = possible_shapes(in_shape) if in_shape else [(3, 224, 224)]
            layers = default_layers(model, shapes, strides)
        self.layers = tuple(layers)
        self.body = _trace(model, self.layers)
        self.layouts = tuple(layout_of(model, name) for name in self.layers)
        if in_shape:
            self.n_channels, _ = taken_channels(self.body, in_shape, "backbone", "maps")
        self.requires_grad_(False)
        self.eval()

    # Those of networks that earlier versions have pickled.
    n_channels = 3
    layouts: tuple[str, ...] | None = None

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Map (b, C, H, W), a gray channel repeated to `n_channels`, to tensors."""
        maps = self.body(in_channels(batch, self.n_channels))
        if self.layouts is None:
            return maps
        return tuple(as_map(m, kind) for m, kind in zip(maps, self.layouts, strict=True))

    def train(self, mode: bool = True) -> "FeatureMaps":
        """Stay in eval mode, even if the network is part of another one."""
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
            Whether every layer must return a map (C, h, w), or may return a vector (d,).

        Raises
        ------
        ValueError
            The network does not accept images of this size, or a layer returns no map.
        """
        # Tensors on the device "meta" have a shape but no values: nothing is computed.
        state = {
            name: torch.empty_like(value, device="meta")
            for name, value in self.state_dict().items()
        }
        dtype = next(self.parameters(), torch.empty(())).dtype
        shape = (1, self.n_channels, height, width)
        image = torch.empty(shape, dtype=dtype, device="meta")
        try:
            layers = torch.func.functional_call(self, state, (image,))
            shapes = [tuple(layer.shape[1:]) for layer in layers]
        except Exception as error:  # the forward of a user's module may raise anything
            raise ValueError(
                f"The backbone cannot take images of {height} x {width} pixels: "
                f"{str(error)[:300]}. Set image_size=224, or the size for which the "
                "network was made."
            ) from error
        allowed = (3,) if only_maps else (1, 3)
        for name, shape in zip(self.layers, shapes, strict=True):
            if len(shape) not in allowed:
                raise ValueError(
                    f"layers names {name!r}, which returns {shape} for an image. Choose "
                    "layers that return "
                    f"{'maps (C, h, w)' if only_maps else 'maps or vectors'}, "
                    "such as the stages of a convolutional network."
                )
        return shapes


# Families of torchvision that warn unless they are told how to draw their weights.
_WARN_OF_INIT = ("googlenet", "inception_v3")
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


def _trace(model, layers):
    """Return a module that maps images to the layers' outputs and computes nothing else."""
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


def _output_nodes(model, layers, values):
    """Return the nodes of a graph that compute the outputs of the layers."""
    nodes = []
    for name in layers:
        value = values.get(name)
        if not isinstance(value, fx.Proxy):
            usable = [n for n, v in values.items() if isinstance(v, fx.Proxy)]
            raise ValueError(
                f"layers names {name!r}, which does not return a single tensor when this "
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


def _built(backbone, weights):
    """Return a network of torchvision, or of the user, with its first weights."""
    if not is_own(backbone):
        return _build(backbone, weights)
    module = own_module(backbone, "backbone")
    return module if weights in ("imagenet", None) else load_weights(module, weights)


def _build(name, weights):
    try:
        from torchvision import models
    # A torchvision that does not match the installed torch raises a RuntimeError.
    except (ImportError, RuntimeError) as error:
        raise ImportError(
            f"backbone={name!r} needs torchvision, which cannot be imported: {error}. "
            "Install the torchvision that matches your torch, or pass an nn.Module."
        ) from error
    if name not in models.list_models(module=models):
        raise ValueError(
            f"backbone={name!r} is not a classification network of torchvision. Use for "
            "example 'resnet18' or 'mobilenet_v2', or pass an nn.Module."
        )
    published = models.get_model_weights(name).__members__
    if weights == "imagenet":
        weights = "DEFAULT"
    elif weights not in published or Path(weights).is_file():
        # Without it, two families warn that it will change.
        options = {"init_weights": True} if name in _WARN_OF_INIT else {}
        model = models.get_model(name, weights=None, **options)
        return model if weights is None else load_weights(model, weights)
    try:
        return models.get_model(name, weights=weights)
    except OSError as error:  # URLError among them
        raise ValueError(
            f"The ImageNet weights of {name} cannot be downloaded: {error}. Without "
            "internet, copy the file from a machine that has it and pass its path as "
            "weights, or set weights=None to start from random weights."
        ) from error


def load_weights(model: nn.Module, path: str | os.PathLike) -> nn.Module:
    """Load a state dict from a file into a network, and return the network."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(
            f"weights={str(path)!r} is not a file. Pass None, the path of a .pt, .pth or "
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
    """Replace the classifier, or with `hidden` only its last layer, by the identity."""
    if getattr(model, "aux_logits", False):
        # Classifiers of GoogLeNet and Inception, whose outputs come in a tuple.
        for attribute in ("aux1", "aux2", "AuxLogits"):
            if hasattr(model, attribute):
                setattr(model, attribute, None)
        vars(model)["aux_logits"] = False
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
