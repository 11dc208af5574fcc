"""What happens to the pixels before the first layer."""

import torch
from torch import nn


def global_contrast_normalize(batch: torch.Tensor) -> torch.Tensor:
    """Bring each image to mean 0 and mean absolute value 1.

    Both means run over all pixels and channels of an image together (the L1 variant of
    global contrast normalisation). Adding a constant to an image, or multiplying it by a
    positive one, changes nothing.

    Parameters
    ----------
    batch : Tensor of shape (b, ...)
        Any range. An image of one constant value becomes zeros.

    Returns
    -------
    batch : Tensor of the same shape
    """
    dims = tuple(range(1, batch.dim()))
    mean = batch.mean(dim=dims, keepdim=True)
    centered = batch - mean
    scale = centered.abs().mean(dim=dims, keepdim=True)
    # The mean of a constant image is exact only up to rounding. What is left of such an
    # image is noise that must not be blown up to the contrast of a real one.
    noise = 16 * torch.finfo(batch.dtype).eps * mean.abs()
    return torch.where(scale > noise, centered / scale, 0.0)


class ContrastNormalization(nn.Module):
    """Global contrast normalisation, then one affine map to about [0, 1].

    Parameters
    ----------
    minimum, maximum : float
        Extremes of the normalised training images over all of them together. Other
        images may leave [0, 1]; they are not clipped.
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
    """Shift and scale each pixel by mean and deviation of its surroundings.

    Brightness and contrast that change slowly over an image, as light does, are taken away:
    what is left is how a pixel differs from those around it, by their contrast.

    Parameters
    ----------
    image_size : tuple (H, W)
    sigma : float
        Width of the surroundings in pixels: the standard deviation of their Gaussian
        weights. Those beyond the border have none.

    Notes
    -----
    The mean is one of each channel, the deviation one over all channels, so that colours
    stay apart. Results have a deviation of 0.2, about that of photographs in [0, 1].
    Surroundings with a deviation below 0.01 count as flat, and are not blown up.
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
    """Bring values in [0, 1] to [-1, 1]."""

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Map (b, ...) to the same shape."""
        return (batch - 0.5) / 0.5


class ImageNetNormalization(nn.Module):
    """Subtract ImageNet's mean colour and divide by its deviation.

    For networks trained by torchvision on RGB in [0, 1].
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self):
        super().__init__()
        mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Map (b, 3, H, W), or (b, 1, H, W) repeated, to (b, 3, H, W)."""
        return (batch - self.mean) / self.std


class MeanSubtraction(nn.Module):
    """Subtract a mean image, and repeat grey to the channels a network takes.

    Parameters
    ----------
    mean : Tensor of shape (C, H, W)
        Mean of the training images at each pixel.
    n_channels : int
        C, or any number where C is 1.
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
    """Put BatchNorm in eval mode: it uses its running statistics and leaves them alone.

    Parameters
    ----------
    module : torch.nn.Module
        Of which all other layers keep their mode.
    """
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.eval()
