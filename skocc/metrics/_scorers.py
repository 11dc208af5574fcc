"""Scorers for scikit-learn's searches, from the metrics of this package."""

from collections.abc import Callable

from sklearn import metrics

from skocc._base.private_sklearn import validate_params
from skocc.metrics._ranking import (
    auroc,
    average_precision,
    best_f1,
    max_balanced_accuracy,
    recall_at_fpr,
)

_METRICS = {
    "auroc": auroc,
    "average_precision": average_precision,
    "best_f1": best_f1,
    "max_balanced_accuracy": max_balanced_accuracy,
    "recall_at_fpr": recall_at_fpr,
}


@validate_params(
    {
        "name": [str],
    },
    prefer_skip_nested_validation=True,
)
def make_scorer(name: str, **kwargs) -> Callable[..., float]:
    """Make a scorer from a metric, for scikit-learn's searches and cross-validation.

    The scorer passes ``score_samples`` of the fitted detector to the metric. The anomalies
    are the positive class. For scikit-learn's ``scoring="average_precision"`` and ``"f1"``,
    the positive class is +1, the normal samples; ``"roc_auc"`` is the same for both. Read
    more in the :ref:`User Guide <metrics>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    name : {"auroc", "average_precision", "best_f1", "max_balanced_accuracy", \
            "recall_at_fpr"}
        Name of a function of this module with the arguments ``y_true`` and ``y_score``.
    **kwargs : keyword arguments
        Arguments for the metric, as in ``make_scorer("recall_at_fpr", max_fpr=0.01)``.

    Returns
    -------
    scorer : callable
        Function ``scorer(detector, X, y)``, like those of ``sklearn.metrics.make_scorer``;
        higher is better. y must contain both +1 for normal and -1 for anomalous samples.
        The detector, or the last step of the pipeline, must be an outlier detector whose
        ``score_samples`` is higher for more normal samples.

    Raises
    ------
    ValueError
        `name` is not one of the above.

    See Also
    --------
    sklearn.model_selection.GridSearchCV : Accepts a scorer, or a dictionary of scorers, as
        ``scoring``.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.model_selection import cross_validate
    >>> from sklearn.svm import OneClassSVM
    >>> from skocc.metrics import make_scorer
    >>> rng = np.random.default_rng(0)
    >>> X = np.concatenate([rng.normal(size=(80, 2)), rng.normal(8, 1, size=(20, 2))])
    >>> y = np.repeat([1, -1], [80, 20])
    >>> train, test = np.arange(40), np.arange(40, 100)  # no anomaly to train on
    >>> scoring = {
    ...     "auroc": make_scorer("auroc"),
    ...     "recall": make_scorer("recall_at_fpr", max_fpr=0.0),
    ... }
    >>> scores = cross_validate(
    ...     OneClassSVM(gamma=0.1), X, y, cv=[(train, test)], scoring=scoring
    ... )
    >>> scores["test_auroc"], scores["test_recall"]
    (array([1.]), array([1.]))
    """
    if name not in _METRICS:
        raise ValueError(
            f"A scorer cannot be made from a metric of this name. Got {name!r}. "
            f"Pass one of {', '.join(map(repr, _METRICS))}."
        )
    # A tuple, because scikit-learn does not accept "score_samples" as a single name.
    return metrics.make_scorer(_METRICS[name], response_method=("score_samples",), **kwargs)
