"""Thresholds with a bounded false-positive rate, and conformal p-values."""

from numbers import Integral, Real

import numpy as np
from scipy import sparse
from scipy.stats import false_discovery_control
from sklearn.base import (
    BaseEstimator,
    MetaEstimatorMixin,
    OutlierMixin,
    clone,
)
from sklearn.utils import check_random_state, get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from skocc._base.doc_links import DocLinkMixin
from skocc._base.private_sklearn import (
    HasMethods,
    Interval,
    StrOptions,
    estimator_has,
    fit_context,
    num_samples,
    validate_params,
)
from skocc._base.renamed import RenamedParametersMixin, renamed_parameters
from skocc._samples.arrays import as_array
from skocc._samples.labels import anomaly_kinds, marked_or_warned
from skocc.model_selection._indexing import take

_RULES = ("conformal", "percentile", "median", "std", "f1")


@renamed_parameters
@validate_params(
    {
        "scores": ["array-like"],
        "y": ["array-like", None],
        "rule": [str],
        "k": [Real],
    },
    prefer_skip_nested_validation=True,
)
def find_threshold(scores, y=None, *, rule="conformal", max_fpr=0.05, k=3):
    """Find the threshold for scores of images that the detector was not trained on.

    A score below the threshold is an anomaly. Set it as ``detector.offset_ = ...``; for a
    detector without ``offset_`` use :class:`ThresholdTuner`. Read more in the :ref:`User
    Guide <thresholds>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    scores : array-like of shape (n_samples,)
        ``score_samples`` of held-out images; higher is more normal.
    y : array-like of shape (n_samples,), default=None
        +1 or "good" for normal, negative numbers or other names for anomalous. Needed for
        ``rule="f1"``; the other rules leave the anomalies out. None: all are normal.
    rule : {"conformal", "percentile", "median", "std", "f1"}, default="conformal"
        - "conformal": the rate of false alarms among new normal images is at most
          `max_fpr`, on average over sets of held-out images;
        - "percentile": the `max_fpr` quantile of the scores, interpolated, without this
          guarantee;
        - "median": the median of the scores, which calls half of such images anomalous;
        - "std": the mean of the scores less `k` standard deviations (divided by n);
        - "f1": where F1 of the anomalies is best; of equally good thresholds the lowest.
    max_fpr : float in (0, 1), default=0.05
        Highest rate of false alarms (false-positive rate), for "conformal" and
        "percentile".
    k : float, default=3
        For "std".

    Returns
    -------
    offset : float
        ``score < offset`` is an anomaly.

    Raises
    ------
    ValueError
        A parameter or label is none of the above; a score is not finite; there is no normal
        sample, or for "f1" no anomaly; or there are too few normal samples for a conformal
        threshold: fewer than ``1 / max_fpr - 1``.

    See Also
    --------
    ThresholdTuner : Holds out the images, and fits and sets the threshold in one.
    conformal_p_values : How unusual a score is among those held out.

    Notes
    -----
    The conformal threshold is the m-th lowest of n scores, with m = ``max_fpr * (n + 1)``
    rounded down: exactly the images with a conformal p-value of `max_fpr` or less are below
    it [1]_.

    If `scores` are those of the images to be labeled instead of held-out ones, "median" and
    "percentile" label a fixed fraction of them anomalous, whatever they show.

    References
    ----------
    .. [1] V. Vovk, A. Gammerman, G. Shafer, "Algorithmic Learning in a Random World",
       Springer, 2005.

    Examples
    --------
    >>> import numpy as np
    >>> from skocc.model_selection import find_threshold
    >>> scores = np.arange(1, 40)
    >>> find_threshold(scores)
    2.0
    >>> find_threshold(scores, rule="median")
    20.0
    """
    if rule not in _RULES:
        raise ValueError(
            f"rule must be one of {list(_RULES)}. Got {rule!r}. Set for example "
            "rule='conformal'."
        )
    _check_rate("max_fpr", max_fpr)
    scores = _finite_scores(scores)
    anomalous = np.zeros(len(scores), dtype=bool)
    if y is not None:
        anomalous = anomaly_kinds(_checked_labels(y, len(scores))) > 0
    normal = scores[~anomalous]
    if rule == "f1":
        return _f1_optimal(scores, anomalous)
    if rule == "conformal":
        rank = _conformal_rank(len(normal), max_fpr)
        return float(np.sort(normal)[rank - 1])
    with np.errstate(over="ignore", invalid="ignore"):
        if rule == "median":
            offset = np.median(normal)
        elif rule == "percentile":
            offset = np.quantile(normal, max_fpr)
        else:
            offset = np.mean(normal) - k * np.std(normal)
    if not np.isfinite(offset):
        raise ValueError(
            f"The scores, or k, are too large for rule={rule!r}: the threshold is not "
            f"finite. Got scores from {normal.min():.3g} to {normal.max():.3g}, k={k!r}. "
            "Divide the scores by a number, or set rule='conformal'."
        )
    return float(offset)


