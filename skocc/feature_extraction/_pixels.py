"""Pixels of images as a table, for detectors of tables."""

import math
from itertools import product

import numpy as np
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import FLOAT_DTYPES, check_is_fitted, validate_data

from skocc._base.constraints import IMAGE_CONSTRAINTS
from skocc._base.fitted import FittedMixin
from skocc._base.private_sklearn import StrOptions, fit_context
from skocc._base.reading import compare, remember, unchanged_on_error
from skocc._samples.progress import shows_stages, track
from skocc._samples.validation import (
    as_table,
    check_columns,
    check_image_size,
    read_images,
)

_N_CHANNELS = {"gray": 1, "rgb": 3}
# Weights of red, green and blue in a gray level, those of Pillow.
_GRAY = np.array([0.299, 0.587, 0.114], dtype=np.float32)
# Number of images that are loaded at a time.
_N_IMAGES = 64


class Pixels(FittedMixin, TransformerMixin, BaseEstimator):
    """Read images of any kind, resize them, and return their pixels as a table.

    With this transformer in front, any estimator of scikit-learn that takes a table takes
    what the detectors of skocc take: lists of paths, arrays, PIL images, the bytes of
    files. A table is returned as it is, so that a pipeline works on both. Read more in the
    :ref:`User Guide <pixels>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    color : {"auto", "gray", "rgb"}, default="auto"
        Channels of the table. "auto": gray if all images in `fit` are gray, else RGB. Later
        images are converted to the same. Gray is 0.299 R + 0.587 G + 0.114 B; a fourth
        channel is ignored.
    image_shape : tuple (H, W) or (H, W, C), default=None
        Shape of the images in flattened rows, in pixels; one entry may be -1. None means
        that rows are no images.
    image_size : int or tuple (H, W), default=32
        Size in pixels to which all images are resized (bilinear, antialiased). None means
        that all images have the same size.
    intensity_range : tuple (low, high), default=None
        Values that are scaled to 0 and 1 in all images, such as (0, 4095) for a 12-bit
        camera that writes 16-bit files. None means the range of uint8 and uint16, and no
        scaling of other types.
    verbose : int, default=0
        Whether progress bars are shown, of each stage that takes two seconds or more.

    Attributes
    ----------
    image_shape_ : tuple (H, W, C) or (d,)
        Shape of the images in the table; (d,) if X was a table.
    n_features_in_ : int
        Number of values per sample of X.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, if X was a table whose column names are all strings.

    See Also
    --------
    DirectFeatures : Statistics of images, which are fewer and have meaningful names.
    DeepFeatures : Features of a network, by which most anomalies are found more reliably.
    skocc.model_selection.classical_detectors : Detectors in pipelines that begin with this
        transformer.

    Notes
    -----
    Pixels say where a thing is rather than what it is: detectors on them need images that
    are taken alike, from one place and in one light. With `image_size` at 32 the table has
    1,024 columns for gray and 3,072 for RGB images.

    A table is X of two dimensions, without `image_shape`: an array, a DataFrame, a sparse
    matrix. It may have missing and infinite values if the next step takes them.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from PIL import Image
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.svm import OneClassSVM
    >>> from skocc.feature_extraction import Pixels
    >>> rng = np.random.default_rng(0)
    >>> folder = tempfile.TemporaryDirectory()
    >>> paths = [pathlib.Path(folder.name) / f"{i}.png" for i in range(12)]
    >>> for path in paths:
    ...     pixels = rng.integers(90, 110, (40, 60), dtype=np.uint8)
    ...     Image.fromarray(pixels).save(path)
    >>> detector = make_pipeline(Pixels(image_size=8), OneClassSVM(nu=0.1)).fit(paths)
    >>> detector.score_samples(paths[:3]).shape
    (3,)
    >>> detector[0].get_feature_names_out()[-1]
    'pixel_7_7'
    >>> folder.cleanup()
    """

    _parameter_constraints = {
        "color": [StrOptions({"auto", "gray", "rgb"})],
        "image_shape": IMAGE_CONSTRAINTS["image_shape"],
        "image_size": IMAGE_CONSTRAINTS["image_size"],
        "intensity_range": IMAGE_CONSTRAINTS["intensity_range"],
        "verbose": IMAGE_CONSTRAINTS["verbose"],
    }

    def __init__(
        self,
        *,
        color="auto",
        image_shape=None,
        image_size=32,
        intensity_range=None,
        verbose=0,
    ):
        self.color = color
        self.image_shape = image_shape
        self.image_size = image_size
        self.intensity_range = intensity_range
        self.verbose = verbose

    @fit_context(prefer_skip_nested_validation=True)
    @shows_stages
    def fit(self, X, y=None) -> "Pixels":
        """Learn the shape of the images and nothing else.

        Parameters
        ----------
        X : images, paths or a table
            An array (n, H, W), (n, H, W, C) or (n, C, H, W); flattened images (n, d) with
            `image_shape`; a tensor (n, C, H, W); a list of paths, of the bytes of files or
            of PIL images; a torch data set; or a table (n, d).
        y : Ignored
            Present for scikit-learn.

        Returns
        -------
        self : Pixels
            The fitted transformer.

        Raises
        ------
        ValueError
            X or a parameter is invalid; the message says what to do.
        """
        with unchanged_on_error(self):
            table = None if self.image_shape is not None else as_table(X)
            if table is None:
                remember(self, X, self._images(X, like=None))
            else:
                self.image_shape_ = self._checked(table, reset=True).shape[1:]
        return self

    @shows_stages
    def transform(self, X):
        """Return the pixels of images.

        Parameters
        ----------
        X : images, paths or a table
            As in `fit`.

        Returns
        -------
        table : ndarray of shape (n_samples, H * W * C), float32
            Pixels row by row, with red, green and blue beside each other; of integers in
            [0, 1]. If X is a table, its own numbers as floats, sparse if X is.

        Raises
        ------
        ValueError
            X is invalid, or its shape differs from that in `fit`.
        """
        check_is_fitted(self)
        table = None if len(self.image_shape_) == 3 else as_table(X)
        if table is not None:
            return self._checked(table, reset=False)
        images = self._images(X, like=self.image_shape_)
        compare(self, X, images)
        table = np.empty((len(images), math.prod(self.image_shape_)), dtype=np.float32)
        for start in track(range(0, len(images), _N_IMAGES), "pixels"):
            block = slice(start, min(start + _N_IMAGES, len(images)))
            table[block] = images.load(block)
        return table

    def get_feature_names_out(self, input_features=None) -> np.ndarray:
        """Return the names of the table's columns.

        They are known before `fit` if `image_size` is set and `color` is not "auto".

        Parameters
        ----------
        input_features : array-like of str or None, default=None
            Names of the columns of X, if X is a table. Ignored for images.

        Returns
        -------
        names : ndarray of shape (n_columns,), object
            ``pixel_0_0`` for row 0 and column 0, with ``_r``, ``_g`` or ``_b`` behind if
            there are colors; the names of the columns if X was a table.
        """
        size = check_image_size(self.image_size)
        if hasattr(self, "image_shape_") or size is None or self.color == "auto":
            check_is_fitted(self)
            shape = self.image_shape_
        else:
            shape = (*size, _N_CHANNELS[self.color])
        if len(shape) == 1:
            return OneToOneFeatureMixin.get_feature_names_out(self, input_features)
        channels = [""] if shape[2] == 1 else ["_r", "_g", "_b"]
        places = product(range(shape[0]), range(shape[1]), channels)
        names = [f"pixel_{row}_{column}{channel}" for row, column, channel in places]
        return np.array(names, dtype=object)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        # A table may hold what the next step takes.
        tags.input_tags.allow_nan = tags.input_tags.sparse = self.image_shape is None
        tags.transformer_tags.preserves_dtype = []
        return tags

    def _check_loaded(self):
        n_channels = self.image_shape_[2:]
        if n_channels and n_channels != (_N_CHANNELS.get(self.color, n_channels[0]),):
            raise ValueError(f"image_shape_={self.image_shape_}, color={self.color!r}")
        if n_channels not in ((), (1,), (3,)):
            raise ValueError(f"image_shape_={self.image_shape_}, of neither gray nor RGB")
        return {}

    def _checked(self, table, reset):
        check_columns(table)
        if 0 in table.shape:
            table = np.empty(table.shape)  # of an empty table scikit-learn finds no type
        return validate_data(
            self,
            table,
            reset=reset,
            accept_sparse=True,
            dtype=FLOAT_DTYPES,
            ensure_all_finite=False,
        )

    def _images(self, X, like):
        """Return images as a source in the colors of the table."""
        images = read_images(
            X,
            image_shape=self.image_shape,
            image_size=self.image_size,
            intensity_range=self.intensity_range,
            like=like,
            n_channels=_N_CHANNELS.get(self.color),
            name="Pixels",
        )
        n_given = images.shape[-1]
        if len(images.shape) != 4 or n_given not in (1, 3, 4):
            raise ValueError(
                "Pixels needs images with 1 (gray), 3 (RGB) or 4 (RGBA) channels. Got "
                f"samples of shape {images.shape[1:]}. Pick the channels, for example "
                "X[..., :3]."
            )
        auto = like[2] if like is not None and len(like) == 3 else min(n_given, 3)
        return _InColor(images, _N_CHANNELS.get(self.color, auto))


class _InColor:
    """Source of the images of another source as float32 with 1 or 3 channels.

    Parameters
    ----------
    images : image source of shape (n, H, W, C)
        Images with 1, 3 or 4 channels.
    n_channels : {1, 3}
        Number of channels to convert to.
    """

    def __init__(self, images, n_channels):
        self._images, self._n_channels = images, n_channels
        self.shape = (*images.shape[:3], n_channels)
        self.n_features, self.is_table = images.n_features, images.is_table

    def __len__(self):
        return self.shape[0]

    def load(self, indices):
        """Return the images at `indices` as rows (b, H * W * C)."""
        batch = self._images.load(indices)
        if batch.dtype == np.uint8:
            batch = batch.astype(np.float32) / 255
        if self._n_channels == 3:
            batch = np.repeat(batch, 3, 3) if batch.shape[3] == 1 else batch[..., :3]
        elif batch.shape[3] > 1:
            batch = batch[..., :3] @ _GRAY
        return batch.reshape(len(batch), -1)
