"""Distances to the centers of MOCCA's layers, summed from layer to layer."""

import numpy as np

from skocc._samples.arrays import as_array
from skocc.plotting._axes import one_axes
from skocc.plotting._inputs import inner_detector, label_groups


class LayerDistanceDisplay:
    """Draw the distances of each layer, summed up to it, of normal and other samples.

    As Figure 5 of the paper of MOCCA: where the lines part, the layers tell the two apart.
    Read more in the :ref:`User Guide <plots>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    distances : ndarray of shape (n_samples, n_layers)
        Distance to the center of each layer, less its squared radius with a soft boundary:
        the negative of ``layer_scores``.
    layers : sequence of length n_layers, default=None
        Names of the layers. None: their numbers, from 0.
    y : array-like of shape (n_samples,), default=None
        +1 or "good" for normal samples, negative numbers or other names for anomalies. Each
        number and name has a line of its own. None: one line.

    Attributes
    ----------
    cumulative_ : ndarray of shape (n_samples, n_layers)
        Sum of the distances up to each layer.
    lines_ : dict of str to matplotlib Line2D
        The median of each kind. The area around it has the middle half of the samples.
    ax_ : matplotlib Axes
        What is drawn on.
    figure_ : matplotlib Figure
        That of `ax_`.

    See Also
    --------
    skocc.MOCCA.layer_scores : What is drawn.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skocc import MOCCA
    >>> from skocc.plotting import LayerDistanceDisplay
    >>> digits = load_digits()
    >>> X, y = digits.images / 16, [1 if target == 0 else -1 for target in digits.target]
    >>> detector = MOCCA(pretrain_n_epochs=1, n_epochs=1, device="cpu", random_state=0)
    >>> detector = detector.fit(X[digits.target == 0])
    >>> display = LayerDistanceDisplay.from_estimator(detector, X[:50], y[:50])
    >>> list(display.lines_)
    ['normal', 'anomalous']
    """

    def __init__(self, distances, *, layers=None, y=None):
        self.distances = distances
        self.layers = layers
        self.y = y

    @classmethod
    def from_estimator(cls, estimator, X, y=None, *, ax=None):
        """Score samples by each layer of a fitted detector, and draw the sums.

        Parameters
        ----------
        estimator : MOCCA or VideoMOCCA
            Fitted, or another detector with ``layer_scores`` and ``layers_``.
        X : images, rows or paths
            Whatever the detector scores.
        y : array-like of shape (n_samples,), default=None
            +1 or "good" for normal samples, negative numbers or other names for anomalies.
            None: one line.
        ax : matplotlib Axes, default=None
            Axes to draw on. None: a new figure.

        Returns
        -------
        display : LayerDistanceDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            The detector has no layers, or `y` has labels of another form.
        ImportError
            matplotlib is not installed.
        """
        detector = inner_detector(estimator)
        if not hasattr(detector, "layer_scores"):
            raise ValueError(
                "The distances of layers need a detector with layer_scores. Got "
                f"{type(detector).__name__}. Pass a fitted MOCCA or VideoMOCCA."
            )
        distances = -detector.layer_scores(X)
        return cls(distances, layers=detector.layers_, y=y).plot(ax)

    @classmethod
    def from_predictions(cls, layer_scores, y=None, *, layers=None, ax=None):
        """Draw the sums of scores of layers.

        Parameters
        ----------
        layer_scores : array-like of shape (n_samples, n_layers)
            From ``layer_scores``, higher is more normal.
        y : array-like of shape (n_samples,), default=None
            +1 or "good" for normal samples, negative numbers or other names for anomalies.
            None: one line.
        layers : sequence of length n_layers, default=None
            Names of the layers, as in ``layers_``. None: their numbers, from 0.
        ax : matplotlib Axes, default=None
            Axes to draw on. None: a new figure.

        Returns
        -------
        display : LayerDistanceDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            The scores are no table, or `y` has labels of another form.
        ImportError
            matplotlib is not installed.
        """
        scores = as_array("layer_scores", layer_scores, np.float64)
        return cls(-scores, layers=layers, y=y).plot(ax)

    def plot(self, ax=None):
        """Draw the sums.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. None: a new figure.

        Returns
        -------
        display : LayerDistanceDisplay
            This display.
        """
        distances = np.asarray(self.distances)
        if distances.ndim != 2:
            raise ValueError(
                "There must be a distance for each sample and layer. Got the shape "
                f"{distances.shape}. Pass what layer_scores returns."
            )
        n_samples, n_layers = distances.shape
        names = range(n_layers) if self.layers is None else self.layers
        if len(names) != n_layers:
            raise ValueError(
                f"There must be one name for each layer. Got {len(names)} for {n_layers} "
                "layers. Pass layers_ of the detector."
            )
        groups = label_groups(self.y, n_samples)
        ax = one_axes(self, ax)
        self.cumulative_ = np.cumsum(distances, axis=1)
        places = np.arange(n_layers)
        self.lines_ = {}
        for name, members in groups.items():
            low, middle, high = np.percentile(
                self.cumulative_[members], [25, 50, 75], axis=0
            )
            (line,) = ax.plot(places, middle, marker="o", label=name)
            ax.fill_between(places, low, high, color=line.get_color(), alpha=0.2)
            self.lines_[name] = line
        ax.set_xticks(places, [str(name) for name in names])
        ax.set(xlabel="Layer", ylabel="Distance, summed up to the layer")
        ax.legend()
        return self
