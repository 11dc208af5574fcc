"""Input validation: converts X to an image source.

:func:`read_images` accepts arrays, tensors, lists, tables, paths, PIL images and data sets.
It returns an :class:`~skocc._samples.sources.ArrayImages`,
:class:`~skocc._samples.sources.FileImages` or :class:`~skocc._samples.sources.ItemImages`.
"""

import math
import os
from collections import Counter
from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np
from PIL import Image
from scipy import sparse
from sklearn.utils.validation import check_array

from skocc._samples.labels import are_zeros_and_ones, marked_anomalies
from skocc._samples.sources import (
    ArrayImages,
    FileImages,
    ImageItem,
    ItemImages,
    ReadImages,
    is_data_set,
)
from skocc._samples.tiles import Tiles
from skocc._samples.warnings import warn

# Sizes of the channel axis that identify the layout of a four-dimensional array.
_USUAL_CHANNELS = (1, 3, 4)
# check_array converts all other types to the first one. If uint8 were first, float images
# would be truncated to integers and every scikit-learn check would still pass.
_DTYPES = [np.float32, np.uint8, np.uint16]
# Number of images whose values are checked for a warning, and the tolerance of the check,
# which allows for rounding, for example by a resize.
_N_CHECKED = 100
_ROUNDING = 1e-3
# Limit on the side of an image in pixels, and on the number of values in a row.
_LONGEST_SIDE = 2**20
# Side in pixels below which the feature maps of a backbone would be empty.
_MIN_BACKBONE_SIZE = 32


def read_images(
    X,
    *,
    image_shape=None,
    image_size=None,
    intensity_range=None,
    like=None,
    n_channels=None,
    rows=False,
    mixed_sizes=False,
    min_samples=1,
    name="The estimator",
) -> ReadImages:
    """Validate X and return it as a source of images or rows.

    Parameters
    ----------
    X : array, tensor, list, Series, DataFrame, Dataset or Tiles
        See "Images in" in the user guide.
    image_shape, image_size, intensity_range
        The parameters of the estimator with these names.
    like : tuple, default=None
        ``image_shape_`` of a fitted estimator: X is read like the images of its fit. None
        means that this is a fit.
    n_channels : {1, 3}, default=None
        Number of channels that files and PIL images are decoded to in a fit. None means 3
        if any of them has color, else 1.
    rows : bool, default=False
        Whether (n, d) without `image_shape` is accepted as plain rows.
    mixed_sizes : bool, default=False
        Whether files and PIL images may differ in size.
    min_samples : int, default=1
        Minimum number of samples that the estimator needs.
    name : str, default="The estimator"
        Class of the estimator, for messages.

    Returns
    -------
    images : ArrayImages, FileImages, ItemImages or TileImages
        Source of shape (n, H, W, C) for images, (n, -1, -1, C) for images that differ in
        size, or (n, d) for plain rows.

    Raises
    ------
    ValueError
        X cannot be interpreted, contains values that are not finite, or has too few
        samples; a file cannot be read; or a parameter is invalid.
    """
    check_intensity_range(intensity_range)
    reader = _Reader(
        image_shape=check_image_shape(image_shape),
        given_shape=image_shape,
        image_size=check_image_size(image_size),
        intensity_range=intensity_range,
        like=like,
        n_channels=n_channels,
        rows=rows,
        mixed_sizes=mixed_sizes,
        min_samples=min_samples,
        name=name,
    )
    X = _unwrap(X)
    if isinstance(X, Tiles):
        images = reader.from_tiles(X)
    elif isinstance(X, list) or is_data_set(X):
        # Files or single images: _unwrap has converted all other lists to arrays.
        images = reader.from_items(X)
    elif len(X.shape) == 2:
        images = reader.from_table(X)
    else:
        images = reader.from_array(X)
    reader.check_sample_count(len(images))
    if like is None and images.is_deep:
        _warn_about_depth(images)
    return images


def as_table(X):
    """Return X if it has two dimensions, like a table, also a sparse one; else None."""
    if not sparse.issparse(X):
        X = _unwrap(X)
    return X if len(getattr(X, "shape", ())) == 2 else None


