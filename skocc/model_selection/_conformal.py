"""Conformal p-values, and labels from p-values: batches, streams, and the undecided."""

from numbers import Real

import numpy as np
from scipy.stats import false_discovery_control

from skocc._base.private_sklearn import validate_params
from skocc._samples.arrays import as_array


@validate_params(
    {
        "scores": ["array-like"],
        "calibration_scores": ["array-like"],
        "weights": ["array-like", None],
        "calibration_weights": ["array-like", None],
    },
    prefer_skip_nested_validation=True,
)
def conformal_p_values(
    scores, calibration_scores, *, weights=None, calibration_weights=None
):
    r"""Compute p-values of new images from scores of held-out normal ones.

    With weights, the held-out images may come from another distribution than the new ones,
    such as from a camera before it drifted. Read more in :doc:`/guide/promises`.

    .. versionadded:: 0.1

    Parameters
    ----------
    scores : array-like of shape (n_samples,)
        ``score_samples`` of the new images; higher is more normal. NaN counts as the
        lowest score there is.
    calibration_scores : array-like of shape (n_calibration,)
        ``score_samples`` of normal images that the detector was not trained on.
    weights : array-like of shape (n_samples,), default=None
        Ratio w of the density of new normal images to that of the held-out ones, at each
        new image; known up to a factor, more than 0. None: 1 for each.

        .. versionadded:: 0.1
    calibration_weights : array-like of shape (n_calibration,), default=None
        The same ratio at each held-out image, at least 0. None: 1 for each.

        .. versionadded:: 0.1

    Returns
    -------
    p_values : ndarray of shape (n_samples,), float64
        One more than the number of calibration scores that are equal or lower, divided by
        ``n_calibration + 1``: in (0, 1]. With weights, see Notes.

    Raises
    ------
    ValueError
        There are no calibration scores, or one is not finite; or weights are out of range,
        or not as many as the scores.

    See Also
    --------
    benjamini_hochberg : Anomalies of a batch with few false discoveries.
    find_threshold : The score at which the p-value reaches a rate.

    Notes
    -----
    Where a new normal image and the calibration images are exchangeable, such as drawn
    from one source and not near-duplicates, ``P(p <= t) <= t`` for every t, on average
    over the calibration images [1]_, also where scores are equal.

    Under covariate shift, new normal images have another density than the calibration
    images. For a new image with the score s and the weight w, and calibration images with
    scores :math:`s_i` and weights :math:`w_i`,

    .. math::

       p = \frac{w + \sum_i w_i \, [s_i \le s]}{w + \sum_i w_i} ,

    and ``P(p <= t) <= t`` holds again [2]_ [3]_, if the ratio is known. If it was
    estimated, its errors add to the rate. The smallest p-value of an image is its own part
    of all weights: an image unlike all held-out ones cannot be called anomalous.

    References
    ----------
    .. [1] S. Bates, E. Candès, L. Lei, Y. Romano, M. Sesia, "Testing for outliers with
       conformal p-values", Annals of Statistics 51(1), 2023.
    .. [2] R. Tibshirani, R. Foygel Barber, E. Candès, A. Ramdas, "Conformal prediction
       under covariate shift", NeurIPS 2019, arXiv:1904.06019.
    .. [3] Y. Jin, E. Candès, "Model-free selective inference under covariate shift via
       weighted conformal p-values", arXiv:2307.09291, 2023.

    Examples
    --------
    >>> from skocc.model_selection import conformal_p_values
    >>> conformal_p_values([0.0, 2.5, 9.0], [1.0, 2.0, 3.0, 4.0])
    array([0.2, 0.6, 1. ])

    Where the image that scored 1.0 stands for three of the new kind:

    >>> conformal_p_values([0.0, 2.5], [1.0, 2.0, 3.0], calibration_weights=[3, 1, 1])
    array([0.16666667, 0.83333333])
    """
    calibration = finite_scores(calibration_scores)
    order = np.argsort(calibration, kind="stable")
    scores = as_array("scores", scores, np.float64)
    scores = np.where(np.isnan(scores), -np.inf, scores)
    not_above = np.searchsorted(calibration[order], scores, side="right")
    if weights is None and calibration_weights is None:
        return (1 + not_above) / (len(calibration) + 1)
    own = _checked_weights("weights", weights, scores.shape)
    if np.any(own == 0):
        raise ValueError(
            "weights of new images must be more than 0, for a p-value of 0 says nothing. "
            f"Got {np.sum(own == 0)} of 0. Limit them, for example by "
            "np.maximum(weights, 1e-3)."
        )
    others = _checked_weights("calibration_weights", calibration_weights, calibration.shape)
    sums = np.concatenate([[0.0], np.cumsum(others[order])])
    return (own + sums[not_above]) / (own + sums[-1])


