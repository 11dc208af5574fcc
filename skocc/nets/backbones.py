"""Networks of torchvision, or the user's own, as feature extractors.

torchvision is imported when a network is asked for by name: methods without a backbone
work where it is missing or broken.
"""

import copy
import os
from pathlib import Path

import torch
from torch import nn

# Smallest image a backbone halves five times without running out of pixels.
MIN_BACKBONE_SIZE = 32


class BackboneEncoder(nn.Module):
    """A network without its classifier, from images to one feature vector each.

    Parameters
    ----------
    backbone : str or nn.Module
        Name of a classification network of torchvision, built without its last linear
        layers; or a module, copied, whose output is flattened.
    weights : "imagenet", None, str or Path, default="imagenet"
        torchvision's weights (downloaded once, into torch's cache), random ones, or the
        file of a state dict (``.pt``, ``.pth`` or ``.safetensors``).

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
    ):
        super().__init__()
        if isinstance(backbone, nn.Module):
            self.body = copy.deepcopy(backbone)
            if weights not in ("imagenet", None):
                load_weights(self.body, weights)
        else:
            self.body = _build(backbone, weights)
            _remove_classifier(self.body, backbone)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Map (b, 3, H, W), or (b, 1, H, W) with grey repeated, to (b, d)."""
        if batch.shape[1] == 1:
            batch = batch.expand(-1, 3, -1, -1)
        return self.body(batch).flatten(1)


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
    if weights != "imagenet":
        model = models.get_model(name, weights=None)
        return model if weights is None else load_weights(model, weights)
    try:
        return models.get_model(name, weights="DEFAULT")
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
            f"weights={str(path)!r} is no file. Pass 'imagenet', None, or the path of a "
            ".pt, .pth or .safetensors state dict."
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


def _remove_classifier(model: nn.Module, name: str) -> None:
    """Replace the last linear layers by the identity."""
    for attribute in ("fc", "classifier", "heads", "head"):
        if isinstance(getattr(model, attribute, None), nn.Module):
            setattr(model, attribute, nn.Identity())
            return
    raise ValueError(
        f"backbone={name!r} has no classifier under a known name. Pass the network as an "
        "nn.Module that returns features (n, d)."
    )
