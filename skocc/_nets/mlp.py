"""Fully connected networks for plain rows."""

from itertools import pairwise

import torch
from torch import nn


class MLP(nn.Sequential):
    """Linear layers without bias, with BatchNorm and LeakyReLU between them.

    Parameters
    ----------
    sizes : tuple of int
        Features of the input, of each hidden layer and of the output. Mirrored, the
        same class is the decoder.

    Notes
    -----
    BatchNorm learns no scale or shift and the output has no activation, for the reason
    given in :class:`~skocc._nets.lenet.LeNetEncoder`. The slope below zero is 0.01.
    """

    def __init__(self, sizes: tuple[int, ...]):
        layers = []
        for n_in, n_out in pairwise(sizes):
            layers += [
                nn.Linear(n_in, n_out, bias=False),
                nn.BatchNorm1d(n_out, eps=1e-4, affine=False),
                nn.LeakyReLU(0.01),
            ]
        super().__init__(*layers[:-2])

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Map rows (b, sizes[0]) to (b, sizes[-1])."""
        return super().forward(batch)

    @property
    def n_layers(self) -> int:
        """Linear layers."""
        return (len(self) + 2) // 3

    def layer_features(
        self, batch: torch.Tensor, layers: tuple[int, ...]
    ) -> list[torch.Tensor]:
        """Return what layers make of rows.

        Parameters
        ----------
        batch : Tensor of shape (b, sizes[0])
        layers : tuple of int
            Ascending. Layer j is the j-th linear layer, before BatchNorm; the last one is
            the output.

        Returns
        -------
        features : list of Tensor of shape (b, sizes[j + 1])
        """
        features = []
        for index, module in enumerate(self):
            batch = module(batch)
            if index % 3 == 0 and index // 3 in layers:
                features.append(batch)
            if index == 3 * layers[-1]:
                break
        return features


class DenseAutoencoder(nn.Module):
    """Autoencoder of linear layers with biases and ReLU between them.

    Code and output are linear.

    Parameters
    ----------
    n_features : int
        Of a row.
    widths : tuple of int
        Features of the hidden layers of the encoder; the decoder mirrors them.
    code_size : int
    """

    def __init__(self, n_features: int, widths: tuple[int, ...], code_size: int):
        super().__init__()
        self.encoder = _with_output((n_features, *widths), code_size)
        self.decoder = _with_output((code_size, *widths[::-1]), n_features)
        initialize_glorot(self)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Map rows (b, n_features) to rows of the same shape."""
        return self.decoder(self.encoder(batch))


def _with_output(sizes, n_out):
    return nn.Sequential(*dense_layers(sizes), nn.Linear(sizes[-1], n_out))


def dense_layers(sizes: tuple[int, ...], dropout: float = 0.0) -> list[nn.Module]:
    """Return linear layers with biases, each followed by ReLU.

    Parameters
    ----------
    sizes : tuple of int
        Features of the input and of each layer.
    dropout : float, default=0.0
        Share of the inputs of each layer that is left out in training.
    """
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes):
        if dropout > 0:
            layers.append(nn.Dropout(dropout))
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    return layers


def initialize_glorot(module: nn.Module) -> nn.Module:
    """Draw all weights from Glorot's uniform distribution, set biases to 0; return it."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return module
