"""Where Patch SVDD cuts patches at its two scales, and the networks that embed them."""

from typing import Any, NamedTuple

import torch
from torch import nn

from skocc._nets.normalization import LocalContrastNormalization, MeanSubtraction
from skocc._nets.own_patches import OwnPatchEncoder
from skocc._nets.patch_encoder import HierarchicalPatchEncoder, PositionClassifier
from skocc._samples.windows import window_starts

# Numbers of the embeddings that are computed at once, 32 MiB in float32.
_BLOCK_NUMBERS = 2**23


class PatchScales(NamedTuple):
    """Sides of small and of big patches, and the pixels from one to the next.

    Attributes
    ----------
    sides, strides : tuple (small, big)
    """

    sides: tuple[int, int]
    strides: tuple[int, int]

    @classmethod
    def of(cls, patch_size: int, strides: Any) -> "PatchScales":
        """Return the scales of two parameters of :class:`~skocc.PatchSVDD`."""
        # Sums and products of NumPy's small integers overflow.
        size = int(patch_size)
        # 4 and 16 for patches of 64 pixels, as published.
        small, big = strides or (max(1, size // 16), size // 4)
        return cls((size // 2, size), (int(small), int(big)))

    def grids(self, image_size: tuple[int, int]) -> list[list[list[int]]]:
        """Return where the rows and columns of small and of big patches start."""
        return [
            [window_starts(n, side, stride) for n in image_size]
            for side, stride in zip(self.sides, self.strides, strict=True)
        ]

    def n_vectors(self, n_images: int, image_size: tuple[int, int]) -> list[int]:
        """Return how many small and how many big patches images have."""
        grids = self.grids(image_size)
        return [n_images * len(rows) * len(columns) for rows, columns in grids]


def patch_networks(
    image_shape: tuple[int, int, int],
    patch_size: int,
    *,
    backbone: Any,
    weights: Any,
    embedding_dim: int,
    normalization: str,
    train_head: bool,
) -> nn.ModuleDict:
    """Return normalization, encoder and position classifiers.

    Parameters
    ----------
    image_shape : tuple (H, W, C)
    patch_size : int
        Side of the big patches in pixels.
    backbone, weights, embedding_dim, normalization, train_head
        As of :class:`~skocc.PatchSVDD`. `weights` are those of the backbone, if there is
        one.

    Returns
    -------
    network : ModuleDict
        `network.encoder` has the attributes `in_channels` and `embedding_dim`.
    """
    height, width, n_channels = image_shape
    if backbone is None:
        in_channels = 3 if n_channels == 1 else n_channels
        encoder = HierarchicalPatchEncoder(int(embedding_dim), patch_size, in_channels)
    else:
        small = OwnPatchEncoder(backbone, weights, patch_size // 2, n_channels)
        in_channels = small.in_channels
        encoder = HierarchicalPatchEncoder(
            small.embedding_dim, patch_size, in_channels, small
        )
    contrast: nn.Module = nn.Identity()
    if normalization == "local_contrast":
        contrast = LocalContrastNormalization((height, width), min(height, width) / 16)
    mean = MeanSubtraction(torch.zeros(n_channels, height, width), in_channels)
    dim = encoder.embedding_dim
    return nn.ModuleDict(
        {
            "normalize": nn.Sequential(contrast, mean),
            "encoder": encoder,
            "classify_small": PositionClassifier(dim, train_head),
            "classify_big": PositionClassifier(dim, train_head),
        }
    )


def embed_patches(
    encoder: HierarchicalPatchEncoder, images: torch.Tensor, scales: PatchScales
) -> list[torch.Tensor]:
    """Return the embeddings (b, D, rows, columns) of small and of big patches.

    Parameters
    ----------
    encoder : HierarchicalPatchEncoder
    images : Tensor of shape (b, C, H, W)
        Normalized images.
    scales : PatchScales
    """
    height, width = images.shape[2:]
    grids = scales.grids((height, width))
    # Each big patch is made of four small ones.
    n_rows, n_columns = (
        len(small) + 2 * len(big) for small, big in zip(*grids, strict=True)
    )
    n_at_once = max(1, _BLOCK_NUMBERS // (n_rows * n_columns * encoder.embedding_dim))
    blocks = [
        encoder.dense_scales(block, *scales.strides) for block in images.split(n_at_once)
    ]
    # Queries and bank are rounded alike: an image in the bank has distance 0.
    return [torch.cat(z).float() for z in zip(*blocks, strict=True)]