def check_columns(X):
    """Raise a ValueError for a table of text, or whose columns have no unique names."""
    values = np.asarray(X)
    if values.size and isinstance(values.flat[0], str | bytes | os.PathLike):
        raise ValueError(
            f"X is a table of text, shape {X.shape}, not of numbers. Got "
            f"{str(values.flat[0])!r:.100} in its first cell. For files pass one column, "
            "X['path'] of a DataFrame or X[:, 0] of an array."
        )
    # The columns of a table of pyarrow are its data.
    names = getattr(X, "column_names", getattr(X, "columns", ()))
    counts = Counter(names)
    if repeated := [name for name, count in counts.items() if count > 1]:
        raise ValueError(
            f"The columns of X must have unique names. Got {repeated[:5]} more than "
            "once. Rename them, or pass X.to_numpy()."
        )


def check_like(images, like, name):
    """Raise a ValueError unless the images have the shape of those in `fit`.

    Parameters
    ----------
    images : image source
    like : tuple
        ``image_shape_`` of the estimator; -1 stands for any number of pixels.
    name : str
        Class of the estimator, for the message.
    """
    shape = images.shape[1:]
    if len(shape) == len(like) and _matches(shape, like):
        return
    several = " (-1: sizes differ)" if -1 in shape else ""
    raise ValueError(
        f"X holds samples of shape {shape}{several}, but this {name} was fitted on samples "
        f"of shape {like}. Pass X in the shape it was fitted on, or set "
        "image_size=(H, W) and fit again to resize all images."
    )


def check_backbone_channels(
    image_shape, backbone="", normalization=None, weights="imagenet"
):
    """Raise a ValueError for images that a network of torchvision cannot take.

    Parameters
    ----------
    image_shape : tuple (H, W, C)
    backbone : str, nn.Module, class or function, default=""
        Name of a network, or one of the user, which may take other channels.
    normalization : {"imagenet", "weights"} or None, default=None
        One is for gray or RGB images whatever the network takes. "weights" needs those of
        a named network to be trained.
    weights : "imagenet", "offline", None, str or Path, default="imagenet"
    """
    if normalization == "weights" and weights is None and isinstance(backbone, str):
        raise ValueError(
            "normalization='weights' takes the colors that the weights were trained with, "
            "and random weights were not trained. Got weights=None of backbone="
            f"{backbone!r}. Set normalization='imagenet' or None, or weights='imagenet'."
        )
    is_named = isinstance(backbone, str) or normalization is not None
    if is_named and (len(image_shape) != 3 or image_shape[2] not in (1, 3)):
        raise ValueError(
            "A backbone of torchvision needs 1 or 3 channels, and so do one of timm and "
            f"normalization. Got samples of shape {image_shape}. Pass for "
            "example X[:, :, :, :3], or a module of your own with normalization=None."
        )


def check_backbone_images(sample_shape):
    """Raise a ValueError for samples that cannot train a backbone.

    Parameters
    ----------
    sample_shape : tuple (H, W, C) or (d,)
    """
    if len(sample_shape) != 3 or min(sample_shape[:2]) < _MIN_BACKBONE_SIZE:
        raise ValueError(
            f"A backbone needs images of at least {_MIN_BACKBONE_SIZE} x "
            f"{_MIN_BACKBONE_SIZE} pixels. Got samples of shape {sample_shape}. Set "
            "image_size=64 or more to enlarge them, or leave backbone at None."
        )
    check_backbone_channels(sample_shape)


def check_integers(name, values):
    """Raise a ValueError unless `values` is None or holds only positive integers.

    Parameters
    ----------
    name : str
        Name of the parameter, for the message.
    values : sequence or None
    """
    if values is not None and not all(isinstance(n, Integral) and n > 0 for n in values):
        raise ValueError(
            f"{name} must hold positive integers. Got {values!r}. Pass for example "
            f"{name}=(32, 64)."
        )


