import copy
from collections.abc import Callable
from numbers import Integral, Real
from typing import NamedTuple

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted
from torch import nn

from skocc._fitted import DETECTOR_ATTRIBUTES, Fitted
from skocc._one_class import (
    LEARNING_RATE,
    SHARED_CONSTRAINTS,
    WEIGHT_DECAY,
    AnomalyMapMixin,
    OneClassMixin,
    check_finite,
    unchanged_on_error,
)
from skocc._sklearn import Interval, StrOptions, fit_context
from skocc._validation import check_integers, validate_images, warn_about_anomalies
from skocc.clips import (
    Clips,
    average_over_frames,
    holds_videos,
    min_max_normalize,
    normalize_within_clips,
    validate_clips,
)
from skocc.engine.ambient import isolated
from skocc.engine.batches import ImageBatches, keep_on_device
from skocc.engine.device import (
    inference_dtype,
    on_device,
    resolve_device,
    sample_without_values,
    tensor_view,
)
from skocc.engine.inference import map_batches
from skocc.engine.seeding import seeded
from skocc.engine.training import train_by_milestones
from skocc.losses import reconstruction_loss, squared_distance
from skocc.maps import patch_scores_to_map
from skocc.nets.lenet import (
    LeNetDecoder,
    LeNetEncoder,
    lenet_latent_dim,
    lenet_widths,
)
from skocc.nets.mlp import MLP
from skocc.nets.normalization import (
    LocalContrastNormalization,
    SymmetricRange,
    freeze_batch_norm,
)
from skocc.nets.residual_encoder import (
    RESIDUAL_WIDTHS,
    ResidualDecoder,
    ResidualEncoder,
)
from skocc.nets.video_encoder import VideoDecoder, VideoEncoder
from skocc.pieces import PatchGrid, WholeSamples
from skocc.pretraining import (
    contrast_normalization,
    has_contrast,
    pretrain,
    start_from_dictionary,
)
from skocc.spheres import (
    HardBoundary,
    SoftBoundary,
    final_radius,
    initial_centers,
    measure,
)

# Pixels per side from which on the residual encoder is taken by default, the smallest it
# was published for.
_RESIDUAL_SIZE = 64
# Relative error of the distances and errors of equal clips.
_ROUNDING = 1e-5


def _cuts_patches(estimator):
    """Return True, or raise an AttributeError where there are no patches to map."""
    if estimator.patch_size is None:
        raise AttributeError(
            "A map needs patches. Got patch_size=None. Set patch_size=64, for example, and "
            "fit again."
        )
    return True


