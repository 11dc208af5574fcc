"""A meta-estimator that fits only on the normal samples, for nested searches."""

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin, OutlierMixin, clone
from sklearn.utils import check_consistent_length, get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from skocc._base.doc_links import DocLinkMixin
from skocc._base.private_sklearn import HasMethods, estimator_has, fit_context
from skocc._samples.labels import anomaly_kinds
from skocc.model_selection._indexing import take
from skocc.model_selection._maps import (
    anomaly_map_of,
    anomaly_mask_of,
    gives_maps,
    gives_masks,
    last_step,
)


class NormalOnly(DocLinkMixin, OutlierMixin, MetaEstimatorMixin, BaseEstimator):
    """Fit a detector on the samples that are labeled as normal, and no others.

    Detectors ignore labels in `fit` and take all samples as normal. ``NormalOnly`` drops
    the anomalies before it fits its detector. A search can then refit its best candidate on
    all samples (``refit=True``), and can itself be cross-validated on samples that include
    the anomalies by which it compares candidates. Read more in the :ref:`User Guide
    <model_selection>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    estimator : estimator
        Detector, or pipeline that ends with one. Its parameters have the prefix
        ``estimator__`` in a grid.

    Attributes
    ----------
    estimator_ : estimator
        The fitted detector. Use it for :func:`skocc.save` and for methods other than those
        below, such as `set_contamination`.
    offset_ : float
        Threshold of the detector.
    pixel_threshold_ : float
        Threshold of its heat maps, if it has them.
    n_features_in_ : int
        Of `estimator_`, if it has one.

    See Also
    --------
    OneClassKFold : Folds for the search, which never train on anomalies either.

    Notes
    -----
    The labels are read as by :class:`OneClassKFold`. Without labels all samples are normal.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sklearn.svm import OneClassSVM
    >>> from skocc.model_selection import NormalOnly, OneClassKFold
    >>> X, digits = load_digits(return_X_y=True)
    >>> y = np.where(digits == 0, 1, -1)
    >>> search = GridSearchCV(
    ...     NormalOnly(OneClassSVM()),
    ...     {"estimator__nu": [0.1, 0.5]},
    ...     cv=OneClassKFold(3, random_state=0),
    ...     scoring="roc_auc",
    ... ).fit(X, y)
    >>> search.best_estimator_.estimator_.n_features_in_
    64
    >>> search.predict(X).shape
    (1797,)
    """

    _parameter_constraints = {"estimator": [HasMethods(["fit", "decision_function"])]}

    def __init__(self, estimator):
        self.estimator = estimator

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None):
        """Fit a clone of the detector on the normal samples.

        Parameters
        ----------
        X : images, rows or paths
            Whatever the detector takes.
        y : array-like of shape (n_samples,), default=None
            +1 or "good" for normal samples, negative numbers or other names for anomalies.
            None: all are normal.

        Returns
        -------
        self : NormalOnly
            With `estimator_`.

        Raises
        ------
        ValueError
            Labels have no such reading, or none is normal.
        """
        if y is not None:
            check_consistent_length(X, y)
            X = take(X, np.flatnonzero(anomaly_kinds(y) == 0))
        self.estimator_ = clone(self.estimator).fit(X)
        return self

    def decision_function(self, X):
        """Return the signed scores of the detector.

        Parameters
        ----------
        X : images, rows or paths
            As in `fit`.

        Returns
        -------
        decision : ndarray of shape (n_samples,)
            Negative is an anomaly.
        """
        check_is_fitted(self)
        return self.estimator_.decision_function(X)

    @available_if(estimator_has("score_samples"))
    def score_samples(self, X):
        """Return the scores of the detector.

        Parameters
        ----------
        X : images, rows or paths
            As in `fit`.

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            Higher is more normal.
        """
        check_is_fitted(self)
        return self.estimator_.score_samples(X)

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
            ``estimator_.anomaly_map(X, **options)``. In a pipeline, the images that reach
            the detector determine the size.
        """
        check_is_fitted(self)
        return anomaly_map_of(self.estimator_, X, **options)

    @available_if(gives_masks)
    def anomaly_mask(self, X, **options):
        """Mark the pixels whose value in `anomaly_map` is above a threshold.

        Parameters
        ----------
        X : images or paths
            As in `fit`. Steps of a pipeline before the detector are applied to them.
        **options : keyword arguments
            Those of the detector: for one of skocc, ``size`` and ``threshold``, see for
            example :meth:`skocc.ResNetKNN.anomaly_mask`.

        Returns
        -------
        masks : ndarray of shape (n_samples, H, W) or list of ndarray (H, W), bool
            ``estimator_.anomaly_mask(X, **options)``.
        """
        check_is_fitted(self)
        return anomaly_mask_of(self.estimator_, X, **options)

    def predict(self, X):
        """Label samples by the detector.

        Parameters
        ----------
        X : images, rows or paths
            As in `fit`.

        Returns
        -------
        labels : ndarray of shape (n_samples,), int
            +1 for normal, -1 for anomalous.
        """
        check_is_fitted(self)
        return self.estimator_.predict(X)

    @property
    def offset_(self):
        """Threshold of the fitted detector, float."""
        check_is_fitted(self)
        return self.estimator_.offset_

    @property
    def pixel_threshold_(self):
        """Threshold of the heat maps of the fitted detector, float."""
        check_is_fitted(self)
        return last_step(self.estimator_).pixel_threshold_

    @property
    def n_features_in_(self):
        """Number of columns, or values of an image, seen in `fit`."""
        return self.estimator_.n_features_in_

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags = get_tags(self.estimator).input_tags
        return tags
