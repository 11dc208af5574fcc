"""Statistics of an image as a table, computed without a network."""

import math
from itertools import chain
from numbers import Integral

import numpy as np
from joblib import effective_n_jobs
from scipy import fft, ndimage
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import check_is_fitted

from skocc._base.constraints import IMAGE_CONSTRAINTS
from skocc._base.fitted import FittedMixin
from skocc._base.private_sklearn import Interval, fit_context
from skocc._base.reading import unchanged_on_error, validate_images
from skocc._samples.progress import shows_stages, track
from skocc._samples.sources import resize_array
from skocc._samples.validation import check_image_size
from skocc._samples.warnings import warn

STATISTICS = (
    "width", "height", "aspect_ratio",
    "num_pixels_b", "num_pixels_g", "num_pixels_r",
    "brightness_b", "brightness_g", "brightness_r",
    "contrast_b", "contrast_g", "contrast_r", "luminance",
    "edge_density", "h_symmetry", "v_symmetry",
    "mean_grad_x", "std_grad_x", "mean_grad_y", "std_grad_y",
    "object_count", "bounding_box_area", "bounding_box_aspect_ratio",
    "bounding_box_x", "bounding_box_y", "bounding_box_width", "bounding_box_height",
    "perimeter",
    "mean_intensity", "variance_intensity", "mode_intensity", "median_intensity", "entropy",
    "mean_magnitude", "variance_magnitude",
    "line_length", "blob_count", "region_homogeneity",
    "noise_level", "signal_to_noise_ratio",
    "quantiles_intensity_25", "quantiles_intensity_50", "quantiles_intensity_75",
)  # fmt: skip

# Number of images per worker that are in memory at a time.
_N_PER_WORKER = 8
_EIGHT_CONNECTED = np.ones((3, 3), dtype=bool)
# High-pass filter of Daubechies' wavelet with two vanishing moments.
_DB2 = np.array([1 - 3**0.5, -3 + 3**0.5, 3 + 3**0.5, -1 - 3**0.5]) / (4 * 2**0.5)
# Scales, in pixels, at which blobs are searched.
_BLOB_SIGMAS = (2.0, 5.0, 8.0)
# Median of the absolute value of a standard normal variable.
_MEDIAN_OF_NORMAL = 0.6744897501960817
# Standard deviation of the error of rounding to integer gray levels.
_ROUNDING_NOISE = 12**-0.5


