"""The layers of a network that describe an image by default, and how they are laid out."""

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import nn

# Transformers of torchvision, by the name of their class, which do not return maps.
_SWIN, _VIT = "SwinTransformer", "VisionTransformer"


def layout_of(model: nn.Module, name: str) -> str:
    """Return how a layer lays out its output, see :func:`as_map`.

    Parameters
    ----------
    model : nn.Module
        Network of torchvision, or of the user.
    name : str
        Name of a module in it.
    """
    if _is_torchvision(model, _VIT) and name.startswith("encoder"):
        return "tokens"
    if _is_torchvision(model, _SWIN) and name.startswith(("features", "norm")):
        # The first convolution is followed by a permutation.
        is_map = isinstance(model.get_submodule(name), nn.Conv2d)
        return "map" if is_map else "channels last"
    return "map"


def as_map(output: torch.Tensor, layout: str) -> torch.Tensor:
    """Return the output of a layer as a map (b, C, h, w), where it is one.

    Parameters
    ----------
    output : Tensor
    layout : {"map", "channels last", "tokens"}
        "channels last" is (b, h, w, C), of Swin Transformers. "tokens" is (b, 1 + n, C), of
        Vision Transformers: one token for the class and one for each patch of a square.
    """
    if layout == "channels last":
        return output.permute(0, 3, 1, 2)
    if layout == "tokens":
        side = math.isqrt(output.shape[1] - 1)
        return output[:, 1:].mT.unflatten(2, (side, side))
    return output


def default_layers(
    model: nn.Module, in_shapes: Sequence[tuple[int, ...]], strides: tuple[int, ...]
) -> tuple[str, ...]:
    """Return the last layer of each stride, the outermost there is.

    Parameters
    ----------
    model : nn.Module
        Network in eval mode, on any device; it is not changed.
    in_shapes : list of tuple (C, H, W)
        Shapes of an image, of which the first that the network takes is used. For networks
        of torchvision it is (3, 224, 224) whatever the images are.
    strides : tuple of int
        In pixels of the image. A stride that no layer has is left out; where there is none
        of them, the largest below is taken.

    Returns
    -------
    names : tuple of str

    Raises
    ------
    ValueError
        No layer has such a stride.

    Notes
    -----
    The stride of a map is the size of the image divided by that of the map, rounded to a
    power of two. A Vision Transformer has one stride in all of its layers: those after one
    half and three quarters of them take the place of the strides, or the last one for a
    single stride.
    """
    if _is_torchvision(model, _VIT):
        n = len([*model.get_submodule("encoder.layers").children()])
        places = (n,) if len(strides) == 1 else (n // 2, 3 * n // 4)
        return tuple(f"encoder.layers.encoder_layer_{place - 1}" for place in places)
    for in_shape in in_shapes:
        found = _strided_layers(model, in_shape)
        known = [s for s in strides if s in found]
        below = [s for s in found if 1 < s < min(strides)]
        if len(strides) == 1 and not known and below:
            known = [max(below)]
        if known:
            return tuple(found[s] for s in known)
    names = [name for name, _ in model.named_modules() if name][:12]
    raise ValueError(
        f"layers=None takes the layers of stride {' and '.join(map(str, strides))}. Got a "
        f"{type(model).__name__} that has none for images of "
        f"{' x '.join(map(str, in_shapes[0][1:]))} pixels. Set layers to names of its "
        f"modules, among them {', '.join(map(repr, names))}."
    )


def _strided_layers(model, in_shape):
    """Return the name of the last of the outermost layers of each stride."""
    outputs = []

    def keep(module, args, output, *, name):
        outputs.append((name, output))

    hooks = [
        module.register_forward_hook(partial(keep, name=name))
        for name, module in model.named_modules()
        if name
    ]
    # On the device "meta" tensors have a shape but no values: nothing is computed.
    try:
        states = model.state_dict().items()
        state = {key: torch.empty_like(value, device="meta") for key, value in states}
        with torch.no_grad():
            batch = torch.zeros(1, *in_shape, device="meta")
            torch.func.functional_call(model, state, (batch,))
    except Exception:  # what fails may lie behind the layers that are looked for
        pass
    finally:
        for hook in hooks:
            hook.remove()
    found = {}
    for name, output in outputs:
        if not isinstance(output, torch.Tensor) or output.dim() != 4:
            continue
        size = as_map(output, layout_of(model, name)).shape[2:]
        ratios = {_power_of_two(n / m) for n, m in zip(in_shape[1:], size, strict=True)}
        if len(ratios) == 1:
            (stride,) = ratios
            if stride not in found or name.count(".") <= found[stride].count("."):
                found[stride] = name
    return found


def _power_of_two(ratio):
    return 2 ** max(0, round(math.log2(ratio)))


def _is_torchvision(model, name):
    origin = type(model).__module__
    return type(model).__name__ == name and origin.startswith("torchvision.")
