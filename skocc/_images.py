"""Image sources: arrays or files behind one interface, read a batch at a time.

A source has ``len(source)``, ``source.shape`` and ``source.load(indices)``, which returns
the images at ``indices`` as one array, uint8 (0 to 255) or float32. Nothing downstream
knows whether the pixels were in memory or on disk. ``source.original_size`` is the (H, W)
that the images had before they were resized, None where they differ in it. NumPy and Pillow
only: converting to tensors is the engine's work.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat

import numpy as np
from PIL import Image

# Pillow's names of the pixel formats that hold more than eight bits per channel.
_DEEP_MODES = {"I", "F", "I;16", "I;16L", "I;16B", "I;16N"}
_GREY_MODES = _DEEP_MODES | {"1", "L", "LA"}
_N_DECODERS = min(4, os.cpu_count() or 1)
_HEADER_BLOCK = 1000


class ArrayImages:
    """Images, or plain rows, that are already in memory.

    Parameters
    ----------
    array : ndarray of shape (n, H, W, C) or (n, d), uint8, uint16 or float32
        The images; not copied. A memory map stays on disk until it is read.
    image_size : tuple (H, W), default=None
        Size in pixels that images are brought to as they are loaded.
    """

    is_lazy = False

    def __init__(self, array, image_size=None):
        self._array = array
        same_size = image_size is None or tuple(image_size) == array.shape[1:3]
        self._image_size = None if same_size else tuple(image_size)
        sample_shape = array.shape[1:]
        if self._image_size is not None:
            sample_shape = (*self._image_size, array.shape[3])
        self.shape = (len(array), *sample_shape)
        self.original_size = array.shape[1:3] if array.ndim == 4 else None
        self.dtype = np.dtype(np.uint8 if array.dtype == np.uint8 else np.float32)

    def __len__(self):
        return self.shape[0]

    def load(self, indices):
        """Return the samples at `indices` as a new array (b, H, W, C) or (b, d)."""
        batch = self._array[indices]
        if batch.dtype == np.uint16:
            batch = batch.astype(np.float32) / 65535
        if self._image_size is not None:
            return np.stack([resize_array(image, self._image_size) for image in batch])
        # A slice is a view; callers may get a read-only memory map or the user's own
        # array, and tensors made from it must never write through.
        return batch if batch.base is None else batch.copy()


class FileImages:
    """Images in files or as PIL objects, decoded when they are loaded.

    Only the headers are read here, so that a file that is no image or has another size
    is found before any training starts. Grey and colour files may be mixed.

    Parameters
    ----------
    items : list of str, Path or PIL.Image.Image
        What to decode. The pixels of a file are never kept.
    image_size : tuple (H, W), default=None
        Size in pixels that every image is brought to. None: all have one size.
    n_channels : {1, 3}, default=None
        Channels to decode to. None: 3 if any image has colour, else 1.
    mixed_sizes : bool, default=False
        Whether images may keep sizes of their own. If they do, ``shape`` is
        (n, -1, -1, C), and they are loaded one by one.
    """

    # Loading takes long enough to be worth doing ahead, in a thread.
    is_lazy = True

    def __init__(self, items, image_size=None, n_channels=None, mixed_sizes=False):
        self._items = list(items)
        # One pool for the life of the source: memory that a thread has used for decoding
        # serves it again, but is not given back when it ends.
        self._pool = ThreadPoolExecutor(_N_DECODERS)
        headers = self._read_headers()
        modes = {mode for mode, _ in headers}
        sizes = {size for _, size in headers}
        if image_size is not None:
            self._sizes = [tuple(image_size)] * len(headers)
        elif len(sizes) == 1 or mixed_sizes:
            self._sizes = [size for _, size in headers]
        else:
            self._refuse_sizes([size for _, size in headers])
        if n_channels is None:
            n_channels = 1 if modes <= _GREY_MODES else 3
        self.original_size = headers[0][1] if len(sizes) == 1 else None
        self._n_channels = n_channels
        one_size = len(set(self._sizes)) == 1
        self.shape = (
            len(self._items),
            *(self._sizes[0] if one_size else (-1, -1)),
            n_channels,
        )
        self.dtype = np.dtype(np.float32 if modes & _DEEP_MODES else np.uint8)

    def __len__(self):
        return self.shape[0]

    def load(self, indices):
        """Decode the images at `indices` into one array (b, H, W, C)."""
        if isinstance(indices, slice):
            indices = range(*indices.indices(len(self)))
        indices = [int(index) for index in indices]
        images = self._pool.map(
            _decode,
            [self._items[index] for index in indices],
            indices,
            [self._sizes[index] for index in indices],
            repeat(self._n_channels),
            repeat(self.dtype),
        )
        return np.stack(list(images))

    def _refuse_sizes(self, sizes):
        """Name the first image that is not as large as the one before all others."""
        (height, width), index = sizes[0], 0
        while sizes[index] == sizes[0]:
            index += 1
        raise ValueError(
            "All images must have one size unless image_size is set. "
            f"{_name(self._items[index], index)} is {sizes[index][0]} x {sizes[index][1]} "
            f"(H x W), the first image is {height} x {width}. "
            "Set image_size=(H, W) to resize them."
        )

    def _read_headers(self):
        """Return Pillow's mode and the (H, W) of each image."""
        headers = []
        # In blocks, because a pool takes note of all it is asked for at once.
        for start in range(0, len(self._items), _HEADER_BLOCK):
            block = self._items[start : start + _HEADER_BLOCK]
            headers += self._pool.map(_read_header, block, range(start, start + len(block)))
        return headers


