"""A distance of features that is learnt."""

import torch
from torch import nn


class LearntDistance(nn.Module):
    """Distance in [0, 1] of two feature vectors: a difference, a linear unit, a sigmoid.

    Parameters
    ----------
    n_features : int
    difference : {"abs", "signed"}, default="abs"
        Difference at each feature, without or with its sign.

    Notes
    -----
    Weights start from Glorot's uniform distribution, the bias at 0.
    """

    def __init__(self, n_features: int, difference: str = "abs"):
        super().__init__()
        self.difference = difference
        self.unit = nn.Linear(n_features, 1)
        nn.init.xavier_uniform_(self.unit.weight)
        nn.init.zeros_(self.unit.bias)

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Map two batches (b, n_features) to the logits (b,) of their distances."""
        difference = first - second
        if self.difference == "abs":
            difference = difference.abs()
        return self.unit(difference).squeeze(1)
