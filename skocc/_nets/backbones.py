"""Feature extractors: networks of torchvision or timm, or the user's own."""

import os
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from skocc._nets.dry_run import dry_run
from skocc._nets.hooks import HookedLayers, LayerError, first_tensor
from skocc._nets.image_sizes import set_image_size
from skocc._nets.layouts import as_map, default_layers, layout_of, n_dropped
from skocc._nets.named import build_network, remove_classifier
from skocc._nets.own import (
    in_channels,
    is_own,
    possible_shapes,
    taken_channels,
    try_out,
)
from skocc._nets.tracing import trace


class BackboneEncoder(nn.Module):
    """Network without its classifier, which maps each image to one feature vector.

    Parameters
    ----------
    backbone : str, nn.Module, class or function
        Name of a classification network of torchvision, or "timm/" and that of a network
        of timm, which is built without its last linear layers; or a network of the user,
        as in :mod:`skocc._nets.own`. The output is flattened.
    weights : "imagenet", "offline", None, str or Path, default="imagenet"
        "imagenet" loads the best weights of torchvision, or those of timm under this name,
        which may be of other images. A name such as "IMAGENET1K_V1" loads those weights of
        torchvision. All are downloaded once, into the cache of torch or of the hub.
        "offline" loads those of an installed package, for
        :data:`~skocc._nets.weights.OFFLINE`. None means random weights. Otherwise, the path
        of a state dict (``.pt``, ``.pth`` or ``.safetensors``).
    hidden : bool, default=False
        Whether to keep the hidden linear layers of a classifier such as AlexNet's, and
        remove only its output layer.
    n_channels : int, default=3
        Number of channels to which gray images are repeated.

    Raises
    ------
    ImportError
        torchvision or timm cannot be imported.
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
        any_head = not self.is_own and not hidden
        self.body = build_network(backbone, weights, any_head=any_head)
        if not self.is_own:
            remove_classifier(self.body, backbone, hidden)
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
            if len(in_shape) == 3:
                set_image_size(self.body, *in_shape[1:])
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
    neither trained nor changed: it has no gradients, and stays in eval mode.

    Parameters
    ----------
    backbone : str, nn.Module, class or function
        Name of a network, as in :func:`~skocc._nets.named.build_network`; or a network of
        the user, as in :mod:`skocc._nets.own`.
    layers : sequence of str or None
        Names as in ``named_modules()``, such as "layer2" or "features.6". If a layer is
        used several times, its first output is returned; of a tuple or dictionary, the
        first tensor. None: those of :func:`~skocc._nets.layouts.default_layers`.
    weights : "imagenet", "offline", None, str or Path, default="imagenet"
        As in :class:`BackboneEncoder`.
    in_shape : tuple (C, H, W), default=None
        Shape of the images. A network of the user must take these channels; one that takes
        images of one size only is brought to this one. None: three channels, and the size
        that the network was made for.
    strides : tuple of int, default=(8, 16)
        Strides of the default layers.
    n_prefix_tokens : int, default=None
        Class and register tokens at the beginning of what a layer of a transformer returns.
        None: they are those of a known network.

    Raises
    ------
    ImportError
        torchvision or timm cannot be imported.
    ValueError
        The network, weights or a layer do not exist.

    Notes
    -----
    The layers are nodes of the graph that torch.fx traces from ``forward``, in eval mode;
    in-place operations are replaced, since the next layer would overwrite the output of a
    layer. Where torch.fx cannot follow ``forward``, for example because it branches on the
    size of the images, hooks keep the same outputs while the network runs.
    """

    def __init__(
        self,
        backbone: Any,
        layers: Sequence[str] | None,
        weights: str | os.PathLike | None = "imagenet",
        in_shape: tuple[int, ...] | None = None,
        strides: tuple[int, ...] = (8, 16),
        n_prefix_tokens: int | None = None,
    ):
        super().__init__()
        model = build_network(backbone, weights, any_head=True).eval()
        is_fixed = in_shape is not None and set_image_size(model, *in_shape[1:])
        if layers is None:
            shapes: list[tuple[int, ...]] = [(3, 224, 224)]
            if in_shape is not None and is_own(backbone):
                shapes = possible_shapes(in_shape)
            elif in_shape is not None and is_fixed:
                shapes = [(3, *in_shape[1:])]
            layers = default_layers(model, shapes, strides, n_prefix_tokens)
        self.layers = tuple(layers)
        self.n_prefix_tokens = n_prefix_tokens
        self._outputs: dict[tuple[int, int], tuple[torch.Tensor, ...]] = {}
        graph = trace(model, self.layers)
        self.body = HookedLayers(model, self.layers) if graph is None else graph
        self.layouts = tuple(
            layout_of(model, name, n_prefix_tokens) for name in self.layers
        )
        if in_shape and is_own(backbone):
            self.n_channels, _ = taken_channels(
                model, in_shape, "backbone", "maps", run=partial(dry_run, self.body)
            )
        self.requires_grad_(False)
        self.eval()

    n_channels = 3

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Map (b, C, H, W), a gray channel repeated to `n_channels`, to tensors."""
        outputs = self.body(in_channels(batch, self.n_channels))
        return self._as_maps(outputs, batch.shape[2:])

    def train(self, mode: bool = True) -> "FeatureMaps":
        """Stay in eval mode, even if the network is part of another one."""
        return super().train(False)

    def extra_repr(self) -> str:
        """Return the names of the layers."""
        return f"layers={self.layers}"

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
        # Once: other threads may use the network later on.
        if (height, width) not in self._outputs:
            self._outputs[height, width] = self._dry_run(height, width)
        outputs = self._outputs[height, width]
        self._check_prefix(outputs, (height, width))
        maps = self._as_maps(outputs, (height, width))
        allowed = (3,) if only_maps else (1, 3)
        shapes = [tuple(layer.shape[1:]) for layer in maps]
        for name, shape in zip(self.layers, shapes, strict=True):
            if len(shape) not in allowed:
                raise ValueError(
                    f"layers names {name!r}, which returns {shape} for an image. Choose "
                    "layers that return "
                    f"{'maps (C, h, w)' if only_maps else 'maps or vectors'}, "
                    "such as the stages of a convolutional network."
                )
        return shapes

    def _dry_run(self, height, width):
        try:
            outputs = dry_run(self.body, (1, self.n_channels, height, width))
        except LayerError:
            raise
        except Exception as error:  # the forward of a user's module may raise anything
            raise ValueError(
                f"The backbone cannot take images of {height} x {width} pixels: "
                f"{str(error)[:300]}. Set image_size=224, or the size for which the "
                "network was made."
            ) from error
        return tuple(first_tensor(output).to("meta") for output in outputs)

    def _as_maps(self, outputs, image_size):
        return tuple(
            as_map(first_tensor(output), layout, tuple(image_size), name)
            for output, layout, name in zip(outputs, self.layouts, self.layers, strict=True)
        )

    def _check_prefix(self, outputs, image_size):
        """Raise an error for a number of tokens that are dropped nowhere."""
        if not self.n_prefix_tokens:
            return
        outputs = zip(outputs, self.layouts, strict=True)
        if not any(o.dim() == 3 and n_dropped(o, k, image_size) for o, k in outputs):
            raise LayerError(
                "n_prefix_tokens has no effect: no layer returns such tokens. Got "
                f"n_prefix_tokens={self.n_prefix_tokens} for layers={self.layers}. Leave "
                "n_prefix_tokens at None, or choose blocks of a transformer."
            )
