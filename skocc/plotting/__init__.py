"""Pictures of detectors and of what they find, drawn by matplotlib.

Each is a display in the form of those of scikit-learn: ``from_estimator`` takes a fitted
detector, ``from_predictions`` what it has returned. Both draw, and return the display with
what is drawn in it. Install matplotlib with ``pip install "skocc[plot]"``.
"""

from skocc.plotting._confusion import ConfusionMatrixDisplay
from skocc.plotting._curves import PrecisionRecallDisplay, RocCurveDisplay
from skocc.plotting._embedding import EmbeddingDisplay
from skocc.plotting._grid import ImageGridDisplay
from skocc.plotting._histogram import ScoreHistogramDisplay
from skocc.plotting._layers import LayerDistanceDisplay
from skocc.plotting._losses import LossCurveDisplay
from skocc.plotting._maps import AnomalyMapDisplay

__all__ = [
    "AnomalyMapDisplay",
    "ConfusionMatrixDisplay",
    "EmbeddingDisplay",
    "ImageGridDisplay",
    "LayerDistanceDisplay",
    "LossCurveDisplay",
    "PrecisionRecallDisplay",
    "RocCurveDisplay",
    "ScoreHistogramDisplay",
]
