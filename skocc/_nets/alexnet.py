"""A small AlexNet for small images, and the autoencoder that mirrors its convolutions."""

from itertools import pairwise

import torch
from torch import nn

from skocc._nets.mlp import dense_layers, initialize_glorot

# Channels of the five convolutions of AlexNet.
ALEXNET_WIDTHS = (64, 192, 384, 256, 256)
# Side in pixels below which a sixteenth of the weights are enough, and half of the code.
_FULL_SIZE = 16
# Side in pixels from which on two numbers are the code of a grey image.
_SMALL_CODE_SIZE = 24
# Smallest side that AlexNet itself takes, whose first convolution has a stride of 4.
ALEXNET_SIZE = 63


def alexnet_widths(height: int, width: int) -> tuple[int, ...]:
    """Return the channels for images of a size: those of AlexNet, or fewer.

    Parameters
    ----------
    height, width : int
        Image size in pixels. From 16 pixels on, for the smaller side, all channels; from 8
        on a quarter; below, an eighth.

    Returns
    -------
    widths : tuple of five int
    """
    side = min(height, width)
    divisor = 1 if side >= _FULL_SIZE else 4 if side >= _FULL_SIZE // 2 else 8
    return tuple(n // divisor for n in ALEXNET_WIDTHS)


def alexnet_code_size(
    n_channels: int, height: int, width: int, spatial_code: bool = False
) -> int:
    """Return the numbers in the code of an autoencoder for images of a size.

    Parameters
    ----------
    n_channels, height, width : int
        Of one image, in pixels.
    spatial_code : bool, default=False
        Whether the code is a map, of so many channels.

    Returns
    -------
    code_size : int
        16 for grey images and 32 for others; 2 for grey ones from 24 to 62 pixels a side.
        Below 16 pixels 8 and 16, from 63 on 64 and 128. For a map 4 and 8, from 63 pixels
        on 64 and 128.
    """
    side, is_grey = min(height, width), n_channels == 1
    is_large = side >= ALEXNET_SIZE
    if spatial_code:
        return (4 if is_grey else 8) * (16 if is_large else 1)
    if is_grey and side >= _SMALL_CODE_SIZE and not is_large:
        # With 16 numbers a digit or a garment is reconstructed so well that what is left
        # is how much ink there is, and no longer its shape. Over 28 pixels two are much
        # better, over 16 they are not.
        return 2
    return (4 if is_grey else 8) * (16 if is_large else 4 if side >= _FULL_SIZE else 2)


class CompactAlexNet(nn.Sequential):
    """AlexNet without its output layer, for images too small for its strides.

    Five convolutions, of 5x5, 5x5 and three times 3x3, each followed by ReLU; the first,
    the second and the last by a 3x3 maximum of stride 2; then two hidden linear layers with
    ReLU. Convolutions and maxima are padded, so that a map is halved three times, rounded
    up: 28 and 32 pixels end as 4.

    Parameters
    ----------
    in_shape : tuple (C, H, W)
        Shape of one image.
    latent_dim : int, default=512
        Features of each of the linear layers, 4096 in AlexNet.
    widths : tuple of five int, default=(64, 192, 384, 256, 256)
        Channels of the convolutions.
    dropout : float, default=0.0
        Share of the inputs of each linear layer that is left out in training.
    batch_norm : bool, default=False
        Whether BatchNorm without weights follows each convolution.

    Notes
    -----
    Weights start from Glorot's uniform distribution, biases at 0.
    """

    def __init__(
        self,
        in_shape: tuple[int, int, int],
        latent_dim: int = 512,
        widths: tuple[int, ...] = ALEXNET_WIDTHS,
        dropout: float = 0.0,
        batch_norm: bool = False,
    ):
        n_channels, *size = in_shape
        for _ in range(3):
            size = [-(-n // 2) for n in size]
        super().__init__(
            *_convolutions(n_channels, widths, stem_stride=1, batch_norm=batch_norm),
            nn.Flatten(),
            *dense_layers(
                (widths[-1] * size[0] * size[1], latent_dim, latent_dim), dropout
            ),
        )
        initialize_glorot(self)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Map images (b, C, H, W) to features (b, latent_dim), at least 0."""
        return super().forward(batch)


class AlexNetAutoencoder(nn.Module):
    """Autoencoder with the convolutions of AlexNet, all others being convolutions too.

    In place of AlexNet's linear layers there is one convolution, as large as the map that
    it is given, so that the code is a vector. Six transposed convolutions, seven for large
    images, undo the convolutions, and a sigmoid ends the net. Images of 63 pixels and more
    have a first convolution of 11x11 and stride 4, as AlexNet; for smaller ones the
    convolutions are those of :class:`CompactAlexNet`. BatchNorm without weights precedes
    each ReLU: without it, eleven layers deep, the units die in the first steps, and what
    is painted is the mean of the images.

    Parameters
    ----------
    in_shape : tuple (C, H, W)
        Shape of one image.
    code_size : int, default=None
        Numbers in the code, or channels of a spatial one. None: :func:`alexnet_code_size`.
    widths : tuple of five int, default=(64, 192, 384, 256, 256)
        Channels of the convolutions.
    spatial_code : bool, default=False
        Whether that convolution is one of 3x3, and the code a map of an eighth of the
        image's height and width, a thirty-second for large images.
    """

    def __init__(
        self,
        in_shape: tuple[int, int, int],
        code_size: int | None = None,
        widths: tuple[int, ...] = ALEXNET_WIDTHS,
        spatial_code: bool = False,
    ):
        super().__init__()
        n_channels, height, width = in_shape
        stride = 4 if min(height, width) >= ALEXNET_SIZE else 1
        kernel, padding = (-(-height // (8 * stride)), -(-width // (8 * stride))), 0
        if spatial_code:
            kernel, padding = (3, 3), 1
        code_size = code_size or alexnet_code_size(n_channels, height, width, spatial_code)
        self.encoder = nn.Sequential(
            *_convolutions(n_channels, widths, stride, batch_norm=True),
            nn.Conv2d(widths[-1], code_size, kernel, padding=padding),
        )
        first = nn.ConvTranspose2d(code_size, widths[-1], kernel, padding=padding)
        self.decoder = _Decoder(first, (height, width), n_channels, widths, stride)
        initialize_glorot(self)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Map images (b, C, H, W) to images of the same shape, in (0, 1)."""
        return self.decoder(self.encoder(batch))


class _Decoder(nn.Module):
    """From codes (b, code_size, h, w) to images (b, C, H, W) in (0, 1)."""

    def __init__(self, first, image_size, n_channels, widths, stem_stride):
        super().__init__()
        w1, w2, w3, w4, w5 = widths
        plan = [  # channels, kernel, stride
            (w5, w4, 3, 2),
            (w4, w3, 3, 1),
            (w3, w2, 3, 1),
            (w2, w1, 5, 2),
        ]
        if stem_stride == 1:
            plan.append((w1, n_channels, 5, 2))
        else:
            plan += [(w1, w1, 5, 2), (w1, n_channels, 11, stem_stride)]
        self.layers = nn.ModuleList([first])
        self.layers.extend(
            nn.ConvTranspose2d(a, b, kernel, stride=stride, padding=kernel // 2)
            for a, b, kernel, stride in plan
        )
        self.norms = nn.ModuleList(
            nn.BatchNorm2d(layer.out_channels, affine=False) for layer in self.layers[:-1]
        )
        # A map of n pixels came from one of up to stride * n: the sizes are those of the
        # encoder, from the image on.
        sizes = [image_size]
        for _, _, _, stride in reversed(plan):
            sizes.append(tuple(-(-n // stride) for n in sizes[-1]))
        self.sizes = sizes[::-1]

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        """Map codes to images."""
        maps = codes
        for layer, norm, size in zip(self.layers, self.norms, self.sizes, strict=False):
            maps = torch.relu(norm(layer(maps, output_size=size)))
        return torch.sigmoid(self.layers[-1](maps, output_size=self.sizes[-1]))


def _convolutions(n_channels, widths, stem_stride, batch_norm):
    """Return the convolutions of AlexNet with their activations and maxima."""
    kernels = (11 if stem_stride > 1 else 5, 5, 3, 3, 3)
    layers = []
    pairs = pairwise((n_channels, *widths))
    for index, ((a, b), kernel) in enumerate(zip(pairs, kernels, strict=True)):
        stride = stem_stride if index == 0 else 1
        layers.append(nn.Conv2d(a, b, kernel, stride=stride, padding=kernel // 2))
        if batch_norm:
            layers.append(nn.BatchNorm2d(b, affine=False))
        layers.append(nn.ReLU())
        if index in (0, 1, 4):
            layers.append(nn.MaxPool2d(3, stride=2, padding=1))
    return layers
