"""The base of all detectors: fit, scores, thresholds, labels."""

import inspect
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils.validation import check_is_fitted

from skocc._base.callbacks import CallbackSupportMixin, FitCallbacks
from skocc._base.constraints import DETECTOR_CONSTRAINTS
from skocc._base.effects import check_effects
from skocc._base.fitted import FittedMixin
from skocc._base.private_sklearn import fit_context
from skocc._base.reading import unchanged_on_error, validate_images
from skocc._base.renamed import RenamedParametersMixin
from skocc._base.thresholds import ContaminationMixin
from skocc._engine.ambient import isolated
from skocc._engine.batches import keep_on_device
from skocc._engine.device import inference_dtype, on_device, resolve_device
from skocc._engine.seeding import seeded
from skocc._engine.sharing import fit_beside_others
from skocc._samples.log import logger
from skocc._samples.sources import ReadImages
from skocc._samples.validation import warn_about_anomalies
from skocc._samples.warnings import warn


class CollapseWarning(UserWarning):
    """The fitted network gives (nearly) the same output for every training image.

    A network that ignores its input minimizes a one-class objective. Such a network cannot
    rank images, however small its loss is. Read more in the :ref:`User Guide <deep_svdd>`.

    Examples
    --------
    Identical images leave nothing to learn. A program that fits many detectors makes the
    warning an error, and goes on with the next:

    >>> import warnings
    >>> import numpy as np
    >>> from skocc import CollapseWarning, DeepSVDD
    >>> images = np.full((20, 8, 8), 0.5)
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", CollapseWarning)
    ...     try:
    ...         DeepSVDD(pretrain_n_epochs=1, n_epochs=1, random_state=0).fit(images)
    ...     except CollapseWarning:
    ...         print("collapsed")
    collapsed
    """


class Scores(NamedTuple):
    """Scores of images, and the evidence of whether the network has collapsed.

    Read more in the :ref:`User Guide <own_method>`.

    Parameters
    ----------
    scores : ndarray of shape (n,)
        Higher is more normal.
    spread : float, default=None
        Mean standard deviation of the features of these images, relative to the magnitude
        of the features. Only training images need it.
    values : ndarray of shape (n,), default=None
        The scores before a constant is added. None means that nothing is added.
    map_maxima : ndarray of shape (n,), default=None
        Highest value of the heat map of each image. Only training images need it; None:
        `fit` computes the maps in a pass of its own, where the detector has any.

    Examples
    --------
    >>> import numpy as np
    >>> from skocc.base import Scores
    >>> scores, spread, *_ = Scores(np.array([-0.5, -2.0]), spread=0.4)
    >>> scores, spread
    (array([-0.5, -2. ]), 0.4)
    """

    scores: np.ndarray
    spread: float | None = None
    values: np.ndarray | None = None
    map_maxima: np.ndarray | None = None


@dataclass
class Run:
    """One call of `fit`.

    Read more in the :ref:`User Guide <own_method>`.

    Parameters
    ----------
    device : torch.device
        Device to train on.
    generator : torch.Generator
        Generator on the CPU for the order of batches and all other random numbers.
    is_warm : bool
        Whether training continues from the fitted networks.
    source : image source
        The images as they were read.
    callbacks : FitCallbacks
        The callbacks of scikit-learn, if there are any.
    scores : Scores or None
        Scores of the training images, if `_fit` has computed them. If None, `fit` computes
        them.
    n_before : int
        Number of images that earlier calls of `partial_fit` were given; 0 in `fit`.
    identity : dict or None
        What identifies this fit in checkpoints, once it has written or read any.

    Examples
    --------
    Random numbers of a fit come from the generator of its run, which `random_state` seeds:

    >>> import numpy as np
    >>> import torch
    >>> from skocc.base import BaseDetector, ImageBatches, Run, Scores
    >>> class RandomDirection(BaseDetector):
    ...     def _fit(self, images, run: Run):
    ...         self.direction_ = torch.randn(64, generator=run.generator)
    ...
    ...     def _score(self, images, device):
    ...         batches = ImageBatches(images, self.batch_size, device=device)
    ...         direction = self.direction_.to(device)
    ...         scores = [(batch.flatten(1) @ direction).cpu() for batch in batches]
    ...         return Scores(np.concatenate(scores))
    >>> images = np.random.default_rng(0).random((20, 8, 8))
    >>> first, second = (RandomDirection(random_state=0).fit(images) for _ in range(2))
    >>> bool((first.direction_ == second.direction_).all())
    True
    """

    device: torch.device
    generator: torch.Generator
    is_warm: bool
    source: ReadImages
    callbacks: FitCallbacks
    scores: Scores | None = None
    n_before: int = 0
    identity: dict | None = None


