"""Modules that join the maps of several layers to one vector per cell, or per image."""

import os
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional

from skocc._nets.backbones import FeatureMaps
from skocc._nets.named import published_of
from skocc._nets.normalization import ImageNetNormalization
from skocc._nets.own import channels_first, is_own, own_module

# Side, in cells, of the neighborhood that determines a cell's features.
_NEIGHBORHOOD = 3


class FrozenFeatures(nn.Module):
    """Frozen network whose layers are joined to one tensor.

    Parameters
    ----------
    join : nn.Module
        Module that maps the layers' maps to one tensor, such as :class:`JoinedMaps`.
    backbone, layers, weights
        As in :class:`~skocc._nets.backbones.FeatureMaps`.
    normalization : {"imagenet", "weights"} or None, default=None
        Whether the images are first normalized by ImageNet's mean and standard deviation,
        or by those of the images that the weights were trained on.
    image_shape : tuple (H, W, C), default=None
        Shape of the images, by which the channels of a network of the user are chosen, and
        the size of networks that take one size only.
    strides : tuple of int, default=(8, 16)
        Strides of the layers if `layers` is None.
    n_prefix_tokens : int, default=None
        As in :class:`~skocc._nets.backbones.FeatureMaps`.

    Attributes
    ----------
    extract : nn.Sequential
        Module that maps images to the maps of the layers. It takes most of the time.
    join : nn.Module
        The parameter `join`.
    """

    def __init__(
        self,
        join: nn.Module,
        backbone: Any,
        layers: Sequence[str] | None,
        weights: str | os.PathLike | None = "imagenet",
        normalization: str | None = None,
        image_shape: tuple[int, int, int] | None = None,
        strides: tuple[int, ...] = (8, 16),
        n_prefix_tokens: int | None = None,
    ):
        super().__init__()
        normalize: nn.Module = nn.Identity()
        if normalization is not None:
            normalize = ImageNetNormalization()  # which makes three channels of a gray one
            if image_shape is not None:
                image_shape = (*image_shape[:2], 3)
        if normalization == "weights":
            if is_own(backbone):
                backbone = own_module(backbone, "backbone")  # of a function, to be asked
            published = published_of(backbone, weights, "normalization='weights'")
            normalize = ImageNetNormalization(published.mean, published.std)
        in_shape = None if image_shape is None else channels_first(image_shape)
        maps = FeatureMaps(backbone, layers, weights, in_shape, strides, n_prefix_tokens)
        self.extract = nn.Sequential(OrderedDict(normalize=normalize, maps=maps))
        self.join = join

    @classmethod
    def of(cls, estimator, join, weights, image_shape, **options) -> "FrozenFeatures":
        """Return the network that the parameters of an estimator describe.

        `weights` is that of the estimator, or None where they are loaded later.
        """
        return cls(
            join,
            estimator.backbone,
            estimator.layers,
            weights,
            estimator.normalization,
            image_shape,
            n_prefix_tokens=estimator.n_prefix_tokens,
            **options,
        )

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Map images (b, C, H, W) to the output of `join`."""
        return self.join(self.extract(batch))

    def grid(self, height: int, width: int) -> tuple[int, int, int]:
        """Return the number of features of a cell, and of rows and columns of the grid.

        Raises
        ------
        ValueError
            The network does not accept images of this size, or a layer returns no map.
        """
        maps = cast(FeatureMaps, self.extract.maps)
        channels, heights, widths = zip(*maps.shapes(height, width), strict=True)
        join = cast(JoinedMaps | LocallyAwarePatches | UnitLength, self.join)
        return join.n_features(channels), max(heights), max(widths)


class JoinedMaps(nn.Module):
    """Module that averages maps over 3 x 3 cells, resizes and concatenates them.

    Parameters
    ----------
    interpolation : {"average", "bilinear"}, default="average"
        How a map is resized to the grid: by adaptive average pooling, which repeats or
        averages cells, or by bilinear interpolation.
    averages : bool, default=True
        Whether neighborhoods are averaged. Otherwise, cells are only resized.

    Notes
    -----
    The averages are over whole neighborhoods only, without padding: 28 x 28 cells become
    26 x 26. A map with fewer than three cells per side is averaged over all of them. The
    grid is that of the largest map before the averages.
    """

    def __init__(self, interpolation: str = "average", averages: bool = True):
        super().__init__()
        self.interpolation = interpolation
        self.averages = averages

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Map (b, c, h, w) per layer to (b, sum of c, largest h, largest w)."""
        grid, pooled = largest_grid(maps), maps
        if self.averages:
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
        """Return the number of features of a cell, for the channels of the layers."""
        return sum(channels)

    def extra_repr(self) -> str:
        """Return the settings."""
        averages = "" if self.averages else ", averages=False"
        return f"interpolation={self.interpolation!r}{averages}"


class LocallyAwarePatches(nn.Module):
    """PatchCore's locally aware patch features.

    The 3 x 3 neighborhoods of a cell are not averaged, but concatenated and pooled to one
    length.

    Parameters
    ----------
    dim : int, default=1024
        Length to which the neighborhoods of each layer are pooled, and then those of all
        layers together.

    Notes
    -----
    As in PatchCore's code, the neighborhoods are padded with zeros, those of the smaller
    maps are resized to the grid of the largest map by bilinear interpolation, and pooling
    averages adjacent entries, in the order of the channels.
    """

    def __init__(self, dim: int = 1024):
        super().__init__()
        self.dim = dim

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Map (b, c, h, w) per layer to (b, dim, largest h, largest w)."""
        grid = largest_grid(maps)
        # Pooling and interpolation are linear and on different axes, so pooling can come
        # first, while the map is small.
        layers = [_bilinear(self._pool(_neighborhoods(m)), grid) for m in maps]
        return self._pool(torch.cat(layers, dim=1))

    def _pool(self, values):
        """Pool the channels of (b, c, h, w) to `dim`."""
        rows = values.permute(0, 2, 3, 1)
        pooled = functional.adaptive_avg_pool1d(rows.flatten(0, 1), self.dim)
        return pooled.unflatten(0, rows.shape[:2]).permute(0, 3, 1, 2)

    def n_features(self, channels: Sequence[int]) -> int:
        """Return the number of features of a cell, for the channels of the layers."""
        return self.dim

    def extra_repr(self) -> str:
        """Return the settings."""
        return f"dim={self.dim}"


class UnitLength(nn.Module):
    """Module that scales the features of each cell to length 1.

    Parameters
    ----------
    join : nn.Module
        Module that joins maps, such as :class:`JoinedMaps`.
    """

    def __init__(self, join: "JoinedMaps | LocallyAwarePatches"):
        super().__init__()
        self.join = join

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Map (b, c, h, w) per layer to what `join` returns, of length 1 along axis 1."""
        return functional.normalize(self.join(maps), dim=1)

    def n_features(self, channels: Sequence[int]) -> int:
        """Return the number of features of a cell, for the channels of the layers."""
        return self.join.n_features(channels)


class GlobalAverages(nn.Module):
    """Module that averages each channel over the map, and concatenates all layers."""

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Map (b, c, h, w) or (b, c) per layer to (b, sum of c)."""
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
    """Return each cell's 3 x 3 neighborhood as its channels, (b, 9 c, h, w)."""
    padding = _NEIGHBORHOOD // 2
    columns = functional.unfold(values, _NEIGHBORHOOD, padding=padding)
    return columns.unflatten(2, values.shape[2:])
