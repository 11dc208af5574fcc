"""Transformers of images to tables of features, and of video frames."""

from skocc.feature_extraction._background import BackgroundRemoval
from skocc.feature_extraction._deep import DeepFeatures
from skocc.feature_extraction._direct import DirectFeatures
from skocc.feature_extraction._pixels import Pixels

__all__ = ["BackgroundRemoval", "DeepFeatures", "DirectFeatures", "Pixels"]
