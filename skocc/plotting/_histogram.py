"""Histograms of scores by kind of sample, with the threshold."""

from numbers import Integral

import numpy as np

from skocc.model_selection._maps import last_step
from skocc.model_selection._thresholds import ThresholdTuner
from skocc.plotting._axes import one_axes
from skocc.plotting._inputs import as_scores, label_groups


class ScoreHistogramDisplay:
    """Draw how scores are distributed, by label or defect, and the threshold.

    Read more in the :ref:`User Guide <plots>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    scores : ndarray of shape (n_samples,)
        Higher is more normal. Scores that are not finite are left out, and counted in the
        legend.
    y : array-like of shape (n_samples,), default=None
        +1 or "good" for normal samples, negative numbers or other names for anomalies. Each
        number and name has a histogram of its own. None: one histogram.
    threshold : float, default=None
        Scores below it are labeled anomalous. None: it is not drawn.
    threshold_label : str, default="threshold"
        What the legend calls it.

    Attributes
    ----------
    bins_ : ndarray of shape (n_bins + 1,)
        Edges of the bars, which all histograms share.
    counts_ : dict of str to ndarray of shape (n_bins,)
        Height of the bars of each kind.
    threshold_line_ : matplotlib Line2D or None
        The threshold.
    ax_ : matplotlib Axes
        What is drawn on.
    figure_ : matplotlib Figure
        That of `ax_`.

    See Also
    --------
    RocCurveDisplay : The rates at all thresholds.
    skocc.model_selection.ThresholdTuner : A threshold with a bounded rate of false alarms.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.ensemble import IsolationForest
    >>> from skocc.model_selection import ThresholdTuner
    >>> from skocc.plotting import ScoreHistogramDisplay
    >>> X = np.random.default_rng(0).normal(size=(220, 4))
    >>> X[200:] += 8
    >>> y = ["good"] * 200 + ["scratch"] * 20
    >>> tuner = ThresholdTuner(IsolationForest(random_state=0), random_state=0)
    >>> display = ScoreHistogramDisplay.from_estimator(tuner.fit(X[:100]), X, y)
    >>> sorted(display.ax_.get_legend_handles_labels()[1])
    ['good', 'scratch', 'threshold (at most 5 % false alarms)']
    """

    def __init__(self, scores, *, y=None, threshold=None, threshold_label="threshold"):
        self.scores = scores
        self.y = y
        self.threshold = threshold
        self.threshold_label = threshold_label

    @classmethod
    def from_estimator(cls, estimator, X, y=None, *, bins=30, density=False, ax=None):
        """Score samples by a fitted detector, and draw the histograms.

        Parameters
        ----------
        estimator : estimator
            Fitted detector of skocc or scikit-learn with `score_samples`, or a Pipeline
            that ends in one. Its ``offset_``, if there is one, is the threshold. The legend
            names the rate of false alarms that a conformal ThresholdTuner promises.
        X : images, rows or paths
            Whatever the detector scores.
        y : array-like of shape (n_samples,), default=None
            +1 or "good" for normal samples, negative numbers or other names for anomalies.
            None: one histogram.
        bins : int or array-like, default=30
            Number of bars, or their edges. There may be one bar more, so that the
            threshold is between two.
        density : bool, default=False
            Whether each histogram has the area 1, for kinds that differ in number.
        ax : matplotlib Axes, default=None
            Axes to draw on. None: a new figure.

        Returns
        -------
        display : ScoreHistogramDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            `y` has labels of another form, or none is normal; or no score is finite.
        ImportError
            matplotlib is not installed.
        """
        detector = last_step(estimator)
        display = cls(
            as_scores(estimator.score_samples(X)),
            y=y,
            threshold=_number(getattr(detector, "offset_", None)),
            threshold_label=_threshold_label(detector),
        )
        return display.plot(ax, bins=bins, density=density)

    @classmethod
    def from_predictions(
        cls, scores, y=None, *, threshold=None, bins=30, density=False, ax=None
    ):
        """Draw the histograms of scores.

        Parameters
        ----------
        scores : array-like of shape (n_samples,)
            From ``score_samples``, higher is more normal.
        y : array-like of shape (n_samples,), default=None
            +1 or "good" for normal samples, negative numbers or other names for anomalies.
            None: one histogram.
        threshold : float, default=None
            Scores below it are labeled anomalous. None: it is not drawn.
        bins : int or array-like, default=30
            Number of bars, or their edges. There may be one bar more, so that the
            threshold is between two.
        density : bool, default=False
            Whether each histogram has the area 1, for kinds that differ in number.
        ax : matplotlib Axes, default=None
            Axes to draw on. None: a new figure.

        Returns
        -------
        display : ScoreHistogramDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            `y` has labels of another form, or none is normal; or no score is finite.
        ImportError
            matplotlib is not installed.
        """
        display = cls(as_scores(scores), y=y, threshold=_number(threshold))
        return display.plot(ax, bins=bins, density=density)

    def plot(self, ax=None, *, bins=30, density=False):
        """Draw the histograms.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. None: a new figure.
        bins : int or array-like, default=30
            Number of bars, or their edges. There may be one bar more, so that the
            threshold is between two.
        density : bool, default=False
            Whether each histogram has the area 1, for kinds that differ in number.

        Returns
        -------
        display : ScoreHistogramDisplay
            This display.
        """
        scores = as_scores(self.scores)
        finite = np.isfinite(scores)
        if not finite.any():
            raise ValueError(
                f"A histogram needs scores that are finite. Got none of {len(scores)}. "
                "Pass what score_samples returns."
            )
        groups = label_groups(self.y, len(scores))
        ax = one_axes(self, ax)
        self.bins_ = _edges(scores[finite], bins, self.threshold)
        self.counts_ = {}
        for name, members in groups.items():
            n_odd = np.sum(members & ~finite)
            label = f"{name} ({n_odd} not finite)" if n_odd else name
            self.counts_[name], _, _ = ax.hist(
                scores[members & finite],
                bins=self.bins_,
                density=density and (members & finite).any(),
                histtype="stepfilled",
                alpha=0.5,
                label=label,
            )
        self.threshold_line_ = None
        if self.threshold is not None:
            self.threshold_line_ = ax.axvline(
                self.threshold,
                color=ax.xaxis.label.get_color(),  # black, unless a style is dark
                linestyle="--",
                label=self.threshold_label,
            )
        ax.set(
            xlabel="Score (higher is more normal)",
            ylabel="Density" if density else "Number of samples",
        )
        ax.legend()
        return self


def _number(value):
    """Return a threshold as a float; an array of one, as some detectors have, as well."""
    return None if value is None else float(np.asarray(value).ravel()[0])


def _threshold_label(detector):
    if isinstance(detector, ThresholdTuner) and detector.rule == "conformal":
        return f"threshold (at most {100 * detector.max_fpr:g} % false alarms)"
    return "threshold"


def _edges(scores, bins, threshold):
    """Return the edges of bars, one of which is at the threshold if it is among them.

    A bar then is on one side of the threshold as a whole.
    """
    edges = np.histogram_bin_edges(scores, bins)
    if not isinstance(bins, Integral) or threshold is None:
        return edges
    if not edges[0] < threshold < edges[-1]:
        return edges
    width = edges[1] - edges[0]
    n_below = np.ceil((threshold - edges[0]) / width)
    return threshold + width * np.arange(-n_below, len(edges) - n_below + 1)
