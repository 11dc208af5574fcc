from numbers import Integral, Real

import numpy as np
from scipy import ndimage
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from skocc._base.constraints import IMAGE_CONSTRAINTS
from skocc._base.fitted import IMAGE_ATTRIBUTES, Fitted, FittedMixin
from skocc._base.private_sklearn import Interval, fit_context
from skocc._base.reading import unchanged_on_error, validate_images

# Frames that are in memory at a time, besides what is returned.
_N_FRAMES = 32


class BackgroundRemoval(FittedMixin, TransformerMixin, BaseEstimator):
    """Frames of a fixed camera, with all that does not move set to zero.

    A mixture of Gaussians for each pixel learns what the camera sees when nothing is in
    front of it. In a frame, pixels that differ from this background are kept, with those
    near them; the others become zero. Detectors of anomalies in videos then do not spend
    their capacity on the scene. Read more in the :ref:`User Guide <video>`.

    OpenCV is needed: ``pip install "skocc[video]"``.

    .. versionadded:: 0.1

    Parameters
    ----------
    threshold : float, default=128
        How much a pixel has to differ to be kept: absolute differences in grey levels (0
        to 255), summed over the channels.
    n_dilations : int, default=5
        By how many pixels what is kept grows, up, down, left and right.
    image_shape : tuple (H, W) or (H, W, C), default=None
        Shape of the frames in flattened rows, in pixels; one entry may be -1.
    image_size : int or tuple (H, W), default=None
        Size in pixels that all frames are resized to (bilinear, antialiased). None: the
        frames have one size already.
    intensity_range : tuple (low, high), default=None
        Numbers that are read as 0 and 1, in every image alike, such as (0, 4095) where a
        camera of 12 bits writes files of 16. None: the range of uint8 and uint16, and other
        numbers as they are.

    Attributes
    ----------
    background_ : ndarray of shape (H, W, C), uint8
        The scene without what moves.
    image_shape_ : tuple (H, W, C)
        Shape of the frames.
    n_features_in_ : int
        Values per frame of X.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where X was a table with names that are all text.

    See Also
    --------
    skocc.MOCCA : Finds anomalies in videos.

    Notes
    -----
    The scheme is that of the code of [1]_, on whose frames MOCCA [2]_ works too, with its
    threshold: a frame is multiplied by a mask, the sum over the channels of
    ``|frame - background|`` being above `threshold`, dilated `n_dilations` times. The
    background is the mean of the most frequent Gaussians of each pixel after the last frame
    of `fit`, as OpenCV's ``createBackgroundSubtractorMOG2`` [3]_ gives it with its default
    parameters. It forgets frames that are more than 500 back.

    One estimator is for one camera: fit it on frames of that camera in their order, of some
    seconds at least. Floats are expected in [0, 1]; what is outside is cut off for the
    background only.

    `transform` holds all frames in memory. For a long video, pass it blocks of frames: each
    frame is treated alone. A frame of 256 x 512 pixels takes about 10 milliseconds to fit,
    and as many to transform.

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
    A bright square of three pixels crosses a grey ground:

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
    ):
        self.threshold = threshold
        self.n_dilations = n_dilations
        self.image_shape = image_shape
        self.image_size = image_size
        self.intensity_range = intensity_range

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None) -> "BackgroundRemoval":
        """Learn the background.

        Parameters
        ----------
        X : frames or paths
            Of one camera, in their order. An array (n, H, W), (n, H, W, C) or
            (n, C, H, W); flattened frames (n, d) with `image_shape`; a tensor
            (n, C, H, W); a list of paths or PIL images; or a
            data set of torch. Grey or RGB.
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
            X or a parameter is not usable; the message says what to do.
        """
        cv2 = _import_cv2()
        with unchanged_on_error(self):
            frames = validate_images(self, X, reset=True)
            if self.image_shape_[2] not in (1, 3):
                raise ValueError(
                    "BackgroundRemoval needs frames with 1 (grey) or 3 (RGB) channels. Got "
                    f"samples of shape {self.image_shape_}. Pick the channels to use, for "
                    "example X[..., :3]."
                )
            mixture = cv2.createBackgroundSubtractorMOG2()
            for block in _blocks(frames):
                for frame in _to_bytes(block):
                    mixture.apply(frame)
            self.background_ = mixture.getBackgroundImage().reshape(self.image_shape_)
        return self

    def transform(self, X) -> np.ndarray:
        """Set the background of frames to zero.

        Parameters
        ----------
        X : frames or paths
            As in `fit`, of the same camera.

        Returns
        -------
        frames : ndarray of shape (n_frames, H, W, C), uint8 or float32
            In the values they came in; uint16 becomes floats in [0, 1].

        Raises
        ------
        ValueError
            X is not usable, or has another shape than in `fit`.
        """
        check_is_fitted(self)
        frames = validate_images(self, X, reset=False)
        return np.concatenate([self._remove(block) for block in _blocks(frames)])

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
        # Zero iterations would be as many as change anything.
        if self.n_dilations > 0:
            cross = ndimage.generate_binary_structure(2, 1)[np.newaxis]
            # More than that change nothing.
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
    """Load a source block by block."""
    for start in range(0, len(frames), _N_FRAMES):
        yield frames.load(slice(start, min(start + _N_FRAMES, len(frames))))


def _to_bytes(frames):
    if frames.dtype == np.uint8:
        return frames
    return np.clip(np.rint(255 * frames), 0, 255).astype(np.uint8)
