"""Criteria that need no anomalies: the mass-volume and the excess-mass curve."""

from numbers import Real

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import trapezoid
from sklearn.utils import column_or_1d

from skocc._base.private_sklearn import validate_params
from skocc._samples.arrays import as_array

# Level sets with at least this mass count in the excess-mass criterion.
_MIN_MASS = 0.9


@validate_params(
    {
        "scores_normal": ["array-like"],
        "scores_uniform": ["array-like"],
        "volume": [Real],
        "mass_range": ["array-like"],
    },
    prefer_skip_nested_validation=True,
)
def mass_volume_auc(
    scores_normal: ArrayLike,
    scores_uniform: ArrayLike,
    *,
    volume: float = 1.0,
    mass_range: tuple[float, float] = (0.9, 0.999),
) -> float:
    """Return the area under the mass-volume curve, a criterion that needs no anomaly.

    A good detector has small level sets: the part of the space with high scores is small,
    but contains most of the normal samples. The curve is the volume of the smallest level
    set that contains a given mass, as a function of this mass. Read more in the
    :ref:`User Guide <metrics>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    scores_normal : array-like of shape (n_normal,), float
        Scores from ``score_samples``, higher is more normal, of normal samples that are not
        training samples. NaN counts as -inf.
    scores_uniform : array-like of shape (n_uniform,), float
        Scores of samples drawn uniformly from a region that contains the normal samples,
        such as their bounding box.
    volume : float, default=1.0
        Positive volume of this region. With 1.0, volumes are fractions of the region.
    mass_range : (float, float), default=(0.9, 0.999)
        Lowest and highest mass, as fractions of the normal samples in [0, 1].

    Returns
    -------
    area : float
        Area in (0, volume * (highest - lowest mass)], LOWER is better. For a search, where
        higher is better, use its negative.

    Raises
    ------
    ValueError
        There are no scores, `volume` or `mass_range` is invalid, or no uniform sample is in
        the level set of the highest mass, so that no volume can be measured.

    See Also
    --------
    excess_mass_auc : Compute masses for given densities instead; higher is better.

    Notes
    -----
    For scores s, with the highest threshold u that leaves a fraction of at least m of the
    normal samples at or above it, the volume is V(m) = `volume` times the fraction of
    uniform samples at or above u, and the area its integral over `mass_range` [1]_. V is a
    step function for a finite sample and is integrated as such, without the grid of the
    author's code.

    The areas of two detectors can be compared if both were computed from the same samples.
    The dimension is a limit: in a box of more than about eight dimensions, almost no
    uniform sample is near the normal ones, so volumes cannot be measured. [1]_ then
    averages the criterion over random subsets of a few features, with a detector trained on
    each. Images must first be reduced to a few features, or compared with samples that are
    more similar than uniform noise; the area then rates that comparison and is not a
    volume.

    References
    ----------
    .. [1] N. Goix (2016). How to Evaluate the Quality of Unsupervised Anomaly Detection
       Algorithms? ICML Workshop on Anomaly Detection. arXiv:1607.01152

    Examples
    --------
    The scores of a correct detector, and of a detector that uses only one of two features:

    >>> import numpy as np
    >>> from skocc.metrics import mass_volume_auc
    >>> rng = np.random.default_rng(0)
    >>> normal, uniform = rng.normal(size=(500, 2)), rng.uniform(-4, 4, size=(5000, 2))
    >>> right = mass_volume_auc(-(normal**2).sum(1), -(uniform**2).sum(1), volume=64)
    >>> half = mass_volume_auc(-(normal[:, 0] ** 2), -(uniform[:, 0] ** 2), volume=64)
    >>> right < half
    True
    """
    normal, uniform = _check_scores(scores_normal, scores_uniform, volume)
    volume = float(volume)
    try:
        low, high = map(float, mass_range)
    except (TypeError, ValueError):
        low = high = np.nan
    if not 0 <= low < high <= 1:
        raise ValueError(
            "mass_range must be two fractions of the normal samples, the lower first, in "
            f"[0, 1]. Got {mass_range!r}. Pass for example mass_range=(0.9, 0.999)."
        )
    # The mass m needs the k-th highest score as threshold where (k - 1) / n < m <= k / n.
    volumes = volume * _fraction_at_least(uniform, normal[::-1])
    widths = np.diff(np.clip(np.arange(len(normal) + 1) / len(normal), low, high))
    if not volumes[widths > 0].any():
        raise _no_volume(len(uniform))
    return float(widths @ volumes)