def _name(item, index):
    """Return how a message names an image: by its path, else by its place in X."""
    if isinstance(item, Image.Image):
        return f"The PIL image at index {index}"
    return f"The file {os.fspath(item)!r} (index {index})"


def _unreadable(item, index, error):
    return ValueError(
        f"{_name(item, index)} cannot be read as an image: {error}. Check that the path "
        "exists and that the file is a complete image in a format Pillow decodes, or "
        "leave it out of X."
    )


def _read_header(item, index):
    """Return Pillow's mode and the (H, W) of an image without decoding it."""
    if isinstance(item, Image.Image):
        return item.mode, (item.height, item.width)
    try:
        with Image.open(item) as image:
            return image.mode, (image.height, image.width)
    except (OSError, SyntaxError, ValueError) as error:
        raise _unreadable(item, index, error) from error


def _decode(item, index, image_size, n_channels, dtype):
    """Return one image as an array (H, W, C) of `dtype`."""
    try:
        if isinstance(item, Image.Image):
            return _to_array(item, image_size, n_channels, dtype)
        with Image.open(item) as image:
            return _to_array(image, image_size, n_channels, dtype)
    # Pillow raises SyntaxError for some broken PNG files.
    except (OSError, SyntaxError, ValueError) as error:
        raise _unreadable(item, index, error) from error


def _to_array(image, image_size, n_channels, dtype):
    """Convert a PIL image to `n_channels`, resize it, and return (H, W, C)."""
    height, width = image_size
    if image.mode in _DEEP_MODES:
        # Pillow cannot resize all of its deep formats, but all of mode F.
        scale = 1.0 if image.mode == "F" else 65535.0
        pixels = np.asarray(image, dtype=np.float32) / scale
        image = Image.fromarray(pixels)
    else:
        image = image.convert("L" if n_channels == 1 else "RGB")
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    array = np.asarray(image)
    if array.dtype == np.uint8 and dtype != np.uint8:
        array = array.astype(np.float32) / 255
    if array.ndim == 2:
        array = array[:, :, np.newaxis]
    # A deep image is grey; where its neighbours have colour it is grey in colour.
    return np.repeat(array, n_channels, axis=2) if array.shape[2] == 1 else array


def resize_array(image, image_size):
    """Resize an array (H, W, C) with Pillow's antialiased bilinear filter."""
    height, width = image_size
    channels = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(image[:, :, channel])).resize(
                (width, height), Image.Resampling.BILINEAR
            )
        )
        for channel in range(image.shape[2])
    ]
    return np.stack(channels, axis=2)
