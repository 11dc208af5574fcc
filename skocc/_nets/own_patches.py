"""The user's own encoder of patches, in the place of Patch SVDD's for small patches."""

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from skocc._nets.backbones import BackboneEncoder
from skocc._nets.patch_encoder import cut_windows


class OwnPatchEncoder(nn.Module):
    """Encoder of small patches by a network of the user, one pass for each patch.

    It takes the place of :class:`~skocc._nets.patch_encoder.PatchEncoder`, whose base map
    it does not have: it is not known how the embeddings of overlapping patches could share
    their computation.

    Parameters
    ----------
    backbone : nn.Module, class or function
    weights : path or None
        Initial weights.
    patch_size : int
        Side of a patch in pixels.
    n_channels : int
        Channels of the images.

    Attributes
    ----------
    in_channels, embedding_dim : int
        Channels of the patches that the network takes, and features that it returns.
    """

    def __init__(
        self,
        backbone: Any,
        weights: str | os.PathLike | None,
        patch_size: int,
        n_channels: int,
    ):
        super().__init__()
        self.patch_size = patch_size
        self.encoder = BackboneEncoder(backbone, weights)
        self.embedding_dim = self.encoder.adapt((n_channels, patch_size, patch_size))
        self.in_channels = self.encoder.n_channels if n_channels == 1 else n_channels

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Map patches (b, C, patch_size, patch_size) to embeddings (b, D)."""
        return self.encoder(patches)

    def windows(
        self, images: torch.Tensor, row_starts: Sequence[int], column_starts: Sequence[int]
    ) -> torch.Tensor:
        """Return the embeddings of windows, one pass each, see `cut_windows`."""
        return cut_windows(self, images, self.patch_size, row_starts, column_starts)
