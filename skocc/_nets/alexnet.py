"""A small AlexNet for small images, and the autoencoder that mirrors its convolutions."""

from itertools import pairwise

import torch
from torch import nn

from skocc._nets.mlp import dense_layers, initialize_glorot

# Channels of the five convolutions of AlexNet.
ALEXNET_WIDTHS = (64, 192, 384, 256, 256)
# Below this side in pixels, a sixteenth of the weights and half of the code are enough.
_FULL_SIZE = 16
# From this side in pixels on, the code of a gray image has two numbers.
_SMALL_CODE_SIZE = 24
# Smallest side that AlexNet itself accepts: its first convolution has a stride of 4.
ALEXNET_SIZE = 63


def alexnet_widths(height: int, width: int) -> tuple[int, ...]:
    """Return the channels for an image size: those of AlexNet, or fewer.

    Parameters
    ----------
    height, width : int
        Image size in pixels. If the smaller side has at least 16 pixels, the result is all
        of AlexNet's channels; with at least 8 pixels, a quarter of them; else an eighth.

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
    """Return the size of an autoencoder's code for an image size.

    Parameters
    ----------
    n_channels, height, width : int
        Number of channels and size in pixels of one image.
    spatial_code : bool, default=False
        Whether the code is a map. The result is then its number of channels.

    Returns
    -------
    code_size : int
        For gray images and for others: 16 and 32 from 16 pixels on, 8 and 16 below, and 64
        and 128 from 63 pixels on. Gray images of 24 to 62 pixels have a code of 2. For a
        map: 4 and 8, and 64 and 128 from 63 pixels on.
    """
    side, is_gray = min(height, width), n_channels == 1
    is_large = side >= ALEXNET_SIZE
    if spatial_code:
        return (4 if is_gray else 8) * (16 if is_large else 1)
    if is_gray and side >= _SMALL_CODE_SIZE and not is_large:
        # With 16 numbers, a digit or a garment is reconstructed so well that the error
        # depends on the amount of ink and no longer on the shape. A code of two numbers is
        # much better for 28 pixels, but not for 16.
        return 2
    return (4 if is_gray else 8) * (16 if is_large else 4 if side >= _FULL_SIZE else 2)


class CompactAlexNet(nn.Sequential):
    """AlexNet without its output layer, for images that are too small for its strides.

    The network has five convolutions, two of 5x5 and three of 3x3, each followed by ReLU. A
    3x3 max pooling of stride 2 follows the first, the second and the last. Two hidden
    linear layers with ReLU come next. Convolutions and poolings are padded, so that a map
    is halved three times, rounded up: 28 and 32 pixels become 4.

    Parameters
    ----------
    in_shape : tuple (C, H, W)
        Shape of one image.
    latent_dim : int, default=512
        Number of features of each linear layer, 4096 in AlexNet.
    widths : tuple of five int, default=(64, 192, 384, 256, 256)
        Channels of the convolutions.
    dropout : float, default=0.0
        Fraction of the inputs of each linear layer that are dropped in training.
    batch_norm : bool, default=False
        Whether BatchNorm without weights follows each convolution.

    Notes
    -----
    Weights are initialized from Glorot's uniform distribution, biases with 0.
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
    """Fully convolutional autoencoder with the convolutions of AlexNet.

    One convolution replaces AlexNet's linear layers. Its kernel is as large as its input,
    so that the code is a vector. Six transposed convolutions, or seven for large images,
    invert the convolutions, and the last layer is a sigmoid. For images of at least 63
    pixels, the first convolution is 11x11 with a stride of 4, as in AlexNet; for smaller
    images, the convolutions are those of :class:`CompactAlexNet`. BatchNorm without weights
    precedes each ReLU. Without BatchNorm, the units of this network of eleven layers die in
    the first steps, and it reconstructs the mean image.

    Parameters
    ----------
    in_shape : tuple (C, H, W)
        Shape of one image.
    code_size : int, default=None
        Size of the code, or number of channels of a spatial code. None uses
        :func:`alexnet_code_size`.
    widths : tuple of five int, default=(64, 192, 384, 256, 256)
        Channels of the convolutions.
    spatial_code : bool, default=False
        Whether the convolution that computes the code is 3x3. The code is then a map of an
        eighth of the image's height and width, or a thirty-second for large images.
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
    """Decoder from codes (b, code_size, h, w) to images (b, C, H, W) in (0, 1)."""

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
        # Several sizes are reduced to n pixels by a stride, so the sizes of the encoder's
        # maps are computed from the image on.
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
    """Return the convolutions of AlexNet with their activations and poolings."""
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
