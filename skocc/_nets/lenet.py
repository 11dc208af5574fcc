"""The LeNets of Deep SVDD, for 28 and 32 pixels and by the same rule for other sizes."""

import math
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

_ACTIVATIONS = {"leaky_relu": nn.LeakyReLU, "elu": nn.ELU}
# Side of the grid on which decoding starts.
_CODE_GRID = 4


def lenet_widths(height: int, width: int) -> tuple[int, ...]:
    """Return the channels of each stage of a LeNet for images of a size.

    Each stage halves the map, until it has 4 to 7 pixels: one stage for 8 pixels, two
    for 28 (channels 8 and 4, the published net), three for 32 (32, 64, 128, likewise),
    one more per doubling, at most five, never over 256 channels.

    Parameters
    ----------
    height, width : int
        Image size in pixels. The smaller side decides, unless it is below 8.

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
    """Return the published size of the code: 32 for the small net, 128 for the large."""
    return 32 if len(widths) < 3 else 128


def _halved(size: tuple[int, int]) -> tuple[int, int]:
    # An axis of one pixel cannot be pooled.
    height, width = (n // 2 if n > 1 else 1 for n in size)
    return height, width


class LeNetEncoder(nn.Module):
    """Stages of 5x5 convolution, BatchNorm, 2x2 maximum and activation; a linear code.

    No layer has a bias, so that a network that ignores its input is not a solution of
    the one-class objective.

    Parameters
    ----------
    in_shape : tuple (C, H, W)
        Shape of one image.
    latent_dim : int
        Size of the code.
    widths : tuple of int
        Channels of each stage.
    activation : {"leaky_relu", "elu"}, default="leaky_relu"
        Slope 0.01 below zero, or the exponential linear unit.
    affine : bool, default=False
        Whether BatchNorm learns a scale and a shift.

    Notes
    -----
    Weights start from Glorot's uniform distribution, convolutions with the gain of the
    activation, as in the original code; the port to PyTorch has it for 32 pixels only.
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
                    # Published after the activation. Both are increasing functions, so
                    # the result is the same, and a quarter of it has to be computed.
                    nn.MaxPool2d(tuple(2 if n > 1 else 1 for n in size)),
                    _ACTIVATIONS[activation](),
                )
            )
            channels, size = width, _halved(size)
        self.stages = nn.Sequential(*stages)
        self.code = nn.Linear(channels * size[0] * size[1], latent_dim, bias=False)
        _initialize(self, activation)

    @property
    def filters(self) -> nn.Parameter:
        """Weights of the first convolution, (width, C, 5, 5)."""
        return next(self.stages.parameters())

    @property
    def n_layers(self) -> int:
        """Convolutions, and the code."""
        return len(self.stages) + 1

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Map images (b, C, H, W) to codes (b, latent_dim)."""
        return self.code(self.stages(batch).flatten(1))

    def layer_features(
        self, batch: torch.Tensor, layers: tuple[int, ...]
    ) -> list[torch.Tensor]:
        """Return what layers make of images: convolutions averaged over space, the code.

        Parameters
        ----------
        batch : Tensor of shape (b, C, H, W)
        layers : tuple of int
            Ascending. Layer j is the convolution of stage j, before BatchNorm; the last
            one is the code.

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
    """Nearest-neighbour upsampling, then a transposed 5x5 convolution of stride 1.

    The same numbers as the two steps, up to rounding, in a fraction of the time. A
    transposed convolution of stride 1 is an ordinary one with the kernel turned. After
    doubling, the five rows that a kernel meets are copies of three, so that a 3x3 kernel
    for each of the four positions within a doubled pixel serves on the map as it was.
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
    """Mirror of :class:`LeNetEncoder`: nearest-neighbour upsampling, 5x5 convolutions.

    The code is laid out on a 4x4 grid (smaller for images below eight pixels) and doubled
    until it has the size of the image. A doubled map that is larger than the encoder's map
    of the same stage is cropped by the padding of the convolution: 16 to 14 pixels for
    images of 28 pixels. The output ends in a sigmoid.

    Parameters
    ----------
    in_shape, latent_dim, widths, activation, affine
        As in :class:`LeNetEncoder`.

    Notes
    -----
    A code that does not divide over the grid passes a linear layer first. Nets with three
    stages and more normalise the code by BatchNorm, as the published net for 32 pixels.
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
        _initialize(self, activation)

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
                # 28 pixels: the grid of 4 grows to 8 for an encoder map of 7.
                t = doubled
            excess = doubled - t
            if not (0 <= excess <= 4 and excess % 2 == 0):
                # Doubling and cropping by the padding cannot meet the size.
                doubled, excess = t, 0
            upsampled.append(doubled)
            padding.append(2 + excess // 2)
            cropped.append(t)
        geometry.append((tuple(upsampled), tuple(padding)))
        size = tuple(cropped)
    return geometry


def _initialize(module: nn.Module, activation: str) -> None:
    """Draw all weights from Glorot's uniform distribution."""
    gain = 1.0
    if activation == "leaky_relu":
        gain = nn.init.calculate_gain("leaky_relu", 0.01)
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(layer.weight, gain=gain)
        elif isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
