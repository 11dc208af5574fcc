"""Data splitting: a classifier of typical against atypical normal images."""

import copy
import math
import os
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import nn

from skocc._base.constraints import (
    CONTAMINATION_OR_AUTO,
    LEARNING_RATE,
    TRAINING_CONSTRAINTS,
    WEIGHT_DECAY,
)
from skocc._base.detector import BaseDetector, Scores
from skocc._base.fitted import DETECTOR_ATTRIBUTES, Fitted
from skocc._base.private_sklearn import Interval, StrOptions
from skocc._engine.ambient import isolated
from skocc._engine.batches import ImageBatches, InTurn, Subset
from skocc._engine.device import sent_to
from skocc._engine.inference import map_batches
from skocc._engine.training import Convergence, adam, train
from skocc._nets.alexnet import (
    ALEXNET_SIZE,
    AlexNetAutoencoder,
    CompactAlexNet,
    alexnet_code_size,
    alexnet_widths,
)
from skocc._nets.architectures import ROW_DIM, ROW_WIDTHS
from skocc._nets.backbones import BackboneEncoder, count_features
from skocc._nets.distance import LearntDistance
from skocc._nets.mlp import DenseAutoencoder, dense_layers, initialize_glorot
from skocc._nets.normalization import freeze_batch_norm
from skocc._ops.losses import (
    SSIM_WINDOW,
    closeness_loss,
    dispersion_loss,
    intra_class_loss,
    structural_similarity,
)
from skocc._samples.validation import check_integers, warn_about_range
from skocc.estimators._pretraining import pretrain


class DataSplitOCC(BaseDetector):
    r"""Classifier of typical against atypical normal images: one class, split in two.

    An autoencoder learns to reconstruct normal images. Those that it reconstructs worst
    are atypical, and stand in for the anomalies that nobody has: a network learns to tell
    them from the typical ones, with the features of typical images close to each other and
    those of atypical ones far apart. An anomaly is, so the assumption, more like an
    atypical image than like a typical one. Any network will do. Read more in the
    :ref:`User Guide <data_split_occ>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    atypical_fraction : float, default=0.1
        Fraction of the training images that are atypical, in (0, 0.5]; rounded up, at
        least two images.
    objective : {"constrained", "split", "naive"}, default="constrained"
        "constrained" is the method. The others are the paper's controls: "split" trains
        the classifier without constraints on distances, "naive" without a split, with all
        images typical, so that nothing keeps it from a constant.
    similarity : {"auto", "ssim", "mse"}, default="auto"
        Of images to their reconstruction: structural similarity, or the negative of the
        mean squared error. "auto" is "ssim" for images of at least 11 pixels a side, else
        "mse".
    difference : {"abs", "signed"}, default="abs"
        Of two feature vectors, as the distance is made from it. "signed" is the paper to
        the letter, and cannot satisfy both constraints, see Notes.
    balanced : bool, default=False
        Whether the classifier sees atypical images as often as typical ones, by repeating
        them. False: as often as they are.
    backbone : str or torch.nn.Module, default=None
        Feature extractor. A classification network of torchvision by name, without its
        last linear layer, or a module, copied, that maps images (b, C, H, W), or rows
        (b, d), to vectors. None: AlexNet, of which torchvision's is taken from 63 pixels a
        side on and a compact one for smaller images; a fully connected net for rows.
    weights : None, "imagenet", str or path, default=None
        Of the backbone at the start: random, as in the paper; torchvision's best weights,
        or those of a name that it has, such as "IMAGENET1K_V1", downloaded once; or the
        file of a state dict.
    widths : tuple of int, default=None
        Channels of the five convolutions of the compact AlexNet, and of the autoencoder;
        or features of the hidden layers for rows. None: (64, 192, 384, 256, 256), fewer
        for images below 16 pixels; (128, 64).
    latent_dim : int, default=None
        Features that distances are taken of, with the compact AlexNet and for rows. None:
        twice the channels of the last convolution, 512; 32 for rows.
    dropout : float, default=0.0
        Share of the inputs of each linear layer of these two that is left out in training,
        in [0, 1). The original AlexNet has 0.5.
    batch_norm : bool, default=None
        Whether BatchNorm without weights follows each convolution of the compact AlexNet.
        It is trained with the statistics of each batch, and scores with running ones, so
        that a score does not depend on what else is in X. None: for grey images.
    freeze_bn : bool, default=True
        Whether BatchNorm of a `backbone` keeps the statistics it comes with. Batches of
        typical and of atypical images have different ones.
    code_size : int, default=None
        Numbers in the autoencoder's code. None: 2 for grey images from 24 to 62 pixels a
        side; else 16 for grey images, 32 for others, half of that below 16 pixels a side,
        four times that from 63 on; for rows of d values d / 4, at most 32.
    spatial_code : bool, default=False
        Whether the code of an image is a map of `code_size` channels, an eighth of its
        height and width, a thirty-second from 63 pixels a side on. None then is 4 for grey
        images, 8 for others, sixteen times that from 63 pixels on. Such an autoencoder
        joins pieces of images, and so reconstructs anomalies better than it should.
    pretrain_n_epochs : int, default=50
        Epochs of the autoencoder.
    pretrain_learning_rate : float, default=1e-3
        Step size of Adam for the autoencoder.
    pretrain_weight_decay : float, default=1e-6
        L2 penalty of the weights of the autoencoder.
    tol : float or None, default=1e-3
        Training ends when the mean of each of the losses has changed by less from epoch to
        epoch, `n_iter_no_change` times in a row. None: it does not end early.
    n_iter_no_change : int, default=5
        See `tol`.
    weight_average : float, default=None
        Decay, in (0, 1), of an exponential average over the classifier's steps of all its
        weights and of BatchNorm's statistics, which then are those of `network_`: 0.95 is
        over some twenty steps. None: those of the last step.
    mixed_precision : bool, default=False
        Whether both trainings compute in bfloat16 where torch holds that to be safe. On
        processors made for it this takes less than half the time, on others more. Scores
        are computed in full precision.
    n_epochs : int, default=50
        Epochs of the classifier at most. In one, it takes all typical images and as many
        batches of the others.
    learning_rate : float, default=1e-4
        Step size of Adam for the classifier.
    weight_decay : float, default=1e-6
        L2 penalty of the weights of convolutions.
    batch_size : int, default=64
        Images per batch, at least 2. Scores do not depend on it.
    contamination : float or "auto", default=0.1
        Fraction of the training images called anomalous, in (0, 0.5]; it sets `offset_`.
        "auto" puts the threshold at a probability of one half.
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
        Whether a progress bar is shown.
    warm_start : bool, default=False
        Whether a second `fit` goes on from the fitted weights, with a new optimizer and the
        autoencoder as it is. `objective` may have changed.

    Attributes
    ----------
    network_ : torch.nn.ModuleDict
        On the CPU: "extractor" and "classifier", and "distance" unless `objective` leaves
        it out. Scores need the first two.
    autoencoder_ : torch.nn.Module or None
        On the CPU, by which images were split; None for ``objective="naive"``.
    code_size_ : int or None
        Numbers in its code, or channels of a spatial one; None without an autoencoder.
    similarity_ : ndarray of shape (n_samples,), float64, or None
        Of the training images to their reconstructions: structural similarity, at most 1,
        or the negative of the mean squared error.
    typical_ : ndarray of shape (n_samples,), bool
        Which training images are typical.
    loss_curve_ : list of float
        Mean of the losses per epoch of the classifier.
    step_loss_curves_ : list of list of float
        Closeness, intra-class and dispersion loss per epoch of the last `fit`; intra-class
        loss alone for the controls.
    pretrain_loss_curve_ : list of float
        Mean loss per epoch of the autoencoder: squared error summed over an image.
    offset_ : float
        Threshold: ``decision_function(X) = score_samples(X) - offset_``.
    train_scores_ : ndarray of shape (n_samples,), float64
        Scores of the training images.
    collapsed_ : bool
        Whether features or scores are nearly the same for all training images.
    image_shape_ : tuple
        (H, W, C) of the images as the network sees them, or (d,) for plain rows.
    n_features_in_ : int
        Values per sample of X.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where X was a table with names that are all text.

    See Also
    --------
    DeepSVDD : Draws all normal images to one point.
    ConvAE : With ``error="ssim"``, the reconstruction alone as the score, with heat maps.

    Notes
    -----
    With features :math:`z`, the distance :math:`\sigma(w^\top |z_i - z_j| + b)` and the
    classifier's probability :math:`\hat y` of being atypical, three losses are minimised in
    turn, a step of Adam each [1]_: for a batch of typical images the closeness loss
    :math:`-\mathrm{mean} \log(1 - \mathrm{dist}(z_i, z_j))`, for a mixed batch the binary
    cross-entropy of :math:`\hat y`, for a batch of atypical images the dispersion loss
    :math:`-\mathrm{mean} \log \mathrm{dist}(z_i, z_j)`. The partner j of each image i is
    another of its batch, at random. The score is the logit of :math:`1 - \hat y`.

    The paper's subtraction has a sign. The logits u of (i, j) and (j, i) then add up to 2b
    whatever the features are, so that the two losses on distances add up to
    :math:`2 \log 2` at least: one can fall only where the other rises. The default takes
    absolute differences, which is a distance that is symmetric and can satisfy both.
    The paper calls the output the probability of being normal in one place, and labels
    atypical images 1 in another; here as there atypical is 1, and scores have the sign of
    all scores of this library.

    The paper leaves most numbers open. Chosen here: single-scale structural similarity
    (its reference is for a multi-scale one, which needs larger images), Adam, step sizes,
    epochs, the rule for the end, a compact AlexNet of 512 features for images that
    torchvision's is too large for, BatchNorm in it, for grey images, in place of AlexNet's
    normalisation of responses, no dropout. It has 4,808,897 weights for 28 x 28 grey images
    and 4,812,097 for 32 x 32 in colour.

    Of the autoencoder it says that one convolution is in place of all linear layers of
    AlexNet. Here that is as large as the map before it, as in AlexNet made convolutional,
    and the code a vector: 4,912,515 weights for 28 x 28 grey images, 5,164,707 for 32 x 32
    in colour, and with ``spatial_code=True``, where it is one of 3x3, 4,914,565 and
    4,939,403. What an autoencoder leaves out is what atypical means, and the better one
    does not make the better split: with a code of 16 numbers in place of 2 the images of a
    digit that are reconstructed worst are those with thin strokes, and bold digits of other
    classes are typical. A split by an autoencoder that reconstructs everything well, or
    nothing, is one at random: look at `similarity_`.

    Values must lie in [0, 1] (uint8 and uint16 are brought there, other integers are taken
    as they are) for images, because the autoencoder ends in a sigmoid; others raise a
    warning. Nothing is normalised.

    Time is linear in images and epochs: three passes through the network for each typical
    image and epoch. For images of 28 x 28 pixels an epoch of 1,000 images takes some 18
    seconds on one core, 10 in the autoencoder; about 8 and 4 with ``mixed_precision=True``
    on a processor with instructions for bfloat16. A GPU is the place for the defaults.

    References
    ----------
    .. [1] P. Schlachter, Y. Liao, B. Yang, "Deep one-class classification using data
       splitting", 2019, arXiv:1902.01194v1.

    Examples
    --------
    Zeros are normal, the other digits are not:

    >>> from sklearn.datasets import load_digits
    >>> from sklearn.metrics import roc_auc_score
    >>> from skocc import DataSplitOCC
    >>> digits = load_digits()
    >>> images, is_zero = digits.images / 16, digits.target == 0
    >>> detector = DataSplitOCC(
    ...     atypical_fraction=0.3, code_size=2, pretrain_n_epochs=20, n_epochs=20,
    ...     learning_rate=1e-3, random_state=0,
    ... )
    >>> _ = detector.fit(images[:900][is_zero[:900]])
    >>> scores = detector.score_samples(images[900:])
    >>> bool(roc_auc_score(is_zero[900:], scores) > 0.7)  # 0.918 +- 0.067, ten seeds
    True

    Three tenths of the 89 training images, rounded up, were atypical:

    >>> int((~detector.typical_).sum())
    27
    """

    _parameter_constraints = {
        **TRAINING_CONSTRAINTS,
        "contamination": CONTAMINATION_OR_AUTO,
        "atypical_fraction": [Interval(Real, 0, 0.5, closed="right")],
        "objective": [StrOptions({"constrained", "split", "naive"})],
        "similarity": [StrOptions({"auto", "ssim", "mse"})],
        "difference": [StrOptions({"abs", "signed"})],
        "balanced": ["boolean"],
        "backbone": [None, str, nn.Module],
        "weights": [None, str, os.PathLike],
        "widths": [None, tuple, list],
        "latent_dim": [None, Interval(Integral, 1, None, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "batch_norm": ["boolean", None],
        "freeze_bn": ["boolean"],
        "code_size": [None, Interval(Integral, 1, None, closed="left")],
        "spatial_code": ["boolean"],
        "pretrain_n_epochs": [Interval(Integral, 0, None, closed="left")],
        "pretrain_learning_rate": LEARNING_RATE,
        "pretrain_weight_decay": WEIGHT_DECAY,
        "tol": [None, Interval(Real, 0, None, closed="left")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "weight_average": [None, Interval(Real, 0, 1, closed="neither")],
        "mixed_precision": ["boolean"],
    }
    _fitted_attributes = {
        **DETECTOR_ATTRIBUTES,
        "network_": Fitted("network"),
        "autoencoder_": Fitted("network", nullable=True),
        "code_size_": Fitted("count", optional=True, nullable=True),  # not in first files
        "similarity_": Fitted("float64", ("n",), finite=False, nullable=True),
        "typical_": Fitted("bool", ("n",)),
        "loss_curve_": Fitted("losses"),
        "step_loss_curves_": Fitted("loss lists"),
        "pretrain_loss_curve_": Fitted("losses", optional=True),
    }

    def __init__(
        self,
        *,
        atypical_fraction=0.1,
        objective="constrained",
        similarity="auto",
        difference="abs",
        balanced=False,
        backbone=None,
        weights=None,
        widths=None,
        latent_dim=None,
        dropout=0.0,
        batch_norm=None,
        freeze_bn=True,
        code_size=None,
        spatial_code=False,
        pretrain_n_epochs=50,
        pretrain_learning_rate=1e-3,
        pretrain_weight_decay=1e-6,
        tol=1e-3,
        n_iter_no_change=5,
        weight_average=None,
        mixed_precision=False,
        n_epochs=50,
        learning_rate=1e-4,
        weight_decay=1e-6,
        batch_size=64,
        contamination=0.1,
        image_shape=None,
        image_size=None,
        intensity_range=None,
        device=None,
        random_state=None,
        verbose=0,
        warm_start=False,
    ):
        self.atypical_fraction = atypical_fraction
        self.objective = objective
        self.similarity = similarity
        self.difference = difference
        self.balanced = balanced
        self.backbone = backbone
        self.weights = weights
        self.widths = widths
        self.latent_dim = latent_dim
        self.dropout = dropout
        self.batch_norm = batch_norm
        self.freeze_bn = freeze_bn
        self.code_size = code_size
        self.spatial_code = spatial_code
        self.pretrain_n_epochs = pretrain_n_epochs
        self.pretrain_learning_rate = pretrain_learning_rate
        self.pretrain_weight_decay = pretrain_weight_decay
        self.tol = tol
        self.n_iter_no_change = n_iter_no_change
        self.weight_average = weight_average
        self.mixed_precision = mixed_precision
        self.n_epochs = n_epochs
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
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
    # Two kinds of images, and pairs of each.
    _min_samples = 4

    def fit(self, X, y=None):
        """Split normal images into typical and atypical ones, and learn to tell which.

        Parameters
        ----------
        X : images, rows or paths
            Normal samples only, at least four. An array (n, H, W), (n, H, W, C) or
            (n, C, H, W), with values in [0, 1] or uint8; flattened images (n, d) with
            `image_shape`; plain rows (n, d) without; a tensor (n, C, H, W); a list of
            paths or PIL images; or a data set of torch.
        y : Ignored
            Present for scikit-learn. Labels of anomalies raise a warning, because they are
            being trained on.

        Returns
        -------
        self : DataSplitOCC
            The fitted estimator.

        Raises
        ------
        ValueError
            X or a parameter is not usable; the message says what to do.
        ImportError
            A backbone needs torchvision, which cannot be imported.
        FloatingPointError
            The loss is not finite.
        """
        return super().fit(X, y)

    def score_samples(self, X):
        """Score images: higher is more normal.

        Parameters
        ----------
        X : images, rows or paths
            As in `fit`.

        Returns
        -------
        scores : ndarray of shape (n_samples,), float64
            Logit of the probability that the sample is typical of the normal ones, which
            :meth:`normal_probability` gives. Logits have the same order, and still differ
            where probabilities are rounded to 1.

        Raises
        ------
        ValueError
            X is not usable, or has another shape than in `fit`.
        """
        return super().score_samples(X)

    @isolated
    def normal_probability(self, X):
        """Probability that images are typical of the normal ones, by the classifier.

        Parameters
        ----------
        X : images, rows or paths
            As in `fit`.

        Returns
        -------
        probabilities : ndarray of shape (n_samples,), float64
            In [0, 1], the logistic function of :meth:`score_samples`. It is calibrated, at
            best, for telling typical from atypical training images, not for anomalies,
            of which none has been seen.

        Raises
        ------
        ValueError
            X is not usable, or has another shape than in `fit`.
        """
        return torch.sigmoid(torch.from_numpy(self.score_samples(X))).numpy()

    @isolated
    def reconstruction_similarity(self, X):
        """Similarity of images to what the autoencoder makes of them.

        It is what the training images were split by, and a score of its own: the
        error-based control of the paper.

        Parameters
        ----------
        X : images, rows or paths
            As in `fit`.

        Returns
        -------
        similarities : ndarray of shape (n_samples,), float64
            Structural similarity, at most 1, or the negative of the mean squared error;
            higher is more similar.

        Raises
        ------
        ValueError
            X is not usable, has another shape than in `fit`, or there is no autoencoder,
            because of ``objective="naive"``.
        """
        check_is_fitted(self)
        if self.autoencoder_ is None:
            raise ValueError(
                "reconstruction_similarity needs the autoencoder that images are split by. "
                "Got a DataSplitOCC fitted with objective='naive', which splits nothing. "
                "Fit with objective='split' or 'constrained'."
            )
        images = self._read(X, reset=False)
        return self._similarities(self.autoencoder_, images, self._scoring_device())

    def _fit(self, images, run):
        if self.objective != "naive":  # which has no autoencoder
            warn_about_range(images)
        check_integers("widths", self.widths)
        self._check_similarity()
        # A backbone that does not fit says so before anything is trained.
        network = (
            copy.deepcopy(self.network_)
            if run.is_warm
            else self._build_network(self.weights)
        )
        if self.objective == "naive":
            autoencoder = similarities = self.code_size_ = None
            typical = np.ones(len(images), dtype=bool)
        else:
            autoencoder = self._train_autoencoder(images, run)
            similarities = self._similarities(autoencoder, images, run.device)
            typical = split_typical(similarities, self.atypical_fraction)
        # Drawn last, so that a seed means one split, whatever the objective.
        network = self._with_distance(network).to(run.device)
        history = self._train(network, images, typical, run)
        self.network_ = network.cpu().eval()
        self.autoencoder_ = autoencoder
        self.similarity_, self.typical_ = similarities, typical
        self._add_curves(run, loss_curve_=history.loss_curve)
        self.step_loss_curves_ = history.kind_loss_curves

    def _check_similarity(self):
        if self.similarity == "ssim" and not self._has_windows():
            raise ValueError(
                f"similarity='ssim' needs images of at least {SSIM_WINDOW} x {SSIM_WINDOW} "
                f"pixels. Got samples of shape {self.image_shape_}. Set similarity='auto', "
                "or image_size to enlarge them."
            )

    def _has_windows(self):
        """Return whether the samples are images that hold a window of the similarity."""
        shape = self.image_shape_
        return len(shape) == 3 and min(shape[:2]) >= SSIM_WINDOW

    def _empty_network(self, attribute):
        """Return the module of a fitted attribute before its weights are loaded."""
        if not hasattr(self, "code_size_"):
            self._restore_first_defaults()
        if attribute == "autoencoder_":
            return self._build_autoencoder()
        return self._with_distance(self._build_network(weights=None))

    def _check_loaded(self):
        self._check_similarity()
        if len(self.image_shape_) == 4:
            raise ValueError(f"image_shape_={self.image_shape_} is that of clips")
        return {}

    def _restore_first_defaults(self):
        """Give parameters that are new, or have a new default, the value of first files."""
        self.batch_norm = False
        self.code_size_ = None if hasattr(self, "autoencoder_") else self._get_code_size()
        if self.code_size_ == 2 and self.code_size is None and len(self.image_shape_) == 3:
            self.code_size = self.code_size_ = 16

    def _build_network(self, weights):
        """Return feature extractor and classifier."""
        extractor, n_features = self._build_extractor(weights)
        classifier = initialize_glorot(nn.Linear(n_features, 1))
        return nn.ModuleDict({"extractor": extractor, "classifier": classifier})

    def _with_distance(self, network):
        """Return the network with the distance if the objective needs it, else without."""
        if self.objective == "constrained":
            if "distance" not in network:
                n_features = network["classifier"].in_features
                network["distance"] = LearntDistance(n_features, self.difference)
            network["distance"].difference = self.difference
        elif "distance" in network:  # of an earlier fit with another objective
            del network["distance"]
        return network

    def _build_extractor(self, weights):
        """Return the feature extractor, and how many features it has."""
        shape, backbone = self.image_shape_, self.backbone
        in_shape = (shape[2], *shape[:2]) if len(shape) == 3 else shape
        if backbone is None and len(shape) == 1:
            n_features = int(self.latent_dim or ROW_DIM)
            sizes = (*shape, *self._row_widths(), n_features)
            layers = dense_layers(sizes, self.dropout)
            return initialize_glorot(nn.Sequential(*layers)), n_features
        is_large = min(in_shape[1:], default=0) >= ALEXNET_SIZE
        if backbone is None:
            backbone = "alexnet" if is_large and shape[2] in (1, 3) else "compact"
        if isinstance(backbone, str) and len(shape) == 1:
            raise ValueError(
                f"backbone={backbone!r} is for images. Got rows of {shape[0]} values. Set "
                "image_shape=(H, W) if they are flattened images, pass a module that takes "
                "rows, or leave backbone at None."
            )
        if backbone == "compact":
            widths = self._image_widths()
            n_features = int(self.latent_dim or 2 * widths[-1])
            # Of colour, BatchNorm has not been seen to make more.
            batch_norm = shape[2] == 1 if self.batch_norm is None else self.batch_norm
            extractor = CompactAlexNet(
                in_shape, n_features, widths, self.dropout, batch_norm
            )
            return extractor, n_features
        extractor = BackboneEncoder(
            backbone, weights, hidden=True, n_channels=3 if isinstance(backbone, str) else 1
        )
        try:
            return extractor, count_features(extractor, in_shape)
        except ValueError:
            if len(shape) == 1 or shape[2] != 1 or isinstance(backbone, str):
                raise
        # A module that does not take grey images takes them in colour.
        extractor.n_channels = 3
        return extractor, count_features(extractor, in_shape)

    def _row_widths(self):
        return tuple(self.widths or ROW_WIDTHS)

    def _image_widths(self):
        widths = tuple(self.widths or alexnet_widths(*self.image_shape_[:2]))
        if len(widths) != 5:
            raise ValueError(
                "widths are the channels of five convolutions for images. Got "
                f"{self.widths!r}. Set for example widths=(16, 48, 96, 64, 64)."
            )
        return widths

    def _get_code_size(self):
        shape = self.image_shape_
        if self.code_size is not None:
            return int(self.code_size)  # True is a number too
        if len(shape) == 1:
            return max(1, min(32, shape[0] // 4))
        return alexnet_code_size(shape[2], *shape[:2], self.spatial_code)

    def _build_autoencoder(self):
        shape = self.image_shape_
        if len(shape) == 1:
            return DenseAutoencoder(shape[0], self._row_widths(), self.code_size_)
        in_shape = (shape[2], *shape[:2])
        return AlexNetAutoencoder(
            in_shape, self.code_size_, self._image_widths(), self.spatial_code
        )

    def _train_autoencoder(self, images, run):
        """Return a trained autoencoder, that of an earlier fit where there is one."""
        if run.is_warm and self.autoencoder_ is not None:
            return self.autoencoder_
        self.code_size_ = self._get_code_size()
        autoencoder = self._build_autoencoder().to(run.device)
        self.pretrain_loss_curve_ = pretrain(
            autoencoder.encoder,
            autoencoder.decoder,
            nn.Identity(),
            ImageBatches(
                images, self.batch_size, device=run.device, generator=run.generator
            ),
            n_epochs=self.pretrain_n_epochs,
            learning_rate=self.pretrain_learning_rate,
            weight_decay=self.pretrain_weight_decay,
            milestones=(),
            mixed_precision=self.mixed_precision,
            verbose=self.verbose,
            stage=f"{type(self).__name__}: autoencoder",
        )
        return autoencoder.cpu().eval()

    def _similarities(self, autoencoder, images, device):
        """Return the similarity of each image to its reconstruction."""
        autoencoder, dtype = self._on_device(autoencoder, device), self._dtype(device)
        # "ssim" without windows has been refused.
        use_ssim = self.similarity != "mse" and self._has_windows()

        def similarities_of(batch):
            batch = batch.to(dtype)
            reconstruction = autoencoder(batch)
            if use_ssim:
                return structural_similarity(reconstruction, batch)
            return -(reconstruction - batch).square().flatten(1).mean(dim=1)

        batches = ImageBatches(images, self.batch_size, device=device)
        return map_batches(autoencoder, batches, similarities_of).astype(np.float64)

    def _train(self, network, images, typical, run):
        """Minimise the losses of the objective in turn."""
        kinds = [self._mixed_batches(images, typical, run)]
        losses = [lambda batch: _intra_class(network, batch)]
        if self.objective == "constrained":

            def pair_batches(is_kind):
                subset = Subset(images, np.flatnonzero(is_kind))
                return ImageBatches(
                    subset, self.batch_size, device=run.device, generator=run.generator
                )

            kinds = [pair_batches(typical), *kinds, pair_batches(~typical)]
            losses = [
                lambda batch: closeness_loss(_distances(network, batch, run.generator)),
                *losses,
                lambda batch: dispersion_loss(_distances(network, batch, run.generator)),
            ]

        def loss_fn(turn):
            kind, batch = turn
            if self.freeze_bn and self.backbone is not None:
                freeze_batch_norm(network)
            return losses[kind](batch)

        return train(
            network,
            loss_fn,
            InTurn(*kinds),
            optimizer=self._make_optimizer(network),
            n_epochs=self.n_epochs,
            stopping=Convergence(self.tol, self.n_iter_no_change),
            mixed_precision=self.mixed_precision,
            weight_average=self.weight_average,
            verbose=self.verbose,
            stage=type(self).__name__,
        )

    def _mixed_batches(self, images, typical, run):
        """Return batches of typical and atypical images, and which they are."""
        if self.balanced and not typical.all():
            first, second = np.flatnonzero(typical), np.flatnonzero(~typical)
            indices = np.concatenate([first, np.resize(second, len(first))])
            images, typical = Subset(images, indices), typical[indices]
        return ImageBatches(
            images,
            self.batch_size,
            device=run.device,
            generator=run.generator,
            targets=torch.from_numpy(~typical),
        )

    def _make_optimizer(self, network):
        """Return Adam, with an L2 penalty on the weights of convolutions alone."""
        decayed = [
            layer.weight
            for layer in network.modules()
            if isinstance(layer, nn.modules.conv._ConvNd)
        ]
        known = {id(weight) for weight in decayed}
        others = [p for p in network.parameters() if id(p) not in known]
        groups = [
            {"params": decayed},
            {"params": others, "weight_decay": 0.0},
        ]
        return adam(groups, self.learning_rate, self.weight_decay)

    def _score(self, images, device):
        network, dtype = self._on_device(self.network_, device), self._dtype(device)

        def logits_and_sums(batch):
            z = network["extractor"](batch.to(dtype))
            sums = [part.sum(dim=0, keepdim=True) for part in (z, z.square(), z.abs())]
            return network["classifier"](z).squeeze(1), *sums

        batches = ImageBatches(images, self.batch_size, device=device)
        logits, *sums = map_batches(network, batches, logits_and_sums)
        mean, square, size = (s.sum(axis=0, dtype=np.float64) / len(logits) for s in sums)
        deviation = np.sqrt((square - mean**2).clip(0)).mean()
        return Scores(-logits, deviation / max(size.mean(), 1e-30))

    def _auto_offset(self, train_scores):
        # As likely typical as atypical.
        return 0.0


def split_typical(similarities, atypical_fraction):
    """Return which samples are typical: all but the fraction of the least similar.

    Parameters
    ----------
    similarities : ndarray of shape (n,)
        Of equal ones, the first are atypical.
    atypical_fraction : float
        Of the samples, rounded up, at least two.

    Returns
    -------
    typical : ndarray of shape (n,), bool
    """
    n = len(similarities)
    # In floating point 0.07 * 100 exceeds 7.
    n_atypical = max(2, math.ceil(round(atypical_fraction * n, 6)))
    typical = np.ones(n, dtype=bool)
    typical[np.argsort(similarities, kind="stable")[:n_atypical]] = False
    return typical


def _intra_class(network, batch):
    samples, is_atypical = batch
    logits = network["classifier"](network["extractor"](samples)).squeeze(1)
    return intra_class_loss(logits.float(), is_atypical)


def _distances(network, batch, generator):
    """Return logits of the distance of each sample to another of its batch, at random."""
    z = network["extractor"](batch)
    # Neighbours on a random circle: no sample is its own partner.
    order = sent_to(torch.randperm(len(z), generator=generator), z.device)
    z = z[order]
    # In bfloat16 losses would have fewer digits than the rule for the end compares.
    return network["distance"](z, z.roll(1, dims=0)).float()
