"""Background removal for the frames of a fixed camera."""

from numbers import Integral, Real

import numpy as np
from scipy import ndimage
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from skocc._base.constraints import IMAGE_CONSTRAINTS
from skocc._base.fitted import IMAGE_ATTRIBUTES, Fitted, FittedMixin
from skocc._base.private_sklearn import Interval, fit_context
from skocc._base.reading import unchanged_on_error, validate_images
from skocc._samples.progress import shows_stages, track

# Number of frames that are loaded at a time.
_N_FRAMES = 32


class BackgroundRemoval(FittedMixin, TransformerMixin, BaseEstimator):
    """Set the background in the frames of a fixed camera to zero.

    A mixture of Gaussians for each pixel learns the empty scene. In a frame, the pixels
    that differ from this background and the pixels near them are kept; the others become
    zero. Detectors of anomalies in videos then do not spend their capacity on the scene.
    Read more in the :ref:`User Guide <video>`.

    This class needs OpenCV: ``pip install "skocc[video]"``.

    .. versionadded:: 0.1

    Parameters
    ----------
    threshold : float, default=128
        Minimum difference of a pixel that is kept: the absolute differences in gray levels
        (0 to 255), summed over the channels.
    n_dilations : int, default=5
        Number of pixels by which the kept regions grow up, down, left and right.
    image_shape : tuple (H, W) or (H, W, C), default=None
        Shape of the frames in flattened rows, in pixels; one entry may be -1.
    image_size : int or tuple (H, W), default=None
        Size in pixels to which all frames are resized (bilinear, antialiased). None means
        that all frames have the same size.
    intensity_range : tuple (low, high), default=None
        Values that are scaled to 0 and 1 in all images, such as (0, 4095) for a 12-bit
        camera that writes 16-bit files. None means the range of uint8 and uint16, and no
        scaling of other types.
    verbose : int, default=0
        Whether progress bars are shown, of each stage that takes two seconds or more.

    Attributes
    ----------
    background_ : ndarray of shape (H, W, C), uint8
        The scene without moving objects.
    image_shape_ : tuple (H, W, C)
        Shape of the frames.
    n_features_in_ : int
        Number of values per frame of X.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, if X was a table whose column names are all strings.

    See Also
    --------
    skocc.MOCCA : Finds anomalies in videos.

    Notes
    -----
    The procedure and its threshold are those of the code of [1]_, whose frames MOCCA [2]_
    uses as well. A frame is multiplied by a mask of the pixels at which the sum of
    ``|frame - background|`` over the channels exceeds `threshold`. The mask is dilated
    `n_dilations` times. The background is the mean of the most frequent Gaussians of each
    pixel after the last frame of `fit`, from OpenCV's ``createBackgroundSubtractorMOG2``
    [3]_ with its default parameters. It forgets frames that are more than 500 frames old.

    Use a separate estimator for each camera, and fit it on frames of that camera in their
    order, of at least some seconds. Floats should be in [0, 1]; other values are clipped,
    but only to find the background.

    `transform` keeps all frames in memory. For a long video, pass blocks of frames, because
    each frame is processed separately. A frame of 256 x 512 pixels takes about 10
    milliseconds in `fit`, and the same in `transform`.

    References
    ----------
    .. [1] D. Abati et al., "Latent space autoregression for novelty detection", CVPR 2019.
    .. [2] F. V. Massoli et al., "MOCCA: Multilayer one-class classification for anomaly
       detection", IEEE Transactions on Neural Networks and Learning Systems 33, 2022.
    .. [3] Z. Zivkovic and F. van der Heijden, "Efficient adaptive density estimation per
       image pixel for the task of background subtraction", Pattern Recognition Letters 27,
       2006.

    Examples
    --------
    A bright square of three by three pixels crosses a gray background:

    >>> import numpy as np
    >>> from skocc.feature_extraction import BackgroundRemoval
    >>> video = np.full((40, 16, 16), 50, dtype=np.uint8)
    >>> for time in range(13):
    ...     video[20 + time, 5:8, time : time + 3] = 255
    >>> removal = BackgroundRemoval(n_dilations=0).fit(video)
    >>> bool((removal.background_ == 50).all())
    True
    >>> frames = removal.transform(video[25:26])
    >>> frames.shape, int((frames == 255).sum()), int((frames > 0).sum())
    ((1, 16, 16, 1), 9, 9)
    """

    _parameter_constraints = {
        "threshold": [Interval(Real, 0, None, closed="left")],
        "n_dilations": [Interval(Integral, 0, None, closed="left")],
        "image_shape": IMAGE_CONSTRAINTS["image_shape"],
        "image_size": IMAGE_CONSTRAINTS["image_size"],
        "intensity_range": IMAGE_CONSTRAINTS["intensity_range"],
        "verbose": IMAGE_CONSTRAINTS["verbose"],
    }
    _fitted_attributes = {
        **IMAGE_ATTRIBUTES,
        "background_": Fitted("uint8", ("height", "width", "n_channels")),
    }

    def __init__(
        self,
        *,
        threshold=128,
        n_dilations=5,
        image_shape=None,
        image_size=None,
        intensity_range=None,
        verbose=0,
    ):
        self.threshold = threshold
        self.n_dilations = n_dilations
        self.image_shape = image_shape
        self.image_size = image_size
        self.intensity_range = intensity_range
        self.verbose = verbose

    @fit_context(prefer_skip_nested_validation=True)
    @shows_stages
    def fit(self, X, y=None) -> "BackgroundRemoval":
        """Learn the background.

        Parameters
        ----------
        X : frames or paths
            Gray or RGB frames of one camera, in their order: an array (n, H, W),
            (n, H, W, C) or (n, C, H, W); flattened frames (n, d) with `image_shape`; a
            tensor (n, C, H, W); a list of paths or PIL images; or a torch data set.
        y : Ignored
            Present for scikit-learn.

        Returns
        -------
        self : BackgroundRemoval
            The fitted transformer.

        Raises
        ------
        ImportError
            OpenCV is missing.
        ValueError
            X or a parameter is invalid; the message says what to do.
        """
        cv2 = _import_cv2()
        with unchanged_on_error(self):
            frames = validate_images(self, X, reset=True)
            if self.image_shape_[2] not in (1, 3):
                raise ValueError(
                    "BackgroundRemoval needs frames with 1 (gray) or 3 (RGB) channels. Got "
                    f"samples of shape {self.image_shape_}. Pick the channels to use, for "
                    "example X[..., :3]."
                )
            mixture = cv2.createBackgroundSubtractorMOG2()
            for block in track(_blocks(frames), "background"):
                for frame in _to_bytes(frames.load(block)):
                    mixture.apply(frame)
            self.background_ = mixture.getBackgroundImage().reshape(self.image_shape_)
        return self

    @shows_stages
    def transform(self, X) -> np.ndarray:
        """Set the background of frames to zero.

        Parameters
        ----------
        X : frames or paths
            As in `fit`, of the same camera.

        Returns
        -------
        frames : ndarray of shape (n_frames, H, W, C), uint8 or float32
            Frames on the scale of X; uint16 becomes floats in [0, 1].

        Raises
        ------
        ValueError
            X is invalid, or its shape differs from that in `fit`.
        """
        check_is_fitted(self)
        frames = validate_images(self, X, reset=False)
        blocks = track(_blocks(frames), "frames")
        return np.concatenate([self._remove(frames.load(block)) for block in blocks])

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    def _check_loaded(self):
        return dict(zip(("height", "width", "n_channels"), self.image_shape_, strict=True))

    def _remove(self, frames):
        differences = np.abs(_to_bytes(frames).astype(np.int16) - self.background_)
        masks = differences.sum(axis=3) > self.threshold
        # To SciPy, zero iterations mean as many as change anything.
        if self.n_dilations > 0:
            cross = ndimage.generate_binary_structure(2, 1)[np.newaxis]
            # More iterations would change nothing.
            n = min(self.n_dilations, masks.shape[1] + masks.shape[2])
            masks = ndimage.binary_dilation(masks, cross, iterations=n)
        return frames * masks[..., np.newaxis]


def _import_cv2():
    try:
        import cv2
    except ImportError as error:
        raise ImportError(
            "BackgroundRemoval needs OpenCV, which cannot be imported: "
            f'{error}. Install it with pip install "skocc[video]".'
        ) from error
    return cv2


def _blocks(frames):
    """Return the slices of a source that are loaded one after another."""
    starts = range(0, len(frames), _N_FRAMES)
    return [slice(start, min(start + _N_FRAMES, len(frames))) for start in starts]


def _to_bytes(frames):
    if frames.dtype == np.uint8:
        return frames
    return np.clip(np.rint(255 * frames), 0, 255).astype(np.uint8)
