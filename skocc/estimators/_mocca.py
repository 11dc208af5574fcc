"""MOCCA (Massoli et al. 2022): a sphere around normal images in several layers."""

import os
from numbers import Integral

import numpy as np
import torch
from torch import nn

from skocc._base.constraints import LEARNING_RATE, WEIGHT_DECAY
from skocc._base.fitted import MAP_ATTRIBUTES, Fitted
from skocc._base.maps import AnomalyMapMixin, map_maxima
from skocc._base.private_sklearn import Interval, StrOptions
from skocc._nets.architectures import (
    lenet_architecture,
    residual_architecture,
    row_architecture,
)
from skocc._nets.lenet import LeNetEncoder
from skocc._nets.normalization import (
    LocalContrastNormalization,
    SymmetricRange,
    freeze_batch_norm,
)
from skocc._ops.maps import patch_scores_to_map
from skocc._samples.validation import check_backbone_images
from skocc.estimators._augmentation import check_rotations, random_rotations
from skocc.estimators._layer_spheres import LayerSpheres
from skocc.estimators._patches import PatchGrid
from skocc.estimators._pretraining import (
    contrast_normalization,
    has_contrast,
    pretrain,
    start_from_dictionary,
)
from skocc.estimators._without_effect import MOCCA_RULES

# Fewest pixels per side for which "auto" is the residual encoder, the smallest size that it
# was published for.
_RESIDUAL_SIZE = 64
# Layers of the residual encoder that did best in the paper.
_RESIDUAL_LAYERS = (4, 5, 6)
# Names of our encoders; any other is torchvision's.
_RESIDUAL = ("residual", "plain_residual")
_OURS = ("lenet", *_RESIDUAL)


