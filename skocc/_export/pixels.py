"""The first nodes of a graph: from pixels, as users have them, to what networks take."""

import torch
from torch import nn

#: Types of the input of a graph, and the number that stands for 1 in each.
DTYPES = {"uint8": 255.0, "float32": 1.0}


class Pixels(nn.Module):
    """Map images as users have them to batches, as ``ImageBatches`` does.

    Parameters
    ----------
    sample_shape : tuple
        ``image_shape_`` of a detector: (H, W, C), (T, H, W, C) or (d,).
    intensity_range : tuple (low, high) or None
        Parameter of the detector.
    dtype : {"uint8", "float32"}
        Type of the images.

    Attributes
    ----------
    shape : tuple
        Shape of one sample of the input: (H, W) where there is one channel.
    """

    low: torch.Tensor
    span: torch.Tensor

    def __init__(
        self,
        sample_shape: tuple[int, ...],
        intensity_range: tuple[float, float] | None,
        dtype: str,
    ):
        super().__init__()
        shape = tuple(int(n) for n in sample_shape)
        self.is_gray = len(shape) > 1 and shape[-1] == 1
        self.shape = shape[:-1] if self.is_gray else shape
        self.dtype = getattr(torch, dtype)
        low, high = intensity_range or (0.0, DTYPES[dtype])
        # Rounded one by one, as the detectors' own reading does.
        ends = torch.tensor([float(low), float(high)], dtype=torch.float32)
        self.register_buffer("low", ends[0])
        self.register_buffer("span", ends[1] - ends[0])
        self.is_scaled = intensity_range is not None or dtype != "float32"

    def example(self, n_samples: int) -> torch.Tensor:
        """Return a batch of the input, by which a graph is traced."""
        values = torch.rand(
            n_samples, *self.shape, generator=torch.Generator(), dtype=torch.float32
        )
        if self.dtype == torch.uint8:
            return (values * 255).to(torch.uint8)
        return self.low + self.span * values

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map (n, H, W), (n, H, W, C), clips or rows to (n, C, ...) or (n, d), float32."""
        batch = images.float()
        if self.is_gray:
            batch = batch.unsqueeze(-1)
        if batch.dim() > 2:
            batch = batch.movedim(-1, 1)
        return (batch - self.low) / self.span if self.is_scaled else batch
