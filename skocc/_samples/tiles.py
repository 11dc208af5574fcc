"""Tiles of photographs: where they lie, and a source that cuts them out of what it decodes.

A photograph is decoded once for all its tiles, as long as these are read one after another.
"""

import math
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from skocc._samples.sources import ReadImages, resize_array
from skocc._samples.windows import window_starts

# Bytes of photographs that are kept while their tiles are read, and their number at least:
# that of a batch, the one before it in another thread, and the next, decoded ahead.
_KEPT_BYTES, _N_KEPT = 2**27, 3


def tile_grids(
    sizes: list[tuple[int, int]], tile_size: tuple[int, int], stride: tuple[int, int]
) -> list[tuple[list[int], list[int]]]:
    """Return where the tiles of each photograph begin: rows, and columns.

    Parameters
    ----------
    sizes : list of tuple (H, W)
        Sizes of the photographs in pixels.
    tile_size, stride : tuple (height, width)

    Returns
    -------
    grids : list of tuple (rows, columns)
        Ascending positions. The last row and column end with the photograph.

    Raises
    ------
    ValueError
        A photograph is smaller than a tile.
    """
    grids = {}
    for index, size in enumerate(sizes):
        if size in grids:
            continue
        if size[0] < tile_size[0] or size[1] < tile_size[1]:
            raise ValueError(
                f"A photograph must be at least as large as a tile, {tile_size[0]} x "
                f"{tile_size[1]} pixels (H x W). Got one of {size[0]} x {size[1]} at "
                f"index {index} of X. Set a smaller tile_size, at most "
                f"({size[0]}, {size[1]}), or leave it out."
            )
        sides = zip(size, tile_size, stride, strict=True)
        rows, columns = (window_starts(*side) for side in sides)
        grids[size] = rows, columns
    return [grids[size] for size in sizes]


class Tiles:
    """Photographs to be read as their tiles: an X that `read_images` takes.

    Each detector reads them through its own door, with its ``image_size`` and
    ``intensity_range``.

    Parameters
    ----------
    photographs : ReadImages
        The photographs, with the channels they have.
    read : callable
        Function of ``intensity_range`` and ``n_channels`` that reads the photographs anew.
    intensity_range : tuple (low, high) or None
        The range by which `photographs` were read.
    tile_size, stride : tuple (height, width)
    n_bytes : int, default=0
        Bytes that decoded photographs may take, so that they need not be decoded again.

    Attributes
    ----------
    grids : list of tuple (rows, columns)
        Where the tiles of each photograph begin, see :func:`tile_grids`.
    firsts : ndarray of shape (n_photographs,), int
        Index of the first tile of each photograph.
    groups : ndarray of shape (n_tiles,), int
        The photograph of each tile.
    """

    def __init__(
        self,
        photographs: ReadImages,
        read: Callable,
        intensity_range,
        tile_size: tuple[int, int],
        stride: tuple[int, int],
        n_bytes: int = 0,
    ):
        self.tile_size, self._read, self._n_bytes = tile_size, read, n_bytes
        self.grids = tile_grids(sizes_of(photographs), tile_size, stride)
        n_tiles = [len(rows) * len(columns) for rows, columns in self.grids]
        self.firsts = np.cumsum([0, *n_tiles[:-1]])
        self.groups = np.repeat(np.arange(len(n_tiles)), n_tiles)
        self._indices = np.arange(len(self.groups))
        kept = KeptPhotographs(photographs, n_bytes)
        self._n_channels = photographs.shape[-1]
        self._kept = {(intensity_range, self._n_channels): kept}

    def __len__(self) -> int:
        return len(self._indices)

    def __getstate__(self):
        return {**vars(self), "_kept": {}}  # threads and locks stay in their process

    def take(self, indices: np.ndarray) -> "Tiles":
        """Return some of these tiles, which share what is decoded."""
        part = object.__new__(Tiles)
        vars(part).update(vars(self))
        part._indices = self._indices[indices]
        part.groups = self.groups[indices]
        return part

    def n_together(self) -> int:
        """Return how many photographs can be read in turn, each of them decoded once."""
        return min(kept.n_together() for kept in self._kept.values())

    def as_source(self, image_size, intensity_range, n_channels) -> "TileImages":
        """Return the source of these tiles for the parameters of a detector.

        Parameters
        ----------
        image_size : tuple (H, W) or None
            Size in pixels that tiles are resized to.
        intensity_range, n_channels
            As in :func:`~skocc._samples.validation.read_images`.
        """
        if intensity_range is not None:
            intensity_range = tuple(intensity_range)
        if n_channels is None:
            n_channels = self._n_channels
        key = intensity_range, n_channels
        if key not in self._kept:
            photographs = self._read(intensity_range, n_channels)
            self._kept[key] = KeptPhotographs(photographs, self._n_bytes)
        return TileImages(self, self._kept[key], image_size)

    def places(self, indices) -> list[tuple[int, int, int]]:
        """Return the photograph, the row and the column of the tiles at some indices."""
        found = []
        for tile in self._indices[indices].tolist():
            photograph = int(np.searchsorted(self.firsts, tile, side="right")) - 1
            rows, columns = self.grids[photograph]
            row, column = divmod(tile - int(self.firsts[photograph]), len(columns))
            found.append((photograph, rows[row], columns[column]))
        return found


