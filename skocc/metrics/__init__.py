"""Metrics of the ranking of images and pixels, and scorers for scikit-learn's searches.

The anomalies are the positive class.
"""

from skocc.metrics._level_sets import excess_mass_auc, mass_volume_auc
from skocc.metrics._pixels import aupro, pixel_auroc
from skocc.metrics._ranking import (
    auroc,
    average_precision,
    best_f1,
    max_balanced_accuracy,
    recall_at_fpr,
)
from skocc.metrics._scorers import make_scorer

__all__ = [
    "aupro",
    "auroc",
    "average_precision",
    "best_f1",
    "excess_mass_auc",
    "make_scorer",
    "mass_volume_auc",
    "max_balanced_accuracy",
    "pixel_auroc",
    "recall_at_fpr",
]