class BaseDetector(
    RenamedParametersMixin,
    FittedMixin,
    CallbackSupportMixin,
    ContaminationMixin,
    OutlierMixin,
    BaseEstimator,
):
    """Base class of detectors: a subclass implements `_fit` and `_score`.

    It reads X, and gives `fit`, `score_samples`, `decision_function`, `predict`,
    thresholds, seeds, callbacks, and the rollback of a failed fit. For a method that trains
    one network, `NetworkDetector` does the rest as well. Read more in the :ref:`User Guide
    <own_method>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    batch_size : int, default=32
        Images per batch, at least 2.
    contamination : float, default=0.1
        Fraction of the training images called anomalous, in (0, 0.5]; it sets `offset_`.
    image_shape : tuple (H, W) or (H, W, C), default=None
        Shape of the images in flattened rows, in pixels; one entry may be -1.
    image_size : int or tuple (H, W), default=None
        Size in pixels that all images are resized to (bilinear, antialiased). None: the
        images have one size already.
    intensity_range : tuple (low, high), default=None
        Numbers that are read as 0 and 1, in every image alike. None: the range of uint8 and
        uint16, and other numbers as they are.
    device : str or torch.device, default=None
        Where to compute. None takes CUDA, then MPS, then the CPU.
    random_state : int, RandomState or None, default=None
        An int makes fits reproducible, bit by bit on a CPU.
    verbose : int, default=0
        Whether progress bars are shown, of each stage that takes two seconds or more.

    Attributes
    ----------
    offset_ : float
        Threshold: ``decision_function(X) = score_samples(X) - offset_``.
    train_scores_ : ndarray of shape (n_samples,), float64
        Scores of the training images.
    collapsed_ : bool
        Whether all training images have nearly the same score or features.
    image_shape_ : tuple
        (H, W, C) of the images, (d,) for plain rows.
    n_features_in_ : int
        Values per sample of X.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where X was a table with names that are all text.

    See Also
    --------
    skocc.base.NetworkDetector : Base class of detectors that train one network.

    Notes
    -----
    Parameters are keyword-only, and `__init__` assigns them and does nothing else. An
    `__init__` that ends in ``**params`` and passes these to ``super().__init__`` gives its
    class the parameters of the class above as well. ``_parameter_constraints`` has the
    constraints of all parameters in scikit-learn's format. A subclass implements

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
    ``_without_effect``
        Parameters that change nothing beside the values of others, as
        ``skocc._base.effects.NoEffect``. This attribute is optional.
    ``_auto_offset(train_scores)``
        Return the threshold for ``contamination="auto"``. This method is optional.
    ``_fitted_attributes``, ``_empty_network(attribute)``, ``_check_loaded()``
        Required only by `skocc.save`: what `fit` sets, each a :class:`~skocc.base.Fitted`;
        each network before its weights are loaded; and a check that they match each other.

    A method that overrides `_score` alone is scored by it in `fit` as well.

    Examples
    --------
    The distance to the mean of the training images is the score:

    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from skocc.base import BaseDetector, ImageBatches, Scores
    >>> class MeanImage(BaseDetector):
    ...     def _fit(self, images, run):
    ...         batches = ImageBatches(images, self.batch_size, device=run.device)
    ...         total = sum(batch.sum(dim=0) for batch in batches)
    ...         self.mean_ = (total / len(images)).cpu()
    ...
    ...     def _score(self, images, device):
    ...         batches = ImageBatches(images, self.batch_size, device=device)
    ...         mean = self.mean_.to(device)
    ...         errors = [(batch - mean).flatten(1).norm(dim=1).cpu() for batch in batches]
    ...         return Scores(-np.concatenate(errors))
    >>> digits = load_digits()
    >>> zeros = digits.images[digits.target == 0] / 16
    >>> detector = MeanImage().fit(zeros[:150])
    >>> labels = detector.predict(digits.images[digits.target == 1] / 16)
    >>> float((labels == -1).mean())
    1.0
    """

    _parameter_constraints = DETECTOR_CONSTRAINTS
    # Whether (n, d) may be plain rows, and the minimum number of training samples.
    _accepts_rows = False
    _min_samples = 2
    # Whether `train_scores_` compare each image with the others only, so that a threshold
    # may be taken from them, by ThresholdTuner(cv="loo").
    _train_scores_leave_one_out = False
    # Spread below which the network counts as collapsed. Features of a random network may
    # differ by 1e-3 of their magnitude and still rank images.
    _min_spread = 1e-3
    _without_effect: tuple = ()

    def __init__(
        self,
        *,
        batch_size=32,
        contamination=0.1,
        image_shape=None,
        image_size=None,
        intensity_range=None,
        device=None,
        random_state=None,
        verbose=0,
    ):
        self.batch_size = batch_size
        self.contamination = contamination
        self.image_shape = image_shape
        self.image_size = image_size
        self.intensity_range = intensity_range
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def __init_subclass__(cls, **kwargs):
        _name_all_parameters(cls)
        super().__init_subclass__(**kwargs)

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
            Fitted estimator.
        """
        is_warm = getattr(self, "warm_start", False) and hasattr(self, "offset_")
        # One image at least is held out.
        min_samples = self._min_samples + (getattr(self, "validation_fraction", 0) > 0)
        return self._learn(X, y, self._fit, is_warm=is_warm, min_samples=int(min_samples))

    def _learn(self, X, y, learn, *, is_warm, min_samples, n_before=0):
        """Learn from X by a method such as `_fit`, and set all that follows from it.

        Parameters
        ----------
        X, y
            As in `fit`.
        learn : callable
            Function ``learn(images, run)`` that sets what the method learns.
        is_warm : bool
            Whether X must have the shape of the images before.
        min_samples : int
        n_before : int, default=0
            As in :class:`Run`.
        """
        callbacks = FitCallbacks(self, X, y)
        device = resolve_device(self.device)

        def attempt():
            with unchanged_on_error(self):
                images = self._read(X, reset=not is_warm, min_samples=min_samples)
                warn_about_anomalies(y)
                # Before a GPU is given the images, for which all files may be decoded.
                check_effects(self)
                self._check_parameters(n_before + len(images))
                name = type(self).__name__
                logger.info("%s: fits %d samples %s", name, len(images), images.shape[1:])
                with seeded(self.random_state, device, n_before) as generator:
                    run = Run(
                        device, generator, is_warm, images, callbacks, n_before=n_before
                    )
                    images = keep_on_device(images, device)
                    learn(images, run)
                self._set_collapsed(self._set_threshold(images, run))
                logger.info("%s: is fitted, with offset_=%.6g", name, self.offset_)

        fit_beside_others(attempt, device, self.random_state)
        callbacks.end()
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
            Higher is more normal.
        """
        check_is_fitted(self)
        images = self._read(X, reset=False)
        return _plain(self._score(images, self._scoring_device()).scores)

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

    def _set_threshold(self, images, run):
        """Set `train_scores_` and `offset_`, and return the scores with their evidence."""
        result = self._score_training(images, run)
        self.train_scores_ = _plain(result.scores)
        self._set_offset()
        return result

    def _score_training(self, images, run):
        """Return the scores of the training images, which `_fit` may have computed."""
        known = None if _is_scored_anew(type(self)) else run.scores
        return known or self._score(images, run.device)

    def _set_offset(self):
        """Set `offset_` from `train_scores_`."""
        check_finite(self.train_scores_)
        super()._set_offset()

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


def _is_scored_anew(cls):
    """Return whether a subclass overrides `_score`, but not what sets `run.scores`."""
    for base in cls.__mro__:
        if found := {"_score", "_keep", "_fit"} & vars(base).keys():
            return found == {"_score"}
    return False


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


def _name_all_parameters(cls):
    """Give an `__init__` that ends in ``**params`` a signature that names all of them.

    scikit-learn, editors and the documentation read the parameters there. Those of the
    class come first, as everywhere, and then those of the class above.
    """
    init = vars(cls).get("__init__")
    if init is None:
        return
    own = inspect.signature(init).parameters
    if all(p.kind is not p.VAR_KEYWORD for p in own.values()):
        return
    own = {name: p for name, p in own.items() if p.kind is not p.VAR_KEYWORD}
    above = dict(inspect.signature(super(cls, cls).__init__).parameters)
    new = [name for name in own if name not in above]
    order = ["self", *new, *(name for name in above if name != "self")]
    init.__signature__ = inspect.Signature([(above | own)[name] for name in order])


def _plain(scores):
    """Return scores as float64, with 0.0 in place of -0.0."""
    return np.asarray(scores, dtype=np.float64) + 0.0
