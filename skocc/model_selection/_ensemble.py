"""Many detectors as one: their scores on one scale, averaged."""

from dataclasses import fields
from numbers import Integral, Real

import numpy as np
from sklearn.base import MetaEstimatorMixin, OutlierMixin, clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils import Bunch, get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import check_is_fitted

from skocc._base.fitted import MAP_ATTRIBUTES, Fitted, FittedMixin
from skocc._base.private_sklearn import (
    BaseComposition,
    Interval,
    StrOptions,
    VisualBlock,
    fit_context,
    num_samples,
)
from skocc._base.thresholds import ContaminationMixin, PixelThresholdMixin, pixel_threshold
from skocc._samples.validation import warn_about_anomalies
from skocc.model_selection import _scales
from skocc.model_selection._indexing import take
from skocc.model_selection._maps import (
    anomaly_map_of,
    has_maps,
    last_step,
    masks_above,
    scores_and_map_maxima,
)

_SCALES = {
    "p-value": _scales.log_p_values,
    "rank": _scales.ranks,
    "robust": _scales.robust,
}
# Of scores, which are higher for more normal images; of maps, which are the opposite, "max"
# is the maximum.
_COMBINE = {"mean": np.mean, "max": np.min, "median": np.median}
_COMBINE_MAPS = {"mean": np.mean, "max": np.max, "median": np.median}
# Numbers of training images, and of pixels of each, that the scale of maps is taken from,
# and of images whose maps are computed at a time.
_N_MAPS, _N_PIXELS, _N_AT_A_TIME = 32, 2**14, 8


def _some_part_has_maps(ensemble):
    parts = getattr(ensemble, "estimators_", None)
    if parts is None:
        parts = [part for _, part in ensemble.estimators]
    return any(has_maps(part) for part in parts)


