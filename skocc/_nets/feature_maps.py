"""From the maps of several layers to one vector for each cell of a grid, or one in all."""

import os
from collections import OrderedDict
from collections.abc import Sequence
from typing import cast

import torch
from torch import nn
from torch.nn import functional

from skocc._nets.backbones import FeatureMaps
from skocc._nets.normalization import ImageNetNormalization

# Cells a side of the neighbourhood that makes a cell's features.
_NEIGHBORHOOD = 3


class FrozenFeatures(nn.Module):
    """Layers of a frozen network, and how they are joined.

    Parameters
    ----------
    join : nn.Module
        From the maps of the layers to one tensor, such as :class:`JoinedMaps`.
    backbone, layers, weights
        As for :class:`~skocc._nets.backbones.FeatureMaps`.
    normalization : {"imagenet"} or None, default=None
        Whether ImageNet's mean colour is subtracted before.

    Attributes
    ----------
    extract : nn.Sequential
        From images to the maps of the layers. This is what takes the time.
    join : nn.Module
        As given.
    """

    def __init__(
        self,
        join: nn.Module,
        backbone: str | nn.Module,
        layers: Sequence[str],
        weights: str | os.PathLike | None = "imagenet",
        normalization: str | None = None,
    ):
        super().__init__()
        normalize = nn.Identity() if normalization is None else ImageNetNormalization()
        maps = FeatureMaps(backbone, layers, weights)
        self.extract = nn.Sequential(OrderedDict(normalize=normalize, maps=maps))
        self.join = join

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Map (b, 3, H, W), or (b, 1, H, W) with grey repeated, to what `join` gives."""
        return self.join(self.extract(batch))

    def grid(self, height: int, width: int) -> tuple[int, int, int]:
        """Return the features of a cell, and rows and columns of the grid of cells.

        Raises
        ------
        ValueError
            The network does not take images of this size, or a layer gives no map.
        """
        maps = cast(FeatureMaps, self.extract.maps)
        channels, heights, widths = zip(*maps.shapes(height, width), strict=True)
        join = cast(JoinedMaps | LocallyAwarePatches, self.join)
        return join.n_features(channels), max(heights), max(widths)


class JoinedMaps(nn.Module):
    """Averages over 3 x 3 cells, brought to one grid, side by side.

    Parameters
    ----------
    interpolation : {"average", "bilinear"}, default="average"
        How a map is brought to the grid: by adaptive average pooling, which repeats or
        averages neighbours; or by bilinear interpolation.

    Notes
    -----
    The averages are over whole neighbourhoods only, without padding: a map of 28 x 28 cells
    has 26 x 26. A map of fewer than three cells a side is averaged over as many as it has.
    The grid is that of the largest map before this.
    """

    def __init__(self, interpolation: str = "average"):
        super().__init__()
        self.interpolation = interpolation

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Map (b, c, h, w), one a layer, to (b, sum of c, largest h, largest w)."""
        grid = largest_grid(maps)
        pooled = [
            functional.avg_pool2d(
                m, tuple(min(_NEIGHBORHOOD, n) for n in m.shape[2:]), stride=1
            )
            for m in maps
        ]
        if self.interpolation == "bilinear":
            return torch.cat([_bilinear(m, grid) for m in pooled], dim=1)
        return torch.cat([functional.adaptive_avg_pool2d(m, grid) for m in pooled], dim=1)

    def n_features(self, channels: Sequence[int]) -> int:
        """Return how many features a cell has, for layers with so many channels."""
        return sum(channels)

    def extra_repr(self) -> str:
        """Return the settings."""
        return f"interpolation={self.interpolation!r}"


class LocallyAwarePatches(nn.Module):
    """PatchCore's features: 3 x 3 neighbourhoods, kept apart, pooled to one length.

    Parameters
    ----------
    dim : int, default=1024
        Length that the neighbourhoods of each layer are pooled to, and then those of all
        layers together.

    Notes
    -----
    As in PatchCore's code, the neighbourhoods are padded with zeros, those of the smaller
    maps are brought to the grid of the largest by bilinear interpolation, and pooling means
    averages of entries that are next to each other, in the order of channels.
    """

    def __init__(self, dim: int = 1024):
        super().__init__()
        self.dim = dim

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Map (b, c, h, w), one a layer, to (b, dim, largest h, largest w)."""
        grid = largest_grid(maps)
        # Pooling and interpolation are linear and on different axes: pooling comes first,
        # where the map is small.
        layers = [_bilinear(self._pool(_neighborhoods(m)), grid) for m in maps]
        return self._pool(torch.cat(layers, dim=1))

    def _pool(self, values):
        """Pool the channels of (b, c, h, w) to `dim`."""
        rows = values.permute(0, 2, 3, 1)
        pooled = functional.adaptive_avg_pool1d(rows.flatten(0, 1), self.dim)
        return pooled.unflatten(0, rows.shape[:2]).permute(0, 3, 1, 2)

    def n_features(self, channels: Sequence[int]) -> int:
        """Return how many features a cell has, for layers with so many channels."""
        return self.dim

    def extra_repr(self) -> str:
        """Return the settings."""
        return f"dim={self.dim}"


class GlobalAverages(nn.Module):
    """The mean of each channel over the map, all layers side by side."""

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Map (b, c, h, w) or (b, c), one a layer, to (b, sum of c)."""
        means = [m.mean(dim=(2, 3)) if m.dim() == 4 else m for m in maps]
        return torch.cat(means, dim=1)


def largest_grid(maps: Sequence[torch.Tensor]) -> tuple[int, int]:
    """Return the largest height and the largest width among maps (b, c, h, w)."""
    return max(m.shape[2] for m in maps), max(m.shape[3] for m in maps)


def _bilinear(values, grid):
    if values.shape[2:] == grid:
        return values
    return functional.interpolate(values, grid, mode="bilinear", align_corners=False)


def _neighborhoods(values):
    """Return each cell's 3 x 3 neighbourhood as its channels, (b, 9 c, h, w)."""
    padding = _NEIGHBORHOOD // 2
    columns = functional.unfold(values, _NEIGHBORHOOD, padding=padding)
    return columns.unflatten(2, values.shape[2:])
