"""Trainable networks that also return what some of their layers compute."""

import os
import threading
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from skocc._nets.backbones import BackboneEncoder
from skocc._nets.layouts import as_map, default_layers, layout_of
from skocc._nets.own import subject

# What the layers of this thread's encoder are to keep: a dictionary, or nothing.
_current = threading.local()


class LayerEncoder(nn.Module):
    """Network of torchvision, or of the user, with the features of layers by name.

    Parameters
    ----------
    backbone, weights
        As of :class:`~skocc._nets.backbones.BackboneEncoder`.

    Notes
    -----
    Every module has a hook that keeps its features if they are asked for. Unlike a traced
    graph, this works for any ``forward``, in train mode as in eval mode. The forward pass
    ends with the last of the layers.
    """

    def __init__(self, backbone: Any, weights: str | os.PathLike | None):
        super().__init__()
        self.encoder = BackboneEncoder(backbone, weights)
        body = self.encoder.body
        for name, module in body.named_modules():
            if name:
                keep = partial(_keep, name=name, layout=layout_of(body, name))
                module.register_forward_hook(keep)

    def ordered(self, layers: Sequence[str | int] | None) -> tuple[str | int, ...]:
        """Return the layers to use, or raise a ValueError for names that do not exist.

        Parameters
        ----------
        layers : sequence of str or int, or None
            Names as in ``named_modules()``, and -1 for the output. None: the output of a
            network of the user; the default layers and the output of torchvision's.
        """
        body = self.encoder.body
        if layers is None:
            if self.encoder.is_own:
                return (-1,)
            return (*default_layers(body, [(3, 224, 224)], (8, 16)), -1)
        names = [name for name, _ in body.named_modules() if name]
        is_known = all(layer == -1 or layer in names for layer in layers)
        if not layers or not is_known or len(set(layers)) < len(layers):
            raise ValueError(
                "layers must name modules of the backbone, each once, or its output by -1. "
                f"Got {layers!r} of {subject(body)}. Use names of its modules, among them "
                f"{', '.join(map(repr, names[:24]))}."
            )
        return tuple(layers)

    def adapt(self, in_shape: tuple[int, ...]) -> None:
        """Choose the channels that the network takes, see `BackboneEncoder`."""
        self.encoder.adapt(in_shape)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Map samples to features (b, d)."""
        return self.encoder(batch)

    def layer_features(
        self, batch: torch.Tensor, layers: tuple[str | int, ...]
    ) -> list[torch.Tensor]:
        """Return the features of some layers; maps are averaged over space.

        Parameters
        ----------
        batch : Tensor of shape (b, C, ...) or (b, d)
        layers : tuple of str and int
            As of :meth:`ordered`.

        Returns
        -------
        features : list of Tensor of shape (b, d_j)

        Raises
        ------
        ValueError
            A layer does not run, or returns no features.
        """
        kept: dict[str | int, Any] = dict.fromkeys(layers)
        _current.kept = kept
        try:
            output = self.encoder(batch)
            if -1 in kept:
                kept[-1] = output
        except _AllKept:
            pass
        finally:
            del _current.kept
        for layer, features in kept.items():
            if not isinstance(features, torch.Tensor) or len(features) != len(batch):
                raise ValueError(
                    f"layers names {layer!r}, which gives no features of {len(batch)} "
                    f"samples in {subject(self.encoder.body)}. Got "
                    f"{getattr(features, 'shape', features)}. Choose a layer that runs "
                    "once and returns maps (b, C, h, w), tokens (b, n, C) or vectors."
                )
        return [kept[layer] for layer in layers]


class _AllKept(BaseException):
    """Ends a forward pass after its last layer. No code of a user catches it by chance."""


def _keep(module, args, output, *, name, layout):
    """Keep the features of a layer if they are asked for, at its first use."""
    kept = getattr(_current, "kept", None)
    if kept is None or name not in kept or kept[name] is not None:
        return
    kept[name] = _features(output, layout)
    if all(value is not None for value in kept.values()):
        raise _AllKept


def _features(output, layout):
    """Return features (b, d) of the output of a layer, or what cannot give any."""
    if not isinstance(output, torch.Tensor):
        return type(output).__name__
    output = as_map(output, layout)
    if output.dim() == 3:  # tokens
        return output.mean(dim=1)
    return output.flatten(2).mean(dim=2) if output.dim() > 3 else output