class DetectorEnsemble(
    FittedMixin,
    MetaEstimatorMixin,
    PixelThresholdMixin,
    ContaminationMixin,
    OutlierMixin,
    BaseComposition,
):
    """Average the scores of many detectors: seeds, methods, layers, sizes.

    Each detector is fitted on the same images. Its scores are brought to a scale that its
    scores of the training images define, and are then averaged. Parameters of the parts are
    searched as ``name__parameter``, and a part is replaced or left out by its name, as in
    scikit-learn's :class:`~sklearn.ensemble.VotingClassifier`. Read more in the :ref:`User
    Guide <ensembles>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    estimators : list of (str, estimator) tuples
        Names and detectors: anything with `fit` and `score_samples` (higher is more
        normal), of skocc or scikit-learn, or a Pipeline that ends in one. "drop" in place
        of a detector leaves it out. A detector in a
        :class:`~sklearn.frozen.FrozenEstimator` is used as it was fitted.
    combine : {"mean", "max", "median"}, default="mean"
        How the scaled scores become one: their mean; their median; or, for "max", the score
        of the part that finds the image most anomalous (which is the lowest score, because
        higher is more normal).
    scale : {"p-value", "rank", "robust"}, default="p-value"
        The scale of the scores:

        - "p-value": the logarithm of the fraction of the training images that score as low
          or lower. Its mean is Fisher's way to combine p-values. Below the 10 % quantile of
          the training scores the logarithm decreases linearly, so that anomalies beyond all
          training images still differ;
        - "rank": the same fraction without the logarithm. Parts count equally, however far
          an image is from the training images in one of them;
        - "robust": the difference from the median, divided by the median absolute
          deviation. The part with the most extreme scores counts most.
    contamination : float in (0, 0.5], default=0.1
        Fraction of the training images called anomalous; it sets `offset_`.
    n_jobs : int, default=None
        Number of parts that are fitted at the same time. None: one, unless a
        ``joblib.parallel_config`` says otherwise. The results do not depend on it.

    Attributes
    ----------
    estimators_ : list of estimators
        The fitted parts, without those that were dropped.
    named_estimators_ : Bunch
        The fitted parts by name, and "drop" for those that were dropped.
    part_train_scores_ : ndarray of shape (n_samples, n_parts), float64
        Scores of the training images by each part, which define the scales.
    map_scales_ : ndarray of shape (n_parts, 2), float64
        Median and deviation of the heat maps of training images; NaN for a part that has no
        heat maps.
    train_scores_ : ndarray of shape (n_samples,), float64
        Combined scores of the training images.
    offset_ : float
        Threshold: ``decision_function(X) = score_samples(X) - offset_``.
    pixel_threshold_ : float
        Threshold of heat maps, which `contamination` sets for `train_map_maxima_`:
        `anomaly_mask` marks what is above it. If a part has heat maps.
    train_map_maxima_ : ndarray of shape (n_samples,), float64
        Value that the heat map of each training image exceeds nowhere, see Notes. If a part
        has heat maps.
    n_features_in_ : int
        Of the first part, where it has one.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Of the first part, where it has them.

    See Also
    --------
    ThresholdTuner : Takes an ensemble as its detector, and bounds its false alarms.
    sklearn.ensemble.VotingClassifier : The like for classifiers.

    Notes
    -----
    A scale is taken from the training images and never from the images that are scored:
    the score of an image does not depend on what else is in X. All three scales increase
    strictly with the score of the part, so an ensemble of one part ranks as the part does.
    [1]_ reviews such scales, and [2]_ when an average is better than its parts.

    The training scores are `train_scores_` of a detector of skocc and
    `negative_outlier_factor_` of scikit-learn's LocalOutlierFactor, if the part has them,
    and its scores of the training images otherwise. Those of ``ResNetKNN``, ``PatchSVDD``
    and LocalOutlierFactor leave the own image out. A network, however, is scored on the
    images that it was trained on, so that new normal images are less normal on its scale
    than on that of another part. To take the scale from held-out images, fit the parts
    first, and pass them in a FrozenEstimator and the held-out images to `fit`.

    A p-value against n training images is at least 1 / (n + 1), and all anomalies beyond
    the training images would have this value, which would leave nothing to rank. Therefore
    the p-value is continued below the 10 % quantile: for "p-value" by an exponential, for
    "rank" in inverse proportion to the distance, and for both as fast as the p-value
    decreases between the 10 % and the 5 % quantile. It is interpolated between the other
    training scores. So these scores rank images, but promise no rate of false alarms. For
    such a promise, use a :class:`ThresholdTuner` around the ensemble.

    Heat maps are combined from the parts that have heat maps, whatever `scale` is, after
    subtraction of the median and division by the median absolute deviation of the pixels,
    both from the maps of at most 32 training images. This pass over the images is part of
    `fit`.

    `pixel_threshold_` comes from the highest values that the maps of the training images
    have for each part, scaled and combined as the maps are. A combined map is nowhere above
    these, and below them where the parts find different pixels most anomalous: at most the
    fraction `contamination` of the training images have a pixel that is marked. A
    :class:`ThresholdTuner` takes the maxima of the combined maps themselves.

    References
    ----------
    .. [1] H.-P. Kriegel, P. Kröger, E. Schubert, A. Zimek, "Interpreting and Unifying
       Outlier Scores", SIAM International Conference on Data Mining, 2011,
       doi:10.1137/1.9781611972818.2.
    .. [2] C. C. Aggarwal, S. Sathe, "Theoretical Foundations and Algorithms for Outlier
       Ensembles", ACM SIGKDD Explorations 17(1), 2015, doi:10.1145/2830544.2830549.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.neighbors import LocalOutlierFactor
    >>> from sklearn.svm import OneClassSVM
    >>> from skocc.model_selection import DetectorEnsemble
    >>> X = np.random.default_rng(0).normal(size=(200, 4))
    >>> ensemble = DetectorEnsemble(
    ...     [("svm", OneClassSVM()), ("lof", LocalOutlierFactor(novelty=True))]
    ... ).fit(X)
    >>> ensemble.predict([[0.0, 0.0, 0.0, 0.0], [6.0, 6.0, 6.0, 6.0]])
    array([ 1, -1])

    Five seeds of one method:

    >>> from skocc import DeepSVDD
    >>> seeds = [(f"seed{seed}", DeepSVDD(random_state=seed)) for seed in range(5)]
    >>> ensemble = DetectorEnsemble(seeds)
    """

    _parameter_constraints: dict = {
        "estimators": [list],
        "combine": [StrOptions(set(_COMBINE))],
        "scale": [StrOptions(set(_SCALES))],
        "contamination": [Interval(Real, 0, 0.5, closed="right")],
        "n_jobs": [Integral, None],
    }
    _fitted_attributes = {
        "part_train_scores_": Fitted("float64", ("n", "parts")),
        "map_scales_": Fitted("float64", ("parts", 2), finite=False),
        "train_scores_": Fitted("float64", ("n",)),
        "offset_": Fitted("float"),
        **MAP_ATTRIBUTES,
    }
    # What `skocc.save` writes as parts.
    _part_names = ("estimators", "estimators_", "named_estimators_")

    def __init__(
        self,
        estimators,
        *,
        combine="mean",
        scale="p-value",
        contamination=0.1,
        n_jobs=None,
    ):
        self.estimators = estimators
        self.combine = combine
        self.scale = scale
        self.contamination = contamination
        self.n_jobs = n_jobs

    def get_params(self, deep=True):
        """Return the parameters, and with `deep` the parts and their parameters.

        Parameters
        ----------
        deep : bool, default=True
            Whether parts, by name, and their parameters, as ``name__parameter``, are
            returned as well.

        Returns
        -------
        params : dict
            Values by name.
        """
        return self._get_params("estimators", deep=deep)

    def set_params(self, **params):
        """Set parameters, replace parts, and set parameters of parts.

        Parameters
        ----------
        **params : parameters
            Of the ensemble; of parts, as ``name__parameter``; or parts by name, where
            "drop" leaves the part out.

        Returns
        -------
        self : DetectorEnsemble
            With the parameters set.
        """
        self._set_params("estimators", **params)
        return self

    # The parts check their own parameters.
    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None):
        """Fit all parts on the same normal images.

        Parameters
        ----------
        X : images, rows or paths
            Whatever all parts take; normal samples only.
        y : Ignored
            Present for scikit-learn. Labels of anomalies raise a warning.

        Returns
        -------
        self : DetectorEnsemble
            Fitted.

        Raises
        ------
        ValueError
            There is no part, two have one name, one is no detector, or one gives a
            training image a score that is not finite.
        """
        names, parts = self._checked_parts()
        warn_about_anomalies(y)
        fitted = Parallel(n_jobs=self.n_jobs)(
            delayed(_fit_part)(clone(part), X) for part in parts
        )
        parts, scores, scales, maxima = zip(*fitted, strict=True)
        for name, of_part in zip(names, scores, strict=True):
            _check_train_scores(name, of_part)
        self._set_parts([*parts])
        self.part_train_scores_ = np.stack(scores, axis=1)
        self.map_scales_ = np.array(scales)
        self.train_scores_ = self._combined(self.part_train_scores_.T)
        for name in MAP_ATTRIBUTES:
            vars(self).pop(name, None)  # of an earlier fit with other parts
        if _some_part_has_maps(self):
            scaled = [
                (values - middle) / deviation
                for values, (middle, deviation) in zip(maxima, scales, strict=True)
                if values is not None
            ]
            self.train_map_maxima_ = _COMBINE_MAPS[self.combine](scaled, axis=0)
        self._set_offset()
        return self

    def score_samples(self, X):
        """Score images: higher is more normal.

        Parameters
        ----------
        X : images, rows or paths
            As in `fit`.

        Returns
        -------
        scores : ndarray of shape (n_samples,), float64
            Combination of the scaled scores of the parts.
        """
        check_is_fitted(self)
        return self._combined([part.score_samples(X) for part in self.estimators_])

    @available_if(_some_part_has_maps)
    def anomaly_map(self, X, *, size="input", return_scores=False):
        """Score every pixel by the parts that can: higher is more anomalous.

        Parameters
        ----------
        X : images or paths
            As in `fit`.
        size : {"input", "model"}, int or tuple (H, W), default="input"
            Size of the maps in pixels, as in the detectors of skocc.
        return_scores : bool, default=False
            Whether to return the scores of the images as well, from the same pass.

        Returns
        -------
        maps : ndarray of shape (n_samples, H, W), or list of ndarray (H, W), float32
            Combination of the scaled maps of the parts that have maps: in deviations of the
            normal pixels from their median. For ``combine="max"`` the maximum. A list if
            the maps of different images differ in size.
        scores : ndarray of shape (n_samples,), float64
            Those of `score_samples`. Only returned if `return_scores` is True.

        Raises
        ------
        ValueError
            X is invalid, or the maps of two parts differ in size.
        """
        check_is_fitted(self)
        # Detectors other than skocc's may have no options.
        options = {} if size == "input" else {"size": size}
        if return_scores:
            options["return_scores"] = True
        scaled, part_scores = [], []
        for part, (middle, deviation) in zip(
            self.estimators_, self.map_scales_.tolist(), strict=True
        ):
            if has_maps(part):
                maps = anomaly_map_of(part, X, **options)
                maps, scores = maps if return_scores else (maps, None)
                scaled.append([(heat - middle) / deviation for heat in maps])
            else:
                scores = part.score_samples(X) if return_scores else None
            part_scores.append(scores)
        maps = self._combined_maps(scaled)
        return (maps, self._combined(part_scores)) if return_scores else maps

    @available_if(_some_part_has_maps)
    def anomaly_mask(self, X, *, size="input", threshold=None):
        """Mark the pixels whose value in `anomaly_map` is above a threshold.

        Parameters
        ----------
        X : images or paths
            As in `fit`.
        size : {"input", "model"}, int or tuple (H, W), default="input"
            Size of the masks in pixels, as in `anomaly_map`.
        threshold : float, default=None
            Value of a map above which a pixel is anomalous. None: `pixel_threshold_`.

        Returns
        -------
        masks : ndarray of shape (n_samples, H, W), or list of ndarray (H, W), bool
            True is anomalous. A list where `anomaly_map` returns one.

        Raises
        ------
        ValueError
            X is invalid, the maps of two parts differ in size, or `threshold` is no number.
        """
        check_is_fitted(self)
        threshold = pixel_threshold(self, threshold)
        return masks_above(self.anomaly_map(X, size=size), threshold)

    @property
    def n_features_in_(self):
        """Values per sample of X."""
        return self._fitted_parts()[0].n_features_in_

    @property
    def feature_names_in_(self):
        """Names of the columns of X."""
        return self._fitted_parts()[0].feature_names_in_

    @property
    def _train_scores_leave_one_out(self):
        parts = [last_step(part) for _, part in self.estimators if _is_part(part)]
        return all(getattr(part, "_train_scores_leave_one_out", False) for part in parts)

    def __sklearn_is_fitted__(self):
        return hasattr(self, "estimators_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        try:
            parts = [get_tags(part) for _, part in self.estimators if _is_part(part)]
        except (TypeError, ValueError):  # invalid parts, which fit reports
            return tags
        # X must be something that all parts take, and meet the demands of each.
        for field in fields(tags.input_tags):
            of_parts = [getattr(part.input_tags, field.name) for part in parts]
            is_demand = field.name in ("pairwise", "positive_only")
            setattr(tags.input_tags, field.name, (any if is_demand else all)(of_parts))
        return tags

    def _sk_visual_block_(self):
        names, parts = zip(*self.estimators, strict=True)
        return VisualBlock("parallel", parts, names=names)

    def _set_parts(self, fitted):
        """Set the fitted parts, in the order of those that are not dropped."""
        parts = iter(fitted)
        self.estimators_ = fitted
        self.named_estimators_ = Bunch(
            **{name: next(parts) if _is_part(p) else p for name, p in self.estimators}
        )

    def _named_parts(self):
        """Return pairs of a name and a fitted part, or "drop"."""
        return self.named_estimators_.items()

    @classmethod
    def _of_parts(cls, pairs, fitted, params):
        """Return an ensemble with fitted parts, `pairs` being unfitted ones by name."""
        ensemble = cls(pairs, **params)
        ensemble._validate_params()
        ensemble._checked_parts()
        ensemble._set_parts(fitted)
        return ensemble

    def _check_loaded(self):
        return {"parts": len(self.estimators_)}

    def _check_maps(self):
        if not _some_part_has_maps(self):
            raise AttributeError(
                "A map needs a part with heat maps. Got an ensemble without one. Add one, "
                "such as ResNetKNN, and fit again."
            )

    def _fitted_parts(self):
        if not hasattr(self, "estimators_"):
            raise AttributeError(f"{type(self).__name__} is not fitted")
        return self.estimators_

    def _checked_parts(self):
        """Return names and detectors of the parts that are not dropped."""
        pairs = self.estimators
        is_named = [
            isinstance(pair, tuple | list) and len(pair) == 2 and isinstance(pair[0], str)
            for pair in pairs
        ]
        if not all(is_named) or not any(_is_part(part) for _, part in pairs):
            raise ValueError(
                "estimators must be a list of pairs of a name and a detector, at least one "
                f"of them not dropped. Got {pairs!r}. Pass for example "
                '[("svm", OneClassSVM()), ("forest", IsolationForest())].'
            )
        self._validate_names([name for name, _ in pairs])
        for name, part in pairs:
            is_detector = hasattr(part, "fit") and hasattr(part, "score_samples")
            if _is_part(part) and (isinstance(part, type) or not is_detector):
                raise ValueError(
                    f"The part {name!r} must be a detector with fit and score_samples. Got "
                    f'{part!r}. Pass an instance of a detector, or "drop".'
                )
        return zip(*((name, part) for name, part in pairs if _is_part(part)), strict=True)

    def _combined_maps(self, scaled):
        """Return the combination of the scaled maps of each part."""
        combine, combined = _COMBINE_MAPS[self.combine], []
        for heats in zip(*scaled, strict=True):
            _check_same_size(heats)
            combined.append(combine(heats, axis=0).astype(np.float32))
        is_one_size = len({heat.shape for heat in combined}) == 1
        return np.stack(combined) if is_one_size else combined

    def _combined(self, part_scores):
        """Return the combination of the scores of each part."""
        scale = _SCALES[self.scale]
        with np.errstate(over="ignore", invalid="ignore"):  # an infinite score is one
            scaled = [
                scale(np.asarray(scores, dtype=np.float64), train_scores)
                for scores, train_scores in zip(
                    part_scores, self.part_train_scores_.T, strict=True
                )
            ]
            return _COMBINE[self.combine](scaled, axis=0)


def _is_part(part):
    """Return whether a part is not dropped."""
    return not (isinstance(part, str) and part == "drop")


def _fit_part(part, X):
    """Return a fitted part; its training scores, scale of maps and maxima of maps."""
    part.fit(X, None)  # a FrozenEstimator asks for y
    scores, maxima = _train_scores(part, X)
    return part, np.asarray(scores, dtype=np.float64), _map_scale(part, X), maxima


def _train_scores(part, X):
    """Return the scores of the training images, and the maxima of their maps or None.

    The image itself is left out of what it is compared with if the part can.
    """
    last = last_step(part)
    if isinstance(last, FrozenEstimator):  # it was fitted on other images
        return scores_and_map_maxima(part, X)
    maxima = getattr(last, "train_map_maxima_", None)
    for name in ("train_scores_", "negative_outlier_factor_"):
        if hasattr(last, name):
            if maxima is None and has_maps(last):
                _, maxima = scores_and_map_maxima(part, X)
            return getattr(last, name), maxima
    return scores_and_map_maxima(part, X)


def _map_scale(part, X):
    """Return median and deviation of the pixels in the maps of some training images."""
    if not has_maps(part):
        return np.nan, np.nan
    n_images = num_samples(X)
    chosen = np.linspace(0, n_images - 1, min(n_images, _N_MAPS)).astype(int)
    pixels = []
    for start in range(0, len(chosen), _N_AT_A_TIME):
        for heat in anomaly_map_of(part, take(X, chosen[start : start + _N_AT_A_TIME])):
            step = -(-heat.size // _N_PIXELS)
            pixels.append(heat.ravel()[::step].astype(np.float64))
    pixels = np.concatenate(pixels)
    return float(np.median(pixels)), float(_scales.deviation(pixels))


def _check_train_scores(name, scores):
    if n_bad := np.count_nonzero(~np.isfinite(scores)):
        raise ValueError(
            f"The part {name!r} gives training images scores that are not finite. Got "
            f"{n_bad} of {len(scores)}. Check its parameters and X, or drop the part."
        )


def _check_same_size(heats):
    sizes = {heat.shape for heat in heats}
    if len(sizes) > 1:
        raise ValueError(
            f"The maps of all parts must have one size. Got the sizes {sorted(sizes)} for "
            "one image. Give the parts the same image_size."
        )
