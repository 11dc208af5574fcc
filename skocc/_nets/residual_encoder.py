"""The residual encoder of MOCCA for larger images and patches, and its decoder."""

import math
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

# Channels of the first convolution and of the three blocks that halve the map.
RESIDUAL_WIDTHS = (32, 64, 128, 256)
# Number of features of the fully connected layers, and of a selector's output.
_HIDDEN = 256
_SELECTED = 128
# Side of the grid to which a selector pools maps.
_SELECTOR_GRID = 8


class ResidualBlock(nn.Module):
    """Residual block of two 3x3 convolutions with an identity skip.

    Parameters
    ----------
    width : int
        Number of channels of input and output.
    """

    def __init__(self, width: int):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.norm2 = nn.BatchNorm2d(width)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Map (b, width, H, W) to the same shape."""
        maps = functional.leaky_relu(self.norm1(self.conv1(batch)))
        return functional.leaky_relu(batch + self.norm2(self.conv2(maps)))


class DownBlock(nn.Module):
    """Residual block: two 3x3 convolutions, the first of stride 2, and a 1x1 skip.

    Parameters
    ----------
    in_channels, out_channels : int

    Notes
    -----
    The 1x1 convolution of stride 2 is computed with stride 1 on every second pixel, which
    gives the same result. On processors with AVX2 and nothing newer, torch (2.4 to 2.14 at
    least) corrupts its memory in the weight gradient of the convolution with stride 2, for
    few channels, and the process crashes.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(
            in_channels, out_channels, 3, stride=2, padding=1, bias=False
        )
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.skip = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.skip_norm = nn.BatchNorm2d(out_channels)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Map (b, C_in, H, W) to (b, C_out, H / 2, W / 2), odd sizes rounded up."""
        maps = functional.leaky_relu(self.norm1(self.conv1(batch)))
        maps = self.norm2(self.conv2(maps))
        skipped = self.skip(batch[:, :, ::2, ::2])
        return functional.leaky_relu(maps + self.skip_norm(skipped))


class UpBlock(nn.Module):
    """Residual block: a transposed 5x5 and a 3x3 convolution, and a transposed 1x1 skip.

    Parameters
    ----------
    in_channels, out_channels : int

    Notes
    -----
    The 5x5 convolution and the skip have a stride of 2. The skip is computed with stride 1,
    and its pixels are interleaved with zeros, for the reason given in :class:`DownBlock`.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv1 = nn.ConvTranspose2d(
            in_channels, out_channels, 5, stride=2, padding=2, output_padding=1, bias=False
        )
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.skip = nn.ConvTranspose2d(in_channels, out_channels, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.skip_norm = nn.BatchNorm2d(out_channels)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Map (b, C_in, H, W) to (b, C_out, 2 H, 2 W)."""
        maps = functional.leaky_relu(self.norm1(self.conv1(batch)))
        maps = self.norm2(self.conv2(maps))
        skipped = torch.zeros_like(maps)
        skipped[:, :, ::2, ::2] = self.skip(batch)
        return functional.leaky_relu(maps + self.skip_norm(skipped))


class Selector(nn.Sequential):
    """Small network that selects features of a layer for its sphere.

    Parameters
    ----------
    n_features : int
        Number of channels of a map, or of entries of a vector.
    is_map : bool
        Whether the input is a map. A map is first max-pooled to 8x8, and a 1x1 convolution
        reduces it to one channel.
    """

    def __init__(self, n_features: int, is_map: bool):
        head = []
        if is_map:
            head = [nn.AdaptiveMaxPool2d(_SELECTOR_GRID), nn.Conv2d(n_features, 1, 1)]
            n_features = _SELECTOR_GRID**2
        super().__init__(
            *head,
            nn.Flatten(),
            nn.Linear(n_features, _HIDDEN),
            nn.BatchNorm1d(_HIDDEN),
            nn.ReLU(),
            nn.Linear(_HIDDEN, _SELECTED),
        )


class ResidualEncoder(nn.Module):
    """Encoder of residual blocks for larger images.

    It consists of a convolution, a residual block, three blocks that halve the map, and two
    linear layers.

    Parameters
    ----------
    in_shape : tuple (C, H, W)
        Shape of one image; H and W at least 3.
    latent_dim : int, default=128
        Size of the code.
    selectors : bool, default=False
        Whether a separate small network computes the features of each layer, 128 numbers.
        If not, maps are averaged over space, and vectors are used unchanged.
    widths : tuple of four int, default=(32, 64, 128, 256)
        Channels of the first convolution, which the residual block keeps, and of the
        blocks that halve the map.

    Attributes
    ----------
    n_layers : int
        Eight layers: the convolution (0), the blocks (1 to 4), the hidden linear layer
        after BatchNorm and activation (5), the last linear layer (6) and its sigmoid (7).
    """

    n_layers = 8

    def __init__(
        self,
        in_shape: tuple[int, int, int],
        latent_dim: int = 128,
        selectors: bool = False,
        widths: tuple[int, ...] = RESIDUAL_WIDTHS,
    ):
        super().__init__()
        channels, *size = in_shape
        # The convolution without padding removes a pixel on each side; each block halves.
        cells = math.prod(-(-(n - 2) // 8) for n in size)
        self.conv = nn.Conv2d(channels, widths[0], 3, bias=False)
        self.residual = ResidualBlock(widths[0])
        self.down = nn.ModuleList(DownBlock(a, b) for a, b in pairwise(widths))
        self.hidden = nn.Linear(widths[-1] * cells, _HIDDEN)
        self.norm = nn.BatchNorm1d(_HIDDEN)
        self.code = nn.Linear(_HIDDEN, latent_dim)
        self.selectors = None
        if selectors:
            maps = [(width, True) for width in (widths[0], *widths)]
            vectors = [(_HIDDEN, False), (latent_dim, False), (latent_dim, False)]
            self.selectors = nn.ModuleList(Selector(*args) for args in maps + vectors)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Map images (b, C, H, W) to codes (b, latent_dim) in (0, 1)."""
        *_, code = self._outputs(batch)
        return code

    def layer_features(
        self, batch: torch.Tensor, layers: tuple[int, ...]
    ) -> list[torch.Tensor]:
        """Return the features of some layers, from selectors or averaged over space.

        Parameters
        ----------
        batch : Tensor of shape (b, C, H, W)
        layers : tuple of int
            Layers in ascending order, from 0 to 7.

        Returns
        -------
        features : list of Tensor of shape (b, d_j)
            Features of each layer; with selectors, d_j is 128.
        """
        # Layers after the last requested one are not computed.
        outputs = zip(range(layers[-1] + 1), self._outputs(batch), strict=False)
        return [self._select(index, z) for index, z in outputs if index in layers]

    def _outputs(self, batch):
        """Yield the output of each layer in turn."""
        maps = self.conv(batch)
        yield maps
        maps = self.residual(functional.leaky_relu(maps))
        yield maps
        for block in self.down:
            maps = block(maps)
            yield maps
        z = functional.leaky_relu(self.norm(self.hidden(maps.flatten(1))))
        yield z
        z = self.code(z)
        yield z
        yield torch.sigmoid(z)

    def _select(self, index, z):
        if self.selectors is not None:
            return self.selectors[index](z)
        return z.mean(dim=(2, 3)) if z.dim() == 4 else z


class ResidualDecoder(nn.Module):
    """Decoder of two linear layers, three blocks that double the map, and a residual block.

    Parameters
    ----------
    out_shape : tuple (C, H, W)
        Shape of one image. The first map has an eighth of the size, rounded up, and the
        last map is cropped to the size of the image.
    latent_dim : int, default=128
        Size of the code.
    widths : tuple of four int, default=(32, 64, 128, 256)
        As in :class:`ResidualEncoder`.
    """

    def __init__(
        self,
        out_shape: tuple[int, int, int],
        latent_dim: int = 128,
        widths: tuple[int, ...] = RESIDUAL_WIDTHS,
    ):
        super().__init__()
        channels, *size = out_shape
        self.size = tuple(size)
        self.grid = tuple(-(-n // 8) for n in size)
        n_start = widths[-1] * math.prod(self.grid)
        self.head = nn.Sequential(
            nn.Linear(latent_dim, _HIDDEN),
            nn.BatchNorm1d(_HIDDEN),
            nn.LeakyReLU(),
            nn.Linear(_HIDDEN, n_start),
            nn.BatchNorm1d(n_start),
            nn.LeakyReLU(),
        )
        self.up = nn.Sequential(*(UpBlock(a, b) for a, b in pairwise(widths[::-1])))
        self.residual = ResidualBlock(widths[0])
        self.conv = nn.Conv2d(widths[0], channels, 1, bias=False)

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        """Map codes (b, latent_dim) to images (b, C, H, W), of any range."""
        maps = self.head(codes).unflatten(1, (-1, *self.grid))
        maps = self.residual(self.up(maps))
        height, width = self.size
        return self.conv(maps)[:, :, :height, :width]
