"""Transformers of images: to tables for scikit-learn's detectors; of frames of videos."""

from skocc.feature_extraction._background import BackgroundRemoval
from skocc.feature_extraction._deep import DeepFeatures
from skocc.feature_extraction._direct import DirectFeatures

__all__ = ["BackgroundRemoval", "DeepFeatures", "DirectFeatures"]