class DirectFeatures(FittedMixin, TransformerMixin, BaseEstimator):
    """Compute statistics of an image from its pixels, without a network.

    The statistics are 43 numbers: the size, colors, edges and gradients of an image, its
    largest bright object, the distribution of its gray levels, and measures of texture and
    noise. They are cheap, have meaningful names, and are a baseline for the features of a
    network. The raw pixels can be added. Read more in the
    :ref:`User Guide <direct_features>`.

    This class needs scikit-image: ``pip install "skocc[direct]"``.

    .. versionadded:: 0.1

    Parameters
    ----------
    pixels : bool, int or tuple (H, W), default=False
        Whether to append the pixels, as columns ``pixel_1``, ``pixel_2`` and so on. They
        are ordered by rows of the image, with red, green and blue for each pixel. An int or
        (H, W) resizes the image for these columns only (bilinear, antialiased), which is
        required for images that differ in size. The report uses 224, which gives 150,528
        columns.
    image_shape : tuple (H, W) or (H, W, C), default=None
        Shape of the images in flattened rows, in pixels; one entry may be -1.
    image_size : int or tuple (H, W), default=None
        Size in pixels to which all images are resized before the statistics are computed.
        None means that they are not resized; files and PIL images may then differ in size.
    intensity_range : tuple (low, high), default=None
        Values that are scaled to 0 and 1 in all images, such as (0, 4095) for a 12-bit
        camera that writes 16-bit files. None means the range of uint8 and uint16, and no
        scaling of other types.
    n_jobs : int, default=None
        Number of parallel processes. None means 1 unless in a
        :obj:`joblib.parallel_config` context, and -1 means all processors.
    verbose : int, default=0
        Whether progress bars are shown, of each stage that takes two seconds or more.

    Attributes
    ----------
    image_shape_ : tuple (H, W, C)
        Shape of the images; H and W are -1 if the images differ in size.
    n_features_in_ : int
        Number of values per sample of X. Missing if the images differ in size.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, if X was a table whose column names are all strings.

    See Also
    --------
    skocc.model_selection.classical_detectors : Return detectors for such a table, with
        grids of their parameters.

    Notes
    -----
    All statistics are defined on 256 levels of red, green and blue. uint8 is used
    unchanged. Other images are multiplied by 255 (uint16 by 255 / 65535) and rounded.
    Floats outside [0, 1] are clipped, with a warning. Gray images have three equal
    channels; a fourth channel is ignored.

    In the table, :math:`g` is the gray level 0.299 R + 0.587 G + 0.114 B, rounded. Unless
    another unit is given, values are in gray levels, 0 to 255. Deviations and variances are
    those of the population.

    =============================  =========================================================
    name                           definition and unit
    =============================  =========================================================
    width, height                  of the image, pixels
    aspect_ratio                   width / height
    num_pixels_b, _g, _r           sum of the values of blue, green, red. The name is the
                                   report's; it is not a number of pixels
    brightness_b, _g, _r           mean of the channel
    contrast_b, _g, _r             standard deviation of the channel
    luminance                      mean of 0.2126 R + 0.7152 G + 0.0722 B
    edge_density                   fraction of pixels that are edges: Canny's detector
                                   without smoothing, thresholds 100 and 200 of the length
                                   of the Sobel gradient
    h_symmetry, v_symmetry         mean absolute difference of g and its mirror image, left
                                   to right and top to bottom; 0 is symmetric
    mean_grad_x, std_grad_x,       mean and standard deviation of the signed response of the
    mean_grad_y, std_grad_y        3 x 3 Sobel filter (weights 1, 2, 1); x to the right, y
                                   downwards
    object_count                   number of objects: 8-connected regions brighter than
                                   Otsu's threshold, with their holes filled
    bounding_box_x, _y             left and top edge of the box around the largest object,
                                   pixels
    bounding_box_width, _height    its sides, pixels
    bounding_box_area              its area, pixels
    bounding_box_aspect_ratio      width / height
    perimeter                      length of the line through the outermost pixels of that
                                   object, pixels, a diagonal step being 1.41
    mean_intensity,                of g
    median_intensity
    variance_intensity             of g, squared gray levels
    mode_intensity                 the most frequent g, the lowest of several
    entropy                        of the distribution of g over 256 levels, bits
    mean_magnitude,                mean and variance of the absolute value of the discrete
    variance_magnitude             Fourier transform of g, not normalized, with the constant
                                   term
    line_length                    total length of straight lines in the edge image, pixels:
                                   probabilistic Hough transform with at least 10 votes,
                                   lines from 50 pixels, gaps up to 10
    blob_count                     number of bright and of dark spots together: maxima of
                                   the absolute Laplacian of a Gaussian in place and scale,
                                   at standard deviations of 2, 5 and 8 pixels, where it
                                   exceeds 0.1 (scale-normalized, g / 255); maxima that
                                   touch are one
    region_homogeneity             mean of 1 / (1 + variance of g) over the regions of a
                                   watershed of the gradient from about 100 evenly spaced
                                   seeds, in (0, 1]
    noise_level                    robust standard deviation of the noise: median of the
                                   absolute diagonal details of a wavelet (db2), divided by
                                   0.6745
    signal_to_noise_ratio          mean_intensity / noise_level, the noise being at least
                                   0.29, that of rounding
    quantiles_intensity_25, _50,   quantiles of g, linearly interpolated
    _75
    =============================  =========================================================

    If there is no object, as in an image of one color, its statistics are 0. All values are
    finite for any image. The lines are searched in a random order with a fixed seed, so an
    image always has the same statistics.

    The names are those of a report that compares classical detectors on MVTec AD. It does
    not specify most formulas and names no library; the formulas above are skocc's choice.
    The report counts "intense regions", which may mean only bright ones. Some definitions
    differ from OpenCV's functions, which are widely used. The gradient of Canny's detector
    has the Euclidean length, where OpenCV's default is the sum of absolute values, and an
    edge between two flat areas is two pixels wide instead of one. The largest object is the
    one with the most pixels, where OpenCV uses the area of a polygon.

    The time is about linear in the number of pixels: a quarter of a second for an image of
    512 x 512. With `pixels`, the table is large: 1.2 MB per image with the report's 224.

    References
    ----------
    .. [1] J. Canny, "A computational approach to edge detection", IEEE Transactions on
       Pattern Analysis and Machine Intelligence 8, 1986.
    .. [2] D. L. Donoho and I. M. Johnstone, "Ideal spatial adaptation by wavelet
       shrinkage", Biometrika 81, 1994: the estimate of the noise.

    Examples
    --------
    A bright rectangle on a dark background:

    >>> import numpy as np
    >>> from skocc.feature_extraction import DirectFeatures
    >>> images = np.zeros((1, 32, 32), dtype=np.uint8)
    >>> images[0, 4:12, 6:26] = 200
    >>> features = DirectFeatures().fit(images)
    >>> table = features.transform(images)
    >>> table.shape
    (1, 43)
    >>> named = dict(zip(features.get_feature_names_out(), table[0]))
    >>> [float(named[f"bounding_box_{name}"]) for name in ["x", "y", "width", "height"]]
    [6.0, 4.0, 20.0, 8.0]
    >>> float(named["mode_intensity"])
    0.0
    """

    _parameter_constraints = {
        "pixels": ["boolean", Interval(Integral, 1, None, closed="left"), tuple, list],
        "image_shape": IMAGE_CONSTRAINTS["image_shape"],
        "image_size": IMAGE_CONSTRAINTS["image_size"],
        "intensity_range": IMAGE_CONSTRAINTS["intensity_range"],
        "n_jobs": [None, Integral],
        "verbose": IMAGE_CONSTRAINTS["verbose"],
    }

    def __init__(
        self,
        *,
        pixels=False,
        image_shape=None,
        image_size=None,
        intensity_range=None,
        n_jobs=None,
        verbose=0,
    ):
        self.pixels = pixels
        self.image_shape = image_shape
        self.image_size = image_size
        self.intensity_range = intensity_range
        self.n_jobs = n_jobs
        self.verbose = verbose

    @fit_context(prefer_skip_nested_validation=True)
    @shows_stages
    def fit(self, X, y=None) -> "DirectFeatures":
        """Learn the shape of the images and nothing else.

        Parameters
        ----------
        X : images or paths
            An array (n, H, W), (n, H, W, C) or (n, C, H, W); flattened images (n, d) with
            `image_shape`; a tensor (n, C, H, W); a list of paths or PIL images; or a
            torch data set.
        y : Ignored
            Present for scikit-learn.

        Returns
        -------
        self : DirectFeatures
            The fitted transformer.

        Raises
        ------
        ImportError
            scikit-image is missing.
        ValueError
            X or a parameter is invalid; the message says what to do.
        """
        _check_skimage()
        with unchanged_on_error(self):
            validate_images(self, X, reset=True, mixed_sizes=True)
            self._check_channels()
            self._pixel_size()
        return self

    @shows_stages
    def transform(self, X) -> np.ndarray:
        """Compute the features of images.

        Parameters
        ----------
        X : images or paths
            As in `fit`.

        Returns
        -------
        table : ndarray of shape (n_samples, 43) or (n_samples, 43 + 3 * H * W), float64
            One row per image; `get_feature_names_out` returns the names of the columns.

        Raises
        ------
        ValueError
            X is invalid, or its shape differs from that in `fit`.
        """
        check_is_fitted(self)
        images = validate_images(self, X, reset=False, mixed_sizes=True)
        pixel_size = self._pixel_size()
        table = np.empty((len(images), _n_columns(pixel_size)))
        n_block = _N_PER_WORKER * effective_n_jobs(self.n_jobs)
        lowest, highest = np.inf, -np.inf
        # max_nbytes=None: images are sent to the workers, without memory-mapped files.
        with Parallel(n_jobs=self.n_jobs, max_nbytes=None) as parallel:
            for start in track(range(0, len(images), n_block), "features"):
                # Decoded here, one block at a time: an error of a file must not be raised
                # in the thread in which joblib dispatches work.
                block = []
                for index in range(start, min(start + n_block, len(images))):
                    image = images.load([index])[0]
                    lowest, highest = min(lowest, image.min()), max(highest, image.max())
                    block.append(_to_bytes(image))
                rows = parallel(delayed(_features)(image, pixel_size) for image in block)
                table[start : start + len(block)] = rows
        if images.dtype != np.uint8:
            _warn_about_range(lowest, highest)
        return table

    def get_feature_names_out(self, input_features=None) -> np.ndarray:
        """Return the names of the table's columns.

        They are known before `fit`, unless ``pixels=True`` leaves it to the images, and
        `image_size` to their number of pixels.

        Parameters
        ----------
        input_features : Ignored
            Present for scikit-learn; the names do not depend on those of X.

        Returns
        -------
        names : ndarray of shape (n_columns,), object
            Names of the 43 statistics, then ``pixel_1`` and so on if `pixels` is set.
        """
        n_pixels = _n_columns(self._pixel_size()) - len(STATISTICS)
        names = chain(STATISTICS, (f"pixel_{i + 1}" for i in range(n_pixels)))
        return np.array(list(names), dtype=object)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        return tags

    def _check_loaded(self):
        self._check_channels()
        self._pixel_size()
        return {}

    def _check_channels(self):
        n_channels = self.image_shape_[2]
        if n_channels not in (1, 3, 4):
            raise ValueError(
                "DirectFeatures needs images with 1 (gray), 3 (RGB) or 4 (RGBA) channels. "
                f"Got {n_channels} channels, samples of shape {self.image_shape_}. Pick "
                "the channels to describe, for example X[..., :3]."
            )

    def _pixel_size(self):
        """Return the size (H, W) of the image whose pixels are features, or None."""
        if isinstance(self.pixels, bool | np.bool_):
            if not self.pixels:
                return None
            known = getattr(self, "image_shape_", None) or check_image_size(self.image_size)
            if known is None:
                check_is_fitted(self)
            size = known[:2]
            if -1 in size:
                raise ValueError(
                    "Images that differ in size have no common number of pixels. Got "
                    f"pixels={self.pixels} and files of several sizes. Set pixels=(H, W) "
                    "to resize them for these features, for example pixels=224."
                )
            return size
        size = self.pixels
        size = (size, size) if isinstance(size, Integral) else tuple(size)
        if len(size) != 2 or not all(isinstance(n, Integral) and n > 0 for n in size):
            raise ValueError(
                "pixels must be a bool, one number of pixels or (H, W), both positive. Got "
                f"{self.pixels!r}. Set for example pixels=(224, 224)."
            )
        return tuple(int(n) for n in size)


