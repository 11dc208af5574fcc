"""The LeNets of Deep SVDD for 28 and 32 pixels, and for other sizes by the same rule."""

import math
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

_ACTIVATIONS = {"leaky_relu": nn.LeakyReLU, "elu": nn.ELU}
# Side of the grid on which decoding starts.
_CODE_GRID = 4


def lenet_widths(height: int, width: int) -> tuple[int, ...]:
    """Return the channels of each stage of a LeNet for an image size.

    Each stage halves the map, until it has 4 to 7 pixels. There is one stage for 8 pixels,
    two for 28 (8 and 4 channels, the published network) and three for 32 (32, 64 and 128,
    also published). Each doubling adds a stage, up to five stages and 256 channels.

    Parameters
    ----------
    height, width : int
        Image size in pixels. The smaller side determines the stages, unless it is below 8.

    Returns
    -------
    widths : tuple of int
    """
    side = min(height, width)
    n_stages = int(math.log2(max(side, 8) / _CODE_GRID))
    if n_stages == 1:
        return (8,)
    if n_stages == 2:
        return (8, 4)
    return tuple(min(32 * 2**i, 256) for i in range(min(n_stages, 5)))


def lenet_latent_dim(widths: tuple[int, ...]) -> int:
    """Return the published code size: 32 for the small network, 128 for the large one."""
    return 32 if len(widths) < 3 else 128


