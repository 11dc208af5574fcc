"""An autoencoder of feature maps that reconstructs each cell separately."""

import torch
from torch import nn


class FeatureAutoencoder(nn.Module):
    """Autoencoder of 1x1 convolutions from C channels to 4L, 2L and L, and back.

    BatchNorm and ReLU follow each convolution except those of the code and the output.

    Parameters
    ----------
    n_channels : int
        Number of channels C of the maps. With 1536 channels and a code of 100, the network
        has 1,434,036 parameters.
    latent_dim : int, default=100
        Size L of the code of a cell.
    """

    def __init__(self, n_channels: int, latent_dim: int = 100):
        super().__init__()
        latent_dim = int(latent_dim)  # products of NumPy's small integers overflow
        self.encoder = nn.Sequential(
            *_layers(n_channels, 4 * latent_dim),
            *_layers(4 * latent_dim, 2 * latent_dim),
            nn.Conv2d(2 * latent_dim, latent_dim, 1),
        )
        self.decoder = nn.Sequential(
            *_layers(latent_dim, 2 * latent_dim),
            *_layers(2 * latent_dim, 4 * latent_dim),
            nn.Conv2d(4 * latent_dim, n_channels, 1),
        )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Map (b, C, h, w) to the same shape."""
        return self.decode(self.encode(maps))

    def reconstruct(self, maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the reconstruction, and the means (b, latent_dim) of the codes."""
        codes = self.encode(maps)
        return self.decode(codes), codes.mean(dim=(2, 3))

    def encode(self, maps: torch.Tensor) -> torch.Tensor:
        """Map (b, C, h, w) to codes (b, latent_dim, h, w)."""
        return self.encoder(maps)

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """Map codes (b, latent_dim, h, w) to (b, C, h, w)."""
        return self.decoder(codes)


def _layers(in_channels, out_channels):
    """Return a convolution with its BatchNorm and ReLU."""
    convolution = nn.Conv2d(in_channels, out_channels, 1)
    return convolution, nn.BatchNorm2d(out_channels), nn.ReLU()
