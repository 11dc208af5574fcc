"""Deep one-class classifiers for images behind the scikit-learn interface."""

import importlib
from typing import TYPE_CHECKING

from skocc._base.versions import __version__ as __version__
from skocc.estimators import MODULES as _DETECTOR_MODULES

#: Names of the detectors, in alphabetical order.
DETECTORS = tuple(_DETECTOR_MODULES)
# Where each public name lives. Importing skocc imports none of these modules, and so
# neither torch nor torchvision: a name is loaded when it is first used.
_MODULES = {
    **_DETECTOR_MODULES,
    "CollapseWarning": "skocc._base.detector",
    "export_onnx": "skocc._export.onnx",
    "load": "skocc._persistence.model_files",
    "predict_table": "skocc.model_selection._table",
    "register": "skocc._persistence.model_files",
    "save": "skocc._persistence.model_files",
    "show_versions": "skocc._base.versions",
}
# Sub-packages, which their own import would make attributes.
_SUBPACKAGES = (
    "base",
    "datasets",
    "feature_extraction",
    "metrics",
    "model_selection",
    "plotting",
)
__all__ = [*_MODULES, *_SUBPACKAGES, "DETECTORS", "__version__"]

# Editors and type checkers run nothing, and so cannot see what __getattr__ loads. Where
# they see __getattr__, they take every name for one of the package.
if TYPE_CHECKING:
    from skocc import base as base
    from skocc import datasets as datasets
    from skocc import feature_extraction as feature_extraction
    from skocc import metrics as metrics
    from skocc import model_selection as model_selection
    from skocc import plotting as plotting
    from skocc._base.detector import CollapseWarning as CollapseWarning
    from skocc._base.versions import show_versions as show_versions
    from skocc._export.onnx import export_onnx as export_onnx
    from skocc._persistence.model_files import load as load
    from skocc._persistence.model_files import register as register
    from skocc._persistence.model_files import save as save
    from skocc.estimators._conv_ae import ConvAE as ConvAE
    from skocc.estimators._data_split_occ import DataSplitOCC as DataSplitOCC
    from skocc.estimators._deep_svdd import DeepSVDD as DeepSVDD
    from skocc.estimators._feature_cae import FeatureCAE as FeatureCAE
    from skocc.estimators._mocca import MOCCA as MOCCA
    from skocc.estimators._patch_svdd import PatchSVDD as PatchSVDD
    from skocc.estimators._resnet_knn import ResNetKNN as ResNetKNN
    from skocc.estimators._video_mocca import VideoMOCCA as VideoMOCCA
    from skocc.model_selection._table import predict_table as predict_table
else:

    def __getattr__(name):
        if name in _SUBPACKAGES:
            return importlib.import_module(f"skocc.{name}")
        if name not in _MODULES:
            raise AttributeError(f"module 'skocc' has no attribute {name!r}")
        value = getattr(importlib.import_module(_MODULES[name]), name)
        globals()[name] = value
        return value


def __dir__():
    return sorted(__all__)
