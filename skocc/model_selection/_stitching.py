"""Heat maps of photographs from those of their tiles."""

from collections.abc import Sequence

import numpy as np


def ramp(size: int, overlap: int) -> np.ndarray:
    """Return the weights of a tile along one side: 1 inside, and falling at both ends.

    Parameters
    ----------
    size : int
        Side of the tile in pixels.
    overlap : int
        Pixels over which the weights fall; 0: they are 1 everywhere.

    Returns
    -------
    weights : ndarray of shape (size,), float64
        Positive.
    """
    if overlap == 0:
        return np.ones(size)
    to_the_end = np.minimum(np.arange(size), np.arange(size)[::-1]) + 0.5
    return np.minimum(1, to_the_end / overlap)


def normalized_ramps(starts: Sequence[int], size: int, overlap: int) -> np.ndarray:
    """Return the weights of the tiles along one side, whose sum is 1 at each pixel.

    Parameters
    ----------
    starts : sequence of int
        Where the tiles begin; together they cover the side.
    size, overlap : int
        As in :func:`ramp`.

    Returns
    -------
    weights : ndarray of shape (n_tiles, size), float32
    """
    weights = ramp(size, overlap)
    total = np.zeros(starts[-1] + size)
    for start in starts:
        total[start : start + size] += weights
    parts = [weights / total[start : start + size] for start in starts]
    return np.stack(parts).astype(np.float32)


class StitchedMap:
    """The heat map of a photograph, to which those of its tiles are added.

    Parameters
    ----------
    rows, columns : sequence of int
        Where the tiles begin.
    tile_size, overlap : tuple (height, width)

    Attributes
    ----------
    heat : ndarray of shape (H, W), float32
        The map.
    n_missing : int
        Number of tiles that have not been added.
    """

    def __init__(self, rows, columns, tile_size, overlap):
        self._rows, self._columns, self._tile_size = rows, columns, tile_size
        self._ramps = [
            normalized_ramps(starts, size, width)
            for starts, size, width in zip((rows, columns), tile_size, overlap, strict=True)
        ]
        shape = (rows[-1] + tile_size[0], columns[-1] + tile_size[1])
        self.heat = np.zeros(shape, np.float32)
        self.n_missing = len(rows) * len(columns)

    def add(self, index: int, heat: np.ndarray) -> None:
        """Add the map (H, W) of a tile, by the index of the tile, row by row."""
        row, column = divmod(index, len(self._columns))
        top, left = self._rows[row], self._columns[column]
        height, width = self._tile_size
        place = self.heat[top : top + height, left : left + width]
        with np.errstate(invalid="ignore", over="ignore"):
            weighted = self._ramps[0][row, :, None] * heat
            weighted *= self._ramps[1][column]
            place += weighted
        self.n_missing -= 1