@validate_params(
    {
        "scores_normal": ["array-like"],
        "scores_uniform": ["array-like"],
        "volume": [Real],
    },
    prefer_skip_nested_validation=True,
)
def excess_mass_auc(
    scores_normal: ArrayLike, scores_uniform: ArrayLike, *, volume: float = 1.0
) -> float:
    """Return the area under the excess-mass curve, a criterion that needs no anomaly.

    The excess mass at a density t is the maximum, over the level sets, of the fraction of
    normal samples in the set minus t times its volume. A good detector has level sets that
    exceed high densities. Read more in the :ref:`User Guide <metrics>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    scores_normal : array-like of shape (n_normal,), float
        Scores from ``score_samples``, higher is more normal, of normal samples that are not
        training samples. NaN counts as -inf.
    scores_uniform : array-like of shape (n_uniform,), float
        Scores of samples drawn uniformly from a region that contains the normal samples,
        such as their bounding box.
    volume : float, default=1.0
        Positive volume of this region. With 1.0, volumes are fractions of the region.

    Returns
    -------
    area : float
        Positive area, HIGHER is better. It is at least 0.095 / `volume`, the area of
        constant scores.

    Raises
    ------
    ValueError
        There are no scores, `volume` is not positive, or no uniform sample is in a level
        set that contains more than 0.9 of the normal samples, so that no volume can be
        measured.

    See Also
    --------
    mass_volume_auc : Compute volumes for given masses instead; lower is better. Its Notes
        describe the limits of both criteria.

    Notes
    -----
    For scores s, EM(t) = max over u of P(s(normal) >= u) - t * `volume` *
    P(s(uniform) >= u), and the area is the integral of EM from 0 to the lowest t at which
    EM(t) <= 0.9 [1]_. EM is convex and piecewise linear for a finite sample, and is
    integrated as such. The author's code uses a grid, and counts only scores above u, which
    is one normal sample less. EM is between 0.9 and 1 in this range, so the area is about
    0.95 times the upper limit.

    References
    ----------
    .. [1] N. Goix (2016). How to Evaluate the Quality of Unsupervised Anomaly Detection
       Algorithms? ICML Workshop on Anomaly Detection. arXiv:1607.01152

    Examples
    --------
    >>> import numpy as np
    >>> from skocc.metrics import excess_mass_auc
    >>> rng = np.random.default_rng(0)
    >>> normal, uniform = rng.normal(size=(500, 2)), rng.uniform(-4, 4, size=(5000, 2))
    >>> right = excess_mass_auc(-(normal**2).sum(1), -(uniform**2).sum(1), volume=64)
    >>> half = excess_mass_auc(-(normal[:, 0] ** 2), -(uniform[:, 0] ** 2), volume=64)
    >>> right > half
    True
    """
    normal, uniform = _check_scores(scores_normal, scores_uniform, volume)
    volume = float(volume)
    thresholds = np.unique(normal)[::-1]
    masses = _fraction_at_least(normal, thresholds)
    volumes = volume * _fraction_at_least(uniform, thresholds)
    # A level set with a mass below 0.9 cannot exceed 0.9 at any density.
    volumes, masses = volumes[masses > _MIN_MASS], masses[masses > _MIN_MASS]
    if volumes[0] == 0:
        raise _no_volume(len(uniform))
    limit = ((masses - _MIN_MASS) / volumes).max()
    volumes, masses = _upper_hull(volumes, masses)
    # Densities at which the maximum changes from one level set to the next smaller one.
    changes = np.diff(masses) / np.diff(volumes)
    densities = np.unique([0.0, *changes[changes < limit], limit])
    excess = (masses - densities[:, None] * volumes).max(axis=1)
    return float(trapezoid(excess, densities))


def _check_scores(scores_normal, scores_uniform, volume):
    """Return both scores as ascending arrays, with NaN as -inf."""
    checked = []
    for name, scores in (("normal", scores_normal), ("uniform", scores_uniform)):
        scores = as_array(f"scores_{name}", scores, np.float64, read=column_or_1d)
        if not len(scores):
            raise ValueError(
                f"scores_{name} must hold a score at least. Got an empty array. Pass "
                f"detector.score_samples(X) for {name} samples X."
            )
        checked.append(np.sort(np.where(np.isnan(scores), -np.inf, scores)))
    # Quotients of masses and volumes must not overflow. The comparison of a float32 with
    # these bounds overflows.
    with np.errstate(over="ignore"):
        is_usable = 1e-290 < volume < 1e290
    if not is_usable:
        raise ValueError(
            "volume must be positive and finite, from 1e-290 to 1e290. Got "
            f"{volume!r}. Pass the volume of the uniform samples' region, or 1.0."
        )
    return checked


def _fraction_at_least(ascending, thresholds):
    """Return the fraction of the scores that are at or above each threshold."""
    below = np.searchsorted(ascending, thresholds, side="left")
    return (len(ascending) - below) / len(ascending)


def _upper_hull(volumes, masses):
    """Return the points of the upper concave hull, both coordinates ascending."""
    hull = []
    for x, y in zip(volumes.tolist(), masses.tolist(), strict=True):
        if hull and hull[-1][0] == x:
            hull.pop()
        while len(hull) > 1:
            (x0, y0), (x1, y1) = hull[-2:]
            if (y1 - y0) * (x - x0) > (y - y0) * (x1 - x0):
                break
            hull.pop()
        hull.append((x, y))
    return np.array(hull).T


def _no_volume(n_uniform):
    return ValueError(
        "No volume can be measured: no uniform sample scores as high as the normal "
        f"samples. Got {n_uniform} uniform samples. Draw more of them, or draw them from a "
        "smaller region or in fewer dimensions."
    )
