"""Data splitting: a classifier of typical against atypical normal images."""

import copy
import os
from functools import partial
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
from skocc._base.detector import Scores
from skocc._base.embeddings import EmbeddingMixin
from skocc._base.fitted import TRAINED_ATTRIBUTES, Fitted
from skocc._base.private_sklearn import Interval, StrOptions
from skocc._base.trained import TrainedDetector
from skocc._engine.ambient import isolated
from skocc._engine.batches import ImageBatches, InTurn
from skocc._engine.inference import map_batches
from skocc._engine.training import Convergence
from skocc._samples.validation import check_integers, warn_about_range
from skocc.estimators._data_splitting import (
    SplitNetworks,
    check_one_end,
    check_windows,
    hold_out_each_kind,
    kinds_of_batches,
    logits_and_sums,
    loss_of_turns,
    measured_similarities,
    split_typical,
    spread_from_sums,
    weight_groups,
)
from skocc.estimators._pretraining import pretrain
from skocc.estimators._without_effect import DATA_SPLIT_OCC_RULES


class DataSplitOCC(EmbeddingMixin, TrainedDetector):
    r"""Classifier of typical against atypical normal images: one class, split in two.

    An autoencoder learns to reconstruct normal images. The images that it reconstructs
    worst are atypical, and take the place of anomalies, which the training lacks. A network
    learns to classify typical and atypical images, with the features of typical images
    close to each other and those of atypical images far apart. The method assumes that an
    anomaly resembles an atypical image more than a typical one. Any network can extract the
    features. Read more in the :ref:`User Guide <data_split_occ>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    atypical_fraction : float, default=0.1
        Fraction of the training images that are atypical, in (0, 0.5]; rounded up, at
        least two images.
    objective : {"constrained", "split", "naive"}, default="constrained"
        "constrained" is the method. The others are the paper's controls: "split" trains
        the classifier without constraints on distances, "naive" without a split, with all
        images typical, so that a constant classifier minimizes the loss.
    reconstruction_metric : {"auto", "ssim", "mse"}, default="auto"
        How an image is compared with its reconstruction: "ssim" takes structural
        similarity, "mse" the negative of the mean squared error. "auto" is "ssim" for
        images of at least 11 pixels a side, else "mse".
    difference : {"abs", "signed"}, default="abs"
        Which difference of two feature vectors the distance is computed from. "signed"
        follows the paper to the letter, and cannot satisfy both constraints, see Notes.
    balanced : bool, default=False
        Whether atypical images are repeated until the classifier sees as many as typical.
    backbone : str, torch.nn.Module, class or function, default=None
        Feature extractor. A classification network of torchvision, or "timm/" and that of
        one of timm, without its last linear layer; or a network of your own from images
        (b, C, H, W), or rows (b, d), to (b, features), see :ref:`own_networks`. None:
        torchvision's AlexNet for images of 63 pixels a side or more, a compact AlexNet for
        smaller images, a fully connected network for rows.
    weights : None, "imagenet", str or path, default=None
        Initial weights of the backbone: random, as in the paper; torchvision's best
        weights, or those of a name that it has, such as "IMAGENET1K_V1", downloaded once;
        or the file of a state dict.
    channels : tuple of int, default=None
        Channels of the five convolutions of the compact AlexNet, and of the autoencoder;
        for rows, features of the hidden layers. None: (64, 192, 384, 256, 256), fewer for
        images below 16 pixels; (128, 64) for rows.
    embedding_dim : int, default=None
        Number of features that the compact AlexNet, or the network for rows, extracts.
        None: twice the channels of the last convolution, 512; 32 for rows.
    dropout : float, default=0.0
        Fraction of the inputs of each linear layer of these two networks that is dropped in
        training, in [0, 1). The original AlexNet has 0.5.
    batch_norm : {"auto", "train", "frozen", "none"}, default="auto"
        In the compact AlexNet, "train" adds BatchNorm without weights after each
        convolution, which trains with the statistics of each batch and scores with running
        ones, so that a score does not depend on the other images in X; "none" adds none. In
        a `backbone`, "frozen" keeps the statistics that BatchNorm comes with, and "train"
        updates them; typical and atypical batches have different statistics. "auto" is
        "frozen" with a backbone, else "train" for gray images and "none" for others. "none"
        with a backbone, and "frozen" without, raise an error.
    latent_dim : int, "map" or None, default=None
        Size of the autoencoder's code, a vector. None: 2 for gray images from 24 to 62
        pixels a side; else 16 for gray images, 32 for others, half of that below 16 pixels
        a side, four times that from 63 on; for rows of d values d / 4, at most 32. "map":
        the code is a map of an eighth of the image's height and width, a thirty-second from
        63 pixels a side on, with 4 channels for gray images, 8 for others, sixteen times
        that from 63 pixels on. An autoencoder with a map composes images of local parts,
        and so reconstructs anomalies better than it should.
    pretrain_n_epochs : int, default=50
        Epochs of the autoencoder.
    pretrain_learning_rate : float, default=1e-3
        Step size of Adam for the autoencoder.
    pretrain_weight_decay : float, default=1e-6
        L2 penalty of the weights of the autoencoder.
    tol : float or None, default=1e-3
        Training ends when the mean of each of the losses has changed by less than `tol`
        from epoch to epoch, `n_iter_no_change` times in a row. None: it does not end early.
    validation_fraction : float, default=0.0
        Fraction of typical and of atypical images that is held out of the classifier's
        training, in [0, 1); their intra-class loss says when to stop, and the weights of
        the best epoch are kept.
    n_iter_no_change : int or None, default=5
        See `tol`; or epochs without a lower held-out loss. None: it never ends early.
    weight_average : float, default=None
        Decay, in (0, 1), of an exponential average of the classifier's weights and of
        BatchNorm's statistics over the steps of training. `network_` has these averages;
        0.95 averages over some twenty steps. It excludes `validation_fraction`.
    mixed_precision : bool, default=False
        Whether both trainings compute in bfloat16 where torch considers that safe. It is
        faster on processors made for it only. Scores are computed in full precision.
    checkpoint_dir : path or None, default=None
        Folder for checkpoints, from which a fit that was killed resumes; `random_state` has
        to be an int. None: none are written.
    n_epochs : int, default=50
        Epochs of the classifier at most. An epoch passes once over all images in mixed
        batches, and over as many batches of typical and of atypical images.
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
        Whether progress bars are shown, of each stage that takes two seconds or more.
    warm_start : bool, default=False
        Whether a second `fit` continues from the fitted weights, with a new optimizer and
        the same autoencoder. `objective` may have changed.

    Attributes
    ----------
    network_ : torch.nn.ModuleDict
        On the CPU: "extractor" and "classifier", and "distance" for
        ``objective="constrained"``. Scores need the first two.
    autoencoder_ : torch.nn.Module or None
        The autoencoder that split the images, on the CPU; None for ``objective="naive"``.
    latent_dim_ : int or None
        Numbers in its code, or channels of a map; None without an autoencoder.
    reconstruction_similarity_ : ndarray of shape (n_samples,), float64, or None
        Similarity of the training images to their reconstructions: structural similarity,
        at most 1, or the negative of the mean squared error.
    typical_ : ndarray of shape (n_samples,), bool
        Which training images are typical.
    loss_curve_ : list of float
        Mean of the losses per epoch of the classifier.
    validation_loss_curve_ : list of float
        Intra-class loss of the held-out images after each epoch; empty without them.
    best_epoch_ : int or None
        Index of the epoch whose weights were kept; None without held-out images.
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
    DeepSVDD : Maps normal images close to a center.
    ConvAE : Scores by the reconstruction alone, with heat maps.

    Notes
    -----
    With features :math:`z`, the distance :math:`\sigma(w^\top |z_i - z_j| + b)` and the
    classifier's probability :math:`\hat y` of being atypical, three losses are minimized in
    turn, a step of Adam each [1]_: for a batch of typical images the closeness loss
    :math:`-\mathrm{mean} \log(1 - \mathrm{dist}(z_i, z_j))`, for a mixed batch the binary
    cross-entropy of :math:`\hat y`, for a batch of atypical images the dispersion loss
    :math:`-\mathrm{mean} \log \mathrm{dist}(z_i, z_j)`. The partner j of each image i is
    another of its batch, at random. The score is the logit of :math:`1 - \hat y`.

    The paper's subtraction has a sign. The logits u of (i, j) and (j, i) then add up to 2b
    whatever the features are, so that the two losses on distances add up to
    :math:`2 \log 2` at least: one can fall only where the other rises. The default takes
    absolute differences: the distance is symmetric and can satisfy both constraints. The
    paper calls the output the probability of being normal in one place, and labels atypical
    images 1 in another; here atypical is 1 too, and a higher score is more normal.

    The paper leaves most numbers open. These choices are made here: single-scale structural
    similarity (the paper cites a multi-scale one, which needs larger images), Adam, step
    sizes, epochs, the stopping rule, no dropout, and a compact AlexNet for small images,
    with BatchNorm for gray ones in place of AlexNet's local response normalization.

    The paper says that in the autoencoder one convolution replaces all linear layers of
    AlexNet. Here that convolution is as large as the map before it, as in AlexNet made
    convolutional, and the code is a vector; with ``latent_dim="map"`` it is a 3x3
    convolution. A better autoencoder does not give a better split: one that reconstructs
    everything well, or nothing, splits at random. Look at `reconstruction_similarity_`.

    Values of images must lie in [0, 1] (uint8 and uint16 are brought there, other integers
    are taken as they are), because the autoencoder ends in a sigmoid; others raise a
    warning. Nothing is normalized. An epoch of 1,000 images of 28 x 28 pixels takes some 18
    seconds on one core, 10 in the autoencoder; about 8 and 4 with ``mixed_precision=True``
    on a processor with instructions for bfloat16. Use a GPU for the defaults.

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
    ...     atypical_fraction=0.3, latent_dim=2, pretrain_n_epochs=20, n_epochs=20,
    ...     learning_rate=1e-3, random_state=0,
    ... )
    >>> scores = detector.fit(images[:900][is_zero[:900]]).score_samples(images[900:])
    >>> bool(roc_auc_score(is_zero[900:], scores) > 0.7)  # 0.918 +- 0.067, ten seeds
    True
    >>> int((~detector.typical_).sum())  # three tenths of 89, rounded up
    27
    """

    _parameter_constraints = {
        **TRAINING_CONSTRAINTS,
        "contamination": CONTAMINATION_OR_AUTO,
        "atypical_fraction": [Interval(Real, 0, 0.5, closed="right")],
        "objective": [StrOptions({"constrained", "split", "naive"})],
        "reconstruction_metric": [StrOptions({"auto", "ssim", "mse"})],
        "difference": [StrOptions({"abs", "signed"})],
        "balanced": ["boolean"],
        "backbone": [None, str, callable],
        "weights": [None, str, os.PathLike],
        "channels": [None, tuple, list],
        "embedding_dim": [None, Interval(Integral, 1, None, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "batch_norm": [StrOptions({"auto", "train", "frozen", "none"})],
        "latent_dim": [
            None,
            StrOptions({"map"}),
            Interval(Integral, 1, None, closed="left"),
        ],
        "pretrain_n_epochs": [Interval(Integral, 0, None, closed="left")],
        "pretrain_learning_rate": LEARNING_RATE,
        "pretrain_weight_decay": WEIGHT_DECAY,
        "tol": [None, Interval(Real, 0, None, closed="left")],
        "weight_average": [None, Interval(Real, 0, 1, closed="neither")],
        "mixed_precision": ["boolean"],
    }
    _fitted_attributes = {
        **TRAINED_ATTRIBUTES,
        "autoencoder_": Fitted("network", nullable=True),
        "latent_dim_": Fitted("count", nullable=True),
        "reconstruction_similarity_": Fitted(
            "float64", ("n",), finite=False, nullable=True
        ),
        "typical_": Fitted("bool", ("n",)),
        "step_loss_curves_": Fitted("loss lists"),
        "pretrain_loss_curve_": Fitted("losses", optional=True),
    }

    def __init__(
        self,
        *,
        atypical_fraction=0.1,
        objective="constrained",
        reconstruction_metric="auto",
        difference="abs",
        balanced=False,
        backbone=None,
        weights=None,
        channels=None,
        embedding_dim=None,
        dropout=0.0,
        batch_norm="auto",
        latent_dim=None,
        pretrain_n_epochs=50,
        pretrain_learning_rate=1e-3,
        pretrain_weight_decay=1e-6,
        tol=1e-3,
        validation_fraction=0.0,
        n_iter_no_change=5,
        weight_average=None,
        mixed_precision=False,
        checkpoint_dir=None,
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
        self.reconstruction_metric = reconstruction_metric
        self.difference = difference
        self.balanced = balanced
        self.backbone = backbone
        self.weights = weights
        self.channels = channels
        self.embedding_dim = embedding_dim
        self.dropout = dropout
        self.batch_norm = batch_norm
        self.latent_dim = latent_dim
        self.pretrain_n_epochs = pretrain_n_epochs
        self.pretrain_learning_rate = pretrain_learning_rate
        self.pretrain_weight_decay = pretrain_weight_decay
        self.tol = tol
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.weight_average = weight_average
        self.mixed_precision = mixed_precision
        self.checkpoint_dir = checkpoint_dir
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
    _without_effect = DATA_SPLIT_OCC_RULES
    # Two kinds of images, and pairs of each.
    _min_samples = 4

    def fit(self, X, y=None) -> "DataSplitOCC":
        """Split normal images into typical and atypical ones, and learn to classify them.

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

    def score_samples(self, X) -> np.ndarray:
        """Score images: higher is more normal.

        Parameters
        ----------
        X : images, rows or paths
            As in `fit`.

        Returns
        -------
        scores : ndarray of shape (n_samples,), float64
            Logit of the probability that the sample is typical of the normal ones, which
            :meth:`normal_probability` returns. Logits rank alike, and still differ where
            probabilities are rounded to 1.

        Raises
        ------
        ValueError
            X is not usable, or has another shape than in `fit`.
        """
        return super().score_samples(X)

    @isolated
    def normal_probability(self, X) -> np.ndarray:
        """Probability that images are typical of the normal ones, by the classifier.

        Parameters
        ----------
        X : images, rows or paths
            As in `fit`.

        Returns
        -------
        probabilities : ndarray of shape (n_samples,), float64
            In [0, 1], the logistic function of :meth:`score_samples`. At best it is
            calibrated for typical against atypical training images, not for anomalies.

        Raises
        ------
        ValueError
            X is not usable, or has another shape than in `fit`.
        """
        return torch.sigmoid(torch.from_numpy(self.score_samples(X))).numpy()

    @isolated
    def reconstruction_similarity(self, X) -> np.ndarray:
        """Similarity of images to their reconstructions, by which `fit` splits them.

        As a score it is the error-based control of the paper.

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
                "reconstruction_similarity needs the autoencoder that splits images. Got "
                "objective='naive', which splits nothing. Fit with objective='split' or "
                "'constrained'."
            )
        images = self._read(X, reset=False)
        return self._similarities(self.autoencoder_, images, self._scoring_device())

    def _fit(self, images, run):
        # A backbone that does not fit raises before anything is trained.
        new = self._networks().classifier
        network = copy.deepcopy(self.network_) if run.is_warm else new(self.weights)
        if self.objective == "naive":
            self.autoencoder_ = self.reconstruction_similarity_ = self.latent_dim_ = None
            self.typical_ = np.ones(len(images), dtype=bool)
        else:
            warn_about_range(images)
            self.autoencoder_ = self._train_autoencoder(images, run)
            similarities = self._similarities(self.autoencoder_, images, run.device)
            self.reconstruction_similarity_ = similarities
            self.typical_ = split_typical(similarities, self.atypical_fraction)
        # Drawn last, so that a seed gives the same split for every objective.
        network = self._networks().with_distance(network).to(run.device)
        self.step_loss_curves_ = self._train(network, images, self.typical_, run)
        self._keep(network, images, run)

    def _keep(self, network, images, run):
        self.network_ = network.cpu().eval()

    def _check_parameters(self, n_samples):
        check_integers("channels", self.channels)
        check_windows(self.reconstruction_metric, self.image_shape_)
        check_one_end(self.validation_fraction, self.weight_average)
        self._networks().check()

    def _check_loaded(self):
        self._check_parameters(len(self.train_scores_))
        return {}

    def _empty_network(self, attribute):
        """Return the module of a fitted attribute before its weights are loaded."""
        networks = self._networks()
        if attribute == "autoencoder_":
            return networks.autoencoder(self.latent_dim_)
        return networks.with_distance(networks.classifier(weights=None))

    def _networks(self):
        return SplitNetworks.of(self)

    def _train_autoencoder(self, images, run):
        """Return a trained autoencoder, that of an earlier fit where there is one."""
        if run.is_warm and self.autoencoder_ is not None:
            return self.autoencoder_
        networks = self._networks()
        self.latent_dim_ = networks.code_size()
        autoencoder = networks.autoencoder(self.latent_dim_).to(run.device)
        with self._pretraining(run) as options:
            self.pretrain_loss_curve_ = pretrain(
                autoencoder.encoder,
                autoencoder.decoder,
                nn.Identity(),
                self._train_batches(run, images),
                mixed_precision=self.mixed_precision,
                **options,
            )
        return autoencoder.cpu().eval()

    def _similarities(self, autoencoder, images, device):
        """Return the similarity of each image to its reconstruction."""
        return measured_similarities(
            self._on_device(autoencoder, device),
            ImageBatches(images, self.batch_size, device=device),
            self._dtype(device),
            self.reconstruction_metric,
        )

    def _train(self, network, all_images, typical, run):
        """Minimize the losses of the objective in turn, and return the curve of each."""
        constrained = self.objective == "constrained"
        batches_of = partial(self._train_batches, run)
        images, typical, held_out = hold_out_each_kind(
            all_images, typical, self.validation_fraction, self.batch_size, run
        )
        kinds = kinds_of_batches(images, typical, batches_of, constrained, self.balanced)
        is_frozen = self.backbone is not None and self.batch_norm != "train"
        history = self._train_network(
            network,
            loss_of_turns(network, run.generator, constrained, is_frozen),
            InTurn(*kinds),
            all_images,
            run,
            held_out=held_out,
            parameters=weight_groups(network),
            stopping=Convergence(self.tol, self.n_iter_no_change),
            mixed_precision=self.mixed_precision,
            weight_average=self.weight_average,
        )
        return history.kind_loss_curves

    def _train_batches(self, run, samples, **options):
        options.update(device=run.device, generator=run.generator)
        return ImageBatches(samples, self.batch_size, **options)

    def _score(self, images, device):
        network, dtype = self._on_device(self.network_, device), self._dtype(device)
        batches = ImageBatches(images, self.batch_size, device=device)
        logits, *sums = map_batches(
            network, batches, lambda batch: logits_and_sums(network, batch.to(dtype))
        )
        return Scores(-logits, spread_from_sums(sums, len(logits)))

    def _embeddings(self, network, batch):
        return network["extractor"](batch)

    def _auto_offset(self, train_scores):
        # A logit of 0 is a probability of one half.
        return 0.0
