"""A learned distance between feature vectors."""

import torch
from torch import nn


class LearntDistance(nn.Module):
    """Learned distance in [0, 1] between two feature vectors.

    It consists of a difference, a linear unit and a sigmoid.

    Parameters
    ----------
    n_features : int
        Size of the feature vectors.
    difference : {"abs", "signed"}, default="abs"
        Whether to use the absolute or the signed difference of each feature.

    Notes
    -----
    Weights are initialized from Glorot's uniform distribution, the bias with 0.
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
