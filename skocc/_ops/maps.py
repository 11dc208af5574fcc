"""Pixel maps of anomaly scores, from the scores of patches or of the cells of a grid."""

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d, maximum_filter1d
from torch.nn import functional


def patch_scores_to_map(
    scores, row_starts, column_starts, patch_size, image_size, padding_mode="mean"
):
    """Return for every pixel the mean score of the patches that cover it.

    Parameters
    ----------
    scores : ndarray of shape (n, rows, columns)
        Scores of the patches of n images, on a grid.
    row_starts : sequence of int, of length rows
        Top pixel row of the patches in each row of the grid.
    column_starts : sequence of int, of length columns
        Left pixel column of the patches in each column of the grid.
    patch_size : int
        Side of a patch. The patches cover all pixels.
    image_size : tuple (H, W)
        Size of the images in pixels.
    padding_mode : {"mean", "reflect"}, default="mean"
        Treatment of the border. Fewer patches cover the pixels near the border, and a
        single patch covers a corner. With "mean", the mean therefore varies more there, and
        the maximum of a map is more often at the border. "reflect" continues the grid
        beyond the border with mirrored scores, so that each pixel is the mean of equally
        many patches.

    Returns
    -------
    maps : ndarray of shape (n, H, W)
        Maps in the dtype of the scores.

    Notes
    -----
    Two products are taken, not prefix sums along both axes: for 57 x 57 scores of 8 images
    and 256 x 256 pixels, prefix sums took 1.3 times as long (0.96 to 2.6, 40 pairs, one
    thread), and lowered some pixels where a score was raised, by their rounding.
    """
    rows = covering_weights(row_starts, patch_size, image_size[0], padding_mode)
    columns = covering_weights(column_starts, patch_size, image_size[1], padding_mode)
    # The patches that cover a pixel are all pairs of the grid rows and grid columns that
    # cover it, so the mean over patches is a mean over rows of means over columns.
    maps = rows @ scores @ columns.T
    return maps.astype(scores.dtype, copy=False)


def covering_weights(starts, patch_size, size, padding_mode="mean"):
    """Return how much each window of a row of pixels counts in the mean at each pixel.

    Parameters
    ----------
    starts : sequence of int
        First pixels of the windows, which cover all pixels.
    patch_size : int
        Length of a window.
    size : int
        Number of pixels.
    padding_mode : {"mean", "reflect"}, default="mean"
        As in :func:`patch_scores_to_map`.

    Returns
    -------
    weights : ndarray of shape (size, windows), float64
        Each row sums to one.
    """
    starts = np.asarray(starts)
    windows = np.arange(len(starts))
    weights = np.zeros((size, len(starts)))
    if padding_mode == "reflect" and len(starts) > 1:
        stride = starts[1] - starts[0]
        # Windows beyond the border that overlap the image.
        steps = np.arange(1, min(-(-patch_size // stride), len(starts) + 1))
        windows = np.concatenate([windows, steps - 1, len(starts) - steps])
        beyond = starts[0] - stride * steps, starts[-1] + stride * steps
        starts = np.concatenate([starts, *beyond])
    offsets = np.arange(size)[:, None] - starts
    covers = (offsets >= 0) & (offsets < patch_size)
    np.add.at(weights, (slice(None), windows), covers)
    return weights / weights.sum(axis=1, keepdims=True)


def cell_scores_to_map(
    scores: torch.Tensor, image_size: tuple[int, int], smoothing: float = 0.0
) -> torch.Tensor:
    """Bring the scores of a grid of cells to the size of the images.

    Parameters
    ----------
    scores : Tensor of shape (n, rows, columns)
    image_size : tuple (H, W)
        Size of the images in pixels.
    smoothing : float, default=0.0
        Standard deviation in pixels of a Gaussian that smooths the maps.

    Returns
    -------
    maps : Tensor of shape (n, H, W), float32
        Interpolated bilinearly. No value falls where a score rises.
    """
    maps = functional.interpolate(
        scores[:, None], image_size, mode="bilinear", align_corners=False
    )
    maps = maps[:, 0].float()
    if smoothing == 0:
        return maps
    values = maps.cpu().numpy()
    for axis, side in enumerate(image_size, start=1):
        if smoothing < 2 * side:
            values = gaussian_filter1d(values, smoothing, axis)
        else:
            # A wider kernel takes its time, and is flat to 1e-8 anyway.
            values = np.repeat(values.mean(axis, keepdims=True), side, axis)
    return torch.from_numpy(values)


def changed_pixels(n_cells: int, n_pixels: int, smoothing: float = 0.0) -> torch.Tensor:
    """Return which pixels each cell changes in :func:`cell_scores_to_map`, along one side.

    Parameters
    ----------
    n_cells, n_pixels : int
        Length of one side of the grid and of the map.
    smoothing : float, default=0.0

    Returns
    -------
    changed : Tensor of shape (n_pixels, n_cells), float32
        1 where a cell changes a pixel, else 0.
    """
    weights = functional.interpolate(torch.eye(n_cells)[None], n_pixels, mode="linear")[0]
    changed = weights.numpy() > 0  # (n_cells, n_pixels)
    if smoothing >= 2 * n_pixels:
        changed = np.ones_like(changed)
    elif smoothing > 0:
        # SciPy's Gaussian ends after four standard deviations.
        changed = maximum_filter1d(changed, 2 * int(4 * smoothing + 0.5) + 1)
    return torch.from_numpy(changed.T.astype(np.float32))
