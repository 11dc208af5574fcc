"""Scores of detectors whose networks give them, as modules of tensors alone."""

import torch
from torch import nn

from skocc._export.tensors import exportable


class Classifier(nn.Module):
    """Score of DataSplitOCC.

    Parameters
    ----------
    detector : DataSplitOCC
        Fitted.
    """

    has_maps = False

    def __init__(self, detector):
        super().__init__()
        network = exportable(detector.network_)
        self.extractor, self.classifier = network["extractor"], network["classifier"]

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor]:
        """Map a batch to scores (b,)."""
        return (-self.classifier(self.extractor(batch)).squeeze(1),)


class SampleScores(nn.Module):
    """Score of a detector of the user, by its method `sample_scores`.

    Parameters
    ----------
    detector : NetworkDetector
        Fitted.
    """

    has_maps = False

    def __init__(self, detector):
        super().__init__()
        self.network = exportable(detector.network_)
        self.detector = detector

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor]:
        """Map a batch to scores (b,)."""
        return (self.detector.sample_scores(self.network, batch),)
