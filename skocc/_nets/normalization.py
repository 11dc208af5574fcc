"""Normalization of pixels before the first layer, and frozen BatchNorm."""

from collections.abc import Sequence

import torch
from torch import nn


def global_contrast_normalize(batch: torch.Tensor) -> torch.Tensor:
    """Scale each image to mean 0 and mean absolute value 1.

    Both means are over all pixels and channels of an image (the L1 variant of global
    contrast normalization). The result does not change if a constant is added to an image,
    or if the image is multiplied by a positive constant.

    Parameters
    ----------
    batch : Tensor of shape (b, ...)
        Images of any range. A constant image becomes zeros.

    Returns
    -------
    batch : Tensor of the same shape
    """
    dims = tuple(range(1, batch.dim()))
    mean = batch.mean(dim=dims, keepdim=True)
    centered = batch - mean
    scale = centered.abs().mean(dim=dims, keepdim=True)
    # The mean of a constant image has a rounding error. The remaining noise must not be
    # amplified to the contrast of a real image.
    noise = 16 * torch.finfo(batch.dtype).eps * mean.abs()
    return torch.where(scale > noise, centered / scale, 0.0)


class ContrastNormalization(nn.Module):
    """Global contrast normalization, followed by an affine map to about [0, 1].

    Parameters
    ----------
    minimum, maximum : float
        Extremes over all normalized training images. Other images may exceed [0, 1]; they
        are not clipped.
    """

    minimum: torch.Tensor
    scale: torch.Tensor

    def __init__(self, minimum: float, maximum: float):
        super().__init__()
        scale = maximum - minimum if maximum > minimum else 1.0
        self.register_buffer("minimum", torch.tensor(float(minimum)))
        self.register_buffer("scale", torch.tensor(float(scale)))

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Map (b, ...) to the same shape."""
        return (global_contrast_normalize(batch) - self.minimum) / self.scale


class LocalContrastNormalization(nn.Module):
    """Shift and scale each pixel by the mean and the deviation of its neighborhood.

    This removes brightness and contrast that vary slowly over an image, such as uneven
    lighting. The result is the difference of a pixel from its neighborhood, relative to the
    contrast there.

    Parameters
    ----------
    image_size : tuple (H, W)
        Size of the images in pixels.
    sigma : float
        Size of the neighborhood in pixels: the standard deviation of its Gaussian weights.
        Pixels beyond the border have no weight.

    Notes
    -----
    The mean is computed for each channel, but the deviation over all channels, so that
    colors stay distinct. Results have a standard deviation of 0.2, about that of
    photographs in [0, 1]. Neighborhoods with a deviation below 0.01 count as flat, and
    their noise is not amplified.
    """

    rows: torch.Tensor
    columns: torch.Tensor

    def __init__(self, image_size: tuple[int, int], sigma: float):
        super().__init__()
        for name, size in zip(("rows", "columns"), image_size, strict=True):
            places = torch.arange(size, dtype=torch.float64)
            weights = (-0.5 * ((places[:, None] - places) / sigma).square()).exp()
            weights /= weights.sum(dim=1, keepdim=True)
            self.register_buffer(name, weights.float(), persistent=False)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Map (b, C, H, W) to the same shape."""
        centered = batch - self._blur(batch)
        variance = self._blur(centered.square().mean(dim=1, keepdim=True))
        return 0.2 * centered / (variance + 1e-4).sqrt()

    def _blur(self, batch):
        return self.rows @ batch @ self.columns.T


class SymmetricRange(nn.Module):
    """Map values in [0, 1] to [-1, 1]."""

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Map (b, ...) to the same shape."""
        return (batch - 0.5) / 0.5


class ImageNetNormalization(nn.Module):
    """Subtract ImageNet's mean color and divide by its standard deviation, or other ones.

    Networks of torchvision are trained on such images, from RGB in [0, 1].

    Parameters
    ----------
    mean, std : sequence of three float
        Of each channel.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
    ):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Map (b, 3, H, W), or (b, 1, H, W) repeated, to (b, 3, H, W)."""
        return (batch - self.mean) / self.std


class MeanSubtraction(nn.Module):
    """Subtract a mean image, and repeat a gray channel to those that a network expects.

    Parameters
    ----------
    mean : Tensor of shape (C, H, W)
        Mean of the training images at each pixel.
    n_channels : int
        Number of channels of the output: C, or any number if C is 1.
    """

    mean: torch.Tensor

    def __init__(self, mean: torch.Tensor, n_channels: int):
        super().__init__()
        self.register_buffer("mean", mean.float())
        self.n_channels = n_channels

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Map (b, C, H, W) to (b, n_channels, H, W)."""
        return (batch - self.mean).expand(-1, self.n_channels, -1, -1)


def freeze_batch_norm(module: nn.Module) -> None:
    """Put BatchNorm in eval mode, so that it uses its running statistics unchanged.

    Parameters
    ----------
    module : torch.nn.Module
        Network whose other layers keep their mode.
    """
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.eval()
