"""The images at both ends of a ranking."""

import numpy as np

from skocc.model_selection._indexing import take
from skocc.plotting._axes import axes_grid
from skocc.plotting._inputs import as_scores, inner_detector, read_pictures, show_picture


class ImageGridDisplay:
    """Draw the most and the least normal images, each with its score.

    Or the most and the least typical ones, by any other scores. Read more in the
    :ref:`User Guide <plots>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    pictures : list of two lists of ndarray of shape (H, W) or (H, W, 3)
        Images of the upper and of the lower row, as ``imshow`` takes them: uint8, or floats
        in [0, 1].
    scores : list of two lists of float
        Their scores.
    titles : tuple of two str, default=("most normal", "least normal")
        Names of the rows.

    Attributes
    ----------
    indices : tuple of two ndarray of int
        Index in X of each image; set by `from_estimator` and `from_predictions`.
    axes_ : ndarray of shape (2, n_images), object
        The matplotlib Axes of each image.
    figure_ : matplotlib Figure
        That of `axes_`.

    See Also
    --------
    AnomalyMapDisplay : Where in the images the anomalies are.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skocc.plotting import ImageGridDisplay
    >>> images = load_digits().images / 16
    >>> display = ImageGridDisplay.from_predictions(
    ...     images, images.mean(axis=(1, 2)), n_images=3, titles=("brightest", "darkest")
    ... )
    >>> display.axes_.shape, display.axes_[0, 0].get_title()
    ((2, 3), '0.423')
    """

    def __init__(self, pictures, scores, *, titles=("most normal", "least normal")):
        self.pictures = pictures
        self.scores = scores
        self.titles = titles

    @classmethod
    def from_estimator(cls, estimator, X, *, n_images=8, ax=None):
        """Score images by a fitted detector, and draw both ends.

        Parameters
        ----------
        estimator : estimator
            Fitted detector of skocc or scikit-learn with `score_samples`, or a Pipeline
            that ends in one and takes images.
        X : images or paths
            Whatever the detector scores. Only the images that are drawn are read again.
        n_images : int, default=8
            Images of each row; all of X, if X has fewer.
        ax : array-like of matplotlib Axes, default=None
            Axes to draw on, 2 rows of `n_images`. None: a new figure.

        Returns
        -------
        display : ImageGridDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            X holds no images, or `n_images` is not positive.
        ImportError
            matplotlib is not installed.
        """
        return cls.from_predictions(
            X,
            estimator.score_samples(X),
            n_images=n_images,
            image_shape=getattr(inner_detector(estimator), "image_shape", None),
            ax=ax,
        )

    @classmethod
    def from_predictions(
        cls,
        X,
        scores,
        *,
        n_images=8,
        image_shape=None,
        titles=("most normal", "least normal"),
        ax=None,
    ):
        """Draw the images with the highest and lowest scores.

        Parameters
        ----------
        X : images or paths
            As detectors take them.
        scores : array-like of shape (n_samples,)
            A number for each image. NaN is the lowest.
        n_images : int, default=8
            Images of each row; all of X, if X has fewer.
        image_shape : tuple (H, W) or (H, W, C), default=None
            Shape of the images if X holds them as rows.
        titles : tuple of two str, default=("most normal", "least normal")
            Names of the rows with the highest and the lowest scores.
        ax : array-like of matplotlib Axes, default=None
            Axes to draw on, 2 rows of `n_images`. None: a new figure.

        Returns
        -------
        display : ImageGridDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            X holds no images, or differs from `scores` in length, or `n_images` is not
            positive.
        ImportError
            matplotlib is not installed.
        """
        scores = as_scores(scores)
        n_samples = len(X)
        if n_samples != len(scores) or n_images < 1:
            raise ValueError(
                "There must be a score for each image, and one image or more to draw. Got "
                f"{len(scores)} scores for {n_samples} images, and n_images={n_images!r}. "
                "Pass for example n_images=8."
            )
        lowest_first = np.argsort(
            np.where(np.isnan(scores), -np.inf, scores), kind="stable"
        )
        n_images = min(n_images, n_samples)
        indices = lowest_first[::-1][:n_images], lowest_first[:n_images]
        pictures = [list(read_pictures(take(X, row), image_shape)) for row in indices]
        display = cls(pictures, [scores[row].tolist() for row in indices], titles=titles)
        display.indices = indices
        return display.plot(ax)

    def plot(self, ax=None):
        """Draw the images.

        Parameters
        ----------
        ax : array-like of matplotlib Axes, default=None
            Axes to draw on, 2 rows. None: a new figure.

        Returns
        -------
        display : ImageGridDisplay
            This display.
        """
        n_images = max(map(len, self.pictures))
        axes = axes_grid(self, ax, (2, n_images), (1.4, 1.6))
        for row, pictures, scores, title in zip(
            axes, self.pictures, self.scores, self.titles, strict=True
        ):
            for cell, picture, score in zip(row, pictures, scores, strict=True):
                show_picture(cell, picture)
                cell.set_title(f"{score:.3g}", fontsize="small")
            row[0].set_axis_on()  # for the name of the row
            row[0].set(xticks=[], yticks=[], ylabel=title)
        return self