def _check_skimage():
    try:
        import skimage  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "DirectFeatures needs scikit-image, which cannot be imported: "
            f'{error}. Install it with pip install "skocc[direct]".'
        ) from error


def _n_columns(pixel_size):
    return len(STATISTICS) + (
        0 if pixel_size is None else 3 * math.prod(map(int, pixel_size))
    )


def _to_bytes(image):
    """Return an image (H, W, C), uint8 or float in [0, 1], as uint8 RGB (H, W, 3)."""
    if image.dtype != np.uint8:
        image = np.clip(np.rint(255 * image), 0, 255).astype(np.uint8)
    if image.shape[2] == 1:
        return np.repeat(image, 3, axis=2)
    return np.ascontiguousarray(image[:, :, :3])


def _warn_about_range(lowest, highest):
    # Values up to half a level outside the range are rounded, not clipped.
    if 255 * lowest < -0.5 or 255 * highest > 255.5:
        warn(
            "DirectFeatures reads floats as gray levels in [0, 1], and clips other "
            f"values. Got values from {lowest:.3g} to {highest:.3g}. Scale X to [0, 1], or "
            "pass uint8.",
        )


def _features(image, pixel_size):
    """Return the row of one uint8 image (H, W, 3)."""
    row = _statistics(image)
    if pixel_size is None:
        return row
    if image.shape[:2] != tuple(pixel_size):
        image = resize_array(image, pixel_size)
    return np.concatenate([row, image.ravel()])


