"""Pixel maps of anomaly scores, as pure functions of arrays."""

import numpy as np


def patch_scores_to_map(
    scores, row_starts, column_starts, patch_size, image_size, padding_mode="mean"
):
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
    padding_mode : {"mean", "reflect"}, default="mean"
        Pixels near the border are covered by fewer patches, a corner by a single one, so
        that their mean varies more, and the maximum of a map is more often found there.
        "reflect" goes on with the grid beyond the border, with the scores mirrored, so that
        all pixels are means of equally many.

    Returns
    -------
    maps : ndarray of shape (n, H, W)
        In the dtype of the scores.
    """
    rows = _covering(row_starts, patch_size, image_size[0], padding_mode)
    columns = _covering(column_starts, patch_size, image_size[1], padding_mode)
    # A pixel is covered by all pairs of a row and a column of the grid that cover it, so
    # that the mean over patches is one over rows of means over columns.
    maps = rows @ scores @ columns.T
    return maps.astype(scores.dtype, copy=False)


def _covering(starts, patch_size, size, padding_mode):
    """Return weights (size, windows): for each pixel, equal ones of its windows."""
    starts = np.asarray(starts)
    windows = np.arange(len(starts))
    weights = np.zeros((size, len(starts)))
    if padding_mode == "reflect" and len(starts) > 1:
        stride = starts[1] - starts[0]
        # Those beyond the border that still reach into the image.
        steps = np.arange(1, min(-(-patch_size // stride), len(starts) + 1))
        windows = np.concatenate([windows, steps - 1, len(starts) - steps])
        beyond = starts[0] - stride * steps, starts[-1] + stride * steps
        starts = np.concatenate([starts, *beyond])
    offsets = np.arange(size)[:, None] - starts
    covers = (offsets >= 0) & (offsets < patch_size)
    np.add.at(weights, (slice(None), windows), covers)
    return weights / weights.sum(axis=1, keepdims=True)