def _checked_weights(name, weights, shape):
    """Return weights as floats; ones, if there are none."""
    if weights is None:
        return np.ones(shape)
    weights = as_array(name, weights, np.float64)
    in_range = (weights >= 0) & (weights < 1e100)
    if weights.shape != shape or not in_range.all():
        raise ValueError(
            f"{name} must be one number for each score, at least 0. Got shape "
            f"{weights.shape} for scores of shape {shape}, and {np.sum(~in_range)} out of "
            "range. Pass a ratio of densities, or None."
        )
    return weights


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
    check_rate("rate", rate)
    p_values = _checked_p_values(p_values)
    if p_values.size == 0:
        return np.empty(0, dtype=int)
    return np.where(false_discovery_control(p_values, method="bh") <= rate, -1, 1)


@validate_params(
    {
        "p_values": ["array-like"],
        "band": ["array-like"],
    },
    prefer_skip_nested_validation=True,
)
def labels_with_rejection(p_values, *, band=(0.01, 0.1)):
    """Label images as normal, anomalous, or undecided.

    An undecided image is one for a person to look at. Read more in :doc:`/guide/promises`.

    .. versionadded:: 0.1

    Parameters
    ----------
    p_values : array-like of shape (n_samples,)
        In [0, 1], small for anomalies.
    band : tuple (low, high), default=(0.01, 0.1)
        Images with a p-value of at most `low` are anomalous, others of at most `high` are
        undecided, and the rest is normal; ``0 <= low <= high < 1``.

    Returns
    -------
    labels : ndarray of shape (n_samples,), int
        +1 normal, 0 undecided, -1 anomalous.

    Raises
    ------
    ValueError
        The band or a p-value is out of range.

    See Also
    --------
    ThresholdTuner.p_values : P-values of images.

    Notes
    -----
    What holds for p-values of normal images, ``P(p <= t) <= t``, holds at both ends: of new
    normal images a fraction of at most `low` is called anomalous, and at most `high` is not
    called normal. Nothing is promised of anomalies: how many of them are called normal
    depends on the detector. No p-value is below ``1 / (n_calibration + 1)``, so that a
    smaller `low` calls nothing anomalous.

    Examples
    --------
    >>> from skocc.model_selection import labels_with_rejection
    >>> labels_with_rejection([0.005, 0.04, 0.6])
    array([-1,  0,  1])
    """
    p_values = _checked_p_values(p_values)
    band = as_array("band", band, np.float64)
    if band.shape != (2,) or not 0 <= band[0] <= band[1] < 1:
        raise ValueError(
            "band must be two p-values (low, high) with 0 <= low <= high < 1. Got "
            f"{band.tolist()}. Set for example band=(0.01, 0.1)."
        )
    return np.where(p_values <= band[0], -1, np.where(p_values <= band[1], 0, 1))


