"""ROC and precision-recall curves, drawn by scikit-learn's displays."""

from sklearn import metrics

from skocc.metrics._ranking import anomaly_ranks
from skocc.plotting._axes import one_axes
from skocc.plotting._inputs import as_scores, is_anomaly, name_of


class _CurveDisplay:
    """A curve of a detector, from its scores and labels."""

    @classmethod
    def from_estimator(
        cls, estimator, X, y, *, name=None, ax=None, plot_chance_level=False, **kwargs
    ):
        """Score samples by a fitted detector, and draw the curve.

        Parameters
        ----------
        estimator : estimator
            Fitted detector of skocc or scikit-learn with `score_samples`, or a Pipeline
            that ends in one.
        X : images, rows or paths
            Whatever the detector scores.
        y : array-like of shape (n_samples,)
            +1 or "good" for normal samples, negative numbers or other names for anomalies.
        name : str, default=None
            Name in the legend. None: the class of the detector.
        ax : matplotlib Axes, default=None
            Axes to draw on. None: a new figure.
        plot_chance_level : bool, default=False
            Whether to draw the curve of random scores as well.
        **kwargs : keyword arguments
            Properties of the line, such as ``color``.

        Returns
        -------
        display : object of this class
            The display, drawn.

        Raises
        ------
        ValueError
            `y` has labels of another form, or samples of one kind only.
        ImportError
            matplotlib is not installed.
        """
        return cls.from_predictions(
            y,
            estimator.score_samples(X),
            name=name_of(estimator, name),
            ax=ax,
            plot_chance_level=plot_chance_level,
            **kwargs,
        )

    @classmethod
    def from_predictions(
        cls, y_true, y_score, *, name=None, ax=None, plot_chance_level=False, **kwargs
    ):
        """Draw the curve of labels and scores.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,)
            +1 or "good" for normal samples, negative numbers or other names for anomalies.
        y_score : array-like of shape (n_samples,)
            Scores from ``score_samples``, higher is more normal. NaN counts as -inf, an
            anomaly, as in ``predict``.
        name : str, default=None
            Name in the legend. None: no name.
        ax : matplotlib Axes, default=None
            Axes to draw on. None: a new figure.
        plot_chance_level : bool, default=False
            Whether to draw the curve of random scores as well.
        **kwargs : keyword arguments
            Properties of the line, such as ``color``.

        Returns
        -------
        display : object of this class
            The display, drawn.

        Raises
        ------
        ValueError
            `y_true` has labels of another form, or samples of one kind only, or differs
            from `y_score` in length.
        ImportError
            matplotlib is not installed.
        """
        ranks = anomaly_ranks(as_scores(y_score))
        display = cls._of_ranks(is_anomaly(y_true, ranks), ranks, name)
        return display.plot(ax, plot_chance_level=plot_chance_level, **kwargs)

    @classmethod
    def _of_ranks(cls, anomalous, ranks, name):
        """Return the display, not drawn, of ranks that are higher for anomalies."""
        raise NotImplementedError

    def _plot(self, curve, ax, name, plot_chance_level, labels, properties):
        """Let a display of scikit-learn draw, and set its axes and lines."""
        ax = one_axes(self, ax)
        name = self.name if name is None else name
        curve.plot(ax, name=name, plot_chance_level=plot_chance_level)
        # Not by keyword arguments of scikit-learn, which differ between its versions.
        curve.line_.set(**properties)
        ax.set(xlabel=labels[0], ylabel=labels[1])
        if ax.get_legend_handles_labels()[0]:
            ax.legend()
        self.line_, self.chance_level_ = curve.line_, curve.chance_level_
        return self


