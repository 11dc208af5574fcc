"""The user's own autoencoder, for images and for maps of features."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from skocc._nets.backbones import keep_strided_layers_safe
from skocc._nets.own import own_module, subject, try_out

# Cells a side of the means by which reconstructions are compared.
_CELLS = 4


class OwnAutoencoder(nn.Module):
    """Autoencoder of the user, which maps maps or images to tensors of the same shape.

    Parameters
    ----------
    network : nn.Module, class or function
        Parameter `autoencoder`.
    in_shape : tuple (C, H, W)
        Shape of a sample.

    Attributes
    ----------
    n_channels : int
        Channels to which gray images are repeated, 1 if the network takes them as they are.

    Raises
    ------
    ValueError
        The network cannot be built or does not fit; the message begins with "autoencoder".
    """

    def __init__(self, network: Any, in_shape: tuple[int, int, int]):
        super().__init__()
        self.body = own_module(network, "autoencoder")
        self.n_channels, output = try_out(
            self.body, in_shape, "autoencoder", "a tensor of the same shape"
        )
        keep_strided_layers_safe(self.body)
        expected = (2, self.n_channels, *in_shape[1:])
        if tuple(output.shape) != expected:
            raise ValueError(
                f"autoencoder: {subject(self.body)} must return a tensor of the shape it "
                f"is given. Got {tuple(output.shape)} for a batch of shape {expected}. "
                "Crop or pad the output, or set image_size to the size it was made for."
            )

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Map (b, C, H, W) to the same shape."""
        return self.body(batch)

    def reconstruct(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the reconstruction, and its means (b, d) over a few cells.

        The means tell whether the network gives the same for every image. The network may
        have no code that does.
        """
        output = self.body(batch)
        height, width = output.shape[2:]
        cells = min(_CELLS, height), min(_CELLS, width)
        return output, functional.adaptive_avg_pool2d(output, cells).flatten(1)
