"""The user's own encoder of patches, in the place of Patch SVDD's for small patches."""

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from skocc._nets.backbones import BackboneEncoder

# Numbers of the patches that are embedded at once, 64 MiB in float32.
_BLOCK_NUMBERS = 2**24


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
        """Compute the embeddings (b, D, rows, columns) of the windows on a grid.

        Parameters
        ----------
        images : Tensor of shape (b, C, H, W)
        row_starts, column_starts : sequence of int
            First pixel rows and columns of the windows, in any order.
        """
        side = self.patch_size
        rows = torch.tensor(row_starts, device=images.device)
        columns = torch.tensor(column_starts, device=images.device)
        # (b, C, rows, columns, side, side), without a copy.
        views = images.unfold(2, side, 1).unfold(3, side, 1)
        # In an exported graph the number of images is a symbol, and blocks are fixed.
        n_images = 1 if torch.compiler.is_compiling() else len(images)
        n_numbers = n_images * images.shape[1] * side**2 * len(columns)
        n_rows = max(1, _BLOCK_NUMBERS // n_numbers)
        bands = []
        for block in rows.split(n_rows):
            patches = views[:, :, block][:, :, :, columns].permute(0, 2, 3, 1, 4, 5)
            z = self.encoder(patches.flatten(0, 2))
            bands.append(z.unflatten(0, patches.shape[:3]))
        return torch.cat(bands, dim=1).permute(0, 3, 1, 2)