def check_fitted_shape(estimator):
    """Raise a ValueError unless `image_shape_` is consistent with the parameters.

    Parameters
    ----------
    estimator : estimator
        An estimator loaded from a file, whose content is not trusted.
    """
    shape = estimator.image_shape_
    check_intensity_range(getattr(estimator, "intensity_range", None))
    image_shape = check_image_shape(estimator.image_shape)
    image_size = getattr(estimator, "image_size", None)
    is_of_weights = isinstance(image_size, str)
    image_size = None if is_of_weights else check_image_size(image_size)
    is_usual = len(shape) in (1, 3, 4) and all(1 <= n <= _LONGEST_SIDE for n in shape)
    is_mixed = len(shape) == 3 and shape[:2] == (-1, -1) and shape[2] > 0
    if image_size is not None and len(shape) > 1:
        agrees = is_mixed or shape[-3:-1] == image_size
    elif image_shape is not None and len(shape) < 4 and not is_of_weights:
        agrees = is_mixed or (len(shape) == 3 and _matches(shape, image_shape))
    else:
        agrees = True
    if not ((is_usual or is_mixed) and agrees):
        raise ValueError(
            f"image_shape_={shape} cannot come from image_shape={estimator.image_shape!r} "
            f"and image_size={image_size!r}"
        )


def warn_about_anomalies(y):
    """Warn if the labels mark, or may mark, anomalies among the training images."""
    if y is None:
        return
    marked = marked_anomalies(y)
    if n_anomalies := int(marked.sum()):
        warn(
            f"y labels {n_anomalies} of {len(marked)} training images as anomalies, but "
            "fit ignores y and treats these images as normal. "
            "Pass normal images only, for example X[y == 1].",
        )
    elif are_zeros_and_ones(y):
        n_ones = int(np.sum(np.asarray(y, dtype=float)))
        warn(
            "y holds 0 and 1 only, which has two readings. fit ignores y and treats all "
            f"images as normal. Got {n_ones} labels of 1 and {len(marked) - n_ones} of 0. "
            "If 1 is an anomaly, as in PyOD, pass X[y == 0]; if 0 is an anomaly, pass "
            "X[y == 1]. Labels of +1 and -1, such as np.where(y == 1, -1, 1), are not "
            "ambiguous."
        )


def warn_about_range(images):
    """Warn if the first images have values outside the output range of a sigmoid.

    Parameters
    ----------
    images : image source
        Integers are not checked, because they are scaled to [0, 1] before training. Rows
        are not checked, because their decoder does not end in a sigmoid.
    """
    if images.dtype == np.uint8 or len(images.shape) != 4:
        return
    pixels = images.load(slice(0, _N_CHECKED))
    lowest, highest = float(pixels.min()), float(pixels.max())
    if lowest < -_ROUNDING or highest > 1 + _ROUNDING:
        warn(
            f"The images have values from {lowest:.3g} to {highest:.3g}, but their "
            "reconstruction, which ends in a sigmoid, lies in [0, 1]. Pass X / 255 for "
            "float pixels from 0 to 255, leave integers unchanged, and do not standardize "
            "the images.",
        )


def check_image_shape(image_shape):
    """Return image_shape as a tuple (H, W, C) with at most one -1, or None."""
    if image_shape is None:
        return None
    shape = tuple(image_shape)
    valid = (
        len(shape) in (2, 3)
        and all(isinstance(n, Integral) and (n > 0 or n == -1) for n in shape)
        and shape.count(-1) <= 1
    )
    if not valid:
        raise ValueError(
            "image_shape must be (H, W) or (H, W, C) in pixels and channels, at most "
            f"one entry being -1. Got {image_shape!r}. Set for example "
            "image_shape=(28, 28)."
        )
    return tuple(int(n) for n in (shape if len(shape) == 3 else (*shape, 1)))