def _halved(size: tuple[int, int]) -> tuple[int, int]:
    # An axis of one pixel cannot be pooled.
    height, width = (n // 2 if n > 1 else 1 for n in size)
    return height, width


class LeNetEncoder(nn.Module):
    """Encoder of convolutional stages and a linear layer that computes the code.

    A stage consists of a 5x5 convolution, BatchNorm, 2x2 max pooling and an activation. No
    layer has a bias, so that a network that ignores its input does not minimize the
    one-class objective.

    Parameters
    ----------
    in_shape : tuple (C, H, W)
        Shape of one image.
    latent_dim : int
        Size of the code.
    widths : tuple of int
        Channels of each stage.
    activation : {"leaky_relu", "elu"}, default="leaky_relu"
        Leaky ReLU with a slope of 0.01 below zero, or the exponential linear unit.
    affine : bool, default=False
        Whether BatchNorm learns a scale and a shift.

    Notes
    -----
    Weights are initialized from Glorot's uniform distribution, those of convolutions with
    the gain of the activation. The original code does the same; its port to PyTorch does so
    only for 32 pixels.
    """

    def __init__(
        self,
        in_shape: tuple[int, int, int],
        latent_dim: int,
        widths: tuple[int, ...],
        activation: str = "leaky_relu",
        affine: bool = False,
    ):
        super().__init__()
        channels, size = in_shape[0], in_shape[1:]
        stages = []
        for width in widths:
            stages.append(
                nn.Sequential(
                    nn.Conv2d(channels, width, 5, padding=2, bias=False),
                    nn.BatchNorm2d(width, eps=1e-4, affine=affine),
                    # The published networks pool after the activation. The activation is
                    # increasing, so the result is the same, at a quarter of the cost.
                    nn.MaxPool2d(tuple(2 if n > 1 else 1 for n in size)),
                    _ACTIVATIONS[activation](),
                )
            )
            channels, size = width, _halved(size)
        self.stages = nn.Sequential(*stages)
        self.code = nn.Linear(channels * size[0] * size[1], latent_dim, bias=False)
        _initialize_glorot_with_gain(self, activation)

    @property
    def filters(self) -> nn.Parameter:
        """Weights of the first convolution, of shape (width, C, 5, 5)."""
        return next(self.stages.parameters())

    @property
    def n_layers(self) -> int:
        """Number of layers: the convolutions and the code."""
        return len(self.stages) + 1

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Map images (b, C, H, W) to codes (b, latent_dim)."""
        return self.code(self.stages(batch).flatten(1))

    def layer_features(
        self, batch: torch.Tensor, layers: tuple[int, ...]
    ) -> list[torch.Tensor]:
        """Return the features of some layers; convolutions are averaged over space.

        Parameters
        ----------
        batch : Tensor of shape (b, C, H, W)
        layers : tuple of int
            Layers in ascending order. Layer j is the convolution of stage j, before
            BatchNorm; the last layer is the code.

        Returns
        -------
        features : list of Tensor of shape (b, d_j)
        """
        features = []
        for index, stage in enumerate(self.stages):
            convolution, *rest = stage.children()
            maps = convolution(batch)
            if index in layers:
                features.append(maps.mean(dim=(2, 3)))
            if index == layers[-1]:
                return features
            for module in rest:
                maps = module(maps)
            batch = maps
        return [*features, self.code(batch.flatten(1))]


class _UpsampledConvolution(nn.ConvTranspose2d):
    """Nearest-neighbor upsampling, then a transposed 5x5 convolution of stride 1.

    The result equals that of the two steps up to rounding, in a fraction of the time. A
    transposed convolution of stride 1 is an ordinary convolution with the kernel rotated by
    180 degrees. After doubling, the five rows under a kernel are copies of three rows.
    Therefore a 3x3 convolution of the original map, with a separate kernel for each of the
    four positions within a doubled pixel, gives the same result.
    """

    copies: torch.Tensor
    padding: tuple[int, int]

    def __init__(self, in_channels, out_channels, upsampled_size, padding):
        super().__init__(in_channels, out_channels, 5, padding=padding, bias=False)
        self.upsampled_size = upsampled_size
        # Rows 2i - 2 to 2i + 2 of the doubled map are rows i - 1, i - 1, i, i, i + 1 of the
        # map; for the lower of two copies, rows 2i - 1 to 2i + 3, see the second matrix.
        copies = [
            [[1, 1, 0, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1]],
            [[1, 0, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 1, 1]],
        ]
        self.register_buffer("copies", torch.tensor(copies).float(), persistent=False)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """Map (b, C_in, H, W) to (b, C_out, H', W')."""
        kernel = self.weight.flip(2, 3).transpose(0, 1)
        size = batch.shape[2:]
        if self.upsampled_size == (2 * size[0], 2 * size[1]):
            kernel = torch.einsum("pai,qbj,ocij->opqcab", self.copies, self.copies, kernel)
            maps = functional.conv2d(batch, kernel.flatten(0, 2), padding=1)
            maps = functional.pixel_shuffle(maps, 2)
            crop = [padding - 2 for padding in self.padding]
            return maps[
                :, :, crop[0] : maps.shape[2] - crop[0], crop[1] : maps.shape[3] - crop[1]
            ]
        if self.upsampled_size != size:
            batch = functional.interpolate(batch, size=self.upsampled_size)
        padding = tuple(4 - padding for padding in self.padding)
        return functional.conv2d(batch, kernel, padding=padding)


class LeNetDecoder(nn.Module):
    """Mirror of :class:`LeNetEncoder`: nearest-neighbor upsampling, 5x5 convolutions.

    The code is arranged on a 4x4 grid, or a smaller one for images below eight pixels, and
    doubled until it has the size of the image. If a doubled map is larger than the
    encoder's map of the same stage, the padding of the convolution crops it: from 16 to 14
    pixels for images of 28 pixels. The last layer is a sigmoid.

    Parameters
    ----------
    in_shape, latent_dim, widths, activation, affine
        As in :class:`LeNetEncoder`.

    Notes
    -----
    If the size of the code is not a multiple of the grid, a linear layer comes first. If
    there are at least three stages, BatchNorm normalizes the code, as in the published
    network for 32 pixels.
    """

    def __init__(
        self,
        in_shape: tuple[int, int, int],
        latent_dim: int,
        widths: tuple[int, ...],
        activation: str = "leaky_relu",
        affine: bool = False,
    ):
        super().__init__()
        _, height, width = in_shape
        sizes = [(height, width)]
        for _ in widths:
            sizes.append(_halved(sizes[-1]))
        self.grid = tuple(min(n, _CODE_GRID) for n in sizes[-1])
        cells = self.grid[0] * self.grid[1]
        grid_channels = max(1, latent_dim // cells)
        head: list[nn.Module] = []
        if len(widths) >= 3:
            head.append(nn.BatchNorm1d(latent_dim, eps=1e-4, affine=affine))
        if grid_channels * cells != latent_dim:
            head.append(nn.Linear(latent_dim, grid_channels * cells, bias=False))
        self.head = nn.Sequential(*head)
        self.activation = _ACTIVATIONS[activation]()

        geometry = _decoder_geometry(self.grid, sizes[::-1])
        channels = [grid_channels, *reversed(widths), in_shape[0]]
        self.convolutions = nn.ModuleList(
            _UpsampledConvolution(a, b, size, padding)
            for (a, b), (size, padding) in zip(pairwise(channels), geometry, strict=True)
        )
        self.norms = nn.ModuleList(
            nn.BatchNorm2d(n, eps=1e-4, affine=affine) for n in channels[1:-1]
        )
        _initialize_glorot_with_gain(self, activation)

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        """Map codes (b, latent_dim) to images (b, C, H, W) in (0, 1)."""
        maps = self.activation(self.head(codes).unflatten(1, (-1, *self.grid)))
        maps = maps.contiguous(memory_format=torch.channels_last)
        for index, convolution in enumerate(self.convolutions):
            maps = convolution(maps)
            if index < len(self.norms):
                maps = self.activation(self.norms[index](maps))
        return torch.sigmoid(maps)


def _decoder_geometry(grid, targets):
    """Return (size after upsampling, padding) of each convolution of the decoder.

    `targets` are the sizes of the encoder's maps, last stage first.
    """
    geometry = []
    size = grid
    for index, target in enumerate(targets):
        upsampled, padding, cropped = [], [], []
        for n, t in zip(size, target, strict=True):
            doubled = n if n == t else 2 * n
            if index == 0 and n < t:
                # For 28 pixels, the grid of 4 is doubled to 8 for an encoder map of 7.
                t = doubled
            excess = doubled - t
            if not (0 <= excess <= 4 and excess % 2 == 0):
                # Doubling and cropping cannot give the size of the encoder's map.
                doubled, excess = t, 0
            upsampled.append(doubled)
            padding.append(2 + excess // 2)
            cropped.append(t)
        geometry.append((tuple(upsampled), tuple(padding)))
        size = tuple(cropped)
    return geometry


def _initialize_glorot_with_gain(module: nn.Module, activation: str) -> None:
    """Draw weights from Glorot's distribution, with the activation's gain if 4-D."""
    gain = 1.0
    if activation == "leaky_relu":
        gain = nn.init.calculate_gain("leaky_relu", 0.01)
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(layer.weight, gain=gain)
        elif isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