class KeptPhotographs:
    """Photographs of a source, decoded when they are needed; the latest are kept.

    Parameters
    ----------
    images : ReadImages
    n_bytes : int
        Bytes that the photographs may take that are kept, if more than a few do.
    """

    def __init__(self, images: ReadImages, n_bytes: int):
        self.images, self._n_bytes = images, max(n_bytes, _KEPT_BYTES)
        self._sizes = decoded_bytes(images)
        # A source that must not be read by two threads at once is read by one.
        self._pool = ThreadPoolExecutor(1 if images.n_ahead == 1 else _N_KEPT - 1)
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, Future] = OrderedDict()
        # By how many batches that are being loaded.
        self._needed: Counter[int] = Counter()

    def n_together(self) -> int:
        """Return how many photographs are kept for sure, beside one decoded ahead."""
        return max(_N_KEPT, self._n_bytes // max(self._sizes)) - 1

    def each(self, indices: list[int], n_ahead: int = 0) -> Iterator[np.ndarray]:
        """Yield photographs (H, W, C) in turn, none of which is forgotten before.

        Parameters
        ----------
        indices : list of int
            Different photographs.
        n_ahead : int, default=0
            How many that come after one are decoded meanwhile.
        """
        left = deque(indices)
        with self._lock:
            self._needed.update(indices)
        try:
            while left:
                photograph = self._get(left[0], n_ahead)
                with self._lock:
                    self._needed[left.popleft()] -= 1
                yield photograph
        finally:
            with self._lock:
                self._needed.subtract(left)

    def _get(self, index, n_ahead):
        with self._lock:
            for wanted in range(index, min(index + 1 + n_ahead, len(self.images))):
                if wanted not in self._kept:
                    self._kept[wanted] = self._pool.submit(self._decode, wanted)
            self._kept.move_to_end(index)
            found = self._kept[index]
            self._forget_old()
        try:
            return found.result()
        except BaseException:
            with self._lock:
                self._kept.pop(index, None)
            raise

    def _decode(self, index):
        return self.images.load(np.array([index]))[0]

    def _forget_old(self):
        n_bytes = sum(self._sizes[index] for index in self._kept)
        for index in [*self._kept]:
            if len(self._kept) <= _N_KEPT or n_bytes <= self._n_bytes:
                return
            if not self._needed[index]:
                del self._kept[index]
                n_bytes -= self._sizes[index]


class TileImages:
    """Image source of tiles.

    Parameters
    ----------
    tiles : Tiles
    photographs : KeptPhotographs
    image_size : tuple (H, W), default=None
        Size in pixels to which tiles are resized when they are loaded.
    """

    n_ahead, is_table, is_deep = 2, False, False

    def __init__(self, tiles, photographs, image_size=None):
        self._tiles, self._photographs = tiles, photographs
        size = tiles.tile_size if image_size is None else tuple(image_size)
        self._image_size = None if size == tiles.tile_size else size
        self.shape = (len(tiles), *size, photographs.images.shape[-1])
        self.n_features, self.dtype = math.prod(self.shape[1:]), photographs.images.dtype
        self.groups = tiles.groups

    def __len__(self):
        return self.shape[0]

    def original_sizes(self):
        """Return the (H, W) of each tile before it was resized."""
        return [self._tiles.tile_size] * len(self)

    def load(self, indices):
        """Return the tiles at `indices` as a new array (b, H, W, C)."""
        places = self._tiles.places(indices)
        height, width = self._tiles.tile_size
        batch = np.empty((len(places), *self.shape[1:]), self.dtype)
        needed = [*dict.fromkeys(place[0] for place in places)]
        # In order, the next photograph is needed next. A batch of several is loaded ahead.
        n_ahead = int(isinstance(indices, slice) and len(needed) == 1)
        photographs = self._photographs.each(needed, n_ahead)
        for photograph, pixels in zip(needed, photographs, strict=True):
            for index, (other, row, column) in enumerate(places):
                if other == photograph:
                    tile = pixels[row : row + height, column : column + width]
                    if self._image_size is not None:
                        tile = resize_array(tile, self._image_size)
                    batch[index] = tile
        return batch


def decoded_bytes(photographs: ReadImages) -> list[int]:
    """Return the bytes of each photograph of a source when it is decoded."""
    n_each = photographs.shape[-1] * photographs.dtype.itemsize
    return [height * width * n_each for height, width in sizes_of(photographs)]


def sizes_of(photographs: ReadImages) -> list[tuple[int, int]]:
    """Return the (H, W) of each photograph of a source."""
    height, width = photographs.shape[1:3]
    if height == -1:
        return photographs.original_sizes()
    return [(height, width)] * len(photographs)