def check_image_size(image_size):
    """Return image_size as a tuple (H, W), or None."""
    if image_size is None:
        return None
    size = (image_size,) * 2 if isinstance(image_size, Integral) else tuple(image_size)
    if len(size) != 2 or not all(
        isinstance(n, Integral) and 0 < n <= _LONGEST_SIDE for n in size
    ):
        raise ValueError(
            "image_size must be one number of pixels or (H, W), both positive and at most "
            f"{_LONGEST_SIDE}. Got {image_size!r}. Set for example image_size=(128, 128)."
        )
    return tuple(int(n) for n in size)


def check_map_size(size):
    """Return the size of heat maps as "input", "model" or (H, W)."""
    if isinstance(size, str) and size in ("input", "model"):
        return size
    if isinstance(size, Integral | tuple | list):
        try:
            return check_image_size(size)
        except ValueError:
            pass
    raise ValueError(
        'size must be "input", "model", one number of pixels or (H, W), both positive. Got '
        f"{size!r}. Pass for example size=(256, 256)."
    )


def check_intensity_range(intensity_range):
    """Raise a ValueError unless the range is None or two ascending finite numbers."""
    if intensity_range is None:
        return
    largest = float(np.finfo(np.float32).max)
    valid = len(intensity_range) == 2 and all(
        isinstance(n, Real) and -largest <= n <= largest for n in intensity_range
    )
    if not valid or np.float32(intensity_range[0]) >= np.float32(intensity_range[1]):
        raise ValueError(
            "intensity_range must be two numbers (low, high) that are read as 0 and 1, the "
            f"lower one first. Got {intensity_range!r}. Set for example "
            "intensity_range=(0, 4095) for a camera of 12 bits."
        )


def _warn_about_depth(images):
    """Warn when images of 16 bits use less than an eighth of them, by the first ones."""
    # One by one, since they may differ in size, and be too large to be held together.
    firsts = (images.load([index]) for index in range(min(len(images), _N_CHECKED)))
    lows, highs = zip(*((image.min(), image.max()) for image in firsts), strict=True)
    low, high = round(65535 * float(min(lows))), round(65535 * float(max(highs)))
    if high - low < 65536 / 8:
        warn(
            "The images have 16 bits but use little of that range, so that they hardly "
            f"differ for a network. Got values from {low} to {high}, where 0 is read as 0 "
            "and 65535 as 1. Set for example "
            f"intensity_range=(0, {2 ** max(high, 1).bit_length() - 1}), or (0, 65535) to "
            "keep the present scale without this warning."
        )


def _unwrap(X):
    """Return X as a list or data set of single images, tiles, a table, or an array."""
    if isinstance(X, Tiles) or is_data_set(X) or _is_table(X):
        return X
    if sparse.issparse(X):
        raise ValueError(
            "Sparse data is not supported: images are dense. Got a sparse "
            f"{type(X).__name__} of shape {X.shape}. Pass X.toarray()."
        )
    given = type(X).__name__
    if type(X).__module__.split(".")[0] == "torch" and hasattr(X, "detach"):
        return _from_tensor(X)
    if isinstance(X, ImageItem):
        raise ValueError(
            f"X must be a collection of images. Got a single {type(X).__name__}: "
            f"{X!r:.300}. Pass a list, for example [path]; for a folder, "
            "sorted(folder.glob('*.png'))."
        )
    if hasattr(X, "iloc") and X.ndim == 1:
        X = X.tolist()  # a pandas Series; its values may be paths
    if isinstance(X, tuple):
        X = list(X)
    if isinstance(X, list):
        if X and (_is_files(X) or _is_single_images(X)):
            return X
        X = _stack(X)
    X = np.asarray(X)
    if X.ndim == 1 and X.dtype.kind in "UO":
        return _list_of_items(X)
    return _checked_array(X, given)


