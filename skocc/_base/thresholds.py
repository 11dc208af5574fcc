"""Thresholds of detectors from the scores of their training images."""

from collections.abc import Callable
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
            With `contamination` and `offset_` changed.

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
        self.offset_ = self._offset_of_contamination()

    def _offset_of_contamination(self):
        """Return the threshold that `contamination` gives for `train_scores_`."""
        if self.contamination == "auto":
            offset = self._auto_offset(self.train_scores_)
        else:
            offset = np.percentile(self.train_scores_, 100 * self.contamination)
        return below_ties(float(offset), self.train_scores_)

    def _is_offset_of_contamination(self):
        """Return whether `offset_` is the threshold of `contamination`, up to rounding."""
        try:
            self._validate_params()
            expected = self._offset_of_contamination()
        except ValueError:  # set_params has set what cannot be
            return True
        # Finer than the margin below ties, by which thresholds of held-out scores differ.
        margin = 1e-3 * TIE * np.max(np.abs(self.train_scores_))
        return abs(self.offset_ - expected) <= margin
