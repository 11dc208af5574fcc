"""How well a detector ranks images and pixels, the anomalies being the positive class.

Functions of labels and scores, and scorers made of them for scikit-learn's searches.
"""

import importlib

# Where each public name lives; loaded when it is first used, as in skocc itself.
_MODULES = {
    "auroc": "skocc.metrics._ranking",
    "average_precision": "skocc.metrics._ranking",
    "best_f1": "skocc.metrics._ranking",
    "max_balanced_accuracy": "skocc.metrics._ranking",
    "recall_at_fpr": "skocc.metrics._ranking",
    "make_scorer": "skocc.metrics._scorers",
    "pixel_auroc": "skocc.metrics._pixels",
    "aupro": "skocc.metrics._pixels",
    "mass_volume_auc": "skocc.metrics._level_sets",
    "excess_mass_auc": "skocc.metrics._level_sets",
}
__all__ = [*_MODULES]


def __getattr__(name):
    if name not in _MODULES:
        raise AttributeError(f"module 'skocc.metrics' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *__all__})
