"""A meta-estimator that gives a detector a threshold with a bounded false-positive rate."""

from numbers import Integral, Real

import numpy as np
from scipy import sparse
from sklearn.base import (
    BaseEstimator,
    MetaEstimatorMixin,
    OutlierMixin,
    clone,
)
from sklearn.utils import get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from skocc._base.doc_links import DocLinkMixin
from skocc._base.private_sklearn import (
    HasMethods,
    Interval,
    StrOptions,
    fit_context,
    num_samples,
)
from skocc._base.renamed import RenamedParametersMixin
from skocc._base.thresholds import NoPixelThreshold, OffsetMixin, pixel_threshold
from skocc._samples.arrays import as_array
from skocc._samples.labels import marked_or_warned
from skocc.model_selection._calibration import (
    calibration_splits,
    check_leaves_one_out,
    mean_maps,
    pooled_masks,
    pooled_p_values,
    pooled_scores,
)
from skocc.model_selection._conformal import conformal_p_values, finite_scores
from skocc.model_selection._find_threshold import (
    RULES,
    checked_labels,
    conformal_rank,
    find_threshold,
    no_anomalies,
)
from skocc.model_selection._indexing import take
from skocc.model_selection._maps import (
    anomaly_map_of,
    gives_maps,
    last_step,
    masks_above,
    scores_and_map_maxima,
)

# Attributes that only some fits set: with one detector, or several, or heat maps.
_NOT_OF_ALL_FITS = (
    "estimator_", "estimators_", "calibration_folds_", "calibration_map_maxima_",
    "pixel_threshold_",
)  # fmt: skip


