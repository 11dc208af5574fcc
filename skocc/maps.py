"""Pixel maps of anomaly scores, as pure functions of arrays."""

import numpy as np


def patch_scores_to_map(scores, row_starts, column_starts, patch_size, image_size):
    """Give every pixel the mean score of the patches that cover it.

    Parameters
    ----------
    scores : ndarray of shape (n, rows, columns)
        Scores of the patches of n images, on a grid.
    row_starts : sequence of int, of length rows
        Top row of the patches of each row of the grid.
    column_starts : sequence of int, of length columns
        Left column of the patches of each column of the grid.
    patch_size : int
        Side of a patch. The patches cover all pixels.
    image_size : tuple (H, W)

    Returns
    -------
    maps : ndarray of shape (n, H, W)
        In the dtype of the scores.
    """
    rows = _covering(row_starts, patch_size, image_size[0])
    columns = _covering(column_starts, patch_size, image_size[1])
    # A pixel is covered by all pairs of a row and a column of the grid that cover it, so
    # that the mean over patches is one over rows of means over columns.
    maps = rows @ scores @ columns.T
    return maps.astype(scores.dtype, copy=False)


def _covering(starts, patch_size, size):
    """Return weights (size, windows): for each pixel, equal ones of its windows."""
    offsets = np.arange(size)[:, None] - np.asarray(starts)
    covers = (offsets >= 0) & (offsets < patch_size)
    return covers / covers.sum(axis=1, keepdims=True)
