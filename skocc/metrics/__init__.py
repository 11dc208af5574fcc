"""Metrics of the ranking of images and pixels, and scorers for scikit-learn's searches.

The anomalies are the positive class.
"""

from skocc.metrics._level_sets import excess_mass_auc, mass_volume_auc
from skocc.metrics._pimo import aupimo
from skocc.metrics._pixels import (
    aupro,
    pixel_auroc,
    pixel_average_precision,
    pixel_f1,
)
from skocc.metrics._ranking import (
    auroc,
    average_precision,
    best_f1,
    max_balanced_accuracy,
    recall_at_fpr,
)
from skocc.metrics._scorers import make_scorer

__all__ = [
    "aupimo",
    "aupro",
    "auroc",
    "average_precision",
    "best_f1",
    "excess_mass_auc",
    "make_scorer",
    "mass_volume_auc",
    "max_balanced_accuracy",
    "pixel_auroc",
    "pixel_average_precision",
    "pixel_f1",
    "recall_at_fpr",
]