class MOCCA(AnomalyMapMixin, OneClassMixin, BaseEstimator):
    r"""Multi-layer one-class classifier: a sphere around normal samples in several layers.

    A network first learns to reconstruct normal images, as the encoder of an autoencoder.
    The mean of what a layer makes of them becomes the center of that layer, and training
    goes on with the distances to the centers of all chosen layers as the loss. The score
    is their mean. Each layer sees an image at its own level of detail, and all of them
    learn what is normal.

    Small images are taken by the LeNet of Deep SVDD, larger ones by a residual encoder,
    plain rows by a fully connected net, textures patch by patch, with heat maps
    (`patch_size`), and videos clip by clip, by a network that sees the past
    (`clip_length`). Read more in the :ref:`User Guide <mocca>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    layers : tuple of int, default=None
        Layers that have a sphere, 0 being the first and -1 the last one. Of a LeNet and of
        the net for rows, these are its convolutions or hidden layers and the code; the
        residual encoder has eight, that of videos seven, see Notes. None: all, or 4 to 6 of
        the residual encoder. :meth:`layer_scores` helps to choose.
    boundary : {"soft", "hard"}, default="soft"
        "hard" pulls every image to the centers. "soft" shrinks spheres that may leave the
        fraction `nu` of the images outside.
    nu : float, default=0.1
        Fraction of training images outside of each sphere, in (0, 1]. A hard boundary uses
        it for `radii_` only.
    radius_update : {"batch", "epoch"}, default="batch"
        Whether the radii of a soft boundary follow each batch or each epoch.
    warm_up_n_epochs : int, default=10
        Epochs before the first update of the radii of a soft boundary.
    distance : {"sqeuclidean", "euclidean"}, default="sqeuclidean"
        Of which scores are made: squared distances, as in the paper, or distances, as in
        the code of the paper for larger images. The loss has squared ones.
    architecture : {"auto", "lenet", "residual"}, default="auto"
        Encoder of images. "auto" is "residual" for images, or patches, of at least 64
        pixels a side, else "lenet". Rows and videos have networks of their own.
    selectors : bool, default=True
        Whether each layer of the residual encoder passes a small network of its own,
        instead of being averaged over space. Other networks have none.
    widths : tuple of int, default=None
        Channels of the stages of the LeNet; of the first convolution and the three blocks
        of the residual encoder; or features of the hidden layers for rows. None: by the
        image size, as in :class:`DeepSVDD`; (32, 64, 128, 256); (128, 64).
    latent_dim : int, default=None
        Size of the code. None: 128, or 32 for rows and for LeNets of fewer than three
        stages; 1024, for each time step, for videos.
    patch_size : int, default=None
        Side in pixels of the patches that textures are cut into: at random places in
        training, side by side to be scored. The paper has 64. None: whole images.
    n_crops : int, default=8
        Patches that are drawn from an image in an epoch, a million at most.
    clip_length : int, default=None
        Frames of the clips that videos are cut into. The paper has 16. X is then a list of
        videos, see `fit`. None: X is no video, or clips that are cut already.
    clip_stride : int, default=1
        Frames from one clip of a video to the next, at most `clip_length`.
    n_clips : int, default=None
        Clips that are drawn in an epoch, with replacement. The code of the paper has
        10,000. None: every clip once, in a new order.
    reconstruction_weight : float, default=1.0
        Weight of the reconstruction of clips in their loss, beside the spheres.
    filter_init : {"random", "dictionary"}, default="random"
        Where the first layer of a LeNet starts: at random, as in the code of the paper, or
        at a sparse dictionary of image patches, as in :class:`DeepSVDD`.
    normalization : {"auto", "gcn", "symmetric", "local_contrast"} or None, default="auto"
        What happens to whole images first. "gcn" brings each to the same contrast, and all
        of them to [0, 1] by two constants of the training images; "symmetric" brings [0, 1]
        to [-1, 1]; "local_contrast" shifts and scales each pixel by mean and deviation of
        those around it, as in :class:`PatchSVDD`. "auto" is "symmetric" for the residual
        encoder, "gcn" for a LeNet on images of at least 8 pixels a side, else None.
    freeze_bn : bool, default=False
        Whether BatchNorm keeps the statistics of the autoencoder, as it does in the code of
        the paper for small images.
    pretrain_n_epochs : int, default=150
        Epochs of the autoencoder; 0 leaves this stage out. Videos have none.
    pretrain_learning_rate : float, default=1e-3
        Step size of Adam for the autoencoder.
    pretrain_weight_decay : float, default=5e-7
        L2 penalty of the weights of the autoencoder.
    pretrain_milestones : tuple of int, default=(50,)
        Epochs of the autoencoder at which the step size is divided by ten.
    n_epochs : int, default=150
        Epochs of the one-class objective.
    learning_rate : float, default=1e-4
        Step size of Adam.
    weight_decay : float, default=5e-7
        L2 penalty of the weights.
    milestones : tuple of int, default=(50,)
        Epochs at which the step size is divided by ten.
    batch_size : int, default=128
        Images, or patches, per batch, at least 2. Scores do not depend on it.
    contamination : float or "auto", default=0.1
        Fraction of the training images called anomalous, in (0, 0.5]; it sets `offset_`.
        "auto" puts the threshold at the spheres: where squared distances to the centers
        are in the mean as large as squared radii. One patch of a texture beyond it is
        enough, so that "auto" calls many more textures anomalous than `nu` says.
    image_shape : tuple (H, W) or (H, W, C), default=None
        Shape of the images in flattened rows, in pixels; one entry may be -1. None: X of
        shape (n, d) is plain rows.
    image_size : int or tuple (H, W), default=None
        Size in pixels that all images are resized to (bilinear, antialiased). None: the
        images have one size already. The paper has 128 for objects and 512 for textures.
    intensity_range : tuple (low, high), default=None
        Numbers that are read as 0 and 1, in every image alike, such as (0, 4095) where a
        camera of 12 bits writes files of 16. None: the range of uint8 and uint16, and other
        numbers as they are.
    device : str or torch.device, default=None
        Where to compute. None takes CUDA, then MPS, then the CPU.
    random_state : int, RandomState or None, default=None
        An int makes fits reproducible, bit by bit on a CPU.
    verbose : int, default=0
        Whether a progress bar is shown.
    warm_start : bool, default=False
        Whether a second `fit` goes on from the fitted weights. `layers` may have changed: a
        layer keeps its center, and a new one gets one from the fitted weights.

    Attributes
    ----------
    network_ : torch.nn.ModuleDict
        On the CPU: "normalize" and "encoder", for videos also "decoder".
    layers_ : tuple of int
        The layers that have a sphere, ascending.
    centers_ : list of ndarray of shape (d_j,), float32
        Center of each of these layers.
    radii_ : ndarray of shape (n_layers,), float64
        Radius of each: the quantile of the distances after training that leaves the
        fraction `nu` of the training images, or of their patches, outside.
    loss_curve_ : list of float
        Mean loss per epoch of the one-class objective, for videos with that of the
        reconstruction.
    pretrain_loss_curve_ : list of float
        Mean loss per epoch of the autoencoder: squared error summed over an image.
    offset_ : float
        Threshold: ``decision_function(X) = score_samples(X) - offset_``.
    train_scores_ : ndarray of shape (n_samples,), float64
        Scores of the training images.
    collapsed_ : bool
        Whether all layers give nearly the same output for all training images.
    image_shape_ : tuple
        (H, W, C) of the images as the network sees them, (d,) for plain rows, (T, H, W, C)
        of clips.
    n_features_in_ : int
        Values per sample of X. Missing for videos, which may differ in length.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where X was a table with names that are all text.

    See Also
    --------
    DeepSVDD : The same with a sphere in the last layer alone.
    PatchSVDD : Compares patches with those of the training images, at two scales.

    Notes
    -----
    With the features :math:`\phi_j`, center :math:`c_j` and radius :math:`R_j` of layer j
    and :math:`d_j = \lVert \phi_j - c_j \rVert^2`, the loss is the mean over the layers of
    that of Deep SVDD [2]_, and the score of an image the negative of the mean of
    :math:`d_j` (hard boundary) or of :math:`d_j - R_j^2` (soft); of a texture, that of its
    worst patch.
    ``layers=(-1,)`` is :class:`DeepSVDD`, number for number where the parameters agree.

    The features of a LeNet are its convolutions before BatchNorm, averaged over space, and
    the code; those of the net for rows its linear layers before BatchNorm. The layers of
    the residual encoder are its first convolution (0), a residual block (1), three blocks
    that halve the map (2 to 4), and two linear ones: the hidden layer after BatchNorm and
    activation (5), the code (6) and its sigmoid (7).

    The layers of the network for videos are five blocks of causal convolutions in space and
    time, averaged over space (0 to 4), and for each time step a hidden layer (5) and the
    code (6). An LSTM for each layer makes 100 features of its sequence. Encoder and decoder
    are trained together from random weights, on the sum of both losses; the centers are
    those of the untrained network. The reconstruction error of a clip is a sum over its
    pixels, so that it is the larger term by far, as in the code of the paper.

    Where the paper [1]_ and its code [3]_ differ: the loss is the mean over the layers, as
    in the paper, where the code has the sum; neither the hard loss nor its scores are
    divided by `nu`, as in the code; and the weights of the autoencoder are transferred, as
    the paper says. In the public code the names of weights do not match, and the encoder
    starts from random ones. The code of an autoencoder for small images passes BatchNorm
    twice there and once here.

    For videos the code can have selectors before the LSTMs, and its published command does;
    here, as in the paper, the LSTMs take their place. A frame's score is brought to [0, 1]
    by ``(x - min) / (max - min)``, as in the code (the paper has ``x - max`` there), and a
    constant one to 0 in both curves. On the made videos of ``examples/video.py``, with an
    AUROC over the frames of 0.98 for ``normalize="video"`` or None, the paper's
    normalisation within clips has 0.68.
    The last clip of a video ends with its last frame whatever `clip_stride` is. For the
    published setting pass frames of 256 x 512 pixels without their background (see
    :class:`~skocc.feature_extraction.BackgroundRemoval`) and ``clip_length=16,
    n_clips=10_000, batch_size=4, warm_up_n_epochs=5``.

    Neither numbers of epochs nor the layers of each experiment are published. The schedule
    here is that of :class:`DeepSVDD`; layers 4 to 6 did best in the paper's ablation of the
    soft boundary, 3 to 6 in that of the hard one. Defaults that are not the paper's: it has
    batches of 256 for CIFAR-10; a step size of 1e-2 or 1e-3, divided by ten on the way, for
    larger images and videos, where `learning_rate` is 1e-4 for all; and its code warms up
    for 5 epochs there, `warm_up_n_epochs` being 10. Textures are cut at random places in
    training, where the paper's patches lie side by side, and a selector takes maxima before
    its convolution, not after it. After training the radii are set once more, from all
    training samples in eval mode. Images are not rotated, as those of the paper are for
    larger images: pass rotated copies where normal images may be turned. The components of
    a center below 0.1 are moved to 0.1, keeping their sign.

    Time is linear in images and epochs. On one core, an epoch of 5,000 images of 32 pixels
    takes about six seconds, eight in the autoencoder; one of 500 images of 128 pixels, or
    of 2,000 patches of 64, some 40 seconds, two minutes in the autoencoder. The residual
    encoder has 18 million weights for such images and 5 million for such patches; most of
    them are in its first linear layer, which grows with the area. It has biases, as
    published, with which a long training may collapse; so have selectors.

    References
    ----------
    .. [1] F. V. Massoli et al., "MOCCA: Multi-layer one-class classification for anomaly
       detection", IEEE Transactions on Neural Networks and Learning Systems 33, 2022,
       arXiv:2012.12111.
    .. [2] L. Ruff et al., "Deep one-class classification", ICML 2018.
    .. [3] https://github.com/fvmassoli/mocca-anomaly-detection, commit 28be1b0.

    Examples
    --------
    Zeros are normal, the other digits are not:

    >>> from sklearn.datasets import load_digits
    >>> from sklearn.metrics import roc_auc_score
    >>> from skocc import MOCCA
    >>> digits = load_digits()
    >>> images, is_zero = digits.images / 16, digits.target == 0
    >>> detector = MOCCA(
    ...     pretrain_n_epochs=20, n_epochs=20, learning_rate=1e-3, batch_size=20,
    ...     random_state=0,
    ... )
    >>> _ = detector.fit(images[:900][is_zero[:900]])
    >>> scores = detector.score_samples(images[900:])
    >>> bool(roc_auc_score(is_zero[900:], scores) > 0.95)  # 0.998 +- 0.002, ten seeds
    True

    What each layer, the convolution and the code, is worth alone:

    >>> detector.layer_scores(images[900:]).shape
    (897, 2)
    """

    _parameter_constraints = {
        **SHARED_CONSTRAINTS,
        "layers": [None, tuple, list],
        "boundary": [StrOptions({"soft", "hard"})],
        "nu": [Interval(Real, 0, 1, closed="right")],
        "radius_update": [StrOptions({"batch", "epoch"})],
        "warm_up_n_epochs": [Interval(Integral, 0, None, closed="left")],
        "distance": [StrOptions({"sqeuclidean", "euclidean"})],
        "architecture": [StrOptions({"auto", "lenet", "residual"})],
        "selectors": ["boolean"],
        "widths": [None, tuple, list],
        "latent_dim": [None, Interval(Integral, 1, None, closed="left")],
        "patch_size": [None, Interval(Integral, 1, None, closed="left")],
        "n_crops": [Interval(Integral, 1, 10**6, closed="both")],
        "clip_length": [None, Interval(Integral, 1, None, closed="left")],
        "clip_stride": [Interval(Integral, 1, None, closed="left")],
        "n_clips": [None, Interval(Integral, 2, None, closed="left")],
        "reconstruction_weight": [Interval(Real, 0, None, closed="left")],
        "filter_init": [StrOptions({"random", "dictionary"})],
        "normalization": [None, StrOptions({"auto", "gcn", "symmetric", "local_contrast"})],
        "freeze_bn": ["boolean"],
        "pretrain_n_epochs": [Interval(Integral, 0, None, closed="left")],
        "pretrain_learning_rate": LEARNING_RATE,
        "pretrain_weight_decay": WEIGHT_DECAY,
        "pretrain_milestones": [tuple, list],
        "milestones": [tuple, list],
    }
    _fitted_attributes = {
        **DETECTOR_ATTRIBUTES,
        "network_": Fitted("network"),
        "layers_": Fitted("integers"),
        "centers_": Fitted("float32", ("d",), is_list=True),
        "radii_": Fitted("float64", ("n_layers",)),
        "loss_curve_": Fitted("losses"),
        "pretrain_loss_curve_": Fitted("losses"),
    }

    def __init__(
        self,
        *,
        layers=None,
        boundary="soft",
        nu=0.1,
        radius_update="batch",
        warm_up_n_epochs=10,
        distance="sqeuclidean",
        architecture="auto",
        selectors=True,
        widths=None,
        latent_dim=None,
        patch_size=None,
        n_crops=8,
        clip_length=None,
        clip_stride=1,
        n_clips=None,
        reconstruction_weight=1.0,
        filter_init="random",
        normalization="auto",
        freeze_bn=False,
        pretrain_n_epochs=150,
        pretrain_learning_rate=1e-3,
        pretrain_weight_decay=5e-7,
        pretrain_milestones=(50,),
        n_epochs=150,
        learning_rate=1e-4,
        weight_decay=5e-7,
        milestones=(50,),
        batch_size=128,
        contamination=0.1,
        image_shape=None,
        image_size=None,
        intensity_range=None,
        device=None,
        random_state=None,
        verbose=0,
        warm_start=False,
    ):
        self.layers = layers
        self.boundary = boundary
        self.nu = nu
        self.radius_update = radius_update
        self.warm_up_n_epochs = warm_up_n_epochs
        self.distance = distance
        self.architecture = architecture
        self.selectors = selectors
        self.widths = widths
        self.latent_dim = latent_dim
        self.patch_size = patch_size
        self.n_crops = n_crops
        self.clip_length = clip_length
        self.clip_stride = clip_stride
        self.n_clips = n_clips
        self.reconstruction_weight = reconstruction_weight
        self.filter_init = filter_init
        self.normalization = normalization
        self.freeze_bn = freeze_bn
        self.pretrain_n_epochs = pretrain_n_epochs
        self.pretrain_learning_rate = pretrain_learning_rate
        self.pretrain_weight_decay = pretrain_weight_decay
        self.pretrain_milestones = pretrain_milestones
        self.n_epochs = n_epochs
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.milestones = milestones
        self.batch_size = batch_size
        self.contamination = contamination
        self.image_shape = image_shape
        self.image_size = image_size
        self.intensity_range = intensity_range
        self.device = device
        self.random_state = random_state
        self.verbose = verbose
        self.warm_start = warm_start

    @fit_context(prefer_skip_nested_validation=True)
    @isolated
    def fit(self, X, y=None):
        """Learn the spheres around normal samples.

        Parameters
        ----------
        X : images, rows, videos or paths
            Normal samples only, at least two. An array (n, H, W), (n, H, W, C) or
            (n, C, H, W); flattened images (n, d) with `image_shape`; plain rows (n, d)
            without; a tensor (n, C, H, W); a list of paths or PIL images; or a
            data set of torch.

            Videos: an array of clips (n, T, H, W, C), a tensor (n, T, C, H, W), or, with
            `clip_length`, a list of videos that may differ in length. Each is an array
            (T, H, W, C) or (T, H, W), a tensor (T, C, H, W), the path of a folder of frame
            files, or a list of frame files.
        y : Ignored
            Present for scikit-learn. Labels of anomalies raise a warning, because they are
            being trained on.

        Returns
        -------
        self : MOCCA
            The fitted estimator.

        Raises
        ------
        ValueError
            X or a parameter is not usable, among them layers that the network does not
            have and patches larger than the images; the message says what to do.
        FloatingPointError
            The loss is not finite.
        """
        with unchanged_on_error(self):
            return self._fit(X, y)

    @isolated
    def score_samples(self, X):
        """Score samples: higher is more normal.

        Parameters
        ----------
        X : images, rows or paths
            As in `fit`.

        Returns
        -------
        scores : ndarray of shape (n_samples,), float64
            Negative squared distance to the center, for a soft boundary plus the squared
            radius, in the mean over the layers; without squares for
            ``distance="euclidean"``. With `patch_size`, the lowest of an image's patches;
            of a video, the lowest of its clips.

        Raises
        ------
        ValueError
            X is not usable, or has another shape than in `fit`.
        """
        images, scores = self._score_pieces(X)
        return _lowest(images, scores.mean(axis=2))

    @isolated
    def layer_scores(self, X):
        """Score samples by each layer alone: higher is more normal.

        Parameters
        ----------
        X : images, rows or paths
            As in `fit`.

        Returns
        -------
        scores : ndarray of shape (n_samples, n_layers), float64
            A column for each of `layers_`. Their mean is that of `score_samples`; with
            `patch_size`, and of videos, each layer has a lowest patch or clip of its own,
            and it is not.

        Raises
        ------
        ValueError
            X is not usable, or has another shape than in `fit`.
        """
        return _lowest(*self._score_pieces(X))

    @isolated
    def score_frames(self, video, *, normalize="clips"):
        """Score the frames of a video: higher is more normal.

        For detectors that were fitted on videos.

        Parameters
        ----------
        video : array, tensor, path or list of paths
            One video, in a form that `fit` takes.
        normalize : {"clips", "video"} or None, default="clips"
            Whether distances and reconstruction errors are brought to [0, 1], and added: by
            the extremes within the clips that hold a frame, as in the paper (Eq. 8), or
            within the whole video, as in its code. "clips" says where a frame stands among
            those around it: of an event that is longer than clips it finds beginning and
            end. "video" ranks all frames of a video, or of several that all hold anomalies,
            and is the better choice for that: see Notes. None: distances only, in the unit
            of `score_samples`.

        Returns
        -------
        scores : ndarray of shape (n_frames,), float64
            From -2 to 0, the negative of the published curve; or, with None, the mean
            score of the clips that hold a frame.

        Raises
        ------
        ValueError
            The video is not usable, has another size than in `fit`, or is shorter than a
            clip; the detector was fitted on images or rows.
        """
        check_is_fitted(self)
        if normalize not in ("clips", "video", None):
            raise ValueError(
                f"normalize must be 'clips', 'video' or None. Got {normalize!r}. Set "
                "normalize='video' to compare the frames of a whole video."
            )
        if len(self.image_shape_) != 4:
            raise ValueError(
                f"score_frames is for videos. This {type(self).__name__} was fitted on "
                f"samples of shape {self.image_shape_}. Fit it on videos with clip_length, "
                "or use score_samples."
            )
        clips = validate_clips(self, [video], reset=False)
        device = resolve_device(self.device, fall_back=True)
        with_errors = normalize is not None and self.reconstruction_weight > 0
        if with_errors:
            distances, errors = self._measure_clips(clips, device)
        else:
            distances = self._measure(clips, device)[0][:, 0]
        # High where a clip is far from the centers, as the errors are.
        distances = -self._layer_scores(distances).mean(axis=1)

        frames = clips.starts, clips.shape[1]
        if normalize is None:
            return -average_over_frames(distances, *frames)

        def curve(values, size):
            # Clips of a still scene differ by rounding, which must not become a range of 1.
            if normalize == "clips":
                return normalize_within_clips(values, *frames, _ROUNDING * size)
            return min_max_normalize(average_over_frames(values, *frames), _ROUNDING * size)

        size = np.abs(distances).max() + self._layer_scores(np.zeros(1)).mean()
        total = curve(distances, size)
        if with_errors:
            total += curve(errors, errors.max())
        return -total

    @available_if(_cuts_patches)
    def anomaly_map(self, X):
        """Score every pixel by its patch: higher is more anomalous.

        Available with `patch_size` only.

        Parameters
        ----------
        X : images or paths
            As in `fit`.

        Returns
        -------
        maps : ndarray of shape (n_samples, H, W), float32
            Constant over each patch, the mean where patches overlap. At the size of the
            images in X, also where `image_size` resizes them before they are scored. Files
            of different sizes have maps of `image_size`.

        Raises
        ------
        ValueError
            X is not usable, or has another shape than in `fit`.
        """
        return super().anomaly_map(X)

    def _fit(self, X, y):
        device = resolve_device(self.device)
        warm = self.warm_start and hasattr(self, "network_")
        samples = images = self._validate(X, reset=not warm, min_samples=2)
        warn_about_anomalies(y)
        for name in ("widths", "milestones", "pretrain_milestones"):
            check_integers(name, getattr(self, name))
        pieces, architecture = self._pieces(), self._architecture()
        with seeded(self.random_state, device) as generator:
            images = keep_on_device(images, device)
            batches = self._batches(images, pieces.n_drawn, device, generator)
            if warm:
                network = copy.deepcopy(self.network_).to(device)
            else:
                network = self._build_network(architecture, images).to(device)
            layers = self._check_layers(network.encoder.n_layers, architecture)

            def draw(batch):
                return pieces.draw(network.normalize(batch), generator)

            if not warm:
                self.pretrain_loss_curve_ = self._pretrain(
                    network, architecture, draw, batches, generator
                )
            known = self._known_spheres(device) if warm else {}
            centers = self._find_centers(network, pieces, images, layers, known, device)
            spheres = self._make_spheres(layers, known, len(batches), device)
            loss_curve = train_by_milestones(
                network,
                self._make_loss(network, draw, layers, centers, spheres),
                batches,
                n_epochs=self.n_epochs,
                learning_rate=self.learning_rate,
                weight_decay=self.weight_decay,
                milestones=self.milestones,
                verbose=self.verbose,
                stage="MOCCA",
            )
        self.network_ = network.cpu().eval()
        self.layers_ = layers
        self.centers_ = [center.cpu().numpy() for center in centers]
        self.loss_curve_ = [*self.loss_curve_, *loss_curve] if warm else loss_curve
        distances, spreads = self._measure(images, device)
        check_finite(distances)
        self.radii_ = np.array(
            [
                final_radius(column, self.nu)
                for column in distances.reshape(-1, len(layers)).T
            ]
        )
        scores = self._layer_scores(distances)
        self._set_offset(_lowest(samples, scores.mean(axis=2)))
        # One layer that differs is enough to rank by.
        self._set_collapsed(max(spreads), distances.mean(axis=(1, 2)))
        return self

    def _validate(self, X, reset, min_samples=1):
        """Return X as a source of images, rows or clips."""
        if holds_videos(X, self.clip_length) if reset else len(self.image_shape_) == 4:
            return validate_clips(self, X, reset=reset, min_samples=min_samples)
        return validate_images(self, X, reset=reset, rows=True, min_samples=min_samples)

    def _pieces(self):
        """Return how samples are cut into what the network sees."""
        if self.patch_size is None:
            return WholeSamples(self.image_shape_)
        if len(self.image_shape_) != 3:
            raise ValueError(
                f"patch_size={self.patch_size} cuts images into patches. Got "
                f"{_name(self.image_shape_)}, or patch_size=None."
            )
        return PatchGrid(self.image_shape_, self.patch_size, self.n_crops)

    def _architecture(self):
        """Return how the network for such pieces is built."""
        shape = self._pieces().shape
        latent_dim = self.latent_dim and int(self.latent_dim)  # True is a number too
        if len(shape) != 3:
            if self.architecture != "auto":
                raise ValueError(
                    f"architecture={self.architecture!r} is for images. Got "
                    f"{_name(shape)}, or architecture='auto'."
                )
            if len(shape) == 4:
                return _video(shape, latent_dim)
            return _mlp(shape, self.widths, latent_dim)
        is_large = min(shape[:2]) >= _RESIDUAL_SIZE
        if self.architecture == "lenet" or (self.architecture == "auto" and not is_large):
            return _lenet(shape, self.widths, latent_dim)
        return _residual(shape, self.widths, latent_dim, self.selectors)

    def _check_layers(self, n_layers, architecture):
        """Return the layers as numbers from 0 on, ascending."""
        if self.layers is None:
            return architecture.layers or tuple(range(n_layers))
        layers = tuple(self.layers)
        if not layers or not all(
            isinstance(j, Integral) and -n_layers <= j < n_layers for j in layers
        ):
            raise ValueError(
                f"layers must hold numbers from 0 to {n_layers - 1}, or from {-n_layers} "
                f"to -1, counted from the last. Got {self.layers!r}. Set for example "
                "layers=(-1,), or layers=None."
            )
        layers = tuple(sorted(int(j) % n_layers for j in layers))
        if len(set(layers)) < len(layers):
            raise ValueError(
                f"layers must name each layer once. Got {self.layers!r}, of a network with "
                f"{n_layers} layers. Set layers={tuple(sorted(set(layers)))}."
            )
        return layers

    def _batches(self, images, n_pieces, device, generator=None):
        """Return batches of about `batch_size` pieces."""
        n_images = max(1, self.batch_size // n_pieces)
        is_training = generator is not None and len(self.image_shape_) == 4
        return ImageBatches(
            images,
            n_images,
            device=device,
            generator=generator,
            n_drawn=self.n_clips if is_training else None,
        )

    def _build_network(self, architecture, images=None):
        """Return normalisation and encoder; `images` give the constants of the former."""
        encoder = architecture.encoder()
        network = nn.ModuleDict(
            {
                "normalize": self._build_normalization(architecture, images),
                "encoder": encoder,
            }
        )
        if architecture.end_to_end:
            network["decoder"] = architecture.decoder()
        return network

    def _build_normalization(self, architecture, images):
        shape, name = self.image_shape_, self.normalization
        if name == "auto":
            name = architecture.normalization
            if name == "gcn" and not has_contrast(shape):
                name = None
        if name == "local_contrast":
            if len(shape) != 3:
                raise ValueError(
                    "normalization='local_contrast' is for images. Got "
                    f"{_name(shape)}, or normalization='auto'."
                )
            return LocalContrastNormalization(shape[:2], min(shape[:2]) / 16)
        if name == "gcn":
            return contrast_normalization(images)
        return SymmetricRange() if name == "symmetric" else nn.Identity()

    def _empty_network(self, attribute):
        """Return the module of a fitted attribute before its weights are loaded."""
        return self._build_network(self._architecture())

    def _check_loaded(self):
        encoder, layers = self.network_["encoder"], self.layers_
        if not layers or list(layers) != sorted({*layers} & {*range(encoder.n_layers)}):
            raise ValueError(f"layers_={layers}, of a network of {encoder.n_layers}")
        if len(self.image_shape_) == 4 and self.clip_stride > self.image_shape_[0]:
            raise ValueError(f"clip_stride={self.clip_stride} leaves frames out")
        piece = sample_without_values(self._pieces().shape)
        features = encoder.layer_features(piece, layers)
        return {"d": [z.shape[1] for z in features], "n_layers": len(layers)}

    def _pretrain(self, network, architecture, draw, batches, generator):
        """Train the encoder as half of an autoencoder; return the loss curve."""
        encoder = network.encoder
        if self.filter_init == "dictionary" and isinstance(encoder, LeNetEncoder):
            start_from_dictionary(encoder.filters, draw, batches, generator)
        if self.pretrain_n_epochs == 0 or architecture.end_to_end:
            return []
        decoder = architecture.decoder().to(next(encoder.parameters()).device)
        return pretrain(
            encoder,
            decoder,
            draw,
            batches,
            n_epochs=self.pretrain_n_epochs,
            learning_rate=self.pretrain_learning_rate,
            weight_decay=self.pretrain_weight_decay,
            milestones=self.pretrain_milestones,
            verbose=self.verbose,
        )

    def _known_spheres(self, device):
        """Return center and radius of each layer of an earlier fit."""
        return {
            layer: (tensor_view(center).to(device), float(radius))
            for layer, center, radius in zip(
                self.layers_, self.centers_, self.radii_, strict=True
            )
        }

    def _find_centers(self, network, pieces, images, layers, known, device):
        """Return the centers: those of an earlier fit, else means over the images."""
        centers = {layer: center for layer, (center, _) in known.items()}
        new = tuple(layer for layer in layers if layer not in known)
        if new:
            means = initial_centers(
                network,
                _features(network, pieces, new),
                self._batches(images, pieces.n_cut, device),
            )
            centers |= {j: mean.to(device) for j, mean in zip(new, means, strict=True)}
        return [centers[layer] for layer in layers]

    def _make_spheres(self, layers, known, n_batches, device):
        """Return the loss of distances for each layer, which keeps its radius."""
        if self.boundary == "hard":
            return [HardBoundary() for _ in layers]
        # A warm start goes on with the warm-up where an earlier fit left it.
        n_done = len(self.loss_curve_) if known else 0
        warm_up_n_epochs = max(0, self.warm_up_n_epochs - n_done)
        return [
            SoftBoundary(
                self.nu,
                n_batches=n_batches,
                warm_up_n_epochs=warm_up_n_epochs,
                update=self.radius_update,
                radius=known[layer][1] if layer in known and not warm_up_n_epochs else 0.0,
                device=device,
            )
            for layer in layers
        ]

    def _make_loss(self, network, draw, layers, centers, spheres):
        """Return the loss of a batch: the mean over the layers of that of each sphere."""

        def loss_fn(batch):
            if self.freeze_bn:
                freeze_batch_norm(network)
            batch, reconstruction = draw(batch), 0.0
            if "decoder" in network and self.reconstruction_weight > 0:
                codes, features = network.encoder.codes_and_features(batch, layers)
                error = reconstruction_loss(network.decoder(codes), batch)
                reconstruction = self.reconstruction_weight * error
            else:
                features = network.encoder.layer_features(batch, layers)
            losses = [
                sphere(squared_distance(z, center))
                for z, center, sphere in zip(features, centers, spheres, strict=True)
            ]
            return torch.stack(losses).mean() + reconstruction

        return loss_fn

    def _measure(self, images, device):
        """Return squared distances (n, n_pieces, n_layers), and the spread of features."""
        dtype = inference_dtype(self.image_shape_, device)
        network, pieces = on_device(self.network_, device, dtype), self._pieces()
        features = _features(network, pieces, self.layers_)
        distances, spreads = measure(
            network,
            lambda batch: features(batch.to(dtype)),
            self._batches(images, pieces.n_cut, device),
            [tensor_view(c).to(device, dtype) for c in self.centers_],
        )
        return distances.reshape(len(images), pieces.n_cut, -1), spreads

    def _measure_clips(self, clips, device):
        """Return squared distances (n, n_layers) and reconstruction errors (n,)."""
        dtype = inference_dtype(self.image_shape_, device)
        network = on_device(self.network_, device, dtype)
        centers = [tensor_view(c).to(device, dtype) for c in self.centers_]

        def measure_batch(batch):
            batch = network.normalize(batch.to(dtype))
            codes, features = network.encoder.codes_and_features(batch, self.layers_)
            distances = [
                squared_distance(z, center)
                for z, center in zip(features, centers, strict=True)
            ]
            differences = network.decoder(codes) - batch
            errors = differences.square().flatten(1).sum(dim=1)
            return torch.stack(distances, dim=1), errors

        return map_batches(network, self._batches(clips, 1, device), measure_batch)

    def _score_pieces(self, X):
        """Return X as a source, and scores (n, n_pieces, n_layers) by each layer alone."""
        check_is_fitted(self)
        images = self._validate(X, reset=False)
        device = resolve_device(self.device, fall_back=True)
        distances, _ = self._measure(images, device)
        return images, self._layer_scores(distances)

    def _layer_scores(self, distances):
        """Return scores from squared distances, of any shape (..., n_layers)."""
        exponent = 1 if self.distance == "sqeuclidean" else 0.5
        scores = -(distances.astype(np.float64) ** exponent)
        if self.boundary == "hard":
            return scores
        return scores + self.radii_ ** (2 * exponent)

    @isolated
    def _anomaly_map(self, images):
        device = resolve_device(self.device, fall_back=True)
        rows, columns = self._pieces().starts
        distances, _ = self._measure(images, device)
        scores = self._layer_scores(distances).mean(axis=2)
        return patch_scores_to_map(
            -scores.reshape(len(images), len(rows), len(columns)),
            rows,
            columns,
            self.patch_size,
            self.image_shape_[:2],
        )

    def _auto_offset(self, train_scores):
        # Soft scores are zero at the spheres; hard ones have no boundary but this one.
        if self.boundary == "soft":
            return 0.0
        return float(self._layer_scores(self.radii_**2).mean())


class _Architecture(NamedTuple):
    """How a network is built for pieces of a shape, and what it takes by default.

    Attributes
    ----------
    encoder : callable
        Returns a module with `n_layers` and `layer_features`.
    decoder : callable
        Returns the module that reconstructs pieces from the output of the encoder.
    normalization : str or None
        What "auto" stands for.
    layers : tuple of int, default=None
        What None stands for; None: all.
    end_to_end : bool, default=False
        Whether the decoder is trained together with the spheres, not before.
    """

    encoder: Callable[[], nn.Module]
    decoder: Callable[[], nn.Module]
    normalization: str | None
    layers: tuple[int, ...] | None = None
    end_to_end: bool = False


def _mlp(shape, widths, latent_dim):
    sizes = (*shape, *(widths or (128, 64)), latent_dim or 32)
    return _Architecture(lambda: MLP(sizes), lambda: MLP(sizes[::-1]), None)


def _lenet(shape, widths, latent_dim):
    height, width, n_channels = shape
    widths = tuple(widths or lenet_widths(height, width))
    arguments = (n_channels, height, width), latent_dim or lenet_latent_dim(widths), widths
    return _Architecture(
        lambda: LeNetEncoder(*arguments), lambda: LeNetDecoder(*arguments), "gcn"
    )


def _residual(shape, widths, latent_dim, selectors):
    height, width, n_channels = shape
    widths = tuple(widths or RESIDUAL_WIDTHS)
    if len(widths) != 4:
        raise ValueError(
            "widths of the residual encoder are four: of the first convolution and of "
            f"three blocks. Got {widths!r}. Set for example widths={RESIDUAL_WIDTHS}."
        )
    if min(height, width) < 3:
        raise ValueError(
            "The residual encoder needs images or patches of at least 3 x 3 pixels. Got "
            f"{height} x {width}. Set architecture='lenet'."
        )
    shape, latent_dim = (n_channels, height, width), latent_dim or 128
    return _Architecture(
        lambda: ResidualEncoder(shape, latent_dim, selectors, widths),
        lambda: ResidualDecoder(shape, latent_dim, widths),
        "symmetric",
        layers=(4, 5, 6),
    )


def _video(shape, latent_dim):
    shape, latent_dim = (shape[3], *shape[:3]), latent_dim or 1024
    return _Architecture(
        lambda: VideoEncoder(shape, latent_dim),
        lambda: VideoDecoder(shape, latent_dim),
        None,
        end_to_end=True,
    )


def _name(shape):
    """Return how a message names samples that are no images, and what to do."""
    if len(shape) == 1:
        return f"rows of {shape[0]} values. Set image_shape=(H, W) if they are images"
    return f"clips of shape {shape}. Pass images (n, H, W, C)"


def _lowest(samples, scores):
    """Return the lowest of the scores (n, n_pieces, ...) of each sample's pieces."""
    lowest = scores.min(axis=1)
    return samples.lowest_of_videos(lowest) if isinstance(samples, Clips) else lowest


def _features(network, pieces, layers):
    """Return the function from a batch of samples to the features of all their pieces."""

    def features(batch):
        pieces_of_batch = pieces.cut(network.normalize(batch))
        return network.encoder.layer_features(pieces_of_batch, layers)

    return features