def _checked_array(X, given):
    """Return images or rows in the machine's order of bytes, or raise a ValueError."""
    if X.ndim == 1 and X.dtype.kind == "S":
        raise ValueError(
            "NumPy cuts zeros off the end of such bytes, and with them images. Got an "
            f"array of dtype {X.dtype}. Pass a list of bytes, or an array of dtype object."
        )
    if X.dtype.kind == "c":
        raise ValueError(
            f"Complex data not supported: X has dtype {X.dtype}. Pass real values, "
            "for example np.abs(X)."
        )
    if not X.dtype.isnative:
        # A uint16 array of foreign byte order would not be recognized.
        X = X.astype(X.dtype.newbyteorder("="))
    if X.ndim not in (2, 3, 4):
        raise ValueError(
            "X must be images (n, H, W) or (n, H, W, C), rows (n, d), or a list of "
            f"paths. Got a {given} of {X.ndim} dimension(s), shape {X.shape}. Reshape "
            "your data: for one image pass image[np.newaxis], for one row "
            "X.reshape(1, -1), and for a generator its images as one array."
        )
    return X


def _is_table(X):
    """Return whether X has named columns, like a DataFrame of pandas or polars."""
    # scikit-learn reads the column names, so it needs the table itself.
    return len(getattr(X, "shape", ())) == 2 and hasattr(X, "columns")


def _is_files(items):
    return all(isinstance(x, ImageItem) for x in items)


def _is_single_images(items):
    """Return whether a list holds items of a data set, or arrays of different shapes."""
    first = items[0]
    is_sample = isinstance(first, list) and len({type(part) for part in first}) > 1
    if (isinstance(first, tuple) and first) or is_sample:
        # scikit-learn's splitters select such items from a data set.
        return isinstance(first[0], Image.Image) or getattr(first[0], "ndim", 0) in (2, 3)
    shapes = {tuple(x.shape) if hasattr(x, "shape") else None for x in items}
    # A list of tensors is not stacked, because tensors have their channels first.
    return all(shape is not None and len(shape) in (2, 3) for shape in shapes) and (
        len(shapes) > 1 or hasattr(first, "detach")
    )


def _stack(samples):
    """Return a list of equally shaped arrays, or a nested list, as one array."""
    try:
        return np.asarray(
            [np.asarray(s) for s in samples] if hasattr(samples[0], "shape") else samples
        )
    except (ValueError, IndexError) as error:
        if not samples:
            return np.empty((0, 1))
        shapes = sorted({np.shape(s) for s in samples if hasattr(s, "shape")})
        raise ValueError(
            "The images in X must have one shape. Got "
            + (f"shapes {shapes[:5]}" if shapes else f"a ragged list ({error})")
            + ". Resize them first, or pass their paths and set image_size=(H, W)."
        ) from error


def _list_of_items(X):
    """Return a 1-D array of files or PIL images as a list; raise for other objects."""
    items = X.tolist()
    for index, item in enumerate(items):
        if not isinstance(item, ImageItem):
            raise ValueError(
                "A one-dimensional X must hold paths (str or Path), the bytes of files or "
                f"PIL images. Got {type(item).__name__} at index {index}. Reshape your "
                "data: pass images as one array (n, H, W) or (n, H, W, C), rows as (n, d)."
            )
    return items


def _from_tensor(X):
    """Return a torch tensor as an array; (n, C, H, W) becomes (n, H, W, C)."""
    X = X.detach().cpu()
    if X.is_complex():
        raise ValueError(
            f"Complex data not supported: X has dtype {X.dtype}. Pass real values, for "
            "example X.abs()."
        )
    if str(X.dtype) == "torch.bfloat16":
        X = X.float()  # NumPy has no bfloat16
    if X.ndim not in (2, 3, 4):
        raise ValueError(
            "A tensor X must be images (n, C, H, W) or (n, H, W), or rows (n, d). Got "
            f"shape {tuple(X.shape)}. For one image pass X.unsqueeze(0)."
        )
    X = X.numpy()
    return np.moveaxis(X, 1, -1) if X.ndim == 4 else X


