"""Losses of each stage of a training, epoch by epoch."""

from skocc.plotting._axes import axes_grid
from skocc.plotting._inputs import inner_detector


class LossCurveDisplay:
    """Draw the loss of each epoch, of training and held-out images.

    Pretraining and training have axes of their own, because their losses differ in kind.
    Read more in the :ref:`User Guide <plots>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    loss_curve : sequence of float
        Mean loss of each epoch of the training.
    validation_loss_curve : sequence of float, default=()
        Loss of held-out images after each of the last epochs, as many as it has values.
    pretrain_loss_curve : sequence of float, default=()
        Mean loss of each epoch of the pretraining.
    best_epoch : int, default=None
        Index in `validation_loss_curve` of the epoch whose weights were kept.

    Attributes
    ----------
    lines_ : dict of str to matplotlib Line2D
        The curves that are drawn, by the names of the parameters.
    best_epoch_line_ : matplotlib Line2D or None
        Marks the best epoch.
    axes_ : ndarray of shape (1, n_stages), object
        The matplotlib Axes of each stage.
    figure_ : matplotlib Figure
        That of `axes_`.

    See Also
    --------
    sklearn.model_selection.LearningCurveDisplay : Scores by the number of samples.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skocc import DeepSVDD
    >>> from skocc.plotting import LossCurveDisplay
    >>> images = load_digits().images[:40] / 16
    >>> detector = DeepSVDD(
    ...     pretrain_n_epochs=2, n_epochs=3, validation_fraction=0.2, device="cpu"
    ... )
    >>> display = LossCurveDisplay.from_estimator(detector.fit(images))
    >>> [ax.get_title() for ax in display.axes_.flat]
    ['pretraining', 'training']
    """

    def __init__(
        self,
        loss_curve,
        *,
        validation_loss_curve=(),
        pretrain_loss_curve=(),
        best_epoch=None,
    ):
        self.loss_curve = loss_curve
        self.validation_loss_curve = validation_loss_curve
        self.pretrain_loss_curve = pretrain_loss_curve
        self.best_epoch = best_epoch

    @classmethod
    def from_estimator(cls, estimator, *, ax=None):
        """Draw the losses of a fitted detector.

        Parameters
        ----------
        estimator : estimator
            Fitted detector with ``loss_curve_``, also within a Pipeline or ThresholdTuner.
        ax : array-like of matplotlib Axes, default=None
            Axes to draw on, one for each stage: two if there was a pretraining, else one.
            None: a new figure.

        Returns
        -------
        display : LossCurveDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            The detector is not fitted, or trains no network.
        ImportError
            matplotlib is not installed.
        """
        detector = inner_detector(estimator)
        if not hasattr(detector, "loss_curve_"):
            raise ValueError(
                "Losses need a fitted detector with loss_curve_. Got "
                f"{type(detector).__name__}, which has none. Fit it first, or pass a "
                "detector that trains a network."
            )
        display = cls(
            detector.loss_curve_,
            validation_loss_curve=getattr(detector, "validation_loss_curve_", ()),
            pretrain_loss_curve=getattr(detector, "pretrain_loss_curve_", ()),
            best_epoch=getattr(detector, "best_epoch_", None),
        )
        return display.plot(ax)

    def plot(self, ax=None):
        """Draw the losses.

        Parameters
        ----------
        ax : array-like of matplotlib Axes, default=None
            Axes to draw on, one for each stage: two if there was a pretraining, else one.
            None: a new figure.

        Returns
        -------
        display : LossCurveDisplay
            This display.
        """
        has_stages = len(self.pretrain_loss_curve) > 0
        *before, axes = axes_grid(self, ax, (1, 1 + has_stages), (4.5, 3.5))[0]
        self.lines_, self.best_epoch_line_ = {}, None
        if before:
            self._draw(before[0], "pretrain_loss_curve", "training images")
            before[0].set_title("pretraining")
        self._draw(axes, "loss_curve", "training images")
        n_epochs, n_validated = len(self.loss_curve), len(self.validation_loss_curve)
        if n_validated:
            # In a warm start, images are held out in the last fit only.
            first = n_epochs - n_validated + 1
            self._draw(axes, "validation_loss_curve", "held-out images", first)
            if self.best_epoch is not None:
                self.best_epoch_line_ = axes.axvline(
                    first + self.best_epoch,
                    color=axes.xaxis.label.get_color(),  # black, unless a style is dark
                    linestyle=":",
                    label="kept",
                )
        axes.set_title("training")
        for ax in self.axes_.flat:
            ax.set(xlabel="Epoch", ylabel="Loss")
            ax.xaxis.get_major_locator().set_params(integer=True)
            ax.legend()
        return self

    def _draw(self, ax, curve, label, first=1):
        """Draw a curve whose first epoch has a number."""
        values = getattr(self, curve)
        epochs = range(first, first + len(values))
        marker = "o" if len(values) == 1 else None
        (self.lines_[curve],) = ax.plot(epochs, values, marker=marker, label=label)