class ThresholdTuner(
    RenamedParametersMixin,
    DocLinkMixin,
    MetaEstimatorMixin,
    OffsetMixin,
    OutlierMixin,
    BaseEstimator,
):
    r"""Give any detector a threshold, and p-values, from images it was not trained on.

    Fits a clone of the detector on a part of the normal images, and sets the threshold from
    the scores of the others by `rule`. A conformal threshold bounds the rate of false
    alarms by `max_fpr`. With folds (`cv`) every image is held out once, so that few images
    suffice for a low rate. Read more in the :ref:`User Guide <thresholds>`. What is
    promised is in :doc:`/guide/promises`.

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
        Fraction, or number, of the normal images that are held out with ``cv=None``; with
        `groups`, of the groups.
    cv : int, splitter, iterable, {"loo", "prefit"} or None, default=None
        Which normal images are held out:

        - None: a random part of them, once;
        - int, at least 2: as many random parts, each once; the parts are made of whole
          groups where there are `groups`;
        - a splitter of scikit-learn, or an iterable of (train, held out) indices into X: no
          image may be held out twice, and anomalies are left out of both parts;
        - "loo": each image by itself, in one fit, for detectors whose training scores leave
          the image itself out: ``ResNetKNN`` and ``PatchSVDD``, alone or at the end of a
          Pipeline, all of whose steps are fitted on all images;
        - "prefit": all of X, for `estimator` is fitted already, on other images.

        .. versionchanged:: 0.1
           Folds and "loo".
    k : float, default=3
        Standard deviations, for "std".
    refit : bool, default=False
        With folds, whether one more detector is fitted on all normal images, and scores new
        ones alone. False: the detectors of all folds are kept, and score together. See
        Notes.

        .. versionadded:: 0.1
    random_state : int, RandomState or None, default=None
        Seed of the choice of held-out images. The detector has its own.

    Attributes
    ----------
    estimator_ : estimator
        The fitted detector; with ``cv="prefit"`` `estimator` itself. Not there if
        `estimators_` is.
    estimators_ : list of estimator
        The detectors of two or more folds, with ``refit=False``.
    offset_ : float
        Threshold: ``decision_function(X) = score_samples(X) - offset_``.
    calibration_scores_ : ndarray of shape (n_calibration,), float64
        Scores of the normal images that were held out, in ascending order.
    calibration_indices_ : ndarray of shape (n_calibration,), int
        Their indices in X, in the order of `calibration_scores_`.
    calibration_folds_ : ndarray of shape (n_calibration,), int
        Which of `estimators_` has given each score. Only there if these are.
    pixel_threshold_ : float
        Threshold of heat maps: `anomaly_mask` marks what is above it. Only there if the
        detector has heat maps, and there are no `estimators_`.
    calibration_map_maxima_ : ndarray of shape (n_calibration,), float64
        Highest value of the heat map of each image that was held out, in the order of
        `calibration_scores_`. Only there if the detector has heat maps.
    n_features_in_ : int
        Of the detector, where it has one.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Of the detector, where it has them.

    See Also
    --------
    find_threshold : The threshold alone, to be set as ``offset_``.
    benjamini_hochberg : Labels from `p_values` with few false discoveries.
    OnlineFDR : The same for a stream.
    labels_with_rejection : Labels from `p_values`, some of them undecided.
    sklearn.model_selection.TunedThresholdClassifierCV : The like for classifiers.

    Notes
    -----
    A conformal threshold guarantees that a new normal image is labeled anomalous with a
    probability of at most `max_fpr`, for any detector, if new and held-out images are
    exchangeable. The probability is over both: for one set of n held-out images, the rate
    has a standard deviation of about ``sqrt(rate * (1 - rate) / n)`` around it.
    Near-duplicates, such as frames of one video or photographs of one piece, break the
    guarantee if held-out images have near-duplicates among the training images and new
    images do not: pass `groups`.

    **Folds that are kept** are cross-conformal [1]_, or CV+ [2]_. The p-value of a new
    image counts the held-out images that score no more than the new one does by the
    detector that has not seen them:

    .. math::

       p = \frac{1 + \sum_k \#\{i \in S_k : s_k(x_i) \le s_k(x)\}}{n + 1}

    with the parts S_k and the scores s_k of K detectors. In theory the rate is at most
    ``2 * max_fpr + 2 * (1 - 1 / K) / (n / K + 1)``; in practice it is about `max_fpr`, and
    less where the detectors disagree, for an image that only some of them find unusual has
    no small p-value. As detectors may differ in scale, `score_samples` is on that of the
    p-value: the count, and a fraction in [0, 1) that orders images of one count by the mean
    of the arctangents of their standardized scores, divided by n + 1. `offset_` is
    `max_fpr`, rounded down to a multiple of ``1 / (n + 1)``. Fitting, scoring and memory
    take K times those of one detector.

    **Folds and refit** compare the score by the detector of all images with the scores that
    the K others have given to what they held out. Fitting takes K + 1 fits, scoring and
    memory those of one, and there is one `estimator_` to save. There is no theory: the rate
    is about `max_fpr` where the detectors of n images and of ``n (1 - 1 / K)`` score alike.
    In MAPIE and nonconform the two are "plus", and "base" or "single_model".

    **"loo"** takes a single fit. For ``ResNetKNN`` with its whole bank, without
    ``reweighting`` and ``score_normalization``, the rate is at most `max_fpr`, as with
    held-out images: a new image in the bank could only raise the scores of the others. For
    a part of the bank, this holds nearly. The encoder of ``PatchSVDD`` was trained on the
    image, which is left out of the bank alone.

    **Heat maps** get a threshold by the same rule, the highest value of a map being the
    score of its image: what is said of images that are labeled anomalous holds for images
    in which `anomaly_mask` marks any pixel. The values are those of maps at
    ``size="model"``; resizing averages, so that no more images are marked at any other
    size. Where detectors of folds are kept, a pixel is marked where its p-value, computed
    as that of an image from the maps of all detectors, is at most `max_fpr`.

    Images that `y` labels as anomalies are never trained on. ``rule="f1"`` needs them, and
    compares them with the held-out normal images; F1 depends on the number of each.

    References
    ----------
    .. [1] V. Vovk, "Cross-conformal predictors", Annals of Mathematics and Artificial
       Intelligence 74, 2015.
    .. [2] R. Foygel Barber, E. Candès, A. Ramdas, R. Tibshirani, "Predictive inference with
       the jackknife+", Annals of Statistics 49(1), 2021.

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

    A rate of 1 % from 120 images, each of which is held out once:

    >>> forest = IsolationForest(n_estimators=20, random_state=0)
    >>> tuner = ThresholdTuner(forest, cv=5, max_fpr=0.01, random_state=0).fit(X[:120])
    >>> len(tuner.estimators_), len(tuner.calibration_scores_)
    (5, 120)
    >>> tuner.predict(new)
    array([ 1, -1])
    """

    _parameter_constraints: dict = {
        "estimator": [HasMethods(["fit", "score_samples"])],
        "rule": [StrOptions(set(RULES))],
        "max_fpr": [Interval(Real, 0, 1, closed="neither")],
        "calibration_size": [
            Interval(Real, 0, 1, closed="neither"),
            Interval(Integral, 1, None, closed="left"),
        ],
        "cv": ["cv_object", StrOptions({"prefit", "loo"})],
        "k": [Interval(Real, 0, None, closed="left")],
        "refit": ["boolean"],
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
        refit=False,
        random_state=None,
    ):
        self.estimator = estimator
        self.rule = rule
        self.max_fpr = max_fpr
        self.calibration_size = calibration_size
        self.cv = cv
        self.k = k
        self.refit = refit
        self.random_state = random_state

    pixel_threshold_ = NoPixelThreshold()

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None, groups=None):
        """Fit the detector on normal images, and set the threshold from held-out ones.

        Parameters
        ----------
        X : images, rows or paths
            Whatever the detector takes and can be indexed: an array, a tensor, a table, a
            list.
        y : array-like of shape (n_samples,), default=None
            Negative numbers for anomalies, or names other than "good", which are not
            trained on. All others are normal, with a warning where they are neither +1 nor
            "good". None: all are normal.
        groups : array-like of shape (n_samples,), default=None
            Numbers or names, such as that of the piece that a photograph shows: images of
            one group are never trained on and held out in the same split. None: any two
            images may be.

        Returns
        -------
        self : ThresholdTuner
            Fitted.

        Raises
        ------
        ValueError
            There are too few images to hold out and train on, or too few held out for
            the false-alarm rate; ``rule="f1"`` without anomalies; parameters or groups
            that do not go together; or splits that hold out an image twice.
        """
        X = _indexable(X)
        anomalous = np.zeros(num_samples(X), dtype=bool)
        if y is not None:
            anomalous = marked_or_warned(checked_labels(y, len(anomalous)))
        if self.rule == "f1" and not anomalous.any():
            raise no_anomalies(len(anomalous))
        self._check_parameters(groups, len(anomalous))
        normal = np.flatnonzero(~anomalous)
        splits = calibration_splits(self, y, groups, normal, len(anomalous))
        calibration = np.concatenate([part for _, part in splits])
        keeps_folds = len(splits) > 1 and not self.refit
        if self.rule == "conformal":  # before a long training
            conformal_rank(len(calibration), self.max_fpr)
        elif keeps_folds:
            raise ValueError(
                f"rule={self.rule!r} needs the scores of one detector. Got cv={self.cv!r} "
                "with refit=False, which keeps one for each fold. Set refit=True, or "
                "rule='conformal'."
            )
        detectors, scores, maxima = self._fit_splits(X, splits)
        order = np.argsort(scores, kind="stable")
        folds = np.repeat(range(len(splits)), [len(part) for _, part in splits])
        fitted = {
            "calibration_scores_": scores[order],
            "calibration_indices_": calibration[order],
        }
        if maxima is not None:
            fitted["calibration_map_maxima_"] = maxima[order]
        if keeps_folds:
            rank = conformal_rank(len(scores), self.max_fpr)
            fitted["offset_"] = rank / (len(scores) + 1)
            fitted["estimators_"], fitted["calibration_folds_"] = detectors, folds[order]
        else:
            if self.refit:
                detectors = [clone(self.estimator).fit(take(X, normal))]
            fitted["estimator_"] = detectors[0]
            offsets = self._find_offsets(X, detectors[0], scores, maxima, anomalous)
            fitted["offset_"] = offsets[0]
            if maxima is not None:
                fitted["pixel_threshold_"] = 0.0 - offsets[1]
        for name in _NOT_OF_ALL_FITS:
            vars(self).pop(name, None)  # of an earlier fit with other parameters
        vars(self).update(fitted)
        return self

    def fit_predict(self, X, y=None, groups=None):
        """Fit, and label the same images.

        Parameters
        ----------
        X : images, rows or paths
            As in `fit`.
        y, groups : array-like of shape (n_samples,), default=None
            As in `fit`.

        Returns
        -------
        labels : ndarray of shape (n_samples,), int
            +1 for normal, -1 for anomalous.
        """
        return self.fit(X, y, groups).predict(X)

    def score_samples(self, X):
        """Score images by the detector: higher is more normal.

        Parameters
        ----------
        X : images, rows or paths
            As in `fit`.

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            ``estimator_.score_samples(X)``. Of several detectors, numbers in [0, 1), see
            Notes of the class.
        """
        check_is_fitted(self)
        if not hasattr(self, "estimators_"):
            return self.estimator_.score_samples(X)
        return self._pooled([detector.score_samples(X) for detector in self.estimators_])

    def _pooled(self, scores):
        """Return one score (n_samples,) from those of each of several detectors."""
        scores = np.stack(scores, axis=1).astype(np.float64)
        return pooled_scores(scores, self.calibration_scores_, self.calibration_folds_)

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

        Notes
        -----
        To weight the held-out images, pass ``score_samples(X)``, `calibration_scores_` and
        the weights of `calibration_indices_` to :func:`conformal_p_values`, unless there
        are `estimators_`.
        """
        return self._p_values_of(self.score_samples(X))

    @available_if(gives_maps)
    def anomaly_map(self, X, **options):
        """Score every pixel by the detector, where it can: higher is more anomalous.

        Parameters
        ----------
        X : images or paths
            As in `fit`. Steps of a pipeline before the detector are applied to them.
        **options : keyword arguments
            Those of the detector: for one of skocc, ``size`` of the maps, and
            ``return_scores``, see for example :meth:`skocc.ResNetKNN.anomaly_map`.

        Returns
        -------
        maps : ndarray of shape (n_samples, H, W) or list of ndarray (H, W), float32
            ``estimator_.anomaly_map(X, **options)``, or the mean of the maps of
            `estimators_`. In a pipeline, the images that reach the detector determine the
            size.
        scores : ndarray of shape (n_samples,), float64
            Those of `score_samples`. Only returned if ``return_scores=True``.
        """
        check_is_fitted(self)
        if not hasattr(self, "estimators_"):
            return anomaly_map_of(self.estimator_, X, **options)
        found = [anomaly_map_of(part, X, **options) for part in self.estimators_]
        if not options.get("return_scores", False):
            return mean_maps(found)
        maps, scores = zip(*found, strict=True)
        return mean_maps(maps), self._pooled(scores)

    @available_if(gives_maps)
    def anomaly_mask(self, X, *, threshold=None, **options):
        """Mark the pixels of the heat maps that are too high for a normal image.

        Parameters
        ----------
        X : images or paths
            As in `fit`. Steps of a pipeline before the detector are applied to them.
        threshold : float, default=None
            Value of `anomaly_map` above which a pixel is anomalous. None:
            `pixel_threshold_`, or p-values of the pixels where there are `estimators_`.
        **options : keyword arguments
            Those of `anomaly_map` of the detector: for one of skocc, ``size``.

        Returns
        -------
        masks : ndarray of shape (n_samples, H, W) or list of ndarray (H, W), bool
            True is anomalous. With ``rule="conformal"``, a new normal image has a pixel
            that is marked with a probability of at most `max_fpr`, see Notes of the class.
        """
        check_is_fitted(self)
        if threshold is not None or not hasattr(self, "estimators_"):
            threshold = pixel_threshold(self, threshold)
            return masks_above(self.anomaly_map(X, **options), threshold)
        maps = [anomaly_map_of(part, X, **options) for part in self.estimators_]
        # The rate that images are labeled by.
        n_allowed = round(self.offset_ * (len(self.calibration_scores_) + 1))
        return pooled_masks(
            maps, self.calibration_map_maxima_, self.calibration_folds_, n_allowed
        )

    @property
    def n_features_in_(self):
        """Values per sample of X."""
        return self._a_detector("n_features_in_").n_features_in_

    @property
    def feature_names_in_(self):
        """Names of the columns of X."""
        return self._a_detector("feature_names_in_").feature_names_in_

    def __sklearn_is_fitted__(self):
        return hasattr(self, "offset_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags = get_tags(self.estimator).input_tags
        return tags

    def _a_detector(self, name):
        """Return one of the fitted detectors."""
        if hasattr(self, "estimators_"):
            return self.estimators_[0]
        if not hasattr(self, "estimator_"):
            raise AttributeError(f"{type(self).__name__} is not fitted and has no {name!r}")
        return self.estimator_

    def _check_maps(self):
        gives_maps(self)
        if hasattr(self, "estimators_"):
            raise AttributeError(
                "Detectors of several folds have no threshold of heat maps in common. Got "
                f"cv={self.cv!r} with refit=False. Use anomaly_mask, which compares each "
                "with its own, or set refit=True."
            )

    def _p_values_of(self, scores):
        """Return the p-values (n_samples,) of what `score_samples` has returned."""
        if hasattr(self, "estimators_"):
            return pooled_p_values(scores, len(self.calibration_scores_))
        return conformal_p_values(scores, self.calibration_scores_)

    def _check_parameters(self, groups, n_samples):
        """Raise a ValueError for parameters that have no effect, or have none together."""
        mode = self.cv if isinstance(self.cv, str) else None
        if self.refit and (self.cv is None or mode is not None):
            raise ValueError(
                "refit=True fits once more after the folds, of which there are none. Got "
                f"cv={self.cv!r}. Set cv=5, or refit=False."
            )
        if mode == "loo":
            check_leaves_one_out(self.estimator)
        if groups is None:
            return
        if mode is not None:
            raise ValueError(
                "groups say which images are held out together. Got groups with "
                f"cv={self.cv!r}, which "
                + ("fits nothing" if mode == "prefit" else "leaves out single images")
                + ". Set cv=5, or pass groups=None if no two images are of one piece."
            )
        if num_samples(groups) != n_samples:
            raise ValueError(
                f"groups must have one value for each sample of X. Got "
                f"{num_samples(groups)} for {n_samples} samples. Pass one for each, or "
                "None."
            )

    def _fit_splits(self, X, splits):
        """Return a detector for each split; scores, maxima of maps of what is held out."""
        if isinstance(self.cv, str) and self.cv == "prefit":
            check_is_fitted(self.estimator)
            detectors = [self.estimator]
        else:
            detectors = [clone(self.estimator).fit(take(X, train)) for train, _ in splits]
        if isinstance(self.cv, str) and self.cv == "loo":
            last = last_step(detectors[0])
            maxima = getattr(last, "train_map_maxima_", None)
            return detectors, finite_scores(last.train_scores_), maxima
        scored = [
            scores_and_map_maxima(detector, take(X, held_out))
            for detector, (_, held_out) in zip(detectors, splits, strict=True)
        ]
        scores, maxima = zip(*scored, strict=True)
        scores = np.concatenate([finite_scores(part) for part in scores])
        has_all = all(part is not None for part in maxima)
        return detectors, scores, np.concatenate(maxima) if has_all else None

    def _find_offsets(self, X, detector, scores, maxima, anomalous):
        """Return the thresholds of a detector for scores, and for negative maxima."""
        held_out, labels = [scores, maxima], np.ones(len(scores))
        if self.rule == "f1":
            anomalies = take(X, np.flatnonzero(anomalous))
            held_out = [
                None if values is None else np.append(values, finite_scores(more))
                for values, more in zip(
                    held_out, scores_and_map_maxima(detector, anomalies), strict=True
                )
            ]
            labels = np.append(labels, -np.ones(anomalous.sum()))
        options = {"rule": self.rule, "max_fpr": self.max_fpr, "k": self.k}
        scores, maxima = held_out
        return [
            None if values is None else find_threshold(values, labels, **options)
            for values in (scores, None if maxima is None else -maxima)
        ]


def _indexable(X):
    """Return X with rows that can be taken out."""
    if sparse.issparse(X):
        return X.tocsr()
    return X if hasattr(X, "__getitem__") else as_array("X", X)
