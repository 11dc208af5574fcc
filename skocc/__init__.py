"""Deep one-class classifiers for images behind the scikit-learn interface."""

import importlib

__version__ = "0.1.0"

#: Names of the detectors, in alphabetical order.
DETECTORS = (
    "ConvAE",
    "DataSplitOCC",
    "DeepSVDD",
    "FeatureCAE",
    "MOCCA",
    "PatchSVDD",
    "ResNetKNN",
)
# Where each public name lives. Importing skocc imports none of these modules, and so
# neither torch nor torchvision: a name is loaded when it is first used.
_MODULES = {
    "ConvAE": "skocc.estimators._conv_ae",
    "DataSplitOCC": "skocc.estimators._data_split_occ",
    "DeepSVDD": "skocc.estimators._deep_svdd",
    "FeatureCAE": "skocc.estimators._feature_cae",
    "MOCCA": "skocc.estimators._mocca",
    "PatchSVDD": "skocc.estimators._patch_svdd",
    "ResNetKNN": "skocc.estimators._resnet_knn",
    "CollapseWarning": "skocc._one_class",
    "load": "skocc._persistence",
    "predict_table": "skocc._table",
    "save": "skocc._persistence",
    "show_versions": "skocc._versions",
}
# Sub-packages, which their own import would make attributes.
_SUBPACKAGES = ("datasets", "feature_extraction", "metrics", "model_selection")
__all__ = [*_MODULES, "DETECTORS", "__version__"]


def __getattr__(name):
    if name in _SUBPACKAGES:
        return importlib.import_module(f"skocc.{name}")
    if name not in _MODULES:
        raise AttributeError(f"module 'skocc' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *__all__})
