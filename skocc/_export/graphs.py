"""Which module computes what a fitted detector does: scores, labels, p-values, maps."""

from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import nn

from skocc._base.network_detector import NetworkDetector
from skocc._export.banks import CellNeighbors, PatchNeighbors
from skocc._export.ensembles import CombinedScores
from skocc._export.networks import Classifier, SampleScores
from skocc._export.pixels import DTYPES, Pixels
from skocc._export.reconstructions import CellErrors, PixelErrors
from skocc._export.spheres import ClipSpheres, LayerSpheres, Sphere
from skocc.estimators import MODULES
from skocc.model_selection import DetectorEnsemble, ThresholdTuner, TiledDetector

_GRAPHS: dict[str, Any] = {
    "ConvAE": PixelErrors,
    "DataSplitOCC": Classifier,
    "DeepSVDD": Sphere,
    "FeatureCAE": CellErrors,
    "MOCCA": LayerSpheres,
    "PatchSVDD": PatchNeighbors,
    "ResNetKNN": CellNeighbors,
    "VideoMOCCA": ClipSpheres,
}
# Methods by which detectors score: a class that overrides one scores in another way.
_SCORING = (
    "score_samples", "_score", "_maps_and_scores", "_embed", "_layer_scores", "_distances",
    "_scores_from", "_image_scores", "_image_errors", "_lowest",
)  # fmt: skip


class Subject(NamedTuple):
    """What is exported.

    Attributes
    ----------
    detector : estimator
        The fitted detector.
    offset : float
        Threshold of scores.
    pixel_threshold : float or None
        Threshold of maps.
    calibration_scores : ndarray of shape (n,) or None
        Scores of held-out images, from which p-values are computed.
    """

    detector: Any
    offset: float
    pixel_threshold: float | None
    calibration_scores: np.ndarray | None = None

    @classmethod
    def of(cls, estimator) -> "Subject":
        """Return the detector in an estimator, with its thresholds.

        Raises
        ------
        ValueError
            The estimator is none that can be exported.
        """
        check_is_fitted(estimator)
        scores, detector = None, estimator
        if isinstance(estimator, ThresholdTuner):
            if hasattr(estimator, "estimators_"):
                raise _refused(
                    "A ThresholdTuner that keeps a detector for each fold",
                    f"cv={estimator.cv!r} with refit=False",
                    "Set refit=True, by which one detector scores",
                )
            detector, scores = estimator.estimator_, estimator.calibration_scores_
        read_as(detector)  # which raises for what cannot be exported
        pixel_threshold = vars(estimator).get("pixel_threshold_")
        return cls(detector, float(estimator.offset_), pixel_threshold, scores)


class DetectorGraph(nn.Module):
    """Module from pixels to all outputs of a detector.

    Parameters
    ----------
    subject : Subject
    dtype : {"uint8", "float32"}
        Type of the pixels.

    Attributes
    ----------
    pixels : Pixels
    output_names : list of str
        Names of what `forward` returns, in this order.
    """

    offset: torch.Tensor
    calibration: torch.Tensor

    def __init__(self, subject: Subject, dtype: str):
        super().__init__()
        detector = subject.detector
        shape, intensity_range = read_as(detector)
        self.pixels = Pixels(shape, intensity_range, dtype)
        self.scores = _module_of(detector)
        self.register_buffer("offset", torch.tensor(subject.offset, dtype=torch.float32))
        self.output_names = ["score", "label"]
        self.has_p_values = subject.calibration_scores is not None
        if subject.calibration_scores is not None:
            calibration = torch.from_numpy(np.sort(subject.calibration_scores))
            self.register_buffer("calibration", calibration.float())
            self.output_names.append("p_value")
        if self.scores.has_maps:
            self.output_names.append("map")
        elif getattr(self.scores, "reconstructs", False):
            self.output_names.append("reconstruction_error")

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Map images to scores, labels, p-values and maps, where there are these."""
        score, *rest = self.scores(self.pixels(images))
        score = score.float()
        # A score of NaN is not above any threshold.
        label = torch.where(score >= self.offset, 1, -1)
        if not self.has_p_values:
            return score, label, *rest
        n_not_above = (self.calibration <= score[:, None]).float().sum(dim=1)
        p_value = (1 + n_not_above) / (len(self.calibration) + 1)
        return score, label, p_value, *rest


def read_as(detector):
    """Return the shape of the samples of a detector, and the range of their numbers.

    Returns
    -------
    shape : tuple
        ``image_shape_``.
    intensity_range : tuple (low, high) or None

    Raises
    ------
    ValueError
        The parts of an ensemble read images in several ways.
    """
    if not isinstance(detector, DetectorEnsemble):
        _kind_of(detector)  # which raises for what cannot be exported
        shape = tuple(int(n) for n in detector.image_shape_)
        return shape, getattr(detector, "intensity_range", None)
    found = {read_as(part) for part in detector.estimators_}
    if len(found) > 1:
        raise _refused(
            "A DetectorEnsemble whose parts read images in several sizes or ranges",
            " and ".join(map(str, sorted(found, key=str))),
            "Give them one image_size and intensity_range, and fit again",
        )
    return found.pop()


def check_dtype(dtype, detector):
    """Return the type of the input of a graph, or raise a ValueError."""
    is_rows = len(read_as(detector)[0]) == 1
    if dtype is None:
        return "float32" if is_rows else "uint8"
    if dtype not in DTYPES:
        raise ValueError(
            f"dtype must be one of {[*DTYPES]}, the type of the pixels that the graph is "
            f"given. Got {dtype!r}. Set dtype='uint8' for files of 8 bits, 'float32' for "
            "numbers as the detector was fitted on."
        )
    return dtype


def _module_of(detector):
    """Return the module of the scores of a detector, and of its maps."""
    if isinstance(detector, DetectorEnsemble):
        return CombinedScores(detector, _module_of)
    return _kind_of(detector)(detector)


def _kind_of(detector):
    """Return the class of the module for a detector."""
    if isinstance(detector, TiledDetector):
        raise _refused(
            "A TiledDetector",
            "one that cuts photographs of any size",
            "Export its `estimator_`, and cut the tiles before it",
        )
    for known, kind in _GRAPHS.items():
        cls = getattr(import_module(MODULES[known]), known)
        if isinstance(detector, cls):
            _check_not_overridden(detector, cls)
            return kind
    if isinstance(detector, NetworkDetector):
        _check_not_overridden(detector, NetworkDetector)
        return SampleScores
    raise _refused(
        "What is no detector of skocc, nor a NetworkDetector",
        f"a {type(detector).__name__}",
        "Export the detector alone, and do what else there is outside of the graph",
    )


def _check_not_overridden(detector, cls):
    """Raise a ValueError if a subclass scores in another way than the class does."""
    for method in _SCORING:
        if getattr(type(detector), method, None) is not getattr(cls, method, None):
            raise _refused(
                f"A class that overrides {method} of {cls.__name__}",
                f"a {type(detector).__name__}",
                "Derive it from NetworkDetector, whose sample_scores is exported",
            )


def _refused(what, got, advice):
    return ValueError(f"{what} cannot be exported. Got {got}. {advice}.")
