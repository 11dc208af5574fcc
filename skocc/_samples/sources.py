"""Image sources: one interface to arrays, files and data sets, read one batch at a time.

The rest of the package need not know whether pixels are in memory or on disk. This file
uses only NumPy and Pillow; the engine converts batches to tensors.
"""

import io
import math
import os
import stat
import sys
from collections import deque
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
from joblib import cpu_count
from PIL import Image, UnidentifiedImageError

from skocc._samples.progress import track
from skocc._samples.warnings import warn

# Pillow's names of the pixel formats with more than eight bits per channel.
_DEEP_MODES = {"I", "F", "I;16", "I;16L", "I;16B", "I;16N"}
_GRAY_MODES = _DEEP_MODES | {"1", "L", "LA"}
# An image file, by its path or by its content, and what is decoded as one image.
ImageFile = str | os.PathLike | bytes | bytearray | io.BytesIO
ImageItem = ImageFile | Image.Image
# Limit on the threads that decode, each of which may hold a whole photograph.
_MAX_DECODERS = 16
_HEADER_BLOCK = 1000
# The operation that undoes each value of EXIF's orientation tag.
_ORIENTATION_TAG = 0x0112
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageSource(Protocol):
    """Images, rows or clips that are loaded one batch at a time.

    Attributes
    ----------
    shape : tuple
        (n, H, W, C), (n, d) or (n, T, H, W, C); H and W are -1 if images differ in size.
    dtype : numpy.dtype
        Type of the batches that `load` returns: uint8, from 0 to 255, or float32.
    n_ahead : int
        Number of batches that are loaded ahead, each in a thread. 0 means that loading is
        quick, 1 that no two calls of `load` may overlap.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    n_ahead: int

    def __len__(self) -> int: ...

    def load(self, indices) -> Any:
        """Return the samples at `indices`, a slice or an array of int, as one batch.

        The batch is an ndarray (b, H, W, C), (b, d) or (b, T, H, W, C), or a tensor of the
        same shape on the device where the source keeps its samples.
        """


class ReadImages(ImageSource, Protocol):
    """Image source that `read_images` makes from X.

    Attributes
    ----------
    n_features : int or None
        Number of values per sample, ``n_features_in_``; None if it differs between samples.
    is_table : bool
        Whether X was given as rows and columns.
    groups : ndarray of shape (n,), int, or None
        Group of each sample: those of one group, such as tiles of one photograph, know each
        other. None means that each is by itself.
    """

    n_features: int | None
    is_table: bool
    groups: np.ndarray | None

    def original_sizes(self) -> list[tuple[int, int]]:
        """Return the (H, W) of each image before it was resized."""


class ArrayImages:
    """Images, or plain rows, that are already in memory.

    Parameters
    ----------
    array : ndarray of shape (n, H, W, C) or (n, d), uint8, uint16 or float32
        The images; not copied. A memory map stays on disk until it is read.
    image_size : tuple (H, W), default=None
        Size in pixels to which images are resized when they are loaded.
    intensity_range : tuple (low, high), default=None
        Values that are scaled to 0 and 1, as float32. None means the range of uint8 and
        uint16, and no scaling of other types.
    is_table : bool, default=False
        Whether the array was given as rows and columns.

    Attributes
    ----------
    is_deep : bool
        Whether the array holds 16-bit integers that are divided by their full range.
    """

    n_ahead, groups = 0, None

    def __init__(self, array, image_size=None, intensity_range=None, is_table=False):
        self._array, self._intensity_range = array, intensity_range
        self.is_table, self.n_features = is_table, math.prod(array.shape[1:])
        same_size = image_size is None or tuple(image_size) == array.shape[1:3]
        self._image_size = None if same_size else tuple(image_size)
        sample_shape = array.shape[1:]
        if self._image_size is not None:
            sample_shape = (*self._image_size, array.shape[3])
        self.shape = (len(array), *sample_shape)
        self.is_deep = intensity_range is None and array.dtype == np.uint16
        is_bytes = intensity_range is None and array.dtype == np.uint8
        self.dtype = np.dtype(np.uint8 if is_bytes else np.float32)

    def __len__(self):
        return self.shape[0]

    def original_sizes(self):
        """Return the (H, W) of each image before it was resized."""
        return [self._array.shape[1:3]] * len(self)

    def load(self, indices):
        """Return the samples at `indices` as a new array (b, H, W, C) or (b, d)."""
        batch = self._array[indices]
        if self.is_deep or self._intensity_range is not None:
            batch = scaled(batch, self._intensity_range)
        if self._image_size is not None:
            return np.stack([resize_array(image, self._image_size) for image in batch])
        # A slice is a view of a read-only memory map or of the user's own array, to which
        # tensors made from it must never write.
        return batch if batch.base is None else batch.copy()


class FileImages:
    """Image files or PIL images that are decoded when they are loaded.

    The constructor reads only the headers, so that a file that is not an image or has
    another size is found before training starts. Gray and color files may be mixed. Images
    are rotated as EXIF specifies, and their size is the size after the rotation. The first
    page of a file with several pages is read.

    Parameters
    ----------
    items : list of str, Path, bytes, BytesIO or PIL.Image.Image
        Images to decode. The pixels of a file are never kept.
    image_size : tuple (H, W), default=None
        Size in pixels to which every image is resized. None means that all images must have
        one size.
    n_channels : {1, 3}, default=None
        Number of channels to decode to. None means 3 if any image has color, else 1.
    mixed_sizes : bool, default=False
        Whether images may keep different sizes. If they do, ``shape`` is (n, -1, -1, C),
        and the images are loaded one by one.
    intensity_range : tuple (low, high), default=None
        Values that are scaled to 0 and 1, as float32. None means the range of uint8 and
        uint16, and no scaling of other types.
    """

    # Two, so that no thread waits while the last images of a batch are decoded and stacked.
    n_ahead, is_table, groups = 2, False, None

    def __init__(
        self,
        items,
        image_size=None,
        n_channels=None,
        mixed_sizes=False,
        intensity_range=None,
    ):
        self._items, self._intensity_range = list(items), intensity_range
        # One pool for the life of the source: a thread reuses its memory for decoding, but
        # does not release it when it ends.
        self._n_threads = min(_MAX_DECODERS, cpu_count())
        self._pool = ThreadPoolExecutor(self._n_threads)
        headers = self._read_headers()
        modes = {mode for mode, _, _ in headers}
        sizes = [size for _, size, _ in headers]
        self._original_sizes, n_sizes = sizes, len(set(sizes))
        if image_size is not None:
            self._sizes = [tuple(image_size)] * len(headers)
        elif n_sizes == 1 or mixed_sizes:
            self._sizes = sizes
        else:
            self._raise_for_sizes(sizes)
        self._warn_about_files(headers)
        if n_channels is None:
            n_channels = 1 if modes <= _GRAY_MODES else 3
        self._n_channels = n_channels
        one_size = len(set(self._sizes)) == 1
        self.shape = (
            len(self._items),
            *(self._sizes[0] if one_size else (-1, -1)),
            n_channels,
        )
        self.n_features = math.prod(self.shape[1:]) if one_size else None
        self.is_deep = intensity_range is None and bool(modes & (_DEEP_MODES - {"F"}))
        is_bytes = intensity_range is None and not modes & _DEEP_MODES
        self.dtype = np.dtype(np.uint8 if is_bytes else np.float32)

    def __len__(self):
        return self.shape[0]

    def original_sizes(self):
        """Return the (H, W) of each upright image before it was resized."""
        return self._original_sizes

    def load(self, indices):
        """Decode the images at `indices` into one array (b, H, W, C)."""
        if isinstance(indices, slice):
            indices = range(*indices.indices(len(self)))
        return np.stack(self._in_threads(self._decode, [int(index) for index in indices]))

    def _decode(self, index):
        return _decode(
            self._items[index],
            self._place(index),
            self._sizes[index],
            self._n_channels,
            self.dtype,
            self._intensity_range,
        )

    def _in_threads(self, function, indices):
        """Return the results of a function of an index, in order, or raise the first error.

        A thread takes the next index when it is free. A task of the pool for each index
        would cost half as much as reading a header.
        """
        results, errors = [None] * len(indices), {}
        waiting = deque(enumerate(indices))

        def work():
            while True:
                try:
                    place, index = waiting.popleft()
                except IndexError:
                    return
                try:
                    results[place] = function(index)
                except BaseException as error:
                    waiting.clear()
                    errors[place] = error

        n_threads = min(self._n_threads, len(indices))
        try:
            wait([self._pool.submit(work) for _ in range(n_threads)])
        finally:
            waiting.clear()  # for an interrupted wait
        if errors:
            # The indices before it were taken before it, so that it is the first of all.
            raise errors.pop(min(errors))
        return results

    def _raise_for_sizes(self, sizes):
        """Raise a ValueError that names the first image whose size differs."""
        (height, width), index = sizes[0], 0
        while sizes[index] == sizes[0]:
            index += 1
        raise ValueError(
            "All images must have one size unless image_size is set. "
            f"{self._named(index)} is {sizes[index][0]} x {sizes[index][1]} "
            f"(H x W), the first image is {height} x {width}. "
            "Set image_size=(H, W) to resize them."
        )

    def _warn_about_files(self, headers):
        """Warn of the first file with several pages, and of the first very large file."""
        several = [index for index, (_, _, has_pages) in enumerate(headers) if has_pages]
        if several:
            warn(
                f"{self._named(several[0])} holds several pages, of "
                f"which only the first is read. Got {len(several)} of {len(headers)} files "
                "with several pages. To read the other pages, save each as a separate "
                "file, or pass them as PIL images."
            )
        # Pillow also warns, but does not name the file.
        limit = Image.MAX_IMAGE_PIXELS or float("inf")
        large = [
            index
            for index, (_, (height, width), _) in enumerate(headers)
            if height * width > limit and not isinstance(self._items[index], Image.Image)
        ]
        if large:
            height, width = headers[large[0]][1]
            warn(
                f"{self._named(large[0])} has {height} x {width} pixels, "
                f"more than the {limit} that Pillow considers safe. Got {len(large)} of "
                f"{len(headers)} files of such a size. Leave out files that you do not "
                "trust, or raise PIL.Image.MAX_IMAGE_PIXELS."
            )

    def _read_headers(self):
        """Return for each image Pillow's mode, (H, W), and whether it has several pages."""
        headers = []
        n_items = len(self._items)
        for start in track(range(0, n_items, _HEADER_BLOCK), "sizes of the files"):
            indices = range(start, min(start + _HEADER_BLOCK, n_items))
            headers += self._in_threads(self._read_header, indices)
        return headers

    def _read_header(self, index):
        return _read_header(self._items[index], self._place(index))

    def _named(self, index):
        return _name(self._items[index], self._place(index))

    def _place(self, index):
        """Return the index that messages give, or None for a single image."""
        return index if len(self._items) > 1 else None


