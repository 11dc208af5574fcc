"""Where Patch SVDD cuts patches at its two scales, and the networks that embed them."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from skocc._engine.batches import ImageBatches
from skocc._engine.inference import stream_batches
from skocc._nets.normalization import LocalContrastNormalization, MeanSubtraction
from skocc._nets.own_patches import OwnPatchEncoder
from skocc._nets.patch_encoder import (
    HierarchicalPatchEncoder,
    PositionClassifier,
    SeparatePatchEncoders,
    WholePatchEncoder,
    patch_encoder,
)
from skocc._ops.memory_bank import MemoryBank
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
    detector: Any, weights: Any, image_shape: tuple[int, int, int]
) -> nn.ModuleDict:
    """Return normalization, encoder and position classifiers.

    Parameters
    ----------
    detector : PatchSVDD
        Its parameters are used.
    weights : path or None
        Those of the backbone, if there is one.
    image_shape : tuple (H, W, C)

    Returns
    -------
    network : ModuleDict
        `network.encoder` has the attributes `in_channels` and `embedding_dim`.
    """
    height, width, n_channels = image_shape
    side, weight_init = int(detector.patch_size), detector.weight_init
    in_channels, dim = 3 if n_channels == 1 else n_channels, int(detector.embedding_dim)
    small: Any = None
    if detector.backbone is not None:
        small = OwnPatchEncoder(detector.backbone, weights, side // 2, n_channels)
        in_channels, dim = small.in_channels, small.embedding_dim
    if detector.hierarchical:
        encoder: Any = HierarchicalPatchEncoder(dim, side, in_channels, small, weight_init)
    elif small is None:
        small = patch_encoder(dim, side // 2, in_channels, weight_init)
        big: nn.Module = WholePatchEncoder(dim, side, in_channels, weight_init)
        encoder = SeparatePatchEncoders(small, big)
    else:
        big = OwnPatchEncoder(detector.backbone, weights, side, n_channels)
        encoder = SeparatePatchEncoders(small, big)
    contrast: nn.Module = nn.Identity()
    if detector.normalization == "local_contrast":
        contrast = LocalContrastNormalization((height, width), min(height, width) / 16)
    mean = MeanSubtraction(torch.zeros(n_channels, height, width), in_channels)
    train_head = detector.train_head
    return nn.ModuleDict(
        {
            "normalize": nn.Sequential(contrast, mean),
            "encoder": encoder,
            "classify_small": PositionClassifier(dim, train_head),
            "classify_big": PositionClassifier(dim, train_head),
        }
    )


def learn_mean_image(network: Any, images: Any, batch_size: int) -> None:
    """Set the image that is subtracted from each to the mean of the training images.

    Parameters
    ----------
    network : torch.nn.ModuleDict
        As of `patch_networks`, on the CPU.
    images : image source
    batch_size : int
    """
    contrast, center = network["normalize"].children()
    batches = ImageBatches(images, batch_size, device=torch.device("cpu"))

    def sums_of(batch):
        return contrast(batch).double().sum(0)

    sums = stream_batches(contrast, batches, sums_of, stage="mean image")
    center.mean.copy_(sum(sums) / len(images))


def centers_of(means: Sequence[torch.Tensor]) -> nn.ParameterList:
    """Return centers (D,) of small and of big patches as weights that are not trained."""
    return nn.ParameterList([nn.Parameter(mean, requires_grad=False) for mean in means])


def mean_embeddings(
    network: nn.ModuleDict,
    batches: Iterable,
    embed: Callable[[torch.Tensor], Sequence[torch.Tensor]],
) -> nn.ParameterList:
    """Return the mean embeddings of all small and of all big patches (Eq. 3).

    Parameters
    ----------
    network : ModuleDict
    batches : iterable with a length
        Batches of images.
    embed : callable
        Function from a batch to the embeddings (m, D) of small and of big patches.
    """

    def sums(batch):
        return [(z.sum(0, dtype=torch.float64), len(z)) for z in embed(batch)]

    parts = [*zip(*stream_batches(network, batches, sums, stage="centers"), strict=True)]
    totals = [[sum(column) for column in zip(*scale, strict=True)] for scale in parts]
    return centers_of([(total / n).float() for total, n in totals])


def center_banks(centers: Iterable[torch.Tensor], n_images: int) -> list[MemoryBank]:
    """Return memory banks of a center each, which belongs to no training image."""
    # No image has a digest of zeros: all are compared with the center.
    images, digests = np.zeros(1, np.int32), np.zeros((n_images, 16), np.uint8)
    return [
        MemoryBank(center.detach().cpu().numpy()[None], images, digests)
        for center in centers
    ]


def embed_patches(
    encoder: Any, images: torch.Tensor, scales: PatchScales
) -> list[torch.Tensor]:
    """Return the embeddings (b, D, rows, columns) of small and of big patches.

    Parameters
    ----------
    encoder : HierarchicalPatchEncoder or SeparatePatchEncoders
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