@validate_params(
    {
        "scores": ["array-like"],
        "calibration_scores": ["array-like"],
    },
    prefer_skip_nested_validation=True,
)
def conformal_p_values(scores, calibration_scores):
    """Compute p-values of new images from scores of held-out normal ones.

    Read more in the :ref:`User Guide <thresholds>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    scores : array-like of shape (n_samples,)
        ``score_samples`` of the new images; higher is more normal. NaN counts as the
        lowest score there is.
    calibration_scores : array-like of shape (n_calibration,)
        ``score_samples`` of normal images that the detector was not trained on.

    Returns
    -------
    p_values : ndarray of shape (n_samples,), float64
        One more than the number of calibration scores that are equal or lower, divided by
        ``n_calibration + 1``: in (0, 1].

    Raises
    ------
    ValueError
        There are no calibration scores, or one is not finite.

    See Also
    --------
    benjamini_hochberg : Anomalies of a batch with few false discoveries.
    find_threshold : The score at which the p-value reaches a rate.

    Notes
    -----
    Where a new normal image and the calibration images are exchangeable, such as drawn
    from one source and not near-duplicates, ``P(p <= t) <= t`` for every t, on average
    over the calibration images [1]_, also where scores are equal.

    References
    ----------
    .. [1] S. Bates, E. Candès, L. Lei, Y. Romano, M. Sesia, "Testing for outliers with
       conformal p-values", Annals of Statistics 51(1), 2023.

    Examples
    --------
    >>> from skocc.model_selection import conformal_p_values
    >>> conformal_p_values([0.0, 2.5, 9.0], [1.0, 2.0, 3.0, 4.0])
    array([0.2, 0.6, 1. ])
    """
    calibration = np.sort(_finite_scores(calibration_scores))
    scores = as_array("scores", scores, np.float64)
    scores = np.where(np.isnan(scores), -np.inf, scores)
    not_above = np.searchsorted(calibration, scores, side="right")
    return (1 + not_above) / (len(calibration) + 1)


@validate_params(
    {
        "p_values": ["array-like"],
    },
    prefer_skip_nested_validation=True,
)
def benjamini_hochberg(p_values, *, rate=0.05):
    """Label a batch of images with a bounded false-discovery rate.

    Read more in the :ref:`User Guide <thresholds>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    p_values : array-like of shape (n_samples,)
        Of all images of the batch, in [0, 1], small for anomalies.
    rate : float in (0, 1), default=0.05
        The false-discovery rate: the expected fraction of normal images among those that
        are labeled anomalous.

    Returns
    -------
    labels : ndarray of shape (n_samples,), int
        +1 normal, -1 anomalous.

    Raises
    ------
    ValueError
        `rate` or a p-value is out of range.

    See Also
    --------
    conformal_p_values : P-values from held-out scores.
    scipy.stats.false_discovery_control : Adjusted p-values.

    Notes
    -----
    The procedure of Benjamini and Hochberg, whose promise holds for conformal p-values
    although they share their calibration images [1]_. Such a p-value is at least
    ``1 / (n_calibration + 1)``, so that of m images a can only be found if
    ``n_calibration + 1 >= m / (a * rate)``: a batch with few anomalies needs many
    calibration images.

    References
    ----------
    .. [1] S. Bates, E. Candès, L. Lei, Y. Romano, M. Sesia, "Testing for outliers with
       conformal p-values", Annals of Statistics 51(1), 2023.

    Examples
    --------
    >>> from skocc.model_selection import benjamini_hochberg
    >>> benjamini_hochberg([0.01, 0.02, 0.04, 0.5], rate=0.05)
    array([-1, -1,  1,  1])
    """
    _check_rate("rate", rate)
    p_values = as_array("p_values", p_values, np.float64)
    if p_values.size == 0:
        return np.empty(0, dtype=int)
    if not (p_values.ndim == 1 and np.all((p_values >= 0) & (p_values <= 1))):
        raise ValueError(
            "p_values must be one row of numbers in [0, 1]. Got shape "
            f"{p_values.shape}, from {np.min(p_values)} to {np.max(p_values)}. Pass "
            "those of conformal_p_values or ThresholdTuner.p_values."
        )
    return np.where(false_discovery_control(p_values, method="bh") <= rate, -1, 1)