class OnlineFDR:
    r"""Label a stream of images with a bounded false-discovery rate, by LORD++.

    Each image is labeled when it comes, before those that follow. It is anomalous if its
    p-value is at most the level of its turn. Levels fall while nothing is found, and rise
    with each discovery. Read more in :doc:`/guide/promises`.

    .. versionadded:: 0.1

    Parameters
    ----------
    rate : float in (0, 1), default=0.05
        The false-discovery rate: the expected fraction of normal images among those that
        are labeled anomalous.
    initial_wealth : float in (0, rate], default=None
        Bound of the sum of all levels, if nothing is ever found. None: half of the rate.

    Attributes
    ----------
    n_seen_ : int
        Number of images that were labeled so far.
    discoveries_ : list of int
        Turns at which an image was labeled anomalous; the first image has turn 1.
    level_ : float
        The level of the next image.

    See Also
    --------
    benjamini_hochberg : For a batch of which all images are there.
    conformal_p_values : P-values from held-out scores.

    Notes
    -----
    The level of turn t is [1]_

    .. math::

       \alpha_t = w_0 \gamma_t + (\alpha - w_0) \gamma_{t - \tau_1}
                  + \alpha \sum_{j \ge 2} \gamma_{t - \tau_j}

    with the rate :math:`\alpha`, the initial wealth :math:`w_0`, the earlier turns
    :math:`\tau_j < t` of discoveries, and a sequence whose sum is at most 1 [2]_,

    .. math::

       \gamma_t = 0.07720838 \, \frac{\log \max(t, 2)}{t \exp \sqrt{\log t}} .

    The proof is for p-values of normal images that are independent of each other and of
    those of anomalies. Conformal p-values that share their calibration images are not: all
    of them are too small together, or too large. This matters less the more calibration
    images there are.

    A level below ``1 / (n_calibration + 1)`` finds nothing. By default the first level is
    0.0013, for which there must be 747 calibration images. Without a discovery it falls to
    1e-4 at turn 10, and to 1e-5 at turn 100.

    References
    ----------
    .. [1] A. Ramdas, F. Yang, M. Wainwright, M. Jordan, "Online control of the false
       discovery rate with decaying memory", NeurIPS 2017, arXiv:1710.00499.
    .. [2] A. Javanmard, A. Montanari, "Online rules for control of false discovery rate and
       false discovery exceedance", Annals of Statistics 46(2), 2018.

    Examples
    --------
    >>> from skocc.model_selection import OnlineFDR
    >>> stream = OnlineFDR(rate=0.1)
    >>> stream.update([0.4, 1e-5, 0.7])
    array([ 1, -1,  1])
    >>> stream.update([0.9, 1e-4])
    array([ 1, -1])
    >>> stream.discoveries_
    [2, 5]
    """

    def __init__(self, *, rate=0.05, initial_wealth=None):
        check_rate("rate", rate)
        if initial_wealth is None:
            initial_wealth = rate / 2
        if not (isinstance(initial_wealth, Real) and 0 < initial_wealth <= rate):
            raise ValueError(
                "initial_wealth must be more than 0, and at most the rate. Got "
                f"{initial_wealth!r} with rate={rate!r}. Set initial_wealth=None, which is "
                "half of the rate."
            )
        self.rate, self.initial_wealth = rate, initial_wealth
        self.n_seen_, self.discoveries_ = 0, []

    @property
    def level_(self):
        """Level of the next image, float."""
        turn = self.n_seen_ + 1
        level = self.initial_wealth * _gamma(np.array([turn])).sum()
        rewards = _gamma(turn - np.array(self.discoveries_, dtype=int))
        level += (self.rate - self.initial_wealth) * rewards[:1].sum()
        return float(level + self.rate * rewards[1:].sum())

    def update(self, p_values):
        """Label the next images of the stream.

        Parameters
        ----------
        p_values : array-like of shape (n_samples,)
            Of one or more images, in the order in which they came; in [0, 1].

        Returns
        -------
        labels : ndarray of shape (n_samples,), int
            +1 normal, -1 anomalous.

        Raises
        ------
        ValueError
            A p-value is out of range; no image is labeled then.
        """
        labels = []
        for p_value in _checked_p_values(p_values):
            is_anomaly = p_value <= self.level_
            self.n_seen_ += 1
            if is_anomaly:
                self.discoveries_.append(self.n_seen_)
            labels.append(-1 if is_anomaly else 1)
        return np.array(labels, dtype=int)


def _gamma(turns):
    """Return the sequence of Javanmard and Montanari (Eq. 31) for turns of at least 1."""
    decay = turns * np.exp(np.sqrt(np.log(turns)))
    return 0.07720838 * np.log(np.maximum(turns, 2)) / decay


def _checked_p_values(p_values):
    """Return one row of p-values."""
    p_values = as_array("p_values", p_values, np.float64)
    if p_values.ndim != 1 or not np.all((p_values >= 0) & (p_values <= 1)):
        ends = f", from {p_values.min()} to {p_values.max()}" if p_values.size else ""
        raise ValueError(
            "p_values must be one row of numbers in [0, 1]. Got shape "
            f"{p_values.shape}{ends}. Pass those of conformal_p_values or "
            "ThresholdTuner.p_values."
        )
    return p_values


def check_rate(name, rate):
    if not (isinstance(rate, Real) and 0 < rate < 1):
        raise ValueError(
            f"{name} must be a number between 0 and 1. Got {rate!r}. Set for example "
            f"{name}=0.05."
        )


def finite_scores(scores):
    """Return scores as a row of float64; raise an error for NaN and infinite ones."""
    scores = as_array("scores", scores, np.float64)
    if scores.ndim != 1 or scores.size == 0 or not np.isfinite(scores).all():
        raise ValueError(
            "Scores to calibrate with must be a row of finite numbers, at least one. Got "
            f"shape {scores.shape}, {np.sum(~np.isfinite(scores))} of them not finite. "
            "Pass score_samples of held-out images, and check those whose score is NaN."
        )
    return scores
