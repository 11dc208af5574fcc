"""Choosing detectors and their parameters with scikit-learn's searches."""

from skocc.model_selection._classical import classical_detectors
from skocc.model_selection._normal_only import NormalOnly
from skocc.model_selection._split import (
    OneClassKFold,
    OneClassSplit,
    SyntheticSplit,
    add_synthetic_anomalies,
    report_split,
)
from skocc.model_selection._thresholds import (
    ThresholdTuner,
    benjamini_hochberg,
    conformal_p_values,
    threshold,
)

__all__ = [
    "NormalOnly",
    "OneClassKFold",
    "OneClassSplit",
    "SyntheticSplit",
    "ThresholdTuner",
    "add_synthetic_anomalies",
    "benjamini_hochberg",
    "classical_detectors",
    "conformal_p_values",
    "report_split",
    "threshold",
]
