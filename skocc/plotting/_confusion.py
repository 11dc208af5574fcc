"""The confusion matrix of a detector, drawn by scikit-learn's display."""

import numpy as np
from sklearn import metrics

from skocc._samples.labels import anomaly_kinds
from skocc.plotting._axes import one_axes
from skocc.plotting._inputs import as_scores, is_anomaly

_LABELS = np.array(["normal", "anomalous"])


class ConfusionMatrixDisplay:
    """Draw how many normal and anomalous samples are labeled as what.

    At the threshold of the detector, at another one, or where the rate of false alarms is
    as high as you allow. scikit-learn's display of this name, which draws, takes
    classifiers only. Read more in the :ref:`User Guide <plots>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    confusion_matrix : ndarray of shape (2, 2)
        Rows are the true labels, columns those of the detector; normal comes first.
    threshold : float, default=None
        Scores below it are labeled anomalous, for the title. None: no title.

    Attributes
    ----------
    im_ : matplotlib AxesImage
        The colored cells.
    text_ : ndarray of shape (2, 2), object
        The matplotlib Text in each cell.
    ax_ : matplotlib Axes
        What is drawn on.
    figure_ : matplotlib Figure
        That of `ax_`.

    See Also
    --------
    RocCurveDisplay : The rates at all thresholds.
    sklearn.metrics.ConfusionMatrixDisplay : For classifiers.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.ensemble import IsolationForest
    >>> from skocc.plotting import ConfusionMatrixDisplay
    >>> X = np.random.default_rng(0).normal(size=(220, 4))
    >>> X[200:] += 8
    >>> y = np.repeat([1, -1], [200, 20])
    >>> forest = IsolationForest(random_state=0).fit(X[:100])
    >>> display = ConfusionMatrixDisplay.from_estimator(forest, X, y, max_fpr=0.05)
    >>> display.confusion_matrix
    array([[190,  10],
           [  0,  20]])
    """

    def __init__(self, confusion_matrix, *, threshold=None):
        self.confusion_matrix = confusion_matrix
        self.threshold = threshold

    @classmethod
    def from_estimator(
        cls, estimator, X, y, *, threshold=None, max_fpr=None, ax=None, **kwargs
    ):
        """Label samples by a fitted detector, and draw the matrix.

        Parameters
        ----------
        estimator : estimator
            Fitted detector of skocc or scikit-learn, or a Pipeline that ends in one.
        X : images, rows or paths
            Whatever the detector scores.
        y : array-like of shape (n_samples,)
            +1 or "good" for normal samples, negative numbers or other names for anomalies.
        threshold : float, default=None
            Samples whose score from ``score_samples`` is below it are labeled anomalous.
            None: ``predict`` labels them.
        max_fpr : float in [0, 1), default=None
            In place of a threshold, the highest rate of false alarms: the threshold is the
            highest one at which no larger fraction of the normal samples of X is labeled
            anomalous. It is chosen on the samples that are drawn, so new samples may have
            another rate.
        ax : matplotlib Axes, default=None
            Axes to draw on. None: a new figure.
        **kwargs : keyword arguments
            Those of scikit-learn's display, such as ``colorbar`` and ``cmap``.

        Returns
        -------
        display : ConfusionMatrixDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            `y` has labels of another form, or normal samples only; `max_fpr` is no rate, or
            there is a `threshold` as well.
        ImportError
            matplotlib is not installed.
        """
        if threshold is None and max_fpr is None:
            return cls.from_predictions(y, estimator.predict(X), ax=ax, **kwargs)
        scores = as_scores(estimator.score_samples(X))
        normal = ~is_anomaly(y, scores)
        if max_fpr is not None:
            if threshold is not None:
                raise ValueError(
                    "threshold and max_fpr both say what is labeled anomalous. Got "
                    f"threshold={threshold!r} and max_fpr={max_fpr!r}. Pass one of them."
                )
            threshold = _threshold_at(scores[normal], max_fpr)
        # A score of NaN is an anomaly.
        labels = np.where(scores >= threshold, 1, -1)
        display = cls(_counts(y, labels), threshold=float(threshold))
        return display.plot(ax=ax, **kwargs)

    @classmethod
    def from_predictions(cls, y_true, y_pred, *, ax=None, **kwargs):
        """Draw the matrix of true labels and those of a detector.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,)
            +1 or "good" for normal samples, negative numbers or other names for anomalies.
        y_pred : array-like of shape (n_samples,)
            +1 for normal, -1 for anomalous, as ``predict`` returns them.
        ax : matplotlib Axes, default=None
            Axes to draw on. None: a new figure.
        **kwargs : keyword arguments
            Those of scikit-learn's display, such as ``colorbar`` and ``cmap``.

        Returns
        -------
        display : ConfusionMatrixDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            `y_true` has labels of another form, or differs from `y_pred` in length; or
            `y_pred` holds other labels than +1 and -1.
        ImportError
            matplotlib is not installed.
        """
        labels = as_scores(y_pred)
        if not np.isin(labels, (-1, 1)).all():
            raise ValueError(
                "y_pred must hold +1 for normal and -1 for anomalous samples. Got "
                f"{np.unique(labels)[:6].tolist()}. Pass what predict returns."
            )
        return cls(_counts(y_true, labels)).plot(ax=ax, **kwargs)

    def plot(self, ax=None, **kwargs):
        """Draw the matrix.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. None: a new figure.
        **kwargs : keyword arguments
            Those of :meth:`sklearn.metrics.ConfusionMatrixDisplay.plot`, such as
            ``colorbar`` and ``cmap``.

        Returns
        -------
        display : ConfusionMatrixDisplay
            This display.
        """
        ax = one_axes(self, ax)
        matrix = metrics.ConfusionMatrixDisplay(
            self.confusion_matrix, display_labels=_LABELS
        )
        matrix.plot(ax=ax, **({"colorbar": False, "cmap": "Blues"} | kwargs))
        ax.set(xlabel="Label of the detector", ylabel="True label")
        if self.threshold is not None:
            ax.set_title(f"Threshold {self.threshold:.4g}")
        self.im_, self.text_ = matrix.im_, matrix.text_
        return self


def _counts(y, labels):
    """Return the confusion matrix of labels of any form and of +1 and -1."""
    kinds = anomaly_kinds(y)
    return metrics.confusion_matrix(kinds > 0, labels == -1, labels=[False, True])


def _threshold_at(normal_scores, max_fpr):
    """Return the highest threshold with at most this fraction of normal scores below."""
    if not 0 <= max_fpr < 1:
        raise ValueError(
            f"max_fpr must be a rate in [0, 1). Got {max_fpr!r}. Pass for example 0.05."
        )
    ascending = np.sort(np.where(np.isnan(normal_scores), -np.inf, normal_scores))
    # A little more, because 0.29 * 100 is below 29.
    n_alarms = int(max_fpr * len(ascending) * (1 + 1e-12))
    return ascending[n_alarms]