class ItemImages:
    """Images that are read by index from a torch data set or a list.

    Images are read when they are loaded, one after another, in one thread. The first image
    determines the number of channels and, without `image_size`, the size of all images.

    Parameters
    ----------
    items : sequence
        PIL images, tensors (C, H, W) or (H, W), arrays (H, W, C) or (H, W), or tuples whose
        first element is one of these, such as pairs of image and label.
    image_size : tuple (H, W), default=None
        Size in pixels to which every image is resized. None means that all images must have
        one size.
    n_channels : int, default=None
        Number of channels of every image. Gray images are repeated to three channels, and
        PIL images are converted to one or three. None means those of the first image.
    mixed_sizes : bool, default=False
        As in `FileImages`. The constructor then reads all images once to find their sizes.
    is_channels_first : callable, default=None
        Function that returns whether the shape of a three-dimensional array is (C, H, W).
        None means that no array has that layout. Tensors always have it.
    intensity_range : tuple (low, high), default=None
        Values that are scaled to 0 and 1, as float32. None means the range of uint8 and
        uint16, and no scaling of other types.
    """

    n_ahead, is_table, groups = 1, False, None

    def __init__(
        self,
        items,
        image_size=None,
        n_channels=None,
        mixed_sizes=False,
        is_channels_first=None,
        intensity_range=None,
    ):
        self._items, self._is_channels_first = items, is_channels_first
        self._intensity_range, self.is_deep = intensity_range, False
        self._n_given, self._n_channels, self.dtype = n_channels, n_channels, None
        first = self._read(0)
        self.dtype, self._n_channels = first.dtype, first.shape[2]
        self._image_size, self._sizes_seen = image_size, {}
        self._size = image_size or first.shape[:2]
        if isinstance(items, list) or (mixed_sizes and image_size is None):
            sizes = [self._read(index).shape[:2] for index in range(len(items))]
            self._sizes_seen = dict(enumerate(sizes))
            if mixed_sizes and image_size is None and len(set(sizes)) > 1:
                self._size = (-1, -1)
            for index, size in enumerate(sizes):
                self._check_size(index, size)
        self.shape = (len(items), *self._size, self._n_channels)
        self.n_features = None if -1 in self._size else math.prod(self.shape[1:])

    def __len__(self):
        return self.shape[0]

    def original_sizes(self):
        """Return the (H, W) of each image when it was loaded last.

        An item of a data set has no size before it has been loaded.
        """
        return [self._sizes_seen[index] for index in range(len(self))]

    def load(self, indices):
        """Read the images at `indices` into one array (b, H, W, C)."""
        if isinstance(indices, slice):
            indices = range(*indices.indices(len(self)))
        images = []
        for index in map(int, indices):
            image = self._read(index)
            size = image.shape[:2]
            self._check_size(index, size)
            self._sizes_seen[index] = size
            if self._image_size not in (None, size):
                image = resize_array(image, self._image_size)
            images.append(image)
        return np.stack(images)

    def _check_size(self, index, size):
        if self._image_size is None and self._size not in (size, (-1, -1)):
            raise ValueError(
                "All images must have one size unless image_size is set. The image at "
                f"index {index} of X is {size[0]} x {size[1]} (H x W), the first image is "
                f"{self._size[0]} x {self._size[1]}. Set image_size=(H, W) to resize them."
            )

    def _read(self, index):
        """Return one image as an array (H, W, C) of its original size, uint8 or float32."""
        try:
            item = self._items[index]
        except Exception as error:
            raise ValueError(
                f"The item at index {index} of X, a {type(self._items).__name__}, cannot "
                f"be read: {type(error).__name__}: {error}. Leave it out, for example with "
                "torch.utils.data.Subset, or fix the data set."
            ) from error
        if isinstance(item, tuple | list) and len(item) > 0:
            item = item[0]
        if isinstance(item, Image.Image):
            n_decoded = self._n_given if self._n_given in (1, 3) else None
            self.is_deep |= self._intensity_range is None and _is_deep(item)
            image = read_image(item, index, n_decoded, self._intensity_range)
        else:
            image = self._from_array(item, index)
        if image.dtype == np.uint8 and self.dtype == np.float32:
            image = image.astype(np.float32) / 255
        n_channels, dtype = self._n_channels or image.shape[2], self.dtype or image.dtype
        if image.shape[2] == 1 and n_channels == 3:
            image = np.repeat(image, 3, axis=2)
        if image.shape[2] != n_channels or image.dtype != dtype:
            raise ValueError(
                "All images of a data set must have the same channels and type. Got "
                f"{image.shape[2]} channels of {image.dtype} at index {index}, where "
                f"{n_channels} of {dtype} are expected. Convert them in the data set."
            )
        return image

    def _from_array(self, item, index):
        """Return a tensor or array as an array (H, W, C), uint8 or float32."""
        is_tensor = hasattr(item, "detach")
        if is_tensor:
            item = item.detach().cpu()
            if str(item.dtype) == "torch.bfloat16":
                item = item.float()  # NumPy has no bfloat16
        image = np.asarray(item) if is_tensor or isinstance(item, np.ndarray) else None
        if image is None or image.ndim not in (2, 3) or image.dtype.kind not in "biuf":
            raise ValueError(
                "The items of a data set must be tensors (C, H, W) or (H, W), arrays "
                "(H, W) or (H, W, C), PIL images, or tuples that begin with one. Got "
                f"{_described(item)} at index {index}. Wrap it in a Dataset that returns "
                "images, or pass rows as one array (n, d)."
            )
        if not image.size:
            raise ValueError(
                f"An image must have pixels and channels. Got shape {image.shape} at index "
                f"{index}. Leave it out."
            )
        if image.ndim == 2:
            image = image[:, :, np.newaxis]
        elif is_tensor or (
            self._is_channels_first and self._is_channels_first(image.shape)
        ):
            image = np.moveaxis(image, 0, -1)
        if image.dtype == np.uint8 and self._intensity_range is None:
            return image
        self.is_deep |= self._intensity_range is None and image.dtype == np.uint16
        image = scaled(image, self._intensity_range)
        if not np.isfinite(image).all():
            kind = "NaN" if np.isnan(image).any() else "infinity (inf)"
            raise ValueError(
                f"X contains {kind}: the image at index {index} holds values that are not "
                "finite. Leave it out, or replace the values, for example with "
                "torch.nan_to_num."
            )
        return image


