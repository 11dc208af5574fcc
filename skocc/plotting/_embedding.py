"""Embeddings of samples in the plane."""

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from skocc._samples.arrays import as_array
from skocc.plotting._axes import one_axes
from skocc.plotting._inputs import inner_detector, label_groups

_METHODS = ("pca", "tsne")


class EmbeddingDisplay:
    """Draw the embedding of each sample as a point in the plane.

    Colors show the label or defect, or a number for each sample. Read more in the
    :ref:`User Guide <plots>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    points : ndarray of shape (n_samples, 2)
        Where the samples are drawn.
    y : array-like of shape (n_samples,), default=None
        +1 or "good" for normal samples, negative numbers or other names for anomalies. Each
        number and name has a color. None: one color.
    values : array-like of shape (n_samples,), default=None
        In place of labels, a number for each sample, such as its score or the position of
        a patch, from which a color scale is made.
    axis_name : str, default="component"
        What the axes are called.

    Attributes
    ----------
    scatters_ : dict of str to matplotlib PathCollection
        The points of each kind.
    colorbar_ : matplotlib Colorbar or None
        The scale of `values`.
    ax_ : matplotlib Axes
        What is drawn on.
    figure_ : matplotlib Figure
        That of `ax_`.

    See Also
    --------
    sklearn.manifold.TSNE : Keeps neighbors together; distances between groups mean little.
    sklearn.decomposition.PCA : Keeps the directions of the largest spread.

    Examples
    --------
    >>> import numpy as np
    >>> from skocc.plotting import EmbeddingDisplay
    >>> embeddings = np.random.default_rng(0).normal(size=(60, 8))
    >>> embeddings[40:] += 5
    >>> y = ["good"] * 40 + ["scratch"] * 20
    >>> display = EmbeddingDisplay.from_predictions(embeddings, y, method="pca")
    >>> list(display.scatters_), display.points.shape
    (['good', 'scratch'], (60, 2))
    """

    def __init__(self, points, *, y=None, values=None, axis_name="component"):
        self.points = points
        self.y = y
        self.values = values
        self.axis_name = axis_name

    @classmethod
    def from_estimator(
        cls, estimator, X, y=None, *, values=None, method="tsne", random_state=0, ax=None
    ):
        """Embed samples by a fitted detector, and draw them.

        Parameters
        ----------
        estimator : estimator
            Fitted detector with ``embed``, or a transformer such as
            :class:`~skocc.feature_extraction.DeepFeatures`.
        X : images, rows or paths
            Whatever the detector takes.
        y : array-like of shape (n_samples,), default=None
            +1 or "good" for normal samples, negative numbers or other names for anomalies.
            None: one color.
        values : array-like of shape (n_samples,), default=None
            In place of `y`, a number for each sample, which its color shows.
        method : {"tsne", "pca"}, default="tsne"
            How points in the plane are found.
        random_state : int, RandomState or None, default=0
            Seed of t-SNE, and of PCA of large tables.
        ax : matplotlib Axes, default=None
            Axes to draw on. None: a new figure.

        Returns
        -------
        display : EmbeddingDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            The detector does not embed, or `y`, `values` or `method` cannot be used.
        ImportError
            matplotlib is not installed.
        """
        embed = _embedder(estimator)
        return cls.from_predictions(
            embed(X), y, values=values, method=method, random_state=random_state, ax=ax
        )

    @classmethod
    def from_predictions(
        cls, embeddings, y=None, *, values=None, method="tsne", random_state=0, ax=None
    ):
        """Draw embeddings.

        Parameters
        ----------
        embeddings : array-like of shape (n_samples, n_dimensions)
            A vector for each sample, three samples or more.
        y : array-like of shape (n_samples,), default=None
            +1 or "good" for normal samples, negative numbers or other names for anomalies.
            None: one color.
        values : array-like of shape (n_samples,), default=None
            In place of `y`, a number for each sample, which its color shows.
        method : {"tsne", "pca"}, default="tsne"
            How points in the plane are found.
        random_state : int, RandomState or None, default=0
            Seed of t-SNE, and of PCA of large tables.
        ax : matplotlib Axes, default=None
            Axes to draw on. None: a new figure.

        Returns
        -------
        display : EmbeddingDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            The embeddings are no table with finite numbers of three samples or more, or
            `y`, `values` or `method` cannot be used.
        ImportError
            matplotlib is not installed.
        """
        points = _in_plane(embeddings, method, random_state)
        name = "t-SNE" if method == "tsne" else "principal component"
        return cls(points, y=y, values=values, axis_name=name).plot(ax)

    def plot(self, ax=None, **kwargs):
        """Draw the points.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. None: a new figure.
        **kwargs : keyword arguments
            Those of matplotlib's ``scatter``, such as ``s`` and ``cmap``.

        Returns
        -------
        display : EmbeddingDisplay
            This display.
        """
        points = np.asarray(self.points)
        if self.y is not None and self.values is not None:
            raise ValueError(
                "y and values both say what colors mean. Got both. Pass one of them."
            )
        groups = label_groups(self.y, len(points))
        values = None
        if self.values is not None:
            values = as_array("values", self.values, np.float64).ravel()
            if len(values) != len(points):
                raise ValueError(
                    "values must hold a number for each sample. Got "
                    f"{len(values)} for {len(points)} samples. Pass one for each."
                )
        ax = one_axes(self, ax)
        style = {"s": 15} | kwargs
        self.scatters_, self.colorbar_ = {}, None
        for name, members in groups.items():
            color = {} if values is None else {"c": values}
            self.scatters_[name] = ax.scatter(
                *points[members].T, label=name, **color, **style
            )
        if values is not None:
            self.colorbar_ = self.figure_.colorbar(self.scatters_["samples"], ax=ax)
        elif self.y is not None:
            ax.legend()
        ax.set(xlabel=f"{self.axis_name} 1", ylabel=f"{self.axis_name} 2")
        return self


def _embedder(estimator):
    """Return the method that embeds samples."""
    detector = inner_detector(estimator)
    for owner, name in ((detector, "embed"), (estimator, "transform")):
        if hasattr(owner, name):
            return getattr(owner, name)
    raise ValueError(
        "Embeddings need an estimator with embed or transform. Got "
        f"{type(detector).__name__}. Pass such an estimator, or the embeddings themselves "
        "to from_predictions."
    )


def _in_plane(embeddings, method, random_state):
    """Return points (n, 2) of vectors (n, d)."""
    if not isinstance(method, str) or method not in _METHODS:
        raise ValueError(
            f'method must be "tsne" or "pca". Got {method!r}. Pass method="pca", or '
            "points of your own to EmbeddingDisplay."
        )
    table = as_array("embeddings", embeddings, np.float64)
    if table.ndim != 2 or len(table) < 3 or not table.size or not np.isfinite(table).all():
        raise ValueError(
            "embeddings must be a table (n_samples, n_dimensions) of finite numbers, of "
            f"three samples or more. Got the shape {table.shape}"
            f"{'' if np.isfinite(table).all() else ' with values that are not finite'}. "
            "Pass a vector for each sample."
        )
    if method == "pca":
        n_components = min(2, table.shape[1])
        points = PCA(n_components, random_state=random_state).fit_transform(table)
        return np.pad(points, ((0, 0), (0, 2 - n_components)))
    # At most a third of the samples can be neighbors; 30 is scikit-learn's default.
    perplexity = min(30.0, (len(table) - 1) / 3)
    init = "pca" if table.shape[1] > 1 else "random"
    tsne = TSNE(perplexity=perplexity, init=init, random_state=random_state)
    return tsne.fit_transform(table)
