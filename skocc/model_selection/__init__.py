"""Tools to choose detectors, parameters and thresholds with scikit-learn."""

from typing import TYPE_CHECKING

from skocc._base.renamed import missing_name
from skocc.model_selection._classical import classical_detectors
from skocc.model_selection._compare import compare
from skocc.model_selection._conformal import (
    OnlineFDR,
    benjamini_hochberg,
    conformal_p_values,
    labels_with_rejection,
)
from skocc.model_selection._ensemble import DetectorEnsemble
from skocc.model_selection._find_threshold import find_threshold
from skocc.model_selection._normal_only import NormalOnly
from skocc.model_selection._split import (
    OneClassKFold,
    OneClassSplit,
    SyntheticSplit,
    add_synthetic_anomalies,
    two_protocol_split,
)
from skocc.model_selection._thresholds import ThresholdTuner
from skocc.model_selection._tiles import TiledDetector

__all__ = [
    "DetectorEnsemble",
    "NormalOnly",
    "OneClassKFold",
    "OneClassSplit",
    "OnlineFDR",
    "SyntheticSplit",
    "ThresholdTuner",
    "TiledDetector",
    "add_synthetic_anomalies",
    "benjamini_hochberg",
    "classical_detectors",
    "compare",
    "conformal_p_values",
    "find_threshold",
    "labels_with_rejection",
    "two_protocol_split",
]


# Type checkers would take every name for one of the package.
if not TYPE_CHECKING:

    def __getattr__(name):
        raise missing_name(__name__, name)
