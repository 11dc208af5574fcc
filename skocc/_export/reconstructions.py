"""Scores and maps of detectors that reconstruct, as modules of tensors alone."""

import torch
from torch import nn

from skocc._export.tensors import divided_by_median, exportable
from skocc._nets.own import in_channels
from skocc._ops.scores import squared_error_map


class CellErrors(nn.Module):
    """Scores and maps of FeatureCAE.

    Parameters
    ----------
    detector : FeatureCAE
        Fitted.
    """

    has_maps = True

    def __init__(self, detector):
        super().__init__()
        self.backbone = exportable(detector.backbone_)
        self.network = exportable(detector.network_)
        self.detector = detector

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map images to scores (b,) and maps (b, H, W)."""
        features = self.backbone(batch)
        reconstruction, _ = self.network.reconstruct(features)
        cells = squared_error_map(reconstruction, features)
        if self.detector.score_normalization == "median":
            cells = divided_by_median(cells)
        return -self.detector._image_errors(cells), self.detector._pixel_errors(cells)


class PixelErrors(nn.Module):
    """Scores and maps of ConvAE.

    Parameters
    ----------
    detector : ConvAE
        Fitted.
    """

    has_maps = True

    def __init__(self, detector):
        super().__init__()
        self.network = exportable(detector.network_)
        self.detector = detector

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map images to scores (b,) and maps (b, H, W)."""
        batch = in_channels(batch, self.network.n_channels)
        reconstruction, _ = self.network.reconstruct(batch)
        errors = self.detector._errors(reconstruction, batch)
        scores = -self.detector._inside(errors).double().mean(dim=(1, 2))
        return scores, self.detector._pixel_errors(errors)
