"""Thresholds of detectors, and of their heat maps, from their training images."""

from collections.abc import Callable
from numbers import Real
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skocc._samples.warnings import warn

# Scores whose relative difference is at most this are ties.
TIE = 1e-6


def below_ties(offset: float, scores: np.ndarray) -> float:
    """Return a threshold, moved below the scores that equal it up to rounding.

    The last digits of a score depend on the batch in which it is computed. Ties at the
    threshold count as normal, so no label of a training image depends on these digits.

    Parameters
    ----------
    offset : float
        The threshold.
    scores : ndarray of shape (n,), float64
        Scores of the training images.

    Returns
    -------
    offset : float
    """
    margin = TIE * np.max(np.abs(scores))
    ties = scores[np.abs(scores - offset) <= margin]
    return float(ties.min() - margin) if ties.size and margin > 0 else offset


def is_above(heat: np.ndarray, threshold: float) -> np.ndarray:
    """Return which values of a map (H, W) are above a threshold, or NaN."""
    # In float64: NumPy would round the threshold to the float32 of the map.
    return ~(heat.astype(np.float64) <= threshold)


def pixel_threshold(estimator, threshold) -> float:
    """Return a threshold for maps, which is that of the estimator if it is None.

    Raises
    ------
    ValueError
        `threshold` is no number.
    """
    if threshold is None:
        return estimator.pixel_threshold_
    if not isinstance(threshold, Real) or threshold != threshold:  # NaN
        raise ValueError(
            "threshold must be a number, above which a pixel of a map is anomalous. "
            f"Got {threshold!r}. Pass for example 1.5, or None for pixel_threshold_."
        )
    return float(threshold)


def highest_value(heat: np.ndarray) -> float:
    """Return the highest value of a map (H, W) as a finite number; NaN is the highest."""
    most = float(np.finfo(np.float32).max)
    return float(np.nan_to_num(np.max(heat), nan=most, posinf=most, neginf=-most))


class OffsetMixin:
    """Mixin for estimators with `score_samples` and a threshold `offset_`."""

    offset_: float
    score_samples: Callable

    def decision_function(self, X) -> np.ndarray:
        """Return the score minus the threshold.

        Parameters
        ----------
        X : images, rows or paths
            As in `fit`.

        Returns
        -------
        decision : ndarray of shape (n_samples,), float64
            ``score_samples(X) - offset_``; negative is an anomaly.
        """
        check_is_fitted(self)
        return self.score_samples(X) - self.offset_

    def predict(self, X) -> np.ndarray:
        """Label images as normal or anomalous.

        Parameters
        ----------
        X : images, rows or paths
            As in `fit`.

        Returns
        -------
        labels : ndarray of shape (n_samples,), int
            +1 for normal, -1 for anomalous. A score of NaN is an anomaly.
        """
        # NaN >= 0 is false, so a NaN score is an anomaly.
        return np.where(self.decision_function(X) >= 0, 1, -1)


class ContaminationMixin(OffsetMixin):
    """Mixin for estimators whose threshold is a quantile of `train_scores_`."""

    contamination: Any
    train_scores_: np.ndarray
    _validate_params: Callable
    _auto_offset: Callable

    def set_contamination(self, contamination):
        """Change the threshold of a fitted estimator without fitting again.

        Parameters
        ----------
        contamination : float in (0, 0.5] or "auto"
            Fraction of the training images that the new threshold labels as anomalous.
            "auto" uses the rule of the method's paper, if there is one.

        Returns
        -------
        self : estimator
            With `contamination`, `offset_` and, where there are heat maps,
            `pixel_threshold_` changed.

        Raises
        ------
        ValueError
            `contamination` is out of range, or "auto" for a method that has no rule.

        Warns
        -----
        UserWarning
            `offset_` was not the threshold of `contamination` so far, but set by hand, such
            as from :func:`~skocc.model_selection.find_threshold`. What that threshold
            promised does not hold for the new one.
        """
        check_is_fitted(self)
        previous, replaced = self.contamination, self.offset_
        was_set_by_hand = not self._is_offset_of_contamination()
        self.contamination = contamination
        try:
            self._validate_params()
            self._set_offset()
        except ValueError:
            self.contamination = previous
            raise
        if was_set_by_hand:
            warn(
                "set_contamination replaces a threshold that was not that of contamination="
                f"{previous!r}, but set by hand, and what it promised is gone. Got "
                f"offset_={replaced:.6g}, and {self.offset_:.6g} from the training scores. "
                f"Set offset_ = {replaced!r} to have it back, and use max_fpr in "
                "find_threshold or ThresholdTuner to change the rate of false alarms."
            )
        return self

    def _set_offset(self):
        """Set `offset_` from `train_scores_`."""
        self.offset_ = self._offset_of_contamination(self.train_scores_)

    def _offset_of_contamination(self, scores):
        """Return the threshold that `contamination` gives for scores (n,)."""
        if self.contamination == "auto":
            offset = self._auto_offset(scores)
        else:
            offset = np.percentile(scores, 100 * self.contamination)
        return below_ties(float(offset), scores)

    def _is_offset_of_contamination(self):
        """Return whether `offset_` is the threshold of `contamination`, up to rounding."""
        try:
            self._validate_params()
            expected = self._offset_of_contamination(self.train_scores_)
        except ValueError:  # set_params has set what cannot be
            return True
        # Finer than the margin below ties, by which thresholds of held-out scores differ.
        margin = 1e-3 * TIE * np.max(np.abs(self.train_scores_))
        return abs(self.offset_ - expected) <= margin


class NoPixelThreshold:
    """What `pixel_threshold_` is in a class: it says why an object has none.

    An attribute of the object comes first, because this descriptor cannot be set. The class
    has a method `_check_maps`, which raises an AttributeError where there are no maps.
    """

    def __get__(self, detector, owner=None):
        if detector is None:
            return self
        detector._check_maps()
        check_is_fitted(detector)
        raise AttributeError(
            f"This {type(detector).__name__} has no pixel_threshold_, the threshold of "
            "heat maps. Got a fit without one, as by earlier versions of skocc. Fit again, "
            "pass threshold= to anomaly_mask, or fit a ThresholdTuner(detector, "
            'cv="prefit") on other normal images, from whose maps it takes the threshold.'
        )


class PixelThresholdMixin:
    """Mixin for estimators with `anomaly_map` whose threshold `contamination` sets.

    The maximum of a map is a score of its image, and gets the threshold that scores get.
    """

    train_map_maxima_: np.ndarray
    pixel_threshold_: Any = NoPixelThreshold()
    _offset_of_contamination: Callable

    def _check_maps(self):
        """Raise an AttributeError that says why there are no maps: by default, never."""

    def _set_offset(self):
        """Set `offset_`, and `pixel_threshold_` from `train_map_maxima_`."""
        super()._set_offset()
        if hasattr(self, "train_map_maxima_"):
            offset = self._offset_of_contamination(-self.train_map_maxima_)
            self.pixel_threshold_ = 0.0 - offset
