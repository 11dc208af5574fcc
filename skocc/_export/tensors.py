"""Functions of tensors in the form that a graph can have."""

import copy

import torch
from torch import nn

from skocc._ops.scores import divided_by


def divided_by_median(cells: torch.Tensor) -> torch.Tensor:
    """Return what the function of this name in ``_ops`` does: ONNX has no median.

    Parameters
    ----------
    cells : Tensor of shape (b, ...)
        Scores, which must not be negative.
    """
    values = cells.flatten(1)
    n_half = (values.shape[1] + 1) // 2  # torch's median is the lower of two
    return divided_by(cells, values.topk(n_half, largest=False).values[:, -1])


class AdaptiveMaxima(nn.Module):
    """Adaptive max pooling of maps of one size, which ONNX does not have.

    Parameters
    ----------
    grid : int
        Side of the output in cells.
    """

    def __init__(self, grid: int):
        super().__init__()
        self.grid = grid

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Map (b, C, H, W) to (b, C, grid, grid)."""
        for axis in (2, 3):
            n = maps.shape[axis]
            windows = [
                (i * n // self.grid, -(-(i + 1) * n // self.grid)) for i in range(self.grid)
            ]
            parts = [
                maps.narrow(axis, start, stop - start).amax(dim=axis, keepdim=True)
                for start, stop in windows
            ]
            maps = torch.cat(parts, dim=axis)
        return maps


def exportable(network: nn.Module) -> nn.Module:
    """Return a copy of a network without layers that ONNX does not have.

    Parameters
    ----------
    network : nn.Module
        Fitted, on the CPU.
    """
    network = copy.deepcopy(network).eval()
    for module in [*network.modules()]:
        for name, layer in module.named_children():
            if isinstance(layer, nn.AdaptiveMaxPool2d) and isinstance(
                layer.output_size, int
            ):
                setattr(module, name, AdaptiveMaxima(layer.output_size))
    return network