def is_data_set(X):
    """Return whether X is a map-style torch data set.

    Raises
    ------
    ValueError
        X is a DataLoader or an iterable data set, whose items have no index.
    """
    # If torch.utils.data is not imported, X cannot be a data set.
    torch_data = sys.modules.get("torch.utils.data")
    if torch_data is None or not isinstance(X, torch_data.Dataset | torch_data.DataLoader):
        return False
    if isinstance(X, torch_data.DataLoader):
        raise ValueError(
            "X must return each image by its index, in a fixed order. Got a DataLoader of "
            f"{type(X.dataset).__name__}, which returns batches. Pass its data set, "
            "loader.dataset; batch_size is a parameter of the detector."
        )
    if isinstance(X, torch_data.IterableDataset) or not hasattr(X, "__len__"):
        raise ValueError(
            f"X must return each image by its index, and must have a length. Got "
            f"{type(X).__name__}, which does not. Pass a Dataset with __getitem__ and "
            "__len__, the paths of the files, or list(X) if all images fit into memory."
        )
    return True


def _described(item):
    if hasattr(item, "shape"):
        return f"{type(item).__name__} of shape {tuple(item.shape)} and {item.dtype}"
    return type(item).__name__


def scaled(array, intensity_range=None):
    """Return numbers as float32, scaled from a range to [0, 1]; an overflow becomes inf.

    Without a range, uint16 is scaled from the range of its type, and other types are not
    scaled.
    """
    if intensity_range is None and array.dtype == np.uint16:
        intensity_range = 0, 65535
    with np.errstate(over="ignore"):
        numbers = array.astype(np.float32)
        if intensity_range is None:
            return numbers
        low, high = map(np.float32, intensity_range)
        return (numbers - low) / (high - low)


