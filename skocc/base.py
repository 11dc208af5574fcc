"""Base classes for detectors of one's own, and what these need."""

from skocc._base.detector import BaseDetector, Run, Scores
from skocc._base.fitted import Fitted
from skocc._base.network_detector import NetworkDetector
from skocc._base.private_sklearn import Interval, StrOptions
from skocc._engine.batches import ImageBatches

__all__ = [
    "BaseDetector",
    "Fitted",
    "ImageBatches",
    "Interval",
    "NetworkDetector",
    "Run",
    "Scores",
    "StrOptions",
]
