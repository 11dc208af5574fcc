"""Choosing detectors and their parameters with scikit-learn's searches."""

import importlib

from skocc._renamed import missing_name

# Where each public name lives; loaded when it is first used, as in skocc itself.
_MODULES = {
    "NormalOnly": "skocc.model_selection._normal_only",
    "OneClassKFold": "skocc.model_selection._split",
    "OneClassSplit": "skocc.model_selection._split",
    "SyntheticSplit": "skocc.model_selection._split",
    "add_synthetic_anomalies": "skocc.model_selection._split",
    "two_protocol_split": "skocc.model_selection._split",
    "classical_detectors": "skocc.model_selection._classical",
    "ThresholdTuner": "skocc.model_selection._thresholds",
    "benjamini_hochberg": "skocc.model_selection._thresholds",
    "conformal_p_values": "skocc.model_selection._thresholds",
    "find_threshold": "skocc.model_selection._thresholds",
}
__all__ = [*_MODULES]


def __getattr__(name):
    if name not in _MODULES:
        raise missing_name(__name__, name)
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *__all__})
