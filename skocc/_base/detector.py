"""The base of all detectors: fit, scores, thresholds, labels."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils.validation import check_is_fitted

from skocc._base.fitted import FittedMixin
from skocc._base.private_sklearn import fit_context
from skocc._base.reading import unchanged_on_error, validate_images
from skocc._base.renamed import RenamedParametersMixin
from skocc._base.thresholds import below_ties
from skocc._engine.ambient import isolated
from skocc._engine.batches import keep_on_device
from skocc._engine.device import inference_dtype, on_device, resolve_device
from skocc._engine.seeding import seeded
from skocc._samples.sources import ImageSource
from skocc._samples.validation import warn_about_anomalies
from skocc._samples.warnings import warn


class CollapseWarning(UserWarning):
    """The fitted network gives (nearly) the same output for every training image.

    A network that ignores its input minimizes a one-class objective. Such a network cannot
    rank images, however small its loss is.
    """


class Scores(NamedTuple):
    """Scores of images, and the evidence of whether the network has collapsed.

    Attributes
    ----------
    scores : ndarray of shape (n,)
        Higher is more normal.
    spread : float, default=None
        Mean standard deviation of the features of these images, relative to the magnitude
        of the features. Only training images need it.
    values : ndarray of shape (n,), default=None
        The scores before a constant is added. None means that nothing is added.
    """

    scores: np.ndarray
    spread: float | None = None
    values: np.ndarray | None = None


@dataclass
class Run:
    """One call of `fit`.

    Attributes
    ----------
    device : torch.device
        Device to train on.
    generator : torch.Generator
        Generator on the CPU for the order of batches and all other random numbers.
    is_warm : bool
        Whether training continues from the fitted networks.
    source : image source
        The images as they were read.
    scores : Scores or None
        Scores of the training images, if `_fit` has computed them. If None, `fit` computes
        them.
    """

    device: torch.device
    generator: torch.Generator
    is_warm: bool
    source: ImageSource
    scores: Scores | None = None


class BaseDetector(RenamedParametersMixin, FittedMixin, OutlierMixin, BaseEstimator):
    """Base class of detectors: a subclass implements `_fit` and `_score`.

    A subclass has keyword-only parameters that `__init__` assigns, including those of
    ``DETECTOR_CONSTRAINTS`` and `device`. It implements

    ``_fit(images, run)``
        Learn from an image source in memory or on the device, and set the fitted
        attributes. Networks must be on the CPU and in eval mode. Random numbers come from
        private streams, through `run.generator` and torch's functions. If `_fit` raises an
        error, `fit` restores all attributes. Therefore `_fit` must not change an attribute
        in place: in a warm start, it trains a copy.
    ``_score(images, device)``
        Return `Scores` of an image source, computed with the network from `_on_device` on
        batches in the precision of `_dtype`.
    ``_check_parameters(n_samples)``
        Raise a ValueError for parameters that do not suit each other or ``image_shape_``.
        This method is optional.
    ``_auto_offset(train_scores)``
        Return the threshold for ``contamination="auto"``. This method is optional.
    ``_fitted_attributes``, ``_empty_network(attribute)``, ``_check_loaded()``
        Required only by `skocc.save`: see :class:`~skocc._base.fitted.FittedMixin`.
    """

    # Whether (n, d) may be plain rows, and the minimum number of training samples.
    _accepts_rows = False
    _min_samples = 2
    # Spread below which the network counts as collapsed. Features of a random network may
    # differ by 1e-3 of their magnitude and still rank images.
    _min_spread = 1e-3

    @fit_context(prefer_skip_nested_validation=True)
    @isolated
    def fit(self, X, y=None):
        """Learn from normal images.

        Parameters
        ----------
        X : images, rows or paths
            Normal samples only.
        y : Ignored
            Present for scikit-learn. Labels of anomalies raise a warning.

        Returns
        -------
        self : estimator
        """
        with unchanged_on_error(self):
            device = resolve_device(self.device)
            is_warm = getattr(self, "warm_start", False) and hasattr(self, "offset_")
            images = self._read(X, reset=not is_warm, min_samples=self._min_samples)
            warn_about_anomalies(y)
            # Before a GPU is given the images, for which all files may be decoded.
            self._check_parameters(len(images))
            with seeded(self.random_state, device) as generator:
                run = Run(device, generator, is_warm, images)
                images = keep_on_device(images, device)
                self._fit(images, run)
            result = run.scores or self._score(images, device)
            self.train_scores_ = _plain(result.scores)
            self._set_offset()
            self._set_collapsed(result)
        return self

    @isolated
    def score_samples(self, X) -> np.ndarray:
        """Score images: higher is more normal.

        Parameters
        ----------
        X : images, rows or paths
            As in `fit`.

        Returns
        -------
        scores : ndarray of shape (n_samples,), float64
        """
        check_is_fitted(self)
        images = self._read(X, reset=False)
        return _plain(self._score(images, self._scoring_device()).scores)

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
        """
        check_is_fitted(self)
        previous = self.contamination
        self.contamination = contamination
        try:
            self._validate_params()
            self._set_offset()
        except ValueError:
            self.contamination = previous
            raise
        return self

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        # With `image_shape`, rows are flattened images.
        is_flat = getattr(self, "image_shape", None) is not None
        tags.input_tags.two_d_array = self._accepts_rows or is_flat
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        return tags

    def _read(self, X, *, reset, min_samples=1):
        """Return X as an image source, and store its shape or compare it."""
        return validate_images(
            self, X, reset=reset, rows=self._accepts_rows, min_samples=min_samples
        )

    def _check_parameters(self, n_samples):
        """Raise a ValueError before any work: by default, for nothing."""

    def _scoring_device(self):
        return resolve_device(self.device, fall_back=True)

    def _dtype(self, device):
        """Return the precision that scores are computed in."""
        return inference_dtype(self.image_shape_, device)

    def _on_device(self, network, device):
        """Return a fitted network, or a copy, on `device` in the precision for scores."""
        return on_device(network, device, self._dtype(device))

    def _add_curves(self, run, **curves):
        """Set loss curves; in a warm start, append them to those of earlier fits."""
        for name, curve in curves.items():
            before = getattr(self, name) if run.is_warm else []
            setattr(self, name, [*before, *curve])

    def _set_offset(self):
        """Set `offset_` from `train_scores_`."""
        check_finite(self.train_scores_)
        if self.contamination == "auto":
            offset = self._auto_offset(self.train_scores_)
        else:
            offset = np.percentile(self.train_scores_, 100 * self.contamination)
        self.offset_ = below_ties(float(offset), self.train_scores_)

    def _set_collapsed(self, result):
        """Set `collapsed_`, and warn if the fitted network has collapsed."""
        # A constant may have been added to the scores, which hides their own magnitude.
        values = self.train_scores_ if result.values is None else result.values
        spread = np.inf if result.spread is None else result.spread
        # Scores of equal images differ by rounding, which depends on the batch size.
        constant = np.ptp(values) <= 1e-5 * np.max(np.abs(values)) or spread <= 1e-7
        self.collapsed_ = bool(constant or spread < self._min_spread)
        if self.collapsed_:
            what = (
                "the scores of all training images are the same"
                if constant
                else f"the features of the training images hardly differ ({spread:.1e} "
                "of their size)"
            )
            warn(
                f"{type(self).__name__} has collapsed: {what}. Either the images are "
                "identical, or the network has learned to ignore its input. Check X, "
                "train for fewer epochs or with a lower learning_rate, or pretrain an "
                "autoencoder first.",
                CollapseWarning,
            )


def check_finite(scores):
    """Raise a FloatingPointError if scores of training images are not finite.

    Training checks the losses, but the last step can diverge after the last loss.
    """
    n_bad = np.count_nonzero(~np.isfinite(scores))
    if n_bad:
        raise FloatingPointError(
            "The fitted model gives training images scores that are not finite. Got "
            f"{n_bad} of {len(scores)}. Lower the learning rate, or scale X to a range "
            "near [0, 1]."
        )


def _plain(scores):
    """Return scores as float64, with 0.0 in place of -0.0."""
    return np.asarray(scores, dtype=np.float64) + 0.0