def _statistics(image):
    """Return the 43 statistics of one uint8 image (H, W, 3), in their order."""
    red, green, blue = np.moveaxis(image.astype(np.float64), 2, 0)
    levels = np.rint(0.299 * red + 0.587 * green + 0.114 * blue).astype(np.uint8)
    gray = levels.astype(np.float64)
    gradient_x, gradient_y = ndimage.sobel(gray, axis=1), ndimage.sobel(gray, axis=0)
    edges = _edges(gray)
    noise = _noise_level(gray)
    height, width = gray.shape
    return np.array(
        [
            *(width, height, width / height),
            *(channel.sum() for channel in (blue, green, red)),
            *(channel.mean() for channel in (blue, green, red)),
            *(channel.std() for channel in (blue, green, red)),
            np.mean(0.2126 * red + 0.7152 * green + 0.0722 * blue),
            edges.mean(),
            np.abs(gray - gray[:, ::-1]).mean(),
            np.abs(gray - gray[::-1]).mean(),
            *(gradient_x.mean(), gradient_x.std()),
            *(gradient_y.mean(), gradient_y.std()),
            *_objects(levels),
            *_intensity(levels, gray),
            *_magnitude(gray),
            _line_length(edges),
            _blob_count(gray),
            _region_homogeneity(gray, np.hypot(gradient_x, gradient_y)),
            *(noise, gray.mean() / max(noise, _ROUNDING_NOISE)),
            *np.percentile(gray, [25, 50, 75]),
        ],
        dtype=np.float64,
    )