class ThresholdTuner(
    RenamedParametersMixin, DocLinkMixin, MetaEstimatorMixin, OutlierMixin, BaseEstimator
):
    """Give any detector a threshold, and p-values, from images it was not trained on.

    Holds out a part of the normal images, fits a clone of the detector on the others, and
    sets the threshold from the scores of the held-out images by `rule`. A conformal
    threshold keeps the rate of false alarms at most at `max_fpr`. Read more in the
    :ref:`User Guide <thresholds>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    estimator : estimator
        Anything with `fit` and `score_samples` (higher is more normal): a detector of
        skocc or scikit-learn, or a Pipeline that ends in one.
    rule : {"conformal", "percentile", "median", "std", "f1"}, default="conformal"
        How the threshold is found, see :func:`find_threshold`.
    max_fpr : float in (0, 1), default=0.05
        Highest rate of false alarms (false-positive rate): fraction of normal images that
        may be labeled anomalous, for "conformal" and "percentile".
    calibration_size : float in (0, 1) or int, default=0.2
        Fraction, or number, of the normal images that are held out. Not used with
        ``cv="prefit"``.
    cv : {"prefit"} or None, default=None
        "prefit": `estimator` is fitted already, on images other than X, and all of X is
        used for the threshold.
    k : float, default=3
        Standard deviations, for "std".
    random_state : int, RandomState or None, default=None
        Seed of the choice of held-out images. The detector has its own.

    Attributes
    ----------
    estimator_ : estimator
        The fitted detector; with ``cv="prefit"`` `estimator` itself.
    offset_ : float
        Threshold: ``decision_function(X) = score_samples(X) - offset_``.
    calibration_scores_ : ndarray of shape (n_calibration,), float64
        Scores of the normal images that were held out, in ascending order.
    n_features_in_ : int
        Of `estimator_`, where it has one.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Of `estimator_`, where it has them.

    See Also
    --------
    find_threshold : The threshold alone, to be set as ``offset_``.
    benjamini_hochberg : Labels from `p_values` with few false discoveries.
    sklearn.model_selection.TunedThresholdClassifierCV : The like for classifiers.

    Notes
    -----
    A conformal threshold guarantees that a new normal image is labeled anomalous with a
    probability of at most `max_fpr`, for any detector, if new and held-out images are
    exchangeable. The probability is over both: for one set of n held-out images, the rate
    has a standard deviation of about ``sqrt(rate * (1 - rate) / n)`` around it.
    Near-duplicates, such as frames of one video or photographs of one piece, break the
    guarantee if held-out images have near-duplicates among the training images and new
    images do not. In that case hold out whole videos or pieces yourself, and use
    ``cv="prefit"``.

    Images that `y` labels as anomalies are never trained on. ``rule="f1"`` needs them, and
    compares them with the held-out normal images; F1 depends on the number of each.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.ensemble import IsolationForest
    >>> from skocc.model_selection import ThresholdTuner
    >>> X = np.random.default_rng(0).normal(size=(500, 4))
    >>> tuner = ThresholdTuner(IsolationForest(random_state=0), random_state=0).fit(X)
    >>> new = np.array([[0.0, 0.0, 0.0, 0.0], [6.0, 6.0, 6.0, 6.0]])
    >>> tuner.predict(new)
    array([ 1, -1])
    >>> tuner.p_values(new).round(2)
    array([1.  , 0.01])
    """

    _parameter_constraints: dict = {
        "estimator": [HasMethods(["fit", "score_samples"])],
        "rule": [StrOptions(set(_RULES))],
        "max_fpr": [Interval(Real, 0, 1, closed="neither")],
        "calibration_size": [
            Interval(Real, 0, 1, closed="neither"),
            Interval(Integral, 1, None, closed="left"),
        ],
        "cv": [StrOptions({"prefit"}), None],
        "k": [Interval(Real, 0, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        estimator,
        *,
        rule="conformal",
        max_fpr=0.05,
        calibration_size=0.2,
        cv=None,
        k=3,
        random_state=None,
    ):
        self.estimator = estimator
        self.rule = rule
        self.max_fpr = max_fpr
        self.calibration_size = calibration_size
        self.cv = cv
        self.k = k
        self.random_state = random_state

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None):
        """Fit the detector on a part of the normal images, and set the threshold.

        Parameters
        ----------
        X : images, rows or paths
            Whatever the detector takes and can be indexed: an array, a tensor, a table, a
            list.
        y : array-like of shape (n_samples,), default=None
            Negative numbers for anomalies, or names other than "good", which are not
            trained on. All others are normal, with a warning where they are neither +1 nor
            "good". None: all are normal.

        Returns
        -------
        self : ThresholdTuner
            Fitted.

        Raises
        ------
        ValueError
            There are too few images to hold out and train on, or too few held out for
            the false-alarm rate; ``rule="f1"`` without anomalies.
        """
        X = _indexable(X)
        anomalous = np.zeros(num_samples(X), dtype=bool)
        if y is not None:
            anomalous = marked_or_warned(_checked_labels(y, len(anomalous)))
        if self.rule == "f1" and not anomalous.any():
            raise _no_anomalies(len(anomalous))
        train, calibration = self._split(np.flatnonzero(~anomalous))
        if self.rule == "conformal":  # before a long training
            _conformal_rank(len(calibration), self.max_fpr)
        if self.cv == "prefit":
            check_is_fitted(self.estimator)
            estimator = self.estimator
        else:
            estimator = clone(self.estimator).fit(take(X, train))
        judged = calibration
        if self.rule == "f1":
            judged = np.concatenate([calibration, np.flatnonzero(anomalous)])
        scores = _finite_scores(estimator.score_samples(take(X, judged)))
        self.offset_ = find_threshold(
            scores,
            np.where(anomalous[judged], -1, 1),
            rule=self.rule,
            max_fpr=self.max_fpr,
            k=self.k,
        )
        self.calibration_scores_ = np.sort(scores[: len(calibration)])
        self.estimator_ = estimator
        return self

    def fit_predict(self, X, y=None):
        """Fit, and label the same images.

        Parameters
        ----------
        X : images, rows or paths
            As in `fit`.
        y : array-like of shape (n_samples,), default=None
            As in `fit`.

        Returns
        -------
        labels : ndarray of shape (n_samples,), int
            +1 for normal, -1 for anomalous.
        """
        return self.fit(X, y).predict(X)

    def score_samples(self, X):
        """Score images by the detector: higher is more normal.

        Parameters
        ----------
        X : images, rows or paths
            As in `fit`.

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            ``estimator_.score_samples(X)``.
        """
        check_is_fitted(self)
        return self.estimator_.score_samples(X)

    def decision_function(self, X):
        """Signed score: the score minus the threshold.

        Parameters
        ----------
        X : images, rows or paths
            As in `fit`.

        Returns
        -------
        decision : ndarray of shape (n_samples,)
            ``score_samples(X) - offset_``; negative is an anomaly.
        """
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
        return np.where(self.decision_function(X) >= 0, 1, -1)

    def p_values(self, X):
        """Compute conformal p-values of images from the held-out normal ones.

        Parameters
        ----------
        X : images, rows or paths
            As in `fit`.

        Returns
        -------
        p_values : ndarray of shape (n_samples,), float64
            Small for anomalies, see :func:`conformal_p_values`. With ``rule="conformal"``,
            `predict` is -1 where this is at most `max_fpr`.
        """
        return conformal_p_values(self.score_samples(X), self.calibration_scores_)

    @available_if(estimator_has("anomaly_map"))
    def anomaly_map(self, X):
        """Score every pixel by the detector, where it can: higher is more anomalous.

        Parameters
        ----------
        X : images or paths
            As in `fit`.

        Returns
        -------
        maps : ndarray of shape (n_samples, H, W), float32
            ``estimator_.anomaly_map(X)``.
        """
        check_is_fitted(self)
        return self.estimator_.anomaly_map(X)

    @property
    def n_features_in_(self):
        """Values per sample of X."""
        return self._fitted_estimator("n_features_in_").n_features_in_

    @property
    def feature_names_in_(self):
        """Names of the columns of X."""
        return self._fitted_estimator("feature_names_in_").feature_names_in_

    def __sklearn_is_fitted__(self):
        return hasattr(self, "estimator_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags = get_tags(self.estimator).input_tags
        return tags

    def _fitted_estimator(self, name):
        if not hasattr(self, "estimator_"):
            raise AttributeError(f"{type(self).__name__} is not fitted and has no {name!r}")
        return self.estimator_

    def _split(self, normal):
        """Return indices to train on and to calibrate with."""
        if self.cv == "prefit":
            return normal[:0], normal
        n_calibration = self.calibration_size
        if not isinstance(n_calibration, Integral):
            n_calibration = int(np.ceil(n_calibration * len(normal)))
        if not 1 <= n_calibration < len(normal):
            raise ValueError(
                f"There must be normal images to train on besides the {n_calibration} that "
                f"are held out. Got n_samples = {len(normal)} normal ones, with "
                f"calibration_size={self.calibration_size!r}. Pass more images or lower "
                "calibration_size."
            )
        order = check_random_state(self.random_state).permutation(normal)
        # Training keeps the order of X, on which an unshuffled batch may depend.
        return np.sort(order[n_calibration:]), np.sort(order[:n_calibration])


def _check_rate(name, rate):
    if not (isinstance(rate, Real) and 0 < rate < 1):
        raise ValueError(
            f"{name} must be a number between 0 and 1. Got {rate!r}. Set for example "
            f"{name}=0.05."
        )


def _indexable(X):
    """Return X with rows that can be taken out."""
    if sparse.issparse(X):
        return X.tocsr()
    return X if hasattr(X, "__getitem__") else as_array("X", X)


def _finite_scores(scores):
    """Return scores as a row of float64; raise an error for NaN and infinite ones."""
    scores = as_array("scores", scores, np.float64)
    if scores.ndim != 1 or scores.size == 0 or not np.isfinite(scores).all():
        raise ValueError(
            "Scores to calibrate with must be a row of finite numbers, at least one. Got "
            f"shape {scores.shape}, {np.sum(~np.isfinite(scores))} of them not finite. "
            "Pass score_samples of held-out images, and check those whose score is NaN."
        )
    return scores


def _checked_labels(y, n_samples):
    """Return labels of which there is one for each sample."""
    y = as_array("y", y)
    if y.shape[:1] != (n_samples,) or y.ndim > 2 or y.size != n_samples:
        raise ValueError(
            f"y must have one label for each sample of X. Got shape {y.shape} for "
            f"{n_samples} samples. Pass 1 for normal and -1 for anomalous ones, or None."
        )
    return y.ravel()


def _no_anomalies(n_samples):
    return ValueError(
        "rule='f1' needs labeled anomalies to find the threshold by. Got none among "
        f"{n_samples} samples. Pass y with -1 for anomalies, or set rule='conformal', "
        "which needs normal images only."
    )


def _conformal_rank(n_calibration, rate):
    """Return how many calibration scores, from the lowest, a p-value of `rate` allows."""
    # Divided as the p-values are, so that both agree to the last bit.
    p_values = np.arange(1, n_calibration + 1) / (n_calibration + 1)
    rank = int(np.sum(p_values <= rate))
    if rank == 0:
        needed = int(np.ceil(1 / rate - 1 - 1e-9))
        raise ValueError(
            f"A false-alarm rate of {rate:g} cannot be promised with so few images: no "
            f"p-value is below {1 / (n_calibration + 1):.3g}. Got {n_calibration} normal "
            f"images to calibrate with (n_samples = {n_calibration}), and {needed} are "
            "needed. Hold out more of them (calibration_size), or raise max_fpr."
        )
    return rank


def _f1_optimal(scores, anomalous):
    """Return the threshold of the best F1, anomalies being the positive class."""
    if not anomalous.any():
        raise _no_anomalies(len(scores))
    values, inverse = np.unique(scores, return_inverse=True)
    n_found = np.bincount(inverse, weights=anomalous).cumsum()
    n_called = np.bincount(inverse).cumsum()
    best = int(np.argmax(2 * n_found / (n_called + anomalous.sum())))
    if best == len(values) - 1:
        return float(np.nextafter(values[best], np.inf))
    middle = values[best] / 2 + values[best + 1] / 2
    # Between neighboring floats there is no middle.
    return float(middle if middle > values[best] else values[best + 1])