@contextmanager
def open_image(item, index=None):
    """Open a file as a PIL image; any error in the block becomes one that names the file.

    Parameters
    ----------
    item : str, Path, bytes, BytesIO or PIL.Image.Image
        File, its content, or image to open. A PIL image is yielded unchanged. A buffer is
        read as a whole, and its position stays where it is.
    index : int, default=None
        Index of the item in X, for the message.

    Yields
    ------
    image : PIL.Image.Image
        The image, whose pixels are not decoded yet.

    Raises
    ------
    ValueError
        The file does not exist, is not a regular file, or cannot be decoded by Pillow.
    """
    try:
        if isinstance(item, Image.Image):
            yield item
            return
        with _open_file(item) as file, Image.open(file) as image:
            if image.format == "EPS":
                # Pillow would run it in Ghostscript, without a time limit.
                raise ValueError("PostScript is a program, not pixels")
            yield image
    # For unexpected bytes, decoders raise not only OSError and SyntaxError but also
    # struct.error, IndexError, zlib.error, MemoryError, errors of their own and more.
    except Exception as error:
        raise _unreadable(item, index, error) from error


def _open_file(item):
    """Return an open binary file, or a new buffer for content in memory."""
    if isinstance(item, str | os.PathLike):
        return open(item, "rb", opener=_open_regular)
    # Another thread, or the next call, may read the same buffer.
    return io.BytesIO(item.getvalue() if isinstance(item, io.BytesIO) else item)


