"""Fully connected networks for plain rows."""

from itertools import pairwise

import torch
from torch import nn


class MLP(nn.Sequential):
    """Network of linear layers without bias, with BatchNorm and LeakyReLU between them.

    Parameters
    ----------
    sizes : tuple of int
        Number of features of the input, of each hidden layer and of the output. With the
        reversed sizes, the class serves as the decoder.

    Notes
    -----
    BatchNorm learns neither a scale nor a shift, and the output has no activation, for the
    reason given in :class:`~skocc._nets.lenet.LeNetEncoder`. The slope below zero is 0.01.
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
        """Number of linear layers."""
        return (len(self) + 2) // 3

    def layer_features(
        self, batch: torch.Tensor, layers: tuple[int, ...]
    ) -> list[torch.Tensor]:
        """Return the features of some layers.

        Parameters
        ----------
        batch : Tensor of shape (b, sizes[0])
        layers : tuple of int
            Layers in ascending order. Layer j is the j-th linear layer, before BatchNorm;
            the last layer is the output.

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

    The code and the output have no activation.

    Parameters
    ----------
    n_features : int
        Number of values in a row.
    widths : tuple of int
        Number of features of the encoder's hidden layers; the decoder mirrors them.
    code_size : int
        Size of the code.
    """

    def __init__(self, n_features: int, widths: tuple[int, ...], code_size: int):
        super().__init__()
        self.encoder = _dense_network((n_features, *widths), code_size)
        self.decoder = _dense_network((code_size, *widths[::-1]), n_features)
        initialize_glorot(self)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Map rows (b, n_features) to rows of the same shape."""
        return self.decoder(self.encoder(batch))


def _dense_network(sizes, n_out):
    return nn.Sequential(*dense_layers(sizes), nn.Linear(sizes[-1], n_out))


def dense_layers(sizes: tuple[int, ...], dropout: float = 0.0) -> list[nn.Module]:
    """Return linear layers with biases, each followed by ReLU.

    Parameters
    ----------
    sizes : tuple of int
        Number of features of the input and of each layer.
    dropout : float, default=0.0
        Fraction of the inputs of each layer that are dropped in training.
    """
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes):
        if dropout > 0:
            layers.append(nn.Dropout(dropout))
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    return layers


def initialize_glorot(module: nn.Module) -> nn.Module:
    """Draw weights from Glorot's uniform distribution, zero biases, return the module."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return module
