"""Transformers of images: to tables for scikit-learn's detectors; of frames of videos."""

import importlib

# Where each public name lives; loaded when it is first used, as in skocc itself.
_MODULES = {
    "BackgroundRemoval": "skocc.feature_extraction._background",
    "DeepFeatures": "skocc.feature_extraction._deep",
    "DirectFeatures": "skocc.feature_extraction._direct",
}
__all__ = [*_MODULES]


def __getattr__(name):
    if name not in _MODULES:
        raise AttributeError(f"module 'skocc.feature_extraction' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *__all__})
