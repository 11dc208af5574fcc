"""The layers of a network that describe an image by default, and how they are laid out."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import nn

from skocc._nets.dry_run import layer_outputs
from skocc._nets.hooks import LayerError

# Swin Transformers of torchvision, by the name of their class.
_SWIN = "SwinTransformer"
# Parameters of Hugging Face's transformers that are tokens before those of the patches.
_TOKENS = ("cls_token", "class_embedding", "distillation_token", "register_tokens")


class Layout(NamedTuple):
    """How a layer lays out its output.

    Attributes
    ----------
    is_channels_last : bool
        Whether a map is (b, h, w, C), as in Swin Transformers.
    n_prefix_tokens : int or None
        Class and register tokens before those of the patches; None if that is not known.
    patch_size : tuple (height, width) or None
        Pixels of an image that a token stands for, where that is known.
    """

    is_channels_last: bool = False
    n_prefix_tokens: int | None = None
    patch_size: tuple[int, int] | None = None


def layout_of(model: nn.Module, name: str, n_prefix_tokens: int | None = None) -> Layout:
    """Return how a layer lays out its output, see :func:`as_map`.

    Parameters
    ----------
    model : nn.Module
        Network of torchvision, of timm, or of the user; its parts may be such networks.
    name : str
        Name of a module in it.
    n_prefix_tokens : int, default=None
        What the user says of it, which counts.
    """
    prefix, patch_size = n_prefix_tokens, None
    for module in _around(model, name):
        prefix = _n_prefix_tokens(module) if prefix is None else prefix
        patch_size = patch_size or _patch_size(module)
    return Layout(_is_channels_last(model, name), prefix, patch_size)


def _around(model, name) -> Iterator[nn.Module]:
    """Yield the modules around a layer, the whole network first."""
    yield model
    parts = name.split(".")[:-1]
    for n_parts in range(1, len(parts) + 1):
        yield model.get_submodule(".".join(parts[:n_parts]))


def _n_prefix_tokens(module):
    """Return the number of class and register tokens of a known network, or None."""
    if _is_of(module, "torchvision") and type(module).__name__ == "VisionTransformer":
        return 1
    if isinstance(n := getattr(module, "num_prefix_tokens", None), int):  # timm
        return n
    # torch.hub's DINOv2.
    n_registers = getattr(module, "num_register_tokens", None)
    if isinstance(n_registers, int) and hasattr(module, "cls_token"):
        return 1 + n_registers
    if _is_of(module, "transformers") and hasattr(module, "config"):
        tokens = {
            name: parameter
            for name, parameter in module.named_parameters()
            if name.rpartition(".")[2] in _TOKENS
        }
        return sum(t.shape[-2] if t.dim() > 1 else 1 for t in tokens.values())
    return None


def _patch_size(module):
    """Return the pixels of a patch, of a network that says them, or None."""
    for part in ("", "patch_embed", "config"):
        owner = getattr(module, part, None) if part else module
        size = getattr(owner, "patch_size", None)
        if isinstance(size, int) and size > 0:
            return size, size
        if isinstance(size, tuple | list) and len(size) == 2:
            return int(size[0]), int(size[1])
    return None


def _is_channels_last(model, name):
    if isinstance(model.get_submodule(name), nn.Conv2d):
        return False  # the first convolution, which is followed by a permutation
    inner = name
    for module in _around(model, name):
        if _is_of(module, "torchvision") and type(module).__name__ == _SWIN:
            return inner.startswith(("features", "norm"))
        if getattr(module, "output_fmt", None) == "NHWC":  # timm
            return not inner.startswith("head")
        inner = inner.partition(".")[2]
    return False


def _is_of(module, package):
    """Return whether a module is of a package, or of a class derived from one of it."""
    origins = (cls.__module__.partition(".")[0] for cls in type(module).__mro__)
    return package in origins


def as_map(
    output: torch.Tensor, layout: Layout, image_size: tuple[int, int], name: str = "?"
) -> torch.Tensor:
    """Return the output of a layer as a map (b, C, h, w), or as it is if it is none.

    Parameters
    ----------
    output : Tensor
        Tokens (b, n, C) become a map; a map (b, h, w, C) is permuted if the layout says so.
    layout : Layout
    image_size : tuple (H, W)
        Of the images in pixels.
    name : str, default="?"
        Name of the layer, for messages.

    Raises
    ------
    LayerError
        The number of class tokens is not known, or the others form no map of the image.
    """
    if output.dim() == 4 and layout.is_channels_last:
        return output.permute(0, 3, 1, 2)
    if output.dim() != 3:
        return output
    n_prefix = n_dropped(output, layout, image_size, name)
    n_tokens = output.shape[1] - n_prefix
    grid = _grid(n_tokens, layout.patch_size, image_size)
    if grid is None:
        raise LayerError(
            f"layers names {name!r}, whose tokens form no map of an image of "
            f"{image_size[0]} x {image_size[1]} pixels. Got {output.shape[1]} tokens with "
            f"{n_prefix} of them before those of the patches. Set n_prefix_tokens to the "
            "number of class and register tokens, or choose another layer."
        )
    return output[:, n_prefix:].mT.unflatten(2, grid)


def n_dropped(
    output: torch.Tensor, layout: Layout, image_size: tuple[int, int], name: str = "?"
) -> int:
    """Return how many tokens of (b, n, C) stand for no place of the image.

    Parameters and errors are those of :func:`as_map`.
    """
    # Layers before the class token is added, such as an embedding of patches.
    if layout.patch_size and output.shape[1] == math.prod(
        _cells(layout.patch_size, image_size)
    ):
        return 0
    if layout.n_prefix_tokens is None:
        raise LayerError(
            f"layers names {name!r}, which returns {output.shape[1]} tokens for an image "
            f"of {image_size[0]} x {image_size[1]} pixels, and it is not known how many of "
            "them, at the beginning, are class or register tokens. Got "
            "n_prefix_tokens=None. Set it to their number, 0 if there are none."
        )
    return layout.n_prefix_tokens


def _cells(patch_size, image_size):
    return image_size[0] // patch_size[0], image_size[1] // patch_size[1]


def _grid(n_tokens, patch_size, image_size):
    """Return the rows and columns of tokens of an image, or None if there are none."""
    if patch_size and math.prod(grid := _cells(patch_size, image_size)) == n_tokens:
        return grid
    height, width = image_size
    # The grid of n tokens whose cells are nearest to squares, if they nearly are.
    grids = [(n, n_tokens // n) for n in range(1, n_tokens + 1) if n_tokens % n == 0]
    if not grids:
        return None
    rows, columns = min(
        grids, key=lambda grid: abs(math.log(grid[0] * width / (grid[1] * height)))
    )
    stride = math.sqrt(height * width / n_tokens)
    is_near = abs(rows - height / stride) < 1 and abs(columns - width / stride) < 1
    # Rows and columns are both rounded up, or down, from one stride.
    return (rows, columns) if is_near else None


def default_layers(
    model: nn.Module,
    in_shapes: Sequence[tuple[int, ...]],
    strides: tuple[int, ...],
    n_prefix_tokens: int | None = None,
) -> tuple[str, ...]:
    """Return the last layer of each stride, the outermost there is.

    Parameters
    ----------
    model : nn.Module
        Network in eval mode, on any device; it is not changed.
    in_shapes : list of tuple (C, H, W)
        Shapes of an image, of which the first that the network takes is used. For networks
        by name it is (3, 224, 224) whatever the images are, unless they take one size only.
    strides : tuple of int
        In pixels of the image. A stride that no layer has is left out; where there is none
        of them, the largest below is taken.
    n_prefix_tokens : int, default=None
        As of :func:`layout_of`.

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
    power of two. A Vision Transformer has one stride in all of its blocks: those after one
    half and three quarters of them take the place of the strides, or the last one for a
    single stride.
    """
    for in_shape in in_shapes:
        for outputs in layer_outputs(model, in_shape):
            if blocks := _blocks(model, outputs):
                n = len(blocks)
                places = (n,) if len(strides) == 1 else (n // 2, 3 * n // 4)
                return tuple(dict.fromkeys(blocks[max(p, 1) - 1] for p in places))
            found = _strided_layers(model, outputs, in_shape, n_prefix_tokens)
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


def _blocks(model, outputs):
    """Return the names of a transformer's blocks, which return tokens of one shape.

    They are the modules of the outermost list or sequence whose modules all do so.
    """
    shapes = {name: tuple(output.shape) for name, output in reversed(outputs)}
    lists = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList | nn.Sequential)
    ]
    for name in sorted(lists, key=lambda name: name.count(".") if name else -1):
        prefix = f"{name}." if name else ""
        blocks = [f"{prefix}{key}" for key, _ in model.get_submodule(name).named_children()]
        found = {shapes.get(block) for block in blocks}
        if len(blocks) > 1 and len(found) == 1:
            (shape,) = found
            if shape is not None and len(shape) == 3 and shape[0] == 1:
                return blocks
    return []


def _strided_layers(model, outputs, in_shape, n_prefix_tokens):
    """Return the name of the last of the outermost layers of each stride."""
    found: dict[int, str] = {}
    for name, output in outputs:
        if output.dim() not in (3, 4) or len(output) != 1:
            continue
        layout = layout_of(model, name, n_prefix_tokens)
        try:
            size = as_map(output, layout, in_shape[1:]).shape[2:]
        except LayerError:
            continue
        ratios = {_power_of_two(n / m) for n, m in zip(in_shape[1:], size, strict=True)}
        if len(ratios) == 1:
            (stride,) = ratios
            if stride not in found or name.count(".") <= found[stride].count("."):
                found[stride] = name
    return found


def _power_of_two(ratio):
    return 2 ** max(0, round(math.log2(ratio)))
