"""Trainable networks that also return what some of their layers compute."""

import os
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from skocc._nets.backbones import BackboneEncoder
from skocc._nets.hooks import keep, keep_layers
from skocc._nets.layouts import default_layers, layout_of
from skocc._nets.own import subject


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
                reduce = partial(_features, layout=layout_of(body, name))
                hook = partial(keep, name=name, reduce=reduce)
                module.register_forward_hook(hook)

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
        # Not len(batch): in a graph that is exported, the number is a symbol.
        n_samples = batch.shape[0]
        kept = keep_layers(lambda: self.encoder(batch), layers)
        for layer, features in kept.items():
            if not isinstance(features, torch.Tensor) or features.shape[0] != n_samples:
                raise ValueError(
                    f"layers names {layer!r}, which gives no features of {n_samples} "
                    f"samples in {subject(self.encoder.body)}. Got "
                    f"{getattr(features, 'shape', features)}. Choose a layer that runs "
                    "once and returns maps (b, C, h, w), tokens (b, n, C) or vectors."
                )
        return [kept[layer] for layer in layers]


def _features(output, layout):
    """Return features (b, d) of the output of a layer, or what cannot give any."""
    if not isinstance(output, torch.Tensor):
        return type(output).__name__
    if output.dim() == 3:  # tokens
        if layout.n_prefix_tokens is None:
            return output.mean(dim=1)
        output = output[:, layout.n_prefix_tokens :].mT.unsqueeze(3)
    if output.dim() == 4 and layout.is_channels_last:
        output = output.permute(0, 3, 1, 2)
    return output.flatten(2).mean(dim=2) if output.dim() > 3 else output
