"""Networks that take images of one size only, brought to that of the images."""

from inspect import signature
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.nn import functional


def set_image_size(model: Any, height: int, width: int) -> bool:
    """Make a network take images of a size, if it is one that takes one size only.

    Parameters
    ----------
    model : nn.Module
        Network that is changed in place: position embeddings are interpolated. Those of
        torchvision's Vision Transformer and of transformers of timm are known; others take
        any size, or cannot be changed.
    height, width : int
        Size of the images in pixels.

    Returns
    -------
    is_fixed : bool
        Whether it takes images of this size only.

    Raises
    ------
    ValueError
        The network cannot take such images, for example because its patches do not fit.
    """
    try:
        if _is_vit_of_torchvision(model):
            _set_vit(model, height, width)
            return True
        if _is_fixed_of_timm(model):
            if tuple(model.patch_embed.img_size) != (height, width):
                model.set_input_size(img_size=(height, width), **_windows(model))
            return True
    except Exception as error:
        raise ValueError(
            f"backbone: this {type(model).__name__} cannot take images of {height} x "
            f"{width} pixels: {str(error)[:300]}. Set image_size to a multiple of its "
            "patches, or to the size it was made for."
        ) from error
    return False


def _is_vit_of_torchvision(model):
    origin = type(model).__module__
    return type(model).__name__ == "VisionTransformer" and origin.startswith("torchvision.")


def _is_fixed_of_timm(model):
    return (
        hasattr(model, "set_input_size")
        and getattr(getattr(model, "patch_embed", None), "img_size", None) is not None
        and not getattr(model, "dynamic_img_size", False)
    )


def _windows(model):
    """Return the windows of a Swin Transformer, which timm would scale with the image."""
    is_swin = type(model).__name__.startswith("SwinTransformer")
    if not is_swin or "window_size" not in signature(model.set_input_size).parameters:
        return {}
    sizes = [getattr(module, "window_size", None) for module in model.modules()]
    sizes = [size for size in sizes if isinstance(size, tuple)]
    return {"window_size": max(sizes)} if sizes else {}


def _set_vit(model, height, width):
    old, patch = model.image_size // model.patch_size, model.patch_size
    if (height, width) == (model.image_size,) * 2:
        return
    if height % patch or width % patch:
        raise ValueError(f"its patches have {patch} x {patch} pixels")
    embedding = model.encoder.pos_embedding  # (1, 1 + n, d), of the class token first
    patches = embedding[:, 1:].detach().mT.unflatten(2, (old, old))
    # As torchvision's own function for weights of another size does it.
    patches = functional.interpolate(
        patches, (height // patch, width // patch), mode="bicubic", align_corners=True
    )
    values = torch.cat([embedding[:, :1].detach(), patches.flatten(2).mT], dim=1)
    model.encoder.pos_embedding = nn.Parameter(values, embedding.requires_grad)
    model.seq_length = values.shape[1]
    if height == width:
        model.image_size = height
    else:  # its check knows squares only; a traced graph keeps what is called here
        model._process_input = MethodType(_process_input, model)


def _process_input(model, images):
    """Map images to tokens, as torchvision's method does, of any size."""
    return model.conv_proj(images).flatten(2).mT