def _open_regular(path, flags):
    """Open a regular file only: a pipe would block forever, and a device may never end."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError("it is not a regular file but a folder, pipe, socket or device")
    # The file may have been replaced since the check; the new one must not block either.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _name(item, index):
    """Return the name of an image for a message: its path, or its index in X."""
    place = "" if index is None else f" (index {index})"
    if isinstance(item, str | os.PathLike):
        return f"The file {str(os.fspath(item))!r}{place}"
    if isinstance(item, Image.Image):
        return "The PIL image" if index is None else f"The PIL image at index {index}"
    return f"{'The item' if index is None else f'Item {index}'} ({type(item).__name__})"


def _unreadable(item, index, error):
    to_do = (
        "Check that the path exists and that the file is a complete image in a format "
        "Pillow decodes, or leave it out of X."
    )
    if not isinstance(item, str | os.PathLike):
        to_do = (
            "Check that it holds a complete image in a format Pillow decodes, or leave it "
            "out of X."
        )
    reason = ": ".join(filter(None, [type(error).__name__, str(error).rstrip(". ")]))
    if isinstance(error, UnidentifiedImageError):
        reason = "Pillow does not recognize its format"
    elif isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        to_do = "Leave it out of X, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust it."
    elif isinstance(error, MemoryError):
        to_do = "Leave it out of X, or free memory for its pixels."
    return ValueError(f"{_name(item, index)} cannot be read as an image: {reason}. {to_do}")


def _read_header(item, index):
    """Return Pillow's mode, (H, W), and whether it has pages, without decoding."""
    with open_image(item, index) as image:
        is_file = image is not item
        # Whoever opened a PIL image has chosen its page. A second image in a JPEG is a
        # preview of the first.
        has_pages = (
            is_file and image.format != "MPO" and getattr(image, "is_animated", False)
        )
        width, height = image.size
        is_turned = _orientation(image) in (5, 6, 7, 8)
        if image.format == "TIFF":
            # Pillow rotates these itself; some versions change the size before decoding.
            if is_file:
                width, height = image.tag_v2[256], image.tag_v2[257]
            else:
                image.load()
                (width, height), is_turned = image.size, False
        return image.mode, (width, height) if is_turned else (height, width), has_pages


