"""Convolutional autoencoder: pixels that it cannot reconstruct."""

import copy
from functools import partial
from numbers import Integral

import numpy as np
import torch
from torch.nn import functional

from skocc._base.constraints import TRAINING_CONSTRAINTS
from skocc._base.detector import Scores
from skocc._base.embeddings import EmbeddingMixin
from skocc._base.fitted import MAP_ATTRIBUTES, TRAINED_ATTRIBUTES
from skocc._base.maps import AnomalyMapMixin, borders, map_maxima
from skocc._base.private_sklearn import Interval, StrOptions
from skocc._base.trained import TrainedDetector
from skocc._engine.batches import ImageBatches
from skocc._engine.inference import map_batches
from skocc._nets.conv_autoencoder import ConvAutoencoder
from skocc._nets.own import channels_first, in_channels
from skocc._nets.own_autoencoder import OwnAutoencoder
from skocc._ops.scores import SSIM_WINDOW, similarity_map, squared_error_map
from skocc._ops.tensors import relative_spread
from skocc._samples.validation import warn_about_range
from skocc.estimators._augmentation import random_variants
from skocc.estimators._without_effect import CONV_AE_RULES

_BORDER = 4


class ConvAE(AnomalyMapMixin, EmbeddingMixin, TrainedDetector):
    """Convolutional autoencoder with heat maps: what it cannot reconstruct is anomalous.

    A small residual network learns to compress and to reconstruct normal images. It
    reconstructs what it has never seen badly: the error of a pixel is its value in the heat
    map, and the mean error of the pixels is the score of the image. The network is trained
    on randomly changed copies of the images, until the error on the images themselves no
    longer falls. Read more in the :ref:`User Guide <conv_ae>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    reconstruction_metric : {"mse", "ssim"}, default="mse"
        How an image is compared with its reconstruction, in training as in scores and maps.
        "mse" takes the squared error of pixels, "ssim" one minus the structural similarity
        of windows of 11 by 11 pixels, which compares patterns.
    autoencoder : torch.nn.Module, class or function, default=None
        A network of your own from images (b, C, H, W) to the same shape: a module, which is
        copied, or a class or function that builds one; see :ref:`own networks
        <own_networks>`. Images need not lie in [0, 1] then. None: that of the source.
    base_channels : int, default=32
        Channels after the first layer; later ones have two, four and eight times as many.
    border : int, default=None
        Pixels at each edge that count neither in training nor in scores. None: 4, but at
        most an eighth of a side.
    augmentation : bool, default=True
        Whether the network is trained on flipped, shifted, scaled and rotated copies. Needs
        torchvision.
    rotations : bool, default=True
        Whether copies are rotated by 90, 180 or 270 degrees (180 if the images are not
        square). Set it to False where the orientation is part of what is normal.
    n_augmented : int, default=1500
        Approximate number of copies in an epoch, at most a hundred million. An epoch passes
        over the images as often as comes closest to it, and at least once. Without
        augmentation it has each image once.
    validation_fraction : float, default=0.0
        Fraction of the training images that is held out, in [0, 1); their error after each
        epoch says when to stop, and the weights of the best epoch are kept. 0: as in the
        source no image is held out, and the error of the images themselves, whose changed
        copies the network is trained on, says when to stop.
    n_iter_no_change : int or None, default=5
        Epochs without a lower error of the held-out images, or of the images themselves,
        after which the training ends. None: it never ends early.
    checkpoint_dir : path or None, default=None
        Folder for checkpoints, which hold the state of the training. If it holds one of
        the same parameters and images, training resumes from there. None: no checkpoints
        are written.
    checkpoint_every : int, default=1
        Epochs from one checkpoint to the next.
    n_epochs : int, default=50
        Epochs at most. The network ends with the weights of the best epoch.
    learning_rate : float, default=1e-3
        Step size of Adam.
    weight_decay : float, default=0.0
        L2 penalty of the weights.
    batch_size : int, default=32
        Images per batch, at least 2. Scores do not depend on it.
    contamination : float, default=0.1
        Fraction of the training images called anomalous, in (0, 0.5]; it sets `offset_`.
    image_shape : tuple (H, W) or (H, W, C), default=None
        Shape of the images in flattened rows, in pixels; one entry may be -1.
    image_size : int or tuple (H, W), default=None
        Size in pixels that all images are resized to (bilinear, antialiased). None: the
        images have one size already. The source has 224.
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
        Whether a second `fit` continues from the fitted weights, with a new optimizer.

    Attributes
    ----------
    network_ : torch.nn.Module
        The autoencoder, on the CPU; maps (n, 3, H, W) to the same shape, (n, C, H, W) for
        images of C channels other than 1, and one of your own takes what it takes.
    loss_curve_ : list of float
        Mean error of the copies that were trained on, per epoch.
    validation_loss_curve_ : list of float
        Mean error of the held-out images, or of the images themselves, after each epoch.
    best_epoch_ : int or None
        Index in `validation_loss_curve_` (of the last `fit`) of the epoch whose weights
        were kept; None without an epoch.
    offset_ : float
        Threshold: ``decision_function(X) = score_samples(X) - offset_``.
    train_scores_ : ndarray of shape (n_samples,), float64
        Scores of the training images.
    pixel_threshold_ : float
        Threshold of heat maps, which `contamination` sets for `train_map_maxima_`:
        `anomaly_mask` marks what is above it.
    train_map_maxima_ : ndarray of shape (n_samples,), float64
        Highest value of the heat map of each training image.
    collapsed_ : bool
        Whether all training images have nearly the same score, or the same code.
    image_shape_ : tuple (H, W, C)
        Shape of the images as the network sees them.
    n_features_in_ : int
        Values per sample of X.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where X was a table with names that are all text.

    See Also
    --------
    FeatureCAE : Reconstructs features of a pretrained network instead of pixels; one of
        the two best methods of the report that both are from.
    DeepSVDD : Distance to a center in place of a reconstruction.

    Notes
    -----
    Network, augmentation, optimizer and early stopping are those of a report on MVTec AD
    [1]_, which itself calls the results unsatisfactory: AUROC above 0.80 for four of its
    classes, about chance for others.

    Values must lie in [0, 1] (uint8 and uint16 are brought there, other integers are taken
    as they are), because the network ends in a sigmoid. Others raise a warning.

    The report leaves the following open, and it is chosen here: a border of 4 pixels, 5
    epochs without a lower error, batches of 32, 50 epochs, the mean over the pixels inside
    the border as the score, translations by up to 5 % and scales of 0.95 to 1.05 with the
    edge pixels repeated. The blur of the report (a deviation of at most 0.05 pixels) is
    applied and changes nothing. The report makes its 1,500 copies once; here they are drawn
    anew in each epoch. As in the report, the error that ends the training is that of images
    whose copies the network was trained on. It says when to stop, and does not estimate the
    error of new images.

    ``reconstruction_metric="ssim"`` replaces the squared error everywhere, as in [2]_; the
    network stays the same. A map has the similarity of the window around each pixel; the
    last five pixels at an edge, where no window fits, repeat that of the nearest window.

    A checkpoint in `checkpoint_dir` belongs to one fit: the images, and the parameters that
    change the result, must be the same, or there is an error. With a larger `n_epochs` or
    `n_iter_no_change` training continues where it ended. On a CPU a fit that was
    interrupted ends with the same numbers as one that was not.

    An epoch of 1,500 copies of 224 x 224 pixels takes about a minute on a CPU core. Scoring
    takes one pass through the network. Memory is that of X and a batch; files are decoded a
    batch at a time.

    References
    ----------
    .. [1] "Project MVTec Anomaly Detection, Report 2": "Autoencoder + Custom Resnet3 for
       Feature Extraction".
    .. [2] P. Bergmann et al., "Improving unsupervised defect segmentation by applying
       structural similarity to autoencoders", VISAPP 2019, arXiv:1807.02011.

    Examples
    --------
    Zeros are normal, the other digits are not:

    >>> from sklearn.datasets import load_digits
    >>> from sklearn.metrics import roc_auc_score
    >>> from skocc import ConvAE
    >>> digits = load_digits()
    >>> images, is_zero = digits.images / 16, digits.target == 0
    >>> detector = ConvAE(augmentation=False, n_epochs=20, random_state=0)
    >>> _ = detector.fit(images[:900][is_zero[:900]])
    >>> scores = detector.score_samples(images[900:])
    >>> bool(roc_auc_score(is_zero[900:], scores) > 0.9)  # 0.9998 +- 0.0001, ten seeds
    True
    >>> detector.anomaly_map(images[:5]).shape
    (5, 8, 8)
    """

    _parameter_constraints = {
        **TRAINING_CONSTRAINTS,
        "reconstruction_metric": [StrOptions({"mse", "ssim"})],
        "autoencoder": [None, callable],
        "base_channels": [Interval(Integral, 1, None, closed="left")],
        "border": [None, Interval(Integral, 0, None, closed="left")],
        "augmentation": ["boolean"],
        "rotations": ["boolean"],
        "n_augmented": [Interval(Integral, 1, 10**8, closed="both")],
        "checkpoint_every": [Interval(Integral, 1, None, closed="left")],
    }
    _fitted_attributes = {**TRAINED_ATTRIBUTES, **MAP_ATTRIBUTES}

    def __init__(
        self,
        *,
        reconstruction_metric="mse",
        autoencoder=None,
        base_channels=32,
        border=None,
        augmentation=True,
        rotations=True,
        n_augmented=1500,
        validation_fraction=0.0,
        n_iter_no_change=5,
        checkpoint_dir=None,
        checkpoint_every=1,
        n_epochs=50,
        learning_rate=1e-3,
        weight_decay=0.0,
        batch_size=32,
        contamination=0.1,
        image_shape=None,
        image_size=None,
        intensity_range=None,
        device=None,
        random_state=None,
        verbose=0,
        warm_start=False,
    ):
        self.reconstruction_metric = reconstruction_metric
        self.autoencoder = autoencoder
        self.base_channels = base_channels
        self.border = border
        self.augmentation = augmentation
        self.rotations = rotations
        self.n_augmented = n_augmented
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.checkpoint_dir = checkpoint_dir
        self.checkpoint_every = checkpoint_every
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

    _without_effect = CONV_AE_RULES
    # Codes of a random encoder differ little, and still rank images.
    _min_spread = 1e-6

    def fit(self, X, y=None) -> "ConvAE":
        """Learn to reconstruct normal images.

        Parameters
        ----------
        X : images or paths
            Normal images only, at least two, with values in [0, 1] or uint8. An array
            (n, H, W), (n, H, W, C) or (n, C, H, W); flattened images (n, d) with
            `image_shape`; a tensor (n, C, H, W); a list of paths or PIL images; or a
            data set of torch.
        y : Ignored
            Present for scikit-learn. Labels of anomalies raise a warning, because they are
            being trained on.

        Returns
        -------
        self : ConvAE
            The fitted estimator.

        Raises
        ------
        ValueError
            X or a parameter is not usable, or `checkpoint_dir` holds a checkpoint of
            another fit; the message says what to do.
        ImportError
            Augmentation needs torchvision, which cannot be imported.
        FloatingPointError
            The loss is not finite.
        """
        return super().fit(X, y)

    def score_samples(self, X) -> np.ndarray:
        """Score images: higher is more normal.

        Parameters
        ----------
        X : images or paths
            As in `fit`.

        Returns
        -------
        scores : ndarray of shape (n_samples,), float64
            The negative of the mean error over the pixels inside the border.

        Raises
        ------
        ValueError
            X is not usable, or has another shape than in `fit`.
        """
        return super().score_samples(X)

    def _fit(self, images, run):
        if self.autoencoder is None:
            warn_about_range(images)
        network = (
            copy.deepcopy(self.network_) if run.is_warm else self._empty_network("network_")
        )
        self._train(network.to(run.device), images, run)
        self._keep(network, images, run)

    def _keep(self, network, images, run):
        self.network_ = network.cpu().eval()

        def evidence(batch, reconstruction, codes):
            errors = self._errors(reconstruction, batch)
            maxima = map_maxima(self._pixel_errors(errors))
            return self._inside(errors).double().mean(dim=(1, 2)), codes, maxima

        errors, codes, maxima = self._map(images, run.device, evidence)
        run.scores = Scores(-errors, relative_spread(codes), map_maxima=maxima)

    def _check_parameters(self, n_samples):
        """Raise a ValueError for what the images or the other parameters do not allow."""
        height, width = self.image_shape_[:2]
        smallest = SSIM_WINDOW if self.reconstruction_metric == "ssim" else 1
        top, side = self._borders()
        if min(height - 2 * top, width - 2 * side) < smallest:
            raise ValueError(
                f"reconstruction_metric={self.reconstruction_metric!r} needs {smallest} "
                f"pixel(s) a side inside the border. Got images of {height} x {width} "
                f"pixels (H x W) and borders of {(top, side)}. Set a smaller border, "
                "reconstruction_metric='mse', or image_size to enlarge them."
            )

    def _draws_before_training(self):
        # The first weights are those of the checkpoint.
        return self.validation_fraction > 0

    def _borders(self):
        """Return the pixels to leave out at the top and bottom, and at the sides."""
        return borders(self.border, self.image_shape_[:2], _BORDER)

    def _empty_network(self, attribute):
        """Return the module of a fitted attribute before its weights are loaded."""
        if self.autoencoder is not None:
            return OwnAutoencoder(self.autoencoder, channels_first(self.image_shape_))
        n_channels = self.image_shape_[2]
        return ConvAutoencoder(3 if n_channels == 1 else n_channels, self.base_channels)

    def _check_loaded(self):
        height, width, _ = self.image_shape_
        if min(height, width) < 1:
            raise ValueError(f"image_shape_={self.image_shape_} is that of no image")
        self._check_parameters(len(self.train_scores_))
        return {}

    def _train(self, network, images, run):
        """Train the network until its error on the images no longer falls."""
        trained, held_out = self._hold_out(images, run)
        n_passes, vary = 1, None
        if self.augmentation:
            n_passes = max(1, round(self.n_augmented / len(trained)))
            vary = random_variants(self.image_shape_[:2], self.rotations)

        def loss_fn(batch):
            if network.training and vary is not None:
                batch = vary(batch)
            batch = in_channels(batch, network.n_channels)
            # A repeated channel is a view, which networks take longer for.
            batch = batch.contiguous(memory_format=torch.channels_last)
            return self._errors(self._inside(network(batch)), self._inside(batch)).mean()

        batches_of = partial(ImageBatches, batch_size=self.batch_size, device=run.device)
        self._train_network(
            network,
            loss_fn,
            batches_of(trained, generator=run.generator, n_passes=n_passes),
            images,
            run,
            # As in the report, images are held out of their own augmented copies alone.
            held_out=batches_of(images if held_out is None else held_out),
            draws=vary is not None,
        )

    def _errors(self, reconstruction, batch):
        """Return the error of pixels, or of windows, (b, rows, columns)."""
        if self.reconstruction_metric == "ssim":
            return 1 - similarity_map(reconstruction, batch)
        return squared_error_map(reconstruction, batch)

    def _inside(self, values):
        """Return images, or what windows of them have, without the border."""
        rows, columns = self._borders()
        height, width = values.shape[-2:]
        return values[..., rows : height - rows, columns : width - columns]

    def _score(self, images, device):
        def errors_and_codes(batch, reconstruction, codes):
            # No windows are computed that do not count.
            errors = self._errors(self._inside(reconstruction), self._inside(batch))
            return errors.double().mean(dim=(1, 2)), codes

        errors, codes = self._map(images, device, errors_and_codes)
        return Scores(-errors, relative_spread(codes))

    def _maps_and_scores(self, images, device, of_maps):
        def maps_and_scores(batch, reconstruction, _):
            errors = self._errors(reconstruction, batch)
            scores = -self._inside(errors).double().mean(dim=(1, 2))
            return of_maps(self._pixel_errors(errors)), scores

        return self._map(images, device, maps_and_scores)

    def _embeddings(self, network, batch):
        return network.reconstruct(in_channels(batch, network.n_channels))[1]

    def _map(self, images, device, function):
        """Join what a function of a batch, its reconstruction and its codes returns."""
        network, dtype = self._on_device(self.network_, device), self._dtype(device)

        def apply(batch):
            batch = in_channels(batch.to(dtype), network.n_channels)
            return function(batch, *network.reconstruct(batch))

        batches = ImageBatches(images, self.batch_size, device=device)
        return map_batches(network, batches, apply)

    def _pixel_errors(self, errors):
        """Return the map (b, H, W) of each image."""
        if self.reconstruction_metric == "ssim":
            # Pixels beyond the centers of the outermost windows repeat their errors.
            margin = SSIM_WINDOW // 2
            errors = functional.pad(errors, [margin] * 4, mode="replicate")
        return errors.float()
