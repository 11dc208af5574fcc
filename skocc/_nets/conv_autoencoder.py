"""A small autoencoder of images with a single residual block."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional


class ResidualBlock(nn.Module):
    """Residual block: two 3x3 convolutions, the first of stride 2, and a 1x1 skip.

    Parameters
    ----------
    in_channels, out_channels : int

    Notes
    -----
    The 1x1 convolution of stride 2 is computed with stride 1 on every second pixel. The
    result is the same, and this avoids a torch kernel that corrupts memory (see
    :class:`skocc._nets.residual_encoder.DownBlock`).
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.body = nn.Sequential(
            *_halve(in_channels, out_channels),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.skip = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Map (b, in_channels, H, W) to (b, out_channels, H / 2, W / 2), rounded up."""
        return functional.relu(self.body(maps) + self.skip(maps[:, :, ::2, ::2]))


class ConvAutoencoder(nn.Module):
    """Autoencoder with a residual block and a decoder of transposed convolutions.

    Four strides of 2 map an image to 8 `width` channels at a sixteenth of its size, and
    four transposed convolutions restore the size. All kernels are 3x3 except that of the
    skip. All convolutions except the last have no bias and are followed by BatchNorm. The
    last layer is a sigmoid.

    Parameters
    ----------
    n_channels : int, default=3
        Number of channels C of the images.
    width : int, default=32
        Number of channels after the first convolution. With 32, and images with three
        channels, the network has 933,443 parameters.
    """

    n_channels = 3  # of networks that earlier versions have pickled

    def __init__(self, n_channels: int = 3, width: int = 32):
        super().__init__()
        self.n_channels = n_channels
        width = int(width)  # products of NumPy's small integers overflow
        self.encoder = nn.Sequential(
            *_halve(n_channels, width),
            *_halve(width, 2 * width),
            ResidualBlock(2 * width, 4 * width),
            *_halve(4 * width, 8 * width),
        )
        channels = (8 * width, 4 * width, 2 * width, width)
        self.upsample = nn.ModuleList(
            nn.ConvTranspose2d(a, b, 3, stride=2, padding=1, bias=False)
            for a, b in pairwise(channels)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(n) for n in channels[1:])
        self.output = nn.ConvTranspose2d(width, n_channels, 3, stride=2, padding=1)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Map images (b, C, H, W) of any size to images of the same size, in (0, 1)."""
        return self.decode(self.encode(batch), batch.shape[2:])

    def reconstruct(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the reconstruction, and the means (b, 8 width) of the codes."""
        codes = self.encode(batch)
        return self.decode(codes, batch.shape[2:]), codes.mean(dim=(2, 3))

    def encode(self, batch: torch.Tensor) -> torch.Tensor:
        """Map images (b, C, H, W) to codes (b, 8 width, H / 16, W / 16), rounded up."""
        return self.encoder(batch)

    def decode(self, codes: torch.Tensor, image_size: Sequence[int]) -> torch.Tensor:
        """Map codes (b, 8 width, h, w) to images (b, C, H, W) in (0, 1)."""
        sizes = [tuple(image_size)]
        for _ in self.upsample:
            # A stride of 2 rounds up.
            sizes.append(tuple(-(-n // 2) for n in sizes[-1]))
        # Both 2n and 2n - 1 pixels are reduced to n, so the output size must be given.
        maps = codes
        for layer, norm, size in zip(self.upsample, self.norms, sizes[:0:-1], strict=True):
            maps = functional.relu(norm(layer(maps, output_size=size)))
        return torch.sigmoid(self.output(maps, output_size=sizes[0]))


def _halve(in_channels, out_channels):
    """Return the layers that halve a map: convolution, BatchNorm, ReLU."""
    return (
        nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )
