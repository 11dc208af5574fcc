"""Deep SVDD (Ruff et al. 2018): a sphere around normal images."""

import copy
import os
from collections import OrderedDict
from numbers import Integral, Real

import numpy as np
from torch import nn

from skocc._base.constraints import (
    CONTAMINATION_OR_AUTO,
    LEARNING_RATE,
    TRAINING_CONSTRAINTS,
    WEIGHT_DECAY,
)
from skocc._base.detector import Scores, check_finite
from skocc._base.embeddings import EmbeddingMixin
from skocc._base.fitted import TRAINED_ATTRIBUTES, Fitted
from skocc._base.private_sklearn import Interval, StrOptions
from skocc._base.trained import TrainedDetector
from skocc._engine.batches import ImageBatches
from skocc._engine.device import sample_without_values
from skocc._engine.training import milestone_schedule
from skocc._nets.architectures import lenet_architecture, row_architecture
from skocc._nets.backbones import BackboneEncoder
from skocc._nets.lenet import LeNetEncoder
from skocc._nets.normalization import ImageNetNormalization
from skocc._nets.own import channels_first
from skocc._ops.losses import squared_distance
from skocc._ops.tensors import tensor_view
from skocc._samples.validation import (
    check_backbone_channels,
    check_backbone_images,
    check_integers,
)
from skocc.estimators._pretraining import (
    contrast_normalization,
    has_contrast,
    pretrain,
    start_from_dictionary,
)
from skocc.estimators._spheres import (
    distances_to_centers,
    final_radius,
    initial_centers,
    make_boundary,
)
from skocc.estimators._without_effect import DEEP_SVDD_RULES


class DeepSVDD(EmbeddingMixin, TrainedDetector):
    """Deep one-class classifier: a sphere around normal images.

    A network maps images into a space in which the normal ones lie close to a fixed
    center; the distance to the center is the anomaly score. The network first learns to
    reconstruct the images, as the encoder of an autoencoder. The mean of its codes becomes
    the center, and training continues with the distance to it as the loss.

    The network is a LeNet without bias terms for images of any size, a fully connected
    network for plain rows, or, on request, a pretrained backbone of torchvision for larger
    images. Read more in the :ref:`User Guide <deep_svdd>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    boundary : {"hard", "soft"}, default="hard"
        "hard" pulls every image to the center. "soft" shrinks a sphere that may leave the
        fraction `nu` of the images outside, for training images that are not all normal.
    nu : float, default=0.1
        Fraction of training images outside the sphere, in (0, 1]. A hard boundary uses it
        for `radius_` only.
    radius_update : {"batch", "epoch"}, default="batch"
        Whether the radius of a soft boundary is updated after each batch or each epoch.
    warm_up_n_epochs : int, default=10
        Epochs before the first update of the radius of a soft boundary.
    backbone : str, torch.nn.Module, class or function, default=None
        Name of a classification network of torchvision, such as "resnet18", or "timm/" and
        that of one of timm, used without its classifier and trained in all its layers. Or a
        network of your own from images (b, C, H, W), or rows (b, d), to (b, features): a
        module, which is copied, or a class or function that builds one; see :ref:`own
        networks <own_networks>`. None: a LeNet, or a fully connected network for rows.
    weights : {"imagenet"}, name, path or None, default="imagenet"
        Initial weights of a backbone: torchvision's best ImageNet weights, which are its
        second ones ("IMAGENET1K_V2") for MobileNetV2 and its first for ResNet18; those of a
        name that it has, such as "IMAGENET1K_V1"; those of timm under the name; "offline",
        as of :class:`ResNetKNN`; the file of a state dict (``.pt``, ``.pth`` or
        ``.safetensors``); or random weights. A network of your own starts as it is unless
        this is a path.
    channels : tuple of int, default=None
        Channels of the stages of the LeNet, or units of the hidden layers for rows.
        None: by the image size, (8, 4) for 28 pixels and (32, 64, 128) for 32; (128, 64)
        for rows.
    embedding_dim : int, default=None
        Size of the embedding. None: 32, or 128 for LeNets of three stages and more. A
        backbone has its own.
    filter_init : {"dictionary", "random"}, default="dictionary"
        Initial filters of the first layer of a LeNet: a sparse dictionary of image patches,
        as in the original code, or random ones. See Notes for how much it matters.
    normalization : {"auto", "gcn", "imagenet"} or None, default="auto"
        "gcn" brings each image to the same contrast, and all of them to [0, 1] by two
        constants of the training images; "imagenet" normalizes the colors as in the
        training of torchvision's backbones. "auto" is "gcn" for a LeNet on images of at
        least 8 pixels a side, else None.
    pretrain_n_epochs : int, default=150
        Epochs of the autoencoder; 0 skips this stage, which a backbone never has.
    pretrain_learning_rate : float, default=1e-4
        Step size of Adam for the autoencoder.
    pretrain_weight_decay : float, default=5e-4
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
    weight_decay : float, default=1e-6
        L2 penalty of the weights.
    milestones : tuple of int, default=(50,)
        Epochs at which the step size is divided by ten.
    batch_size : int, default=200
        Images per batch, at least 2. Scores do not depend on it.
    contamination : float or "auto", default=0.1
        Fraction of the training images called anomalous, in (0, 0.5]; it sets `offset_`.
        "auto" puts the threshold at the sphere of radius `radius_`, which calls the
        fraction `nu` anomalous.
    image_shape : tuple (H, W) or (H, W, C), default=None
        Shape of the images in flattened rows, in pixels; one entry may be -1. None: X of
        shape (n, d) is plain rows.
    image_size : int or tuple (H, W), default=None
        Size in pixels that all images are resized to (bilinear, antialiased). None: the
        images have one size already.
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
        Whether a second `fit` continues from the fitted weights, with the same center.

    Attributes
    ----------
    network_ : torch.nn.Sequential
        Normalization and encoder, on the CPU. It maps (n, C, H, W) to (n, embedding_dim).
    center_ : ndarray of shape (embedding_dim,), float32
        Center of the sphere.
    radius_ : float
        Radius of the sphere: the quantile of the distances after training that leaves the
        fraction `nu` of the training images outside.
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
    collapsed_ : bool
        Whether the network gives nearly the same output for all training images.
    image_shape_ : tuple
        (H, W, C) of the images as the network sees them, (d,) for plain rows.
    n_features_in_ : int
        Values per sample of X.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where X was a table with names that are all text.

    See Also
    --------
    sklearn.svm.OneClassSVM : The kernel method this one is named after, for rows.
    sklearn.ensemble.IsolationForest : A fast baseline for rows.

    Notes
    -----
    The stages are those of [1]_: autoencoder, center, objective. Components of the center
    below 0.1 in size are moved to 0.1, keeping their sign. Layers have no bias and
    BatchNorm no scale or shift, because with either the network could map every image to
    the center.

    Where the original code in Theano [2]_ and its port to PyTorch [3]_ differ, the network
    (BatchNorm without scale and shift), decoder, decay and schedule are the port's. The
    start is the original's: first layer from a dictionary of patches, Glorot's
    distribution elsewhere. On MNIST the start makes the difference between the published
    accuracy and the port's, which is several points of AUROC lower for some digits. See
    the reproduction tables of the documentation.

    Further departures: a component of the center that is exactly 0 becomes 0.1, where both
    codes leave it at 0. The constants of contrast normalization are computed in `fit`,
    where the port has a table. A last batch of one image is left out of an epoch.
    ``radius_update="epoch"`` is closer to the alternating scheme of [1]_ than "batch",
    which is the port's; after training the radius is set once more, from all training
    images in eval mode, where the port keeps that of the last batch. Defaults are those of
    the port for MNIST; for CIFAR-10 it has
    ``pretrain_n_epochs=350, pretrain_milestones=(250,), pretrain_weight_decay=5e-7``.
    A report that fine-tunes backbones [4]_ used ``backbone="mobilenet_v2", n_epochs=5,
    weight_decay=0, milestones=(), batch_size=64`` and resized images.

    Time is linear in images and epochs. An epoch of 6,000 images of 28 pixels takes about
    a second on one core, and about three times that in the autoencoder. Memory is that of
    X and one batch; files are decoded a batch at a time.

    References
    ----------
    .. [1] L. Ruff et al., "Deep one-class classification", ICML 2018.
    .. [2] https://github.com/lukasruff/Deep-SVDD, commit f3bebc4.
    .. [3] https://github.com/lukasruff/Deep-SVDD-PyTorch, commit 1901612.
    .. [4] "Deep one-class classification for anomaly detection in image datasets", 2025,
       https://github.com/isilaltnsk/deep-occ-anomaly.

    Examples
    --------
    Zeros are normal, the other digits are not:

    >>> from sklearn.datasets import load_digits
    >>> from sklearn.metrics import roc_auc_score
    >>> from skocc import DeepSVDD
    >>> digits = load_digits()
    >>> images, is_zero = digits.images / 16, digits.target == 0
    >>> detector = DeepSVDD(
    ...     pretrain_n_epochs=20, n_epochs=20, learning_rate=1e-3, batch_size=20,
    ...     random_state=0,
    ... )
    >>> _ = detector.fit(images[:900][is_zero[:900]])
    >>> scores = detector.score_samples(images[900:])
    >>> bool(roc_auc_score(is_zero[900:], scores) > 0.95)  # 0.998 +- 0.002, ten seeds
    True
    """

    _parameter_constraints = {
        **TRAINING_CONSTRAINTS,
        "contamination": CONTAMINATION_OR_AUTO,
        "boundary": [StrOptions({"hard", "soft"})],
        "nu": [Interval(Real, 0, 1, closed="right")],
        "radius_update": [StrOptions({"batch", "epoch"})],
        "warm_up_n_epochs": [Interval(Integral, 0, None, closed="left")],
        "backbone": [None, str, callable],
        "weights": [None, str, os.PathLike],
        "channels": [None, tuple, list],
        "embedding_dim": [None, Interval(Integral, 1, None, closed="left")],
        "filter_init": [StrOptions({"dictionary", "random"})],
        "normalization": [None, StrOptions({"auto", "gcn", "imagenet"})],
        "pretrain_n_epochs": [Interval(Integral, 0, None, closed="left")],
        "pretrain_learning_rate": LEARNING_RATE,
        "pretrain_weight_decay": WEIGHT_DECAY,
        "pretrain_milestones": [tuple, list],
        "milestones": [tuple, list],
    }
    _fitted_attributes = {
        **TRAINED_ATTRIBUTES,
        "center_": Fitted("float32", ("d",)),
        "radius_": Fitted("float"),
        "pretrain_loss_curve_": Fitted("losses"),
    }

    def __init__(
        self,
        *,
        boundary="hard",
        nu=0.1,
        radius_update="batch",
        warm_up_n_epochs=10,
        backbone=None,
        weights="imagenet",
        channels=None,
        embedding_dim=None,
        filter_init="dictionary",
        normalization="auto",
        pretrain_n_epochs=150,
        pretrain_learning_rate=1e-4,
        pretrain_weight_decay=5e-4,
        pretrain_milestones=(50,),
        validation_fraction=0.0,
        n_iter_no_change=10,
        checkpoint_dir=None,
        n_epochs=150,
        learning_rate=1e-4,
        weight_decay=1e-6,
        milestones=(50,),
        batch_size=200,
        contamination=0.1,
        image_shape=None,
        image_size=None,
        intensity_range=None,
        device=None,
        random_state=None,
        verbose=0,
        warm_start=False,
    ):
        self.boundary = boundary
        self.nu = nu
        self.radius_update = radius_update
        self.warm_up_n_epochs = warm_up_n_epochs
        self.backbone = backbone
        self.weights = weights
        self.channels = channels
        self.embedding_dim = embedding_dim
        self.filter_init = filter_init
        self.normalization = normalization
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

    _accepts_rows = True
    _without_effect = DEEP_SVDD_RULES

    def fit(self, X, y=None) -> "DeepSVDD":
        """Learn the sphere around normal images.

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
        self : DeepSVDD
            The fitted estimator.

        Raises
        ------
        ValueError
            X or a parameter is not usable; the message says what to do.
        FloatingPointError
            The loss is not finite.
        """
        return super().fit(X, y)

    def score_samples(self, X) -> np.ndarray:
        """Score images: higher is more normal.

        Parameters
        ----------
        X : images, rows or paths
            As in `fit`.

        Returns
        -------
        scores : ndarray of shape (n_samples,), float64
            Negative squared distance to the center; for a soft boundary plus the squared
            radius, so that 0 is the boundary.

        Raises
        ------
        ValueError
            X is not usable, or has another shape than in `fit`.
        """
        return super().score_samples(X)

    def _check_parameters(self, n_samples):
        for name in ("channels", "milestones", "pretrain_milestones"):
            check_integers(name, getattr(self, name))

    def _fit(self, images, run):
        trained, held_out = self._hold_out(images, run)
        batches = self._batches(images, run.device, generator=run.generator)
        if run.is_warm:
            network = copy.deepcopy(self.network_).to(run.device)
            center = tensor_view(self.center_).to(run.device)
        else:
            network = self._build_network(self.weights, images).to(run.device)
            self._learn_filters(network, batches, run.generator)
            self.pretrain_loss_curve_ = self._pretrain(network, batches, run)
            center = self._initial_center(network, images, run.device)
        self.center_ = center.cpu().numpy()
        batches = self._batches(trained, run.device, generator=run.generator)
        boundary = self._make_boundary(len(batches), run)
        self._train_network(
            network,
            lambda batch: boundary(squared_distance(network(batch), center)),
            batches,
            images,
            run,
            held_out=held_out and self._batches(held_out, run.device),
            schedule=milestone_schedule(self.milestones),
            loss_state={"boundary": boundary},
        )
        self._keep(network, images, run)

    def _keep(self, network, images, run):
        self.network_ = network.cpu().eval()
        distances, spread = self._distances(images, run.device)
        check_finite(distances)
        self.radius_ = final_radius(distances, self.nu)
        run.scores = Scores(self._scores_from(distances), spread, distances)

    def _score(self, images, device):
        distances, spread = self._distances(images, device)
        return Scores(self._scores_from(distances), spread, distances)

    def _embeddings(self, network, batch):
        return network(batch)

    def _batches(self, images, device, **options):
        return ImageBatches(images, self.batch_size, device=device, **options)

    def _build_network(self, weights, images=None):
        """Return normalization and encoder; `images` give the constants of the former."""
        normalization = self.normalization
        if normalization == "auto":
            is_lenet = self.backbone is None and has_contrast(self.image_shape_)
            normalization = "gcn" if is_lenet else None
        if normalization == "imagenet" and self.backbone is None:
            raise ValueError(
                "normalization='imagenet' is for networks trained on ImageNet. Got "
                "backbone=None. Set backbone, or normalization='gcn'."
            )
        encoder = self._build_encoder(weights, normalization)
        if normalization == "gcn":
            normalize = contrast_normalization(images)
        elif normalization == "imagenet":
            normalize = ImageNetNormalization()
        else:
            normalize = nn.Identity()
        return nn.Sequential(OrderedDict(normalize=normalize, encoder=encoder))

    def _empty_network(self, attribute):
        """Return the module of a fitted attribute before its weights are loaded."""
        return self._build_network(weights=None)

    def _check_loaded(self):
        return {"d": self.network_(sample_without_values(self.image_shape_)).shape[1]}

    def _build_encoder(self, weights, normalization):
        if self.backbone is None:
            return self._architecture().encoder()
        shape = self.image_shape_
        if isinstance(self.backbone, str):
            check_backbone_images(shape)
        elif normalization == "imagenet":
            check_backbone_channels(shape, normalization=normalization)
            shape = (*shape[:2], 3)  # to which gray is normalized
        encoder = BackboneEncoder(self.backbone, weights)
        encoder.adapt(channels_first(shape))
        return encoder

    def _architecture(self):
        build = row_architecture if len(self.image_shape_) == 1 else lenet_architecture
        return build(self.image_shape_, self.channels, self.embedding_dim)

    def _learn_filters(self, network, batches, generator):
        """Start the first layer of a LeNet from a dictionary of image patches."""
        encoder = network.encoder
        if self.filter_init == "random" or not isinstance(encoder, LeNetEncoder):
            return
        start_from_dictionary(encoder.filters, network.normalize, batches, generator)

    def _pretrain(self, network, batches, run):
        """Train the encoder as half of an autoencoder; return the loss curve."""
        if self.pretrain_n_epochs == 0 or self.backbone is not None:
            return []
        decoder = self._architecture().decoder().to(next(network.parameters()).device)
        with self._pretraining(run) as options:
            return pretrain(network.encoder, decoder, network.normalize, batches, **options)

    def _initial_center(self, network, images, device):
        batches = self._batches(images, device)
        (center,) = initial_centers(network, lambda x: [network(x)], batches)
        return center.to(device)

    def _make_boundary(self, n_batches, run):
        """Return the loss of distances, which keeps the radius of a soft boundary."""
        return make_boundary(
            self.boundary,
            self.nu,
            n_batches=n_batches,
            warm_up_n_epochs=self.warm_up_n_epochs,
            update=self.radius_update,
            n_epochs_done=len(self.loss_curve_) if run.is_warm else 0,
            radius=self.radius_ if run.is_warm else 0.0,
            device=run.device,
        )

    def _distances(self, images, device):
        """Return squared distances (n,), and the spread of the embeddings by their size."""
        network = self._on_device(self.network_, device)
        dtype = self._dtype(device)
        center = tensor_view(self.center_).to(device, dtype)
        batches = self._batches(images, device)
        distances, (spread,) = distances_to_centers(
            network, lambda batch: [network(batch.to(dtype))], batches, [center]
        )
        return distances[:, 0], spread

    def _scores_from(self, distances):
        scores = -distances.astype(np.float64)
        return scores + self.radius_**2 if self.boundary == "soft" else scores

    def _auto_offset(self, train_scores):
        # Soft scores are zero on the boundary; hard ones have no boundary but this one.
        return 0.0 if self.boundary == "soft" else -(self.radius_**2)
