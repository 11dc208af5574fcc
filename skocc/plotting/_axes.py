"""Axes to draw on. Nothing else of the package imports matplotlib."""

import numpy as np


def load_pyplot(display):
    """Return ``matplotlib.pyplot``.

    Parameters
    ----------
    display : object or str
        What is drawn, or its name, for the message.

    Raises
    ------
    ImportError
        matplotlib cannot be imported.
    """
    try:
        from matplotlib import pyplot
    except ImportError as error:
        name = display if isinstance(display, str) else type(display).__name__
        raise ImportError(
            f"{name} needs matplotlib, which cannot be imported: "
            f'{error}. Install it with pip install "skocc[plot]".'
        ) from error
    return pyplot


def one_axes(display, ax):
    """Return the axes of a display, or new ones in a figure of their own.

    Parameters
    ----------
    display : object
        Its `ax_` and `figure_` are set.
    ax : matplotlib Axes or None
    """
    pyplot = load_pyplot(display)
    if ax is None:
        _, ax = pyplot.subplots(layout="constrained")
    display.ax_, display.figure_ = ax, ax.figure
    return ax


def axes_grid(display, ax, shape, cell_size):
    """Return an array of axes in rows and columns, new ones if none are given.

    Parameters
    ----------
    display : object
        Its `axes_` and `figure_` are set.
    ax : array-like of matplotlib Axes, or None
        As many as there are cells.
    shape : tuple (n_rows, n_columns)
    cell_size : tuple (width, height)
        Inches of each cell of a new figure.

    Returns
    -------
    axes : ndarray of shape (n_rows, n_columns)

    Raises
    ------
    ValueError
        There are more or fewer axes than cells.
    """
    pyplot = load_pyplot(display)
    if ax is None:
        size = cell_size[0] * shape[1], cell_size[1] * shape[0]
        _, ax = pyplot.subplots(*shape, figsize=size, squeeze=False, layout="constrained")
    axes = np.array(ax, dtype=object)
    if axes.size != shape[0] * shape[1]:
        raise ValueError(
            f"{type(display).__name__} needs {shape[0]} x {shape[1]} axes (rows x "
            f"columns). Got {axes.size}. Pass those of "
            f"plt.subplots({shape[0]}, {shape[1]}), or ax=None for a new figure."
        )
    display.axes_ = axes.reshape(shape)
    display.figure_ = display.axes_[0, 0].figure
    return display.axes_