class MOCCA(AnomalyMapMixin, LayerSpheres):
    r"""Multi-layer one-class classifier: a sphere around normal samples in several layers.

    A network first learns to reconstruct normal images, as the encoder of an autoencoder.
    The mean of the features of a layer becomes the center of that layer, and training
    continues with the distances to the centers of all chosen layers as the loss. The score
    is their mean. Each layer describes an image at its own level of detail.

    The network is the LeNet of Deep SVDD for small images, a residual encoder for larger
    ones, and a fully connected network for plain rows. Textures are cut into patches and
    have heat maps (`patch_size`). :class:`VideoMOCCA` is the method for videos. Read more
    in the :ref:`User Guide <mocca>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    layers : tuple of int or str, default=None
        Layers that have a sphere, 0 being the first and -1 the last one. The layers of a
        LeNet and of the network for rows are the convolutions or hidden layers and the
        embedding; the residual encoder has eight, see Notes. Those of other networks are
        names as in ``named_modules()``, and -1 is the output. None: all; 4 to 6 of the
        residual encoder; the output of a network of your own; of torchvision's that and
        its :ref:`default layers <default_layers>`. :meth:`layer_scores` helps to choose.
    boundary : {"soft", "hard"}, default="soft"
        "hard" pulls every image to the centers. "soft" shrinks spheres that may leave the
        fraction `nu` of the images outside.
    nu : float, default=0.1
        Fraction of training images outside of each sphere, in (0, 1]. A hard boundary uses
        it for `radii_` only.
    radius_update : {"batch", "epoch"}, default="batch"
        Whether the radii of a soft boundary are updated after each batch or each epoch.
    warm_up_n_epochs : int, default=10
        Epochs before the first update of the radii of a soft boundary.
    distance : {"sqeuclidean", "euclidean"}, default="sqeuclidean"
        Whether scores are squared distances, as in the paper, or distances, as in the code
        of the paper for larger images. The loss always has squared ones.
    backbone : str, torch.nn.Module, class or function, default=None
        Encoder. "lenet" and "residual" are those of the paper: each layer of the second
        passes a small network of its own, a selector, and "plain_residual" averages the
        layers over space instead. None is "residual" for images, or patches, of at least 64
        pixels a side, else "lenet", and a fully connected network for rows. A name of a
        classification network of torchvision, or a network of your own from images
        (b, C, H, W), or rows (b, d), to (b, features), as of :class:`DeepSVDD`, is not
        pretrained as an autoencoder; see :ref:`own networks <own_networks>`.
    weights : {"imagenet"}, name, path or None, default="imagenet"
        Initial weights of torchvision's networks, or of your own, as of :class:`DeepSVDD`.
    channels : tuple of int, default=None
        Channels of the stages of the LeNet; of the first convolution and the three blocks
        of the residual encoder; or units of the hidden layers for rows. None: by the
        image size, as in :class:`DeepSVDD`; (32, 64, 128, 256); (128, 64).
    embedding_dim : int, default=None
        Size of the embedding, the output of the last layer before any sigmoid. None: 128,
        or 32 for rows and for LeNets of fewer than three stages.
    patch_size : int, default=None
        Side in pixels of the patches of textures. They lie at random places in training and
        side by side in scoring. The paper has 64. None: whole images.
    n_crops : int, default=8
        Number of patches that an epoch draws from each image, a million at most.
    rotation_range : tuple (low, high), default=None
        Angles in degrees, counterclockwise, between which each image is rotated at random
        in every epoch of both stages, before patches are cut; the border is mirrored
        outside. The paper has (-45, 45) for objects that may lie any way, and (0, 45) for
        textures. Test images are not rotated. None: no rotation.
    filter_init : {"random", "dictionary"}, default="random"
        Initial filters of the first layer of a LeNet: random ones, as in the code of the
        paper, or a sparse dictionary of image patches, as in :class:`DeepSVDD`.
    normalization : {"auto", "gcn", "symmetric", "local_contrast"} or None, default="auto"
        Normalization of whole images. "gcn" brings each to the same contrast, and all of
        them to [0, 1] by two constants of the training images; "symmetric" brings [0, 1]
        to [-1, 1]; "local_contrast" shifts and scales each pixel by mean and deviation of
        those around it, as in :class:`PatchSVDD`. "auto" is "symmetric" for the residual
        encoder, "gcn" for a LeNet on images of at least 8 pixels a side, else None.
    batch_norm : {"train", "frozen"}, default="train"
        "train" takes the statistics of each batch; "frozen" keeps those of the
        autoencoder, as the code of the paper does for small images.
    pretrain_n_epochs : int, default=150
        Epochs of the autoencoder; 0 skips this stage, which neither torchvision's networks
        nor your own have.
    pretrain_learning_rate : float, default=1e-3
        Step size of Adam for the autoencoder.
    pretrain_weight_decay : float, default=5e-7
        L2 penalty of the weights of the autoencoder.
    pretrain_milestones : tuple of int, default=(50,)
        Epochs of the autoencoder at which the step size is divided by ten.
    validation_fraction : float, default=0.0
        Fraction of the training images that the main stage holds out, in [0, 1); their loss
        after each epoch says when to stop, and the weights of the best epoch are kept. 0
        trains on all images for all epochs.
    n_iter_no_change : int or None, default=10
        Epochs without a lower loss of the held-out images after which training ends. None:
        it never ends early. It has no effect without held-out images.
    checkpoint_dir : path or None, default=None
        Folder for checkpoints, from which a fit that was killed resumes; `random_state` has
        to be an int. None: none are written.
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
        are on average as large as squared radii. One patch of a texture beyond it is
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
        Whether progress bars are shown, of each stage that takes two seconds or more.
    warm_start : bool, default=False
        Whether a second `fit` continues from the fitted weights. `layers` may have changed:
        a layer keeps its center, and a new one gets one from the fitted weights.

    Attributes
    ----------
    network_ : torch.nn.ModuleDict
        On the CPU: "normalize" and "encoder".
    layers_ : tuple of int or str
        The layers that have a sphere, numbers being ascending.
    centers_ : list of ndarray of shape (d_j,), float32
        Center of each of these layers.
    radii_ : ndarray of shape (n_layers,), float64
        Radius of each: the quantile of the distances after training that leaves the
        fraction `nu` of the training images, or of their patches, outside.
    loss_curve_ : list of float
        Mean loss per epoch of the one-class objective.
    validation_loss_curve_ : list of float
        Loss of the held-out images after each epoch, in eval mode; empty without them.
    best_epoch_ : int or None
        Index in `validation_loss_curve_` (of the last `fit`) of the epoch whose weights
        were kept; None without held-out images.
    pretrain_loss_curve_ : list of float
        Mean loss per epoch of the autoencoder: squared error summed over an image.
    offset_ : float
        Threshold: ``decision_function(X) = score_samples(X) - offset_``.
    train_scores_ : ndarray of shape (n_samples,), float64
        Scores of the training images.
    pixel_threshold_ : float
        Threshold of heat maps, which `contamination` sets for `train_map_maxima_`:
        `anomaly_mask` marks what is above it. With `patch_size`.
    train_map_maxima_ : ndarray of shape (n_samples,), float64
        Highest value of the heat map of each training image. With
        `patch_size`.
    collapsed_ : bool
        Whether all layers give nearly the same output for all training images.
    image_shape_ : tuple
        (H, W, C) of the images as the network sees them, (d,) for plain rows.
    n_features_in_ : int
        Values per sample of X.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where X was a table with names that are all text.

    See Also
    --------
    DeepSVDD : The method with a sphere in the last layer alone.
    VideoMOCCA : The method for videos.
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
    the embedding; those of the network for rows are its linear layers before BatchNorm. The
    layers of the residual encoder are its first convolution (0), a residual block (1),
    three blocks that halve the map (2 to 4), and two linear ones: the hidden layer after
    BatchNorm and activation (5), the embedding (6) and its sigmoid (7).

    Where the paper [1]_ and its code [3]_ differ: the loss is the mean over the layers, as
    in the paper, where the code has the sum; neither the hard loss nor its scores are
    divided by `nu`, as in the code; and the weights of the autoencoder are transferred, as
    the paper says. In the public code the names of weights do not match, and the encoder
    starts from random ones. The code of an autoencoder for small images passes BatchNorm
    twice there and once here.

    Neither numbers of epochs nor the layers of each experiment are published. The schedule
    here is that of :class:`DeepSVDD`; layers 4 to 6 did best in the paper's ablation of the
    soft boundary, 3 to 6 in that of the hard one. Defaults that are not the paper's: it has
    batches of 256 for CIFAR-10; a step size of 1e-2 or 1e-3, divided by ten on the way, for
    larger images, where `learning_rate` is 1e-4 for all; and its code warms up
    for 5 epochs there, `warm_up_n_epochs` being 10. Textures are cut at random places in
    training, where the paper's patches lie side by side, and a selector takes maxima before
    its convolution, not after it. After training the radii are set once more, from all
    training samples in eval mode, and centers from images that are not rotated. The
    components of a center below 0.1 are moved to 0.1, keeping their sign.

    Time is linear in images and epochs. On one core, an epoch of 5,000 images of 32 pixels
    takes about six seconds, eight in the autoencoder; one of 500 images of 128 pixels, or
    of 2,000 patches of 64, some 40 seconds, two minutes in the autoencoder. The residual
    encoder has 18 million weights for such images and 5 million for such patches; most of
    them are in its first linear layer, which grows with the area. It and its selectors have
    biases, as published, with which a long training may collapse.

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

    The scores of each layer alone, the convolution and the embedding:

    >>> detector.layer_scores(images[900:]).shape
    (897, 2)
    """

    _parameter_constraints = {
        **LayerSpheres._parameter_constraints,
        "backbone": [None, str, callable],
        "weights": [None, str, os.PathLike],
        "channels": [None, tuple, list],
        "patch_size": [None, Interval(Integral, 1, None, closed="left")],
        "n_crops": [Interval(Integral, 1, 10**6, closed="both")],
        "rotation_range": [None, tuple, list],
        "filter_init": [StrOptions({"random", "dictionary"})],
        "normalization": [None, StrOptions({"auto", "gcn", "symmetric", "local_contrast"})],
        "batch_norm": [StrOptions({"train", "frozen"})],
        "pretrain_n_epochs": [Interval(Integral, 0, None, closed="left")],
        "pretrain_learning_rate": LEARNING_RATE,
        "pretrain_weight_decay": WEIGHT_DECAY,
        "pretrain_milestones": [tuple, list],
    }
    _fitted_attributes = {
        **LayerSpheres._fitted_attributes,
        **MAP_ATTRIBUTES,
        "pretrain_loss_curve_": Fitted("losses"),
    }
    _accepts_rows = True
    _without_effect = MOCCA_RULES

    def __init__(
        self,
        *,
        layers=None,
        boundary="soft",
        nu=0.1,
        radius_update="batch",
        warm_up_n_epochs=10,
        distance="sqeuclidean",
        backbone=None,
        weights="imagenet",
        channels=None,
        embedding_dim=None,
        patch_size=None,
        n_crops=8,
        rotation_range=None,
        filter_init="random",
        normalization="auto",
        batch_norm="train",
        pretrain_n_epochs=150,
        pretrain_learning_rate=1e-3,
        pretrain_weight_decay=5e-7,
        pretrain_milestones=(50,),
        validation_fraction=0.0,
        n_iter_no_change=10,
        checkpoint_dir=None,
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
        self.backbone = backbone
        self.weights = weights
        self.channels = channels
        self.embedding_dim = embedding_dim
        self.patch_size = patch_size
        self.n_crops = n_crops
        self.rotation_range = rotation_range
        self.filter_init = filter_init
        self.normalization = normalization
        self.batch_norm = batch_norm
        self.pretrain_n_epochs = pretrain_n_epochs
        self.pretrain_learning_rate = pretrain_learning_rate
        self.pretrain_weight_decay = pretrain_weight_decay
        self.pretrain_milestones = pretrain_milestones
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

    def fit(self, X, y=None) -> "MOCCA":
        """Learn the spheres around normal samples.

        Parameters
        ----------
        X : images, rows or paths
            Normal samples only, at least two. An array (n, H, W), (n, H, W, C) or
            (n, C, H, W); flattened images (n, d) with `image_shape`; plain rows (n, d)
            without; a tensor (n, C, H, W); a list of paths or PIL images; or a
            data set of torch.
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
        return super().fit(X, y)

    def score_samples(self, X) -> np.ndarray:
        """Score samples: higher is more normal.

        Parameters
        ----------
        X : images, rows or paths
            As in `fit`.

        Returns
        -------
        scores : ndarray of shape (n_samples,), float64
            Negative squared distance to the center, for a soft boundary plus the squared
            radius, on average over the layers; without squares for
            ``distance="euclidean"``. With `patch_size`, the lowest score of its patches.

        Raises
        ------
        ValueError
            X is not usable, or has another shape than in `fit`.
        """
        return super().score_samples(X)

    def _check_maps(self):
        if self.patch_size is None:
            raise AttributeError(
                "A map needs patches. Got patch_size=None. Set patch_size=64, for example, "
                "and fit again."
            )

    def _patches(self):
        if self.patch_size is None:
            return super()._patches()
        if len(self.image_shape_) != 3:
            raise ValueError(
                f"patch_size={self.patch_size} cuts images into patches. Got "
                f"{_rows(self.image_shape_)}, or patch_size=None."
            )
        return PatchGrid(self.image_shape_, self.patch_size, self.n_crops)

    def _is_residual(self):
        """Return whether the encoder of images, or patches, is a residual one."""
        shape = self._patches().shape
        is_large = len(shape) == 3 and min(shape[:2]) >= _RESIDUAL_SIZE
        return is_large if self.backbone is None else self.backbone in _RESIDUAL

    def _is_other(self):
        """Return whether the encoder is torchvision's or the user's."""
        return self.backbone is not None and not (
            isinstance(self.backbone, str) and self.backbone in _OURS
        )

    def _check_parameters(self, n_samples):
        super()._check_parameters(n_samples)
        if self._is_other() and isinstance(self.backbone, str):
            check_backbone_images(self._patches().shape)
        if self.rotation_range is not None:
            check_rotations(self.rotation_range, self.image_shape_)

    def _vary(self, batch, generator):
        if self.rotation_range is None:
            return batch
        return random_rotations(batch, *self.rotation_range, generator)

    def _architecture(self):
        shape = self._patches().shape
        if self._is_other():
            return None
        if len(shape) == 1:
            if self.backbone is not None:
                raise ValueError(
                    f"backbone={self.backbone!r} is for images. Got "
                    f"{_rows(shape)}, or backbone=None."
                )
            return row_architecture(shape, self.channels, self.embedding_dim)
        if self._is_residual():
            selectors = self.backbone != "plain_residual"
            return residual_architecture(
                shape, self.channels, self.embedding_dim, selectors
            )
        return lenet_architecture(shape, self.channels, self.embedding_dim)

    def _default_layers(self, n_layers):
        return (
            _RESIDUAL_LAYERS if self._is_residual() else super()._default_layers(n_layers)
        )

    def _build_network(self, images=None):
        """Return normalization and encoder; `images` give the constants of the former."""
        if self._is_other():
            # A file has the weights of a fitted network, and `fit` gives images.
            encoder = self._own_encoder(None if images is None else self.weights)
        else:
            encoder = self._architecture().encoder()
        return nn.ModuleDict(
            {"normalize": self._build_normalization(images), "encoder": encoder}
        )

    def _build_normalization(self, images):
        shape, name = self.image_shape_, self.normalization
        if name == "auto":
            if self._is_other():
                name = None
            elif self._is_residual():
                name = "symmetric"
            else:
                name = "gcn" if has_contrast(shape) else None
        if name == "local_contrast":
            if len(shape) != 3:
                raise ValueError(
                    "normalization='local_contrast' is for images. Got "
                    f"{_rows(shape)}, or normalization='auto'."
                )
            return LocalContrastNormalization(shape[:2], min(shape[:2]) / 16)
        if name == "gcn":
            return contrast_normalization(images)
        return SymmetricRange() if name == "symmetric" else nn.Identity()

    def _pretrain(self, network, sample, batches, run):
        """Train the encoder as half of an autoencoder."""
        encoder = network.encoder
        if self.filter_init == "dictionary" and isinstance(encoder, LeNetEncoder):
            start_from_dictionary(encoder.filters, sample, batches, run.generator)
        self.pretrain_loss_curve_ = []
        if self.pretrain_n_epochs == 0 or self._is_other():
            return
        decoder = self._architecture().decoder().to(next(encoder.parameters()).device)
        with self._pretraining(run) as options:
            curve = pretrain(encoder, decoder, sample, batches, **options)
        self.pretrain_loss_curve_ = curve

    def _features_and_loss(self, network, batch, layers):
        if self.batch_norm == "frozen":
            freeze_batch_norm(network)
        return super()._features_and_loss(network, batch, layers)

    def _maps_and_scores(self, images, device, of_maps):
        distances, _ = self._distances(images, device)
        scores = self._layer_scores(distances).mean(axis=2)
        return self._maps_of(scores, of_maps), self._lowest(scores, images)

    def _map_maxima(self, distances):
        if self.patch_size is None:
            return None
        return self._maps_of(self._layer_scores(distances).mean(axis=2), map_maxima)

    def _maps_of(self, scores, of_maps):
        """Return a function of the maps that scores of patches (n, n_patches) give."""
        rows, columns = self._patches().starts
        size, grid = self.image_shape_[:2], (len(rows), len(columns))
        joined, n_images = [], int(self.batch_size)
        for start in range(0, len(scores), n_images):
            part = -scores[start : start + n_images].reshape(-1, *grid)
            maps = patch_scores_to_map(part, rows, columns, self.patch_size, size)
            joined.append(of_maps(torch.from_numpy(maps).float()).numpy())
        return np.concatenate(joined)


def _rows(shape):
    """Return how a message names rows, and what to do."""
    return f"rows of {shape[0]} values. Set image_shape=(H, W) if they are images"
