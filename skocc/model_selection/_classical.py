"""scikit-learn's one-class detectors in pipelines, with grids of parameters."""

from numbers import Integral

import numpy as np
from joblib import Memory
from sklearn.base import clone
from sklearn.covariance import EllipticEnvelope
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import OneClassSVM

from skocc._base.private_sklearn import HasMethods, validate_params

_SCALERS = {"standard": StandardScaler, "minmax": MinMaxScaler}
# Samples that a tree of IsolationForest is given at most with max_samples="auto".
_N_SAMPLES_AUTO = 256


@validate_params(
    {
        "features": [HasMethods(["fit", "transform"]), None],
        "scaling": [str, None],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def classical_detectors(
    *,
    features=None,
    scaling: str | None = "standard",
    n_components: float | str | None = 0.95,
    n_samples: int | None = None,
    memory: str | Memory | None = None,
    random_state: int | np.random.RandomState | None = None,
) -> dict[str, tuple[Pipeline, dict | list[dict]]]:
    """Four detectors of scikit-learn, each with a grid of its parameters.

    One-class SVM, isolation forest, local outlier factor and elliptic envelope, each at the
    end of a pipeline that turns images into a table, scales its columns and reduces their
    number by PCA. Pipeline and grid go into :class:`~sklearn.model_selection.GridSearchCV`
    as they are. Read more in the :ref:`User Guide <classical_detectors>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    features : transformer or None, default=None
        First step, from images to a table, such as
        :class:`~skocc.feature_extraction.DirectFeatures`; every pipeline has a clone. None:
        :class:`~skocc.feature_extraction.Pixels` with its defaults, which resizes images,
        such as a list of paths, to 32 x 32 pixels, and returns tables as they are. A search
        computes the features anew for every candidate and fold, so that a table is quicker.
    scaling : {"standard", "minmax"} or None, default="standard"
        Columns are brought to mean 0 and variance 1, to [0, 1], or left as they are.
        Columns that are constant are not divided.
    n_components : float, int, "mle" or None, default=0.95
        Components that PCA keeps: as many as explain this fraction of the variance, or this
        number. None leaves PCA out.
    n_samples : int or None, default=None
        Number of samples that the detectors will be fitted on, in a search those of a fold.
        Points of the grid that coincide for so few are left out, see Notes. None leaves
        them in.
    memory : str, joblib.Memory or None, default=None
        Where the pipelines cache their fitted steps, as in
        :class:`~sklearn.pipeline.Pipeline`.
    random_state : int, RandomState or None, default=None
        Of the isolation forest, the elliptic envelope, and PCA, which is randomized where
        a number of components is asked for of many columns. An int makes fits reproducible.

    Returns
    -------
    detectors : dict of str to (Pipeline, dict or list of dict)
        By the name of the class: the pipeline, with the steps "features", "scaler" and
        "pca" unless `scaling` or `n_components` leaves them out, and "detector"; and the
        grid, its keys beginning with ``detector__``.

    Raises
    ------
    ValueError
        `scaling` or `n_samples` is not one of the above.

    See Also
    --------
    skocc.feature_extraction.DirectFeatures : Statistics of images as a table.
    skocc.feature_extraction.Pixels : Pixels of images as a table.

    Notes
    -----
    The grids are those of a report that compares the four on MVTec AD, without the points
    that give the same ranking of images as one that is kept:

    ==================  ================================================  ======  ==========
    detector            the report's grid                                 points  kept
    ==================  ================================================  ======  ==========
    OneClassSVM         kernel rbf, linear, poly; gamma scale, auto;      12      5
                        degree 2, 3
    IsolationForest     n_estimators 100 to 400; max_samples auto, 1.0;   16      16, or 8
                        max_features 0.9, 1.0
    LocalOutlierFactor  n_neighbors 10, 20, 30, 50; leaf_size 20, 30,     32      4
                        50, 100; metric minkowski, euclidean
    EllipticEnvelope    support_fraction 0.9, 1.0; assume_centered True,  4       4
                        False
    ==================  ================================================  ======  ==========

    * ``degree`` is read by the polynomial kernel only, and ``gamma`` not by the linear one.
    * ``gamma`` multiplies the polynomial kernel by a constant (``coef0`` is 0), and the
      scores with it. Its ``"scale"`` is kept. The two values also coincide for rbf where
      the mean variance of the columns is 1, as after scaling without PCA if no column is
      constant; with PCA they differ, and both are kept.
    * ``leaf_size`` is a matter of speed, and Minkowski's metric with its default p = 2 is
      the Euclidean one.
    * ``max_samples="auto"`` is 256 samples or all if there are fewer: with `n_samples` up
      to 256, 1.0 is left out.
    * ``n_neighbors`` beyond the number of other training samples is reduced to it: with
      `n_samples` up to 50, such values become one.

    Single values of the report are set in the detectors: ``nu=0.001`` and
    ``contamination=0.01``, which except for ``nu`` only move the threshold. So is
    ``novelty=True``, without which LocalOutlierFactor scores no new samples. One value is
    ours: ``tol=1e-6`` for OneClassSVM. With so small a ``nu``, scikit-learn's 1e-3 stops
    before a polynomial kernel is solved: on digits its scores with the two values of
    ``gamma``, the same in theory, had a rank correlation of 0.7.

    The report also speaks of scaling to [0, 1], which is ``scaling="minmax"``; its list of
    steps has the default.

    ``GridSearchCV(scoring="roc_auc")`` ranks by ``decision_function``; labels are +1 for
    normal and -1 for anomalies. Folds must train on normal samples only, as below, and with
    ``refit=True`` the winner would be fitted on all samples. EllipticEnvelope needs clearly
    more samples than components, and otherwise warns or says that the covariance is
    singular.

    Examples
    --------
    Zeros are normal. Each fold trains on the first 100 of them, and validates on others and
    on further digits:

    >>> import numpy as np
    >>> from sklearn.base import clone
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.model_selection import GridSearchCV, StratifiedKFold
    >>> from skocc.model_selection import classical_detectors
    >>> digits = load_digits()
    >>> X = np.concatenate([digits.data[digits.target == 0], digits.data[1::9]])
    >>> y = np.r_[np.ones(178, dtype=int), np.where(digits.target[1::9] == 0, 1, -1)]
    >>> train, rest = np.arange(100), np.arange(100, len(X))
    >>> parts = StratifiedKFold(3, shuffle=True, random_state=0).split(X[rest], y[rest])
    >>> folds = [(train, rest[part]) for _, part in parts]
    >>> detectors = classical_detectors(n_samples=len(train), random_state=0)
    >>> for name in ["OneClassSVM", "LocalOutlierFactor"]:
    ...     detector, grid = detectors[name]
    ...     search = GridSearchCV(detector, grid, scoring="roc_auc", cv=folds, refit=False)
    ...     search = search.fit(X, y)
    ...     print(name, len(search.cv_results_["params"]), search.best_score_.round(2))
    OneClassSVM 5 1.0
    LocalOutlierFactor 4 1.0

    The best is then fitted on normal samples:

    >>> detector = clone(detector).set_params(**search.best_params_).fit(X[train])
    """
    if scaling is not None and scaling not in _SCALERS:
        raise ValueError(
            f"scaling must be one of {sorted(_SCALERS)} or None. Got {scaling!r}. Set "
            "scaling=None and put a scaler of your own before the pipeline."
        )
    if n_samples is not None and not (isinstance(n_samples, Integral) and n_samples > 1):
        raise ValueError(
            "n_samples must be the number of training samples, at least 2, or None. Got "
            f"{n_samples!r}. Set for example n_samples=200."
        )

    if features is None:
        from skocc.feature_extraction import Pixels  # which imports torch

        features = Pixels()

    def pipeline(detector):
        steps = [("features", clone(features))]
        if scaling is not None:
            steps.append(("scaler", _SCALERS[scaling]()))
        if n_components is not None:
            steps.append(("pca", PCA(n_components, random_state=random_state)))
        return Pipeline([*steps, ("detector", detector)], memory=memory)

    detectors, grids = _detectors(random_state), _grids(n_samples)
    return {name: (pipeline(detectors[name]), grids[name]) for name in detectors}


def _detectors(random_state):
    """Return the four detectors, by the names of their classes."""
    detectors = [
        OneClassSVM(nu=0.001, tol=1e-6),
        IsolationForest(contamination=0.01, random_state=random_state),
        LocalOutlierFactor(contamination=0.01, novelty=True),
        EllipticEnvelope(contamination=0.01, random_state=random_state),
    ]
    return {type(detector).__name__: detector for detector in detectors}


def _grids(n_samples):
    """Return the grid of each detector, without points that coincide for `n_samples`."""
    return {
        "OneClassSVM": [
            {"detector__kernel": ["rbf"], "detector__gamma": ["scale", "auto"]},
            {"detector__kernel": ["linear"]},
            {"detector__kernel": ["poly"], "detector__degree": [2, 3]},
        ],
        "IsolationForest": {
            "detector__n_estimators": [100, 200, 300, 400],
            "detector__max_samples": _max_samples(n_samples),
            "detector__max_features": [0.9, 1.0],
        },
        "LocalOutlierFactor": {"detector__n_neighbors": _n_neighbors(n_samples)},
        "EllipticEnvelope": {
            "detector__support_fraction": [0.9, 1.0],
            "detector__assume_centered": [True, False],
        },
    }


def _max_samples(n_samples):
    if n_samples is not None and n_samples <= _N_SAMPLES_AUTO:
        return ["auto"]
    return ["auto", 1.0]


def _n_neighbors(n_samples):
    values = [10, 20, 30, 50]
    if n_samples is None:
        return values
    return sorted({min(value, int(n_samples) - 1) for value in values})
