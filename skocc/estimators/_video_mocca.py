"""VideoMOCCA (Massoli et al. 2022): spheres in several layers around normal clips."""

from numbers import Integral, Real

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import nn

from skocc._base.private_sklearn import Interval, StrOptions
from skocc._base.reading import compare, remember
from skocc._base.trained import split_indices
from skocc._engine.ambient import isolated
from skocc._engine.batches import Subset
from skocc._engine.inference import map_batches
from skocc._nets.architectures import video_architecture
from skocc._nets.normalization import SymmetricRange
from skocc._ops.losses import reconstruction_loss, squared_distance
from skocc._ops.tensors import tensor_view
from skocc._samples.clips import (
    average_over_frames,
    min_max_normalize,
    normalize_within_clips,
    read_clips,
)
from skocc.estimators._layer_spheres import LayerSpheres
from skocc.estimators._pretraining import contrast_normalization
from skocc.estimators._without_effect import VIDEO_MOCCA_RULES

# Relative error of the distances and errors of equal clips.
_ROUNDING = 1e-5


class VideoMOCCA(LayerSpheres):
    r"""Multi-layer one-class classifier of videos: spheres around normal clips.

    Videos are cut into clips. A causal network learns to reconstruct the clips and, at the
    same time, to keep the features of several layers close to the center of each layer. The
    score of a clip is the mean of the distances to the centers, and the score of a video is
    that of its worst clip; :meth:`score_frames` scores every frame. Read more in the
    :ref:`User Guide <video>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    layers : tuple of int or str, default=None
        Layers that have a sphere, 0 being the first and -1 the last of seven, see Notes.
        Those of a network of your own are names as in ``named_modules()``, and -1 is its
        output. None: all, or the output. :meth:`layer_scores` helps to choose.
    boundary : {"soft", "hard"}, default="soft"
        "hard" pulls every clip to the centers. "soft" shrinks spheres that may leave the
        fraction `nu` of the clips outside.
    nu : float, default=0.1
        Fraction of training clips outside of each sphere, in (0, 1]. A hard boundary uses
        it for `radii_` only.
    radius_update : {"batch", "epoch"}, default="batch"
        Whether the radii of a soft boundary are updated after each batch or each epoch.
    warm_up_n_epochs : int, default=5
        Epochs before the first update of the radii of a soft boundary.
    distance : {"sqeuclidean", "euclidean"}, default="sqeuclidean"
        Whether scores are squared distances, as in the paper, or distances, as in the code
        of the paper. The loss always has squared ones.
    backbone : torch.nn.Module, class or function, default=None
        A network of your own from clips (b, C, T, H, W) to (b, features): a module, which
        is copied, or a class or function that builds one; see :ref:`own networks
        <own_networks>`. It has no decoder, and nothing is reconstructed. None: that of the
        paper.
    embedding_dim : int, default=None
        Size of the embedding of each time step. None: 1024.
    clip_length : int or None, default=16
        Number of frames of a clip. None: X holds clips already, all of one length.
    clip_stride : int, default=1
        Frames from one clip of a video to the next, at most `clip_length`.
    n_clips : int, default=None
        Number of clips that an epoch draws, with replacement. The code of the paper has
        10,000. None: every clip once, in a new order.
    reconstruction_weight : float, default=1.0
        Weight of the reconstruction of clips in their loss, beside the spheres.
    normalization : {"gcn", "symmetric"} or None, default=None
        Normalization of the clips. "gcn" brings each to the same contrast, and all of them
        to [0, 1] by two constants of the training clips; "symmetric" brings [0, 1] to
        [-1, 1].
    validation_fraction : float, default=0.0
        Fraction of the training videos that are held out, in [0, 1); the loss of their
        clips after each epoch says when to stop, and the weights of the best epoch are
        kept. 0 trains on all videos for all epochs.
    n_iter_no_change : int or None, default=10
        Epochs without a lower loss of the held-out videos after which training ends. None:
        it never ends early. Without held-out videos it has no effect.
    checkpoint_dir : path or None, default=None
        Folder for checkpoints, from which a fit that was killed resumes; `random_state` has
        to be an int. None: none are written.
    n_epochs : int, default=150
        Epochs of training.
    learning_rate : float, default=1e-4
        Step size of Adam.
    weight_decay : float, default=5e-7
        L2 penalty of the weights.
    milestones : tuple of int, default=(50,)
        Epochs at which the step size is divided by ten.
    batch_size : int, default=4
        Clips per batch, at least 2. Scores do not depend on it.
    contamination : float or "auto", default=0.1
        Fraction of the training videos called anomalous, in (0, 0.5]; it sets `offset_`.
        "auto" puts the threshold at the spheres: where squared distances to the centers
        are on average as large as squared radii. One clip of a video beyond it is enough.
    image_shape : tuple (H, W) or (H, W, C), default=None
        Shape of the frames in flattened rows, in pixels; one entry may be -1.
    image_size : int or tuple (H, W), default=None
        Size in pixels that all frames are resized to (bilinear, antialiased). None: the
        frames have one size already. The paper has (256, 512).
    intensity_range : tuple (low, high), default=None
        Numbers that are read as 0 and 1, in every frame alike, such as (0, 4095) where a
        camera of 12 bits writes files of 16. None: the range of uint8 and uint16, and other
        numbers as they are.
    device : str or torch.device, default=None
        Where to compute. None takes CUDA, then MPS, then the CPU.
    random_state : int, RandomState or None, default=None
        An int makes fits reproducible, bit by bit on a CPU.
    verbose : int, default=0
        Whether progress bars are shown, of each stage that takes two seconds or more.
    warm_start : bool, default=False
        Whether a second `fit` continues from the fitted weights. `layers` may have changed:
        a layer keeps its center, and a new one gets one from the fitted weights.

    Attributes
    ----------
    network_ : torch.nn.ModuleDict
        On the CPU: "normalize", "encoder" and, without `backbone`, "decoder".
    layers_ : tuple of int or str
        The layers that have a sphere, numbers being ascending.
    centers_ : list of ndarray of shape (d_j,), float32
        Center of each of these layers.
    radii_ : ndarray of shape (n_layers,), float64
        Radius of each: the quantile of the distances after training that leaves the
        fraction `nu` of the training clips outside.
    loss_curve_ : list of float
        Mean loss per epoch of spheres and reconstruction together.
    validation_loss_curve_ : list of float
        Loss of the held-out videos after each epoch, in eval mode; empty without them.
    best_epoch_ : int or None
        Index in `validation_loss_curve_` (of the last `fit`) of the epoch whose weights
        were kept; None without held-out videos.
    offset_ : float
        Threshold: ``decision_function(X) = score_samples(X) - offset_``.
    train_scores_ : ndarray of shape (n_samples,), float64
        Scores of the training videos.
    collapsed_ : bool
        Whether all layers give nearly the same output for all training clips.
    image_shape_ : tuple
        (T, H, W, C) of the clips as the network sees them.
    n_features_in_ : int
        Values per sample of X. Missing for videos of more than a frame, which may differ in
        length.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where X was a table with names that are all text.

    See Also
    --------
    MOCCA : The method for images.
    skocc.feature_extraction.BackgroundRemoval : Frames without what does not move.

    Notes
    -----
    Loss and scores of the spheres are those of :class:`MOCCA`, a clip in the place of an
    image. The mean squared differences of the reconstruction are added to the loss.

    The layers of the network for videos are five blocks of causal convolutions in space and
    time, averaged over space (0 to 4), and for each time step a hidden layer (5) and the
    embedding (6). An LSTM for each layer makes 100 features of its sequence. Encoder and
    decoder are trained together from random weights, on the sum of both losses; the centers
    are those of the untrained network. The reconstruction error of a clip is a sum over its
    pixels and by far the larger term, as in the code of the paper.

    The code of the paper [2]_ can have selectors before the LSTMs, and its published
    command does; here, as in the paper, the LSTMs take their place. A frame's score becomes
    ``(x - min) / (max - min)``, as in the code (the paper has ``x - max`` there), and a
    constant one to 0 in both curves. On the synthetic videos of
    ``examples/reproduction/sprite_videos.py``, with an AUROC over the frames of 0.98 for
    ``normalize="video"`` or None, the paper's normalization within clips has 0.68.
    The last clip of a video ends with its last frame whatever `clip_stride` is. For the
    published setting pass frames of 256 x 512 pixels without their background (see
    :class:`~skocc.feature_extraction.BackgroundRemoval`) and ``clip_length=16,
    n_clips=10_000``.

    Time is linear in clips and epochs. An image in the place of a video counts as a video
    of one frame, for ``clip_length=1``.

    References
    ----------
    .. [1] F. V. Massoli et al., "MOCCA: Multi-layer one-class classification for anomaly
       detection", IEEE Transactions on Neural Networks and Learning Systems 33, 2022,
       arXiv:2012.12111.
    .. [2] https://github.com/fvmassoli/mocca-anomaly-detection, commit 28be1b0.

    Examples
    --------
    Bright spots that move to the right are normal:

    >>> import numpy as np
    >>> from skocc import VideoMOCCA
    >>> def make_video(start, step):
    ...     video = np.zeros((12, 8, 24))
    ...     for t in range(12):
    ...         video[t, 3:5, (start + step * t) % 24] = 1
    ...     return video
    >>> videos = [make_video(start, step=1) for start in range(0, 24, 3)]
    >>> detector = VideoMOCCA(
    ...     clip_length=4, embedding_dim=16, n_epochs=4, batch_size=10, random_state=0
    ... )
    >>> _ = detector.fit(videos)
    >>> detector.score_samples(videos[:3]).shape
    (3,)
    >>> detector.score_frames(make_video(5, step=-1), normalize="video").shape
    (12,)
    """

    _parameter_constraints = {
        **LayerSpheres._parameter_constraints,
        "backbone": [None, callable],
        "clip_length": [None, Interval(Integral, 1, None, closed="left")],
        "clip_stride": [Interval(Integral, 1, None, closed="left")],
        "n_clips": [None, Interval(Integral, 2, None, closed="left")],
        "reconstruction_weight": [Interval(Real, 0, None, closed="left")],
        "normalization": [None, StrOptions({"gcn", "symmetric"})],
    }
    _without_effect = VIDEO_MOCCA_RULES
    # Features of an untrained network of LSTMs differ little, and still rank clips.
    _min_spread = 1e-6

    def __init__(
        self,
        *,
        layers=None,
        boundary="soft",
        nu=0.1,
        radius_update="batch",
        warm_up_n_epochs=5,
        distance="sqeuclidean",
        backbone=None,
        embedding_dim=None,
        clip_length=16,
        clip_stride=1,
        n_clips=None,
        reconstruction_weight=1.0,
        normalization=None,
        validation_fraction=0.0,
        n_iter_no_change=10,
        checkpoint_dir=None,
        n_epochs=150,
        learning_rate=1e-4,
        weight_decay=5e-7,
        milestones=(50,),
        batch_size=4,
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
        self.backbone = backbone
        self.embedding_dim = embedding_dim
        self.clip_length = clip_length
        self.clip_stride = clip_stride
        self.n_clips = n_clips
        self.reconstruction_weight = reconstruction_weight
        self.normalization = normalization
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.checkpoint_dir = checkpoint_dir
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

    def fit(self, X, y=None) -> "VideoMOCCA":
        """Learn the spheres around normal clips.

        Parameters
        ----------
        X : videos or paths
            Normal videos only, of at least two clips together: an array of videos
            (n, T, H, W, C), a tensor (n, T, C, H, W), or a list of videos that may differ
            in length. Each is an array (T, H, W, C) or (T, H, W), a tensor (T, C, H, W),
            the path of a folder of frame files, or a list of frame files. Whatever other
            detectors read as images holds videos of a single frame.
        y : Ignored
            Present for scikit-learn. Labels of anomalies raise a warning, because they are
            being trained on.

        Returns
        -------
        self : VideoMOCCA
            The fitted estimator.

        Raises
        ------
        ValueError
            X or a parameter is not usable, among them layers that the network does not
            have and videos shorter than a clip; the message says what to do.
        FloatingPointError
            The loss is not finite.
        """
        return super().fit(X, y)

    def score_samples(self, X) -> np.ndarray:
        """Score videos: higher is more normal.

        Parameters
        ----------
        X : videos or paths
            As in `fit`.

        Returns
        -------
        scores : ndarray of shape (n_samples,), float64
            The lowest score of a video's clips. That of a clip is the negative squared
            distance to the center, for a soft boundary plus the squared radius, averaged
            over the layers; without squares for ``distance="euclidean"``.

        Raises
        ------
        ValueError
            X is not usable, or has another shape than in `fit`.
        """
        return super().score_samples(X)

    @isolated
    def score_frames(self, video, *, normalize: str | None = "clips") -> np.ndarray:
        """Score the frames of a video: higher is more normal.

        Parameters
        ----------
        video : array, tensor, path or list of paths
            One video, in a form that `fit` takes.
        normalize : {"clips", "video"} or None, default="clips"
            Whether distances and reconstruction errors are brought to [0, 1], and added: by
            the extremes within the clips that hold a frame, as in the paper (Eq. 8), or
            within the whole video, as in its code. "clips" compares a frame with those
            around it: of an event that is longer than a clip, it finds the beginning and
            the end. "video" ranks all frames of a video, or of several that all hold
            anomalies, and is the better choice for that: see Notes. None: distances only,
            in the unit of `score_samples`.

        Returns
        -------
        scores : ndarray of shape (n_frames,), float64
            From -2 to 0, the negative of the published curve; or, with None, the mean
            score of the clips that hold a frame.

        Raises
        ------
        ValueError
            The video is not usable, has another size than in `fit`, or is shorter than a
            clip.
        """
        check_is_fitted(self)
        if normalize not in ("clips", "video", None):
            raise ValueError(
                f"normalize must be 'clips', 'video' or None. Got {normalize!r}. Set "
                "normalize='video' to compare the frames of a whole video."
            )
        clips, device = self._read([video], reset=False), self._scoring_device()
        with_errors = normalize is not None and self._reconstructs()
        if with_errors:
            distances, errors = self._distances_and_errors(clips, device)
        else:
            distances = self._distances(clips, device)[0][:, 0]
        # Distances, like errors, are high for anomalous clips.
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

    def _read(self, X, *, reset, min_samples=1):
        clips = read_clips(
            X,
            clip_length=self.clip_length if reset else self.image_shape_[0],
            clip_stride=self.clip_stride,
            image_shape=self.image_shape,
            image_size=self.image_size,
            intensity_range=self.intensity_range,
            like=None if reset else self.image_shape_,
            min_samples=min_samples,
            name=type(self).__name__,
        )
        (remember if reset else compare)(self, X, clips)
        return clips

    def _architecture(self):
        return video_architecture(self.image_shape_, self.embedding_dim)

    def _train_batches(self, images, n_patches, run):
        return self._batches(
            images, n_patches, run.device, generator=run.generator, n_drawn=self.n_clips
        )

    def _hold_out(self, images, run):
        """Return clips to train on and those held out: of a video all, as they overlap."""
        if self.validation_fraction == 0:
            return images, None
        videos = run.source.videos
        n_videos = int(videos[-1]) + 1
        if n_videos < 2:
            raise ValueError(
                f"validation_fraction={self.validation_fraction} holds out whole videos. "
                "Got 1 video. Cut it into several, or set validation_fraction=0."
            )
        parts = split_indices(n_videos, self.validation_fraction, 1, run.generator)
        return tuple(
            Subset(images, np.flatnonzero(np.isin(videos, part))) for part in parts
        )

    def _build_network(self, images=None):
        """Return normalization, encoder and decoder; `images` give the constants."""
        normalization = nn.Identity()
        if self.normalization == "gcn":
            normalization = contrast_normalization(images)
        elif self.normalization == "symmetric":
            normalization = SymmetricRange()
        network = nn.ModuleDict({"normalize": normalization})
        if self.backbone is not None:
            network["encoder"] = self._own_encoder(weights=None)
            return network
        architecture = self._architecture()
        network["encoder"] = architecture.encoder()
        network["decoder"] = architecture.decoder()
        return network

    def _check_loaded(self):
        if self.clip_stride > self.image_shape_[0]:
            raise ValueError(f"clip_stride={self.clip_stride} leaves frames out")
        return super()._check_loaded()

    def _reconstructs(self):
        return self.backbone is None and self.reconstruction_weight > 0

    def _features_and_loss(self, network, batch, layers):
        if not self._reconstructs():
            return super()._features_and_loss(network, batch, layers)
        codes, features = network.encoder.codes_and_features(batch, layers)
        error = reconstruction_loss(network.decoder(codes), batch)
        return features, self.reconstruction_weight * error

    def _embed(self, images, device):
        """Return means over the clips of each video."""
        return images.mean_of_videos(super()._embed(images, device))

    def _lowest(self, scores, images):
        """Return the lowest of the scores (n, 1, ...) of each video's clips."""
        return images.lowest_of_videos(super()._lowest(scores, images))

    def _distances_and_errors(self, clips, device):
        """Return squared distances (n, n_layers) and reconstruction errors (n,)."""
        network = self._on_device(self.network_, device)
        dtype = self._dtype(device)
        centers = [tensor_view(c).to(device, dtype) for c in self.centers_]

        def distances_and_errors_of(batch):
            batch = network.normalize(batch.to(dtype))
            codes, features = network.encoder.codes_and_features(batch, self.layers_)
            distances = [
                squared_distance(z, center)
                for z, center in zip(features, centers, strict=True)
            ]
            differences = network.decoder(codes) - batch
            errors = differences.square().flatten(1).sum(dim=1)
            return torch.stack(distances, dim=1), errors

        batches = self._batches(clips, 1, device)
        return map_batches(network, batches, distances_and_errors_of)