def _edges(gray):
    """Return a mask of the edges."""
    from skimage.feature import canny

    # skimage rescales the thresholds for integer images, but not for this float image.
    return canny(gray, sigma=0, low_threshold=100, high_threshold=200)


def _objects(levels):
    """Return the number of objects, and the box and perimeter of the largest one."""
    from skimage.filters import threshold_otsu
    from skimage.measure import perimeter

    mask = ndimage.binary_fill_holes(levels > threshold_otsu(levels))
    labels, n_objects = ndimage.label(mask, _EIGHT_CONNECTED)
    if n_objects == 0:
        return (0,) * 8
    largest = 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    rows, columns = ndimage.find_objects(labels, largest)[largest - 1]
    height, width = rows.stop - rows.start, columns.stop - columns.start
    length = perimeter(labels[rows, columns] == largest, neighborhood=4)
    box = (columns.start, rows.start, width, height)
    return n_objects, width * height, width / height, *box, length


def _intensity(levels, gray):
    """Return mean, variance, mode, median and entropy of the gray levels."""
    counts = np.bincount(levels.ravel(), minlength=256)
    shares = counts[counts > 0] / counts.sum()
    # abs: the entropy of one level is 0, not -0.
    entropy = abs(np.sum(shares * np.log2(shares)))
    return gray.mean(), gray.var(), np.argmax(counts), np.median(gray), entropy


def _magnitude(gray):
    """Return mean and variance of the absolute value of the Fourier transform."""
    magnitude = np.abs(fft.fft2(gray))
    return magnitude.mean(), magnitude.var()


def _line_length(edges):
    """Return the total length of the straight lines in a mask of edges."""
    from skimage.transform import probabilistic_hough_line

    lines = probabilistic_hough_line(
        edges, threshold=10, line_length=50, line_gap=10, rng=0
    )
    return sum(np.hypot(x1 - x0, y1 - y0) for (x0, y0), (x1, y1) in lines)


def _blob_count(gray):
    """Return the number of spots, bright or dark."""
    # Smoothing first takes half the time of SciPy's gaussian_laplace.
    responses = np.stack(
        [
            sigma**2 * ndimage.laplace(ndimage.gaussian_filter(gray / 255, sigma))
            for sigma in _BLOB_SIGMAS
        ]
    )
    responses = np.abs(responses)
    peaks = (responses > 0.1) & (responses == ndimage.maximum_filter(responses, size=3))
    # Maxima that touch have the same height, and there are many along a straight edge.
    return ndimage.label(peaks, np.ones((3, 3, 3)))[1]


def _region_homogeneity(gray, gradient):
    """Return the mean of 1 / (1 + variance) over the regions of a watershed."""
    from skimage.segmentation import watershed

    labels = watershed(gradient, markers=min(100, gray.size)).ravel()
    counts = np.bincount(labels)
    present = counts > 0
    sums = np.bincount(labels, gray.ravel())[present]
    squares = np.bincount(labels, gray.ravel() ** 2)[present]
    counts = counts[present]
    variances = np.maximum(squares / counts - (sums / counts) ** 2, 0)
    return np.mean(1 / (1 + variances))


def _noise_level(gray):
    """Return the robust standard deviation of the noise, or 0 if there is none."""
    details = gray
    for axis in (0, 1):
        details = ndimage.convolve1d(details, _DB2, axis=axis, mode="reflect")
        details = details[1::2] if axis == 0 else details[:, 1::2]
    if details.size == 0:
        return 0.0
    level = np.median(np.abs(details)) / _MEDIAN_OF_NORMAL
    # A StandardScaler would amplify the rounding error of 0 to a feature.
    return level if level > 1e-9 else 0.0