class RocCurveDisplay(_CurveDisplay):
    """Draw the anomalies found against the false alarms, for all thresholds.

    The anomalies are the positive class, as in ``skocc.metrics``. scikit-learn's display
    of this name, which draws, takes classifiers only. Read more in the :ref:`User Guide
    <plots>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    fpr : ndarray of shape (n_thresholds,)
        Fraction of the normal samples that are labeled anomalous, ascending.
    tpr : ndarray of shape (n_thresholds,)
        Fraction of the anomalies that are labeled anomalous.
    roc_auc : float, default=None
        Area under the curve, for the legend. None: it is not named.
    name : str, default=None
        Name in the legend. None: no name.

    Attributes
    ----------
    line_ : matplotlib Line2D
        The curve.
    chance_level_ : matplotlib Line2D or None
        The curve of random scores, if it is drawn.
    ax_ : matplotlib Axes
        What is drawn on.
    figure_ : matplotlib Figure
        That of `ax_`.

    See Also
    --------
    PrecisionRecallDisplay : Depends on the fraction of anomalies.
    skocc.metrics.auroc : The area alone.
    sklearn.metrics.RocCurveDisplay : For classifiers.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.ensemble import IsolationForest
    >>> from skocc.plotting import RocCurveDisplay
    >>> digits = load_digits()
    >>> normal = digits.target == 0
    >>> forest = IsolationForest(random_state=0).fit(digits.data[normal][:100])
    >>> y = [1 if is_normal else -1 for is_normal in normal]
    >>> display = RocCurveDisplay.from_estimator(forest, digits.data, y)
    >>> bool(display.roc_auc > 0.95)
    True
    """

    def __init__(self, *, fpr, tpr, roc_auc=None, name=None):
        self.fpr = fpr
        self.tpr = tpr
        self.roc_auc = roc_auc
        self.name = name

    def plot(self, ax=None, *, name=None, plot_chance_level=False, **kwargs):
        """Draw the curve.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. None: a new figure.
        name : str, default=None
            Name in the legend. None: that of the display.
        plot_chance_level : bool, default=False
            Whether to draw the curve of random scores as well.
        **kwargs : keyword arguments
            Properties of the line, such as ``color``.

        Returns
        -------
        display : RocCurveDisplay
            This display.
        """
        curve = metrics.RocCurveDisplay(fpr=self.fpr, tpr=self.tpr, roc_auc=self.roc_auc)
        labels = "Rate of false alarms", "Fraction of anomalies found"
        return self._plot(curve, ax, name, plot_chance_level, labels, kwargs)

    @classmethod
    def _of_ranks(cls, anomalous, ranks, name):
        fpr, tpr, _ = metrics.roc_curve(anomalous, ranks)
        return cls(fpr=fpr, tpr=tpr, roc_auc=float(metrics.auc(fpr, tpr)), name=name)


class PrecisionRecallDisplay(_CurveDisplay):
    """Draw how many alarms are right against the anomalies found, for all thresholds.

    The anomalies are the positive class, as in ``skocc.metrics``. scikit-learn's display
    of this name, which draws, takes classifiers only. Read more in the :ref:`User Guide
    <plots>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    precision : ndarray of shape (n_thresholds,)
        Fraction of anomalies among what is labeled anomalous.
    recall : ndarray of shape (n_thresholds,)
        Fraction of the anomalies that are labeled anomalous, descending.
    average_precision : float, default=None
        Area under the steps of the curve, for the legend. None: it is not named.
    name : str, default=None
        Name in the legend. None: no name.
    prevalence : float, default=None
        Fraction of anomalies among the samples, the precision of random scores.

    Attributes
    ----------
    line_ : matplotlib Line2D
        The curve.
    chance_level_ : matplotlib Line2D or None
        The curve of random scores, if it is drawn.
    ax_ : matplotlib Axes
        What is drawn on.
    figure_ : matplotlib Figure
        That of `ax_`.

    See Also
    --------
    RocCurveDisplay : Does not depend on the fraction of anomalies.
    skocc.metrics.average_precision : The area alone.
    sklearn.metrics.PrecisionRecallDisplay : For classifiers.

    Examples
    --------
    >>> from skocc.plotting import PrecisionRecallDisplay
    >>> display = PrecisionRecallDisplay.from_predictions(
    ...     [1, 1, -1, -1], [0.9, 0.4, 0.5, 0.1], name="mine"
    ... )
    >>> display.ax_.get_legend_handles_labels()[1]
    ['mine (AP = 0.83)']
    """

    def __init__(
        self, *, precision, recall, average_precision=None, name=None, prevalence=None
    ):
        self.precision = precision
        self.recall = recall
        self.average_precision = average_precision
        self.name = name
        self.prevalence = prevalence

    def plot(self, ax=None, *, name=None, plot_chance_level=False, **kwargs):
        """Draw the curve.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. None: a new figure.
        name : str, default=None
            Name in the legend. None: that of the display.
        plot_chance_level : bool, default=False
            Whether to draw the curve of random scores as well, which needs the prevalence.
        **kwargs : keyword arguments
            Properties of the line, such as ``color``.

        Returns
        -------
        display : PrecisionRecallDisplay
            This display.
        """
        curve = metrics.PrecisionRecallDisplay(
            self.precision,
            self.recall,
            average_precision=self.average_precision,
            prevalence_pos_label=self.prevalence,
        )
        labels = "Fraction of anomalies found (recall)", "Fraction of alarms that are right"
        return self._plot(curve, ax, name, plot_chance_level, labels, kwargs)

    @classmethod
    def _of_ranks(cls, anomalous, ranks, name):
        precision, recall, _ = metrics.precision_recall_curve(anomalous, ranks)
        average = float(metrics.average_precision_score(anomalous, ranks))
        return cls(
            precision=precision,
            recall=recall,
            average_precision=average,
            name=name,
            prevalence=float(anomalous.mean()),
        )