def _orientation(image):
    """Return EXIF's orientation of the camera, 1 to 8, or None, without decoding."""
    try:
        # Not image.getexif(): for a PNG, it decodes the pixels to read what follows them.
        return Image.Image.getexif(image).get(_ORIENTATION_TAG)
    except Exception:
        # Other programs do not rotate an image whose EXIF block is broken.
        return None


def _upright(image):
    """Return a PIL image rotated as its EXIF orientation specifies."""
    if image.format == "TIFF":
        image.load()  # rotates the image, and may keep the tag
        return image
    transposition = _TRANSPOSITIONS.get(_orientation(image))
    return image if transposition is None else image.transpose(transposition)


def to_pil(array, item):
    """Return an array (H, W[, C]) on the scale of `read_image` as a PIL image.

    The PIL image has 16-bit integers instead of floats if `item` has them.
    """
    with open_image(item) as image:
        if array.dtype == np.float32 and _is_deep(image):
            array = np.rint(array * 65535).astype(np.uint16)
    return Image.fromarray(array)


def read_image(item, index=None, n_channels=None, intensity_range=None):
    """Return one image (H, W, C) at its original size, as uint8 or float32.

    Parameters
    ----------
    item, index : as in `open_image`
    n_channels : {1, 3}, default=None
        Number of channels to decode to. None means 3 if the image has color, else 1.
    intensity_range : tuple (low, high), default=None
        As in `FileImages`.

    Raises
    ------
    ValueError
        As in `open_image`.
    """
    mode, size, _ = _read_header(item, index)
    is_bytes = intensity_range is None and mode not in _DEEP_MODES
    dtype = np.dtype(np.uint8 if is_bytes else np.float32)
    n_channels = n_channels or (1 if mode in _GRAY_MODES else 3)
    return _decode(item, index, size, n_channels, dtype, intensity_range)


def _is_deep(image):
    return image.mode in _DEEP_MODES and image.mode != "F"


def _decode(item, index, image_size, n_channels, dtype, intensity_range):
    """Return one image as an array (H, W, C) of `dtype`."""
    with open_image(item, index) as image:
        return _to_array(_upright(image), image_size, n_channels, dtype, intensity_range)


def _to_array(image, image_size, n_channels, dtype, intensity_range):
    """Convert a PIL image to `n_channels`, resize it, and return (H, W, C)."""
    height, width = image_size
    if image.mode in _DEEP_MODES:
        # Pillow cannot resize all of its deep formats, but can resize mode F.
        full_range = intensity_range or (0, 65535 if _is_deep(image) else 1)
        pixels = scaled(np.asarray(image, dtype=np.float32), full_range)
        if not np.isfinite(pixels).all():
            raise ValueError("it holds values that are NaN or infinite")
        image = Image.fromarray(pixels)
    else:
        image.load()  # here, because NumPy hides some errors of loading
        mode = "L" if n_channels == 1 else "RGB"
        if image.mode != mode:  # else Pillow would copy the image
            image = image.convert(mode)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    array = np.asarray(image)
    if array.dtype == np.uint8 and dtype != np.uint8:
        array = scaled(array, intensity_range or (0, 255))
    if array.ndim == 2:
        array = array[:, :, np.newaxis]
    # A deep image is gray; among color images, its channel is repeated.
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
