"""What every estimator shares in meaning: thresholds, labels, signs, warnings."""

from contextlib import contextmanager
from numbers import Integral, Real

import numpy as np
from sklearn.base import OutlierMixin
from sklearn.utils.validation import check_is_fitted

from skocc._fitted import FittedMixin
from skocc._images import resize_array
from skocc._sklearn import Interval, StrOptions
from skocc._validation import validate_images
from skocc._warnings import warn

# Relative difference up to which scores are ties.
_TIE = 1e-6
# Of everything that takes images.
IMAGE_CONSTRAINTS = {
    "batch_size": [Interval(Integral, 2, None, closed="left")],
    "image_shape": [None, tuple, list],
    "image_size": [None, Interval(Integral, 1, None, closed="left"), tuple, list],
    "intensity_range": [None, tuple, list],
    "random_state": ["random_state"],
    "verbose": ["verbose"],
}
# Of detectors, also those that train nothing.
DETECTOR_CONSTRAINTS = {
    **IMAGE_CONSTRAINTS,
    "contamination": [StrOptions({"auto"}), Interval(Real, 0, 0.5, closed="right")],
}
# Beyond that the first step of Adam, ten times as large, overflows float32.
_LARGEST = 1e37
LEARNING_RATE = [Interval(Real, 0, _LARGEST, closed="right")]
WEIGHT_DECAY = [Interval(Real, 0, _LARGEST, closed="both")]
SHARED_CONSTRAINTS = {
    **DETECTOR_CONSTRAINTS,
    "n_epochs": [Interval(Integral, 0, None, closed="left")],
    "learning_rate": LEARNING_RATE,
    "weight_decay": WEIGHT_DECAY,
    "warm_start": ["boolean"],
}


class CollapseWarning(UserWarning):
    """The fitted network gives (nearly) the same output for every training image.

    A one-class objective is minimised by a network that ignores its input. Such a network
    ranks nothing, however small its loss.
    """


@contextmanager
def unchanged_on_error(estimator):
    """Put all attributes back if the block fails: a failed fit leaves nothing half done.

    Parameters
    ----------
    estimator : estimator
        Its attributes may be replaced in the block, not changed in place.
    """
    attributes = dict(vars(estimator))
    try:
        yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(attributes)
        raise


def check_finite(scores):
    """Raise a FloatingPointError for scores of training images that are not finite.

    The last step of a training can be the one that goes wrong, after the last loss.
    """
    n_bad = np.count_nonzero(~np.isfinite(scores))
    if n_bad:
        raise FloatingPointError(
            "The fitted model gives training images scores that are not finite. Got "
            f"{n_bad} of {len(scores)}. Lower the learning rate, or bring X to a range "
            "near [0, 1]."
        )


def _below_ties(offset, scores):
    """Return the threshold, moved below scores that are as large up to rounding.

    Scores differ in their last digits with the batch they are computed in. Ties at the
    threshold count as normal, and no label of a training image hangs on these digits.
    """
    margin = _TIE * np.max(np.abs(scores))
    ties = scores[np.abs(scores - offset) <= margin]
    return float(ties.min() - margin) if ties.size and margin > 0 else offset


class OneClassMixin(FittedMixin, OutlierMixin):
    """Threshold and labels for estimators with `score_samples`.

    The estimator implements ``score_samples`` (higher is more normal) and calls
    ``_set_offset`` at the end of ``fit``. ``_auto_offset``, where a method has a
    threshold of its own, serves ``contamination="auto"``.
    """

    def decision_function(self, X):
        """Signed score: the score minus the threshold.

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

    def predict(self, X):
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

    def set_contamination(self, contamination):
        """Change the threshold of a fitted estimator without fitting again.

        Parameters
        ----------
        contamination : float in (0, 0.5] or "auto"
            Fraction of the training images that the new threshold calls anomalous, or
            the rule of the method's source.

        Returns
        -------
        self : estimator
            With `contamination` and `offset_` changed.

        Raises
        ------
        ValueError
            `contamination` is out of range, or "auto" where the method has no rule.
        """
        check_is_fitted(self)
        previous = self.contamination
        self.contamination = contamination
        try:
            self._validate_params()
            self._set_offset(self.train_scores_)
        except ValueError:
            self.contamination = previous
            raise
        return self

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        return tags

    def _set_offset(self, train_scores):
        """Set `offset_` from honest scores of the training images."""
        check_finite(train_scores)
        if self.contamination == "auto":
            offset = self._auto_offset(train_scores)
        else:
            offset = np.percentile(train_scores, 100 * self.contamination)
        self.offset_ = _below_ties(float(offset), train_scores)
        self.train_scores_ = train_scores

    def _auto_offset(self, train_scores):
        raise ValueError(
            f"{type(self).__name__} has no threshold rule of its own. Got "
            "contamination='auto'. Set contamination to a fraction in (0, 0.5]."
        )

    def _set_collapsed(self, spread, values, min_spread=1e-3):
        """Set `collapsed_`, and warn where the fitted network says nothing.

        `spread` is the mean standard deviation of the features, relative to their size;
        `values` are what the scores of the training images are made of, before a constant
        is added: a difference of nearly equal numbers has no size to compare with.
        """
        # Equal images differ by the rounding that differs with the size of a batch.
        constant = np.ptp(values) <= 1e-5 * np.max(np.abs(values)) or spread <= 1e-7
        self.collapsed_ = bool(constant or spread < min_spread)
        if self.collapsed_:
            what = (
                "the scores of all training images are the same"
                if constant
                else f"the features of the training images hardly differ ({spread:.1e} "
                "of their size)"
            )
            warn(
                f"{type(self).__name__} has collapsed: {what}. Either the images are "
                "identical, or the network has learnt to ignore its input. Check X; "
                "train for fewer epochs, with a smaller learning_rate, or with an "
                "autoencoder stage before.",
                CollapseWarning,
            )


class AnomalyMapMixin:
    """Heat maps for estimators that say where an image is anomalous.

    The estimator implements ``_anomaly_map(images)``, from an image source to maps
    (n, H, W) of the size the images have in ``image_shape_``.
    """

    def anomaly_map(self, X):
        """Score every pixel: higher is more anomalous.

        Parameters
        ----------
        X : images or paths
            As in `fit`.

        Returns
        -------
        maps : ndarray of shape (n_samples, H, W), float32
            At the size of the images in X, also where `image_size` resizes them before
            they are scored. Files of different sizes have maps of `image_size`.

        Raises
        ------
        ValueError
            X is not usable, or has another shape than in `fit`.
        """
        check_is_fitted(self)
        images = validate_images(self, X, reset=False)
        maps = self._anomaly_map(images).astype(np.float32, copy=False)
        size = images.original_size or images.shape[1:3]
        if maps.shape[1:] == tuple(size):
            return maps
        return np.stack([resize_array(m[:, :, np.newaxis], size)[:, :, 0] for m in maps])