@dataclass(frozen=True)
class _Reader:
    """The parameters of `read_images`, and one method for each kind of X."""

    image_shape: tuple[int, int, int] | None
    given_shape: tuple | None
    image_size: tuple[int, int] | None
    intensity_range: tuple[float, float] | None
    like: tuple | None
    n_channels: int | None
    rows: bool
    mixed_sizes: bool
    min_samples: int
    name: str

    def from_items(self, items):
        """Return paths or PIL images, or a data set, as a source."""
        self.check_sample_count(len(items))
        n_channels = self.channels()
        if isinstance(items, list) and _is_files(items):
            if n_channels not in (None, 1, 3):
                raise ValueError(
                    "Files are decoded to 1 (gray) or 3 (RGB) channels, but this estimator "
                    f"works on {n_channels} channels. Pass arrays (n, H, W, {n_channels})."
                )
            images = FileImages(
                items, self.image_size, n_channels, self.mixed_sizes, self.intensity_range
            )
        else:
            images = ItemImages(
                items,
                self.image_size,
                n_channels,
                self.mixed_sizes,
                lambda shape: _is_channels_first(
                    (len(items), *shape), self.expected_shape()
                ),
                self.intensity_range,
            )
        if self.like is None and self.image_size is None:
            _check_against_image_shape(images.shape, self.image_shape)
        return images

    def from_tiles(self, tiles):
        """Return tiles of photographs as a source."""
        self.check_sample_count(len(tiles))
        n_channels = self.channels()
        images = tiles.as_source(self.image_size, self.intensity_range, n_channels)
        if self.like is None and self.image_size is None:
            _check_against_image_shape(images.shape, self.image_shape)
        return images

    def from_table(self, X):
        """Return (n, d), flattened images or plain rows, as a source."""
        if self.image_shape is None:
            self.check_rows(X.shape)
        self.check_sample_count(X.shape[0])
        check_columns(X)
        _checked_numbers(np.asarray(X))
        X = check_array(
            X,
            dtype=_DTYPES,
            ensure_all_finite=False,
            estimator=self.name,
            input_name="X",
        )
        if self.image_shape is None:
            return ArrayImages(X, None, self.intensity_range, is_table=True)
        n_features = X.shape[1]
        known = abs(math.prod(map(int, self.image_shape)))  # ignores an entry of -1
        if n_features % known or (-1 not in self.image_shape and n_features != known):
            raise ValueError(
                f"Rows of {n_features} values cannot be read as images of "
                f"image_shape={self.given_shape!r} (H, W[, C]). Set image_shape so that "
                "H * W * C is the number of columns of X."
            )
        shape = tuple(n_features // known if n == -1 else n for n in self.image_shape)
        X = X.reshape(len(X), *shape)
        return ArrayImages(X, self.image_size, self.intensity_range, is_table=True)

    def check_rows(self, shape):
        """Raise a ValueError if a table cannot be plain rows."""
        if self.like is None and not self.rows:
            raise ValueError(
                f"X has 2 dimensions, shape {shape}, and image_shape is None, but "
                f"{self.name} works on images. Pass images of shape (n, H, W) or "
                "(n, H, W, C), or set image_shape=(H, W) if the rows are flattened images."
            )
        if self.like is not None and len(self.like) == 3:
            raise ValueError(
                f"X has 2 dimensions, shape {shape}, but this {self.name} was fitted on "
                f"images of shape {self.like}. Reshape X to (n, H, W, C)."
            )

    def from_array(self, X):
        """Return (n, H, W), (n, H, W, C) or (n, C, H, W) as a source."""
        _check_n_samples(len(X), 1, self.name)
        flat = _checked_numbers(X.reshape(len(X), -1))
        flat = check_array(
            flat, dtype=_DTYPES, ensure_all_finite=False, estimator=self.name
        )
        X = flat.reshape(X.shape)
        if X.ndim == 3:
            X = X[:, :, :, np.newaxis]
        elif _is_channels_first(X.shape, self.expected_shape()):
            X = np.moveaxis(X, 1, -1)
        if self.like is None or self.image_size is None:
            _check_against_image_shape(X.shape, self.image_shape)
        return ArrayImages(X, self.image_size, self.intensity_range)

    def channels(self):
        """Return the number of channels to decode to, or None for those of the images."""
        if self.like is not None and len(self.like) == 3:
            return self.like[2]
        if self.like is None and self.image_shape is not None:
            return self.image_shape[2] if self.image_shape[2] != -1 else None
        return self.n_channels

    def expected_shape(self):
        """Return the known part of (H, W, C), with -1 for unknown sizes, or None."""
        if self.like is None:
            return self.image_shape
        if len(self.like) != 3:
            return None
        # With image_size, images may have any size.
        return self.like if self.image_size is None else (-1, -1, self.like[2])

    def check_sample_count(self, n_samples):
        _check_n_samples(n_samples, self.min_samples, self.name)


def _is_channels_first(shape, expected):
    """Return whether an array of four dimensions is (n, C, H, W), not (n, H, W, C)."""
    _, a, b, c = shape
    if expected is not None:
        if _matches((a, b, c), expected):
            return False
        if _matches((b, c, a), expected):
            return True
    last_is_channels, first_is_channels = c in _USUAL_CHANNELS, a in _USUAL_CHANNELS
    if last_is_channels == first_is_channels:
        # No axis has a usual number of channels: square images identify the layout.
        last_is_channels, first_is_channels = a == b != c, b == c != a
    if last_is_channels == first_is_channels:
        raise ValueError(
            f"X of shape {shape} can be read in two ways: as (n, H, W, C), images of "
            f"{a} x {b} pixels with {c} channels, or as (n, C, H, W), images of {b} x {c} "
            f"pixels with {a} channels. Set image_shape=(H, W, C) to choose one."
        )
    return first_is_channels


def _matches(shape, expected):
    return all(e in (-1, n) for n, e in zip(shape, expected, strict=True))


def _check_against_image_shape(shape, image_shape):
    if image_shape is not None and not _matches(shape[1:], image_shape):
        raise ValueError(
            f"X holds images of shape {tuple(shape[1:])} (H, W, C), but image_shape is "
            f"{image_shape}. Leave image_shape at None for X that is not flattened, or "
            "set image_size=(H, W) to resize."
        )


def _checked_numbers(values):
    """Return an array (n, d) of numbers; raise for other types and for float32 overflow."""
    if values.dtype.kind == "O":
        values = np.array([_number(x) for x in values.flat]).reshape(values.shape)
    if values.dtype.kind not in "biuf":
        raise ValueError(
            f"X must hold numbers. Got dtype {values.dtype}. Convert it, for example by "
            "X.astype(float), or leave such columns out."
        )
    if values.dtype.kind != "f" or values.size == 0:
        return values
    # float64 has a larger range than float32, in which networks compute.
    largest = np.finfo(np.float32).max
    # The usual case takes two passes over the data. NaN fails both comparisons.
    if values.min() >= -largest and values.max() <= largest:
        return values
    bad = ~(np.abs(values) <= largest).all(axis=1)
    first = int(np.argmax(bad))
    if np.isnan(values[first]).any():
        kind = "NaN"
    elif np.isinf(values[first]).any():
        kind = "infinity (inf)"
    else:
        kind = f"values beyond {largest:.3g}, which are infinity (inf) in float32"
    raise ValueError(
        f"X contains {kind}: {int(bad.sum())} of {len(values)} samples hold values "
        f"that are not finite, the first at index {first}. Remove these samples or "
        "replace the values, for example with np.nan_to_num."
    )


def _number(value):
    """Return an object as a float, or NaN for a missing value."""
    # pandas may not be installed, so its types are compared by name.
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return np.nan
    try:
        if not isinstance(value, str | bytes):
            return float(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise ValueError(
        f"X must hold numbers. Got a {type(value).__name__}, {value!r:.60}, among its "
        "objects. Convert text to numbers, and leave out values that are not numbers. Pass "
        "paths and PIL images as a list, or as an array of one dimension."
    )


def _check_n_samples(n_samples, min_samples, name):
    if n_samples < max(min_samples, 1):
        raise ValueError(
            f"{name} needs at least {min_samples} images here. Got "
            f"{n_samples} sample(s) (n_samples={n_samples}). Check that X is not empty; "
            "to fit, pass more normal images."
        )
