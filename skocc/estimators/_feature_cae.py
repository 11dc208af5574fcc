"""Autoencoder of deep features: cells that it cannot reconstruct."""

import math
from functools import partial
from numbers import Integral

import numpy as np
import torch

from skocc._base.constraints import CONTAMINATION_OR_AUTO, TRAINING_CONSTRAINTS
from skocc._base.detector import Scores
from skocc._base.embeddings import EmbeddingMixin
from skocc._base.fitted import MAP_ATTRIBUTES, TRAINED_ATTRIBUTES, Fitted
from skocc._base.frozen import FROZEN_CONSTRAINTS, frozen_parameters
from skocc._base.maps import AnomalyMapMixin, borders, map_maxima
from skocc._base.private_sklearn import Interval, StrOptions
from skocc._base.trained import TrainedDetector
from skocc._engine.batches import ImageBatches, ResidentMaps, hold_maps
from skocc._engine.feature_cache import cached, fingerprint
from skocc._engine.inference import map_batches, stream_batches
from skocc._nets.feature_autoencoder import FeatureAutoencoder
from skocc._nets.feature_maps import FrozenFeatures, JoinedMaps
from skocc._nets.named import size_of_weights
from skocc._nets.own_autoencoder import OwnAutoencoder
from skocc._ops.maps import cell_scores_to_map
from skocc._ops.scores import divided_by_median, squared_error_map
from skocc._ops.tensors import relative_spread
from skocc._samples.log import logger
from skocc._samples.validation import check_backbone_channels
from skocc.estimators._without_effect import FEATURE_CAE_RULES

_BORDER = 3


class FeatureCAE(AnomalyMapMixin, EmbeddingMixin, TrainedDetector):
    r"""Autoencoder of pretrained features with heat maps: cells it cannot reconstruct.

    A frozen network, trained on ImageNet, describes each cell of a grid over the image by
    the activations of some of its layers. A small autoencoder learns to compress and to
    reconstruct these features of normal cells. It reconstructs what it has never seen
    badly: the error of a cell is its score, and the mean error of the worst cells is the
    score of the image. Read more in the :ref:`User Guide <feature_cae>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    backbone : str, torch.nn.Module, class or function, default="resnet50"
        Name of a classification network of torchvision, or "timm/" and that of one of timm;
        or a module, also of Hugging Face's transformers, which is copied, or a class or
        function that builds one: see :ref:`networks for features <backbones>`.
    weights : {"imagenet", "offline"}, name, path or None, default="imagenet"
        The best weights of torchvision, or those of timm under the name; "offline": those
        that the extra ``skocc[offline]`` has of "timm/tf_efficientnet_lite0"; a name of
        torchvision such as "IMAGENET1K_V1"; a file (``.pt``, ``.pth``, ``.safetensors``);
        None: random ones. A network of your own stays as it is unless this is a path.
    layers : tuple of str, default=None
        Layers that describe a cell, named as in ``backbone.named_modules()``. The grid is
        that of the largest: 28 x 28 cells for "layer2" at 224 pixels. None: the last of
        stride 8 and the last of stride 16, which are ("layer2", "layer3") of a ResNet; the
        :ref:`User Guide <default_layers>` lists those of other networks.
    n_prefix_tokens : int or None, default=None
        Class and register tokens that layers of a transformer return first, and that are
        dropped. None: as known; an error asks for it where it is not.
    normalization : {"imagenet", "weights"} or None, default=None
        Whether ImageNet's mean color is subtracted and the deviation divided by, or those
        that torchvision or timm says the weights were trained with. The source does not.
    interpolation : {"average", "bilinear"}, default="average"
        How smaller layers are brought to the grid.
    autoencoder : torch.nn.Module, class or function, default=None
        A network of your own from features (b, d, rows, columns) to the same shape: a
        module, which is copied, or a class or function that builds one; see :ref:`own
        networks <own_networks>`. None: that of the source.
    latent_dim : int, default=100
        Size of the code of a cell. The layers before it have four times and twice as many
        channels.
    cell_aggregation : {"top-k", "max", "mean"}, default="top-k"
        How the errors of the cells become the score of an image: the mean error of the
        `n_top` worst cells, the error of the worst cell, or the mean error of all cells.
    n_top : int, default=10
        Number of cells for ``cell_aggregation="top-k"``; all if there are fewer.
    score_normalization : {"median"} or None, default=None
        "median" divides the scores of an image's cells by their median. It is for images
        that differ from each other as a whole, in light for example, and have small
        defects: a cell then counts relative to its own image, and an image that is
        anomalous all over is not detected. The source has no normalization.
    border : int, default=None
        Cells at each edge that do not count in the score of an image, because the padding
        of the backbone shows there. None: 3, but at most an eighth of a side.
    validation_fraction : float, default=0.2
        Fraction of the training images that is held out of the training, in [0, 1); their
        error after each epoch says when to stop, and the weights of the best epoch are
        kept. 0 trains on all images for all epochs.
    n_iter_no_change : int or None, default=2
        Epochs without a lower error on the held-out images after which the training ends.
        None: it never ends early. It has no effect without held-out images.
    max_feature_bytes : int or None, default=2147483648
        Bytes of the features of all images up to which `fit` holds them in memory.
        If they take more, they are computed again in each epoch. None: no limit.
    memory : path, joblib.Memory or None, default=None
        Folder in which the features of each image are kept, for other fits: a search over
        parameters then computes them once. None: they are not kept.
    checkpoint_dir : path or None, default=None
        Folder for checkpoints, from which a fit that was killed resumes; `random_state` has
        to be an int. None: none are written.
    n_epochs : int, default=50
        Epochs at most.
    learning_rate : float, default=1e-3
        Step size of Adam.
    weight_decay : float, default=0.0
        L2 penalty of the weights.
    batch_size : int, default=16
        Images per batch, at least 2. Scores do not depend on it.
    contamination : float or "auto", default=0.1
        Fraction of the training images called anomalous, in (0, 0.5]; it sets `offset_`.
        "auto" is the rule of the source: the threshold lies three standard deviations from
        the mean of the training images' scores.
    image_shape : tuple (H, W) or (H, W, C), default=None
        Shape of the images in flattened rows, in pixels; one entry may be -1.
    image_size : int, tuple (H, W), "weights" or None, default=224
        Size in pixels that all images are resized to (bilinear, antialiased), or that the
        weights were trained for. None: the images have one size already.
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
        Whether a second `fit` continues from the fitted autoencoder, with a new optimizer
        and other images held out.

    Attributes
    ----------
    backbone_ : torch.nn.Module
        On the CPU; maps images (n, C, H, W) to features (n, d, rows, columns).
    network_ : torch.nn.Module
        The autoencoder, on the CPU; maps features to their reconstruction.
    grid_shape_ : tuple (rows, columns)
        Cells of an image.
    loss_curve_ : list of float
        Mean squared error per epoch on the images that were trained on.
    validation_loss_curve_ : list of float
        The same on the images that were held out, after each epoch; empty without them.
    best_epoch_ : int or None
        Index in `validation_loss_curve_` (of the last `fit`) of the epoch whose weights
        were kept; None without held-out images or without an epoch.
    offset_ : float
        Threshold: ``decision_function(X) = score_samples(X) - offset_``.
    train_scores_ : ndarray of shape (n_samples,), float64
        Scores of the training images, those held out among them.
    pixel_threshold_ : float
        Threshold of heat maps, which `contamination` sets for `train_map_maxima_`:
        `anomaly_mask` marks what is above it.
    train_map_maxima_ : ndarray of shape (n_samples,), float64
        Highest value of the heat map of each training image.
    collapsed_ : bool
        Whether all training images have nearly the same score, or the same codes.
    image_shape_ : tuple (H, W, C)
        Shape of the images as the network sees them.
    n_features_in_ : int
        Values per sample of X.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where X was a table with names that are all text.

    See Also
    --------
    ResNetKNN : Compares the same features with those of the training images, one by one.
    ConvAE : Reconstructs the image itself.

    Notes
    -----
    With the features f of a cell (its d channels) and their reconstruction g, the map is
    the mean squared error :math:`m = \frac{1}{d} \lVert f - g \rVert^2`, brought to the
    size of the images by bilinear interpolation. The autoencoder has 1x1 convolutions only:
    it sees one cell at a time, and does not know the position of the cell.

    Features are those of a report on MVTec AD [1]_, which follows DFR [2]_: averages over
    3 x 3 cells, brought to the grid of the largest layer and concatenated, which are 1536
    features for ResNet50. The text of the report has convolutions that halve the maps; its
    table has the 1x1 convolutions of 400, 200 and 100 channels that are used here, with
    1,434,036 parameters. DFR's own rule would give the outer convolutions 868 channels.

    The report leaves open how the error of cells becomes a score, which images are held
    out, the batch size, and the number of epochs. Public implementations of related methods
    take the mean of the ten worst cells without a border of three, a random fifth, 16 and
    50, and so does this one. That the best epoch is restored is a choice made here.

    ``score_normalization="median"`` divides m by the median of its cells, including those
    of the border. Neither [1]_ nor [2]_ has it.

    The threshold ``contamination="auto"`` is computed from all training images, including
    the four fifths that the autoencoder was trained on. The features of one image are 4.8
    MB for ResNet50 at 224 pixels, so that the default of `max_feature_bytes` holds 445
    images. Training takes little time compared with one pass of the backbone over the
    images; where the features do not fit in memory it takes one pass in each epoch.

    References
    ----------
    .. [1] "Project MVTec Anomaly Detection, Report 2": "Autoencoder + ResNet50 (latent
       layers) for Feature Extraction".
    .. [2] Y. Shi, J. Yang and Z. Qi, "Unsupervised anomaly segmentation via deep feature
       reconstruction", Neurocomputing 424, 2021, arXiv:2012.07122.

    Examples
    --------
    Stripes are normal, stripes with a spot are not. Random weights suffice here, and
    need no download:

    >>> import numpy as np
    >>> from skocc import FeatureCAE
    >>> rng = np.random.default_rng(0)
    >>> stripes = np.sin(np.arange(32)) + rng.normal(scale=0.1, size=(24, 32, 32))
    >>> spotted = stripes[20:].copy()
    >>> spotted[:, 10:16, 20:26] = 0
    >>> detector = FeatureCAE(
    ...     backbone="resnet18", weights=None, layers=("maxpool",), latent_dim=4,
    ...     batch_size=4, image_size=None, random_state=0,
    ... )
    >>> scores = detector.fit(stripes[:20]).score_samples(stripes[20:])
    >>> bool(scores.min() > detector.score_samples(spotted).max())
    True
    >>> maps = detector.anomaly_map(spotted)
    >>> maps.shape
    (4, 32, 32)
    >>> bool(maps[:, 10:16, 20:26].mean() > 2 * maps.mean())
    True
    """

    _parameter_constraints = {
        **TRAINING_CONSTRAINTS,
        **FROZEN_CONSTRAINTS,
        "contamination": CONTAMINATION_OR_AUTO,
        "interpolation": [StrOptions({"average", "bilinear"})],
        "autoencoder": [None, callable],
        "latent_dim": [Interval(Integral, 1, None, closed="left")],
        "cell_aggregation": [StrOptions({"top-k", "max", "mean"})],
        "n_top": [Interval(Integral, 1, None, closed="left")],
        "score_normalization": [None, StrOptions({"median"})],
        "border": [None, Interval(Integral, 0, None, closed="left")],
        "max_feature_bytes": [None, Interval(Integral, 0, None, closed="left")],
    }
    _fitted_attributes = {
        **TRAINED_ATTRIBUTES,
        **MAP_ATTRIBUTES,
        "backbone_": Fitted("network"),
        "grid_shape_": Fitted("integers"),
        "_n_channels": Fitted("count"),
    }

    def __init__(
        self,
        *,
        backbone="resnet50",
        weights="imagenet",
        layers=None,
        n_prefix_tokens=None,
        normalization=None,
        interpolation="average",
        autoencoder=None,
        latent_dim=100,
        cell_aggregation="top-k",
        n_top=10,
        score_normalization=None,
        border=None,
        validation_fraction=0.2,
        n_iter_no_change=2,
        max_feature_bytes=2**31,
        memory=None,
        checkpoint_dir=None,
        n_epochs=50,
        learning_rate=1e-3,
        weight_decay=0.0,
        batch_size=16,
        contamination=0.1,
        image_shape=None,
        image_size=224,
        intensity_range=None,
        device=None,
        random_state=None,
        verbose=0,
        warm_start=False,
    ):
        self.backbone = backbone
        self.weights = weights
        self.layers = layers
        self.n_prefix_tokens = n_prefix_tokens
        self.normalization = normalization
        self.interpolation = interpolation
        self.autoencoder = autoencoder
        self.latent_dim = latent_dim
        self.cell_aggregation = cell_aggregation
        self.n_top = n_top
        self.score_normalization = score_normalization
        self.border = border
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.max_feature_bytes = max_feature_bytes
        self.memory = memory
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

    _without_effect = FEATURE_CAE_RULES
    _size_of_weights = size_of_weights
    # Codes of a random encoder differ little, and still rank images.
    _min_spread = 1e-6

    def fit(self, X, y=None) -> "FeatureCAE":
        """Learn to reconstruct the features of normal images.

        Parameters
        ----------
        X : images or paths
            Normal images only, at least three. An array (n, H, W), (n, H, W, C) or
            (n, C, H, W); flattened images (n, d) with `image_shape`; a tensor (n, C, H, W);
            a list of paths or PIL images; or a data set of torch.
        y : Ignored
            Present for scikit-learn. Labels of anomalies raise a warning, because they are
            being trained on.

        Returns
        -------
        self : FeatureCAE
            The fitted estimator.

        Raises
        ------
        ValueError
            X or a parameter is not usable, among them layers that the backbone does
            not have; the message says what to do.
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
            The negative of the mean error of the worst cells, of the worst cell, or of all,
            divided by the median if `score_normalization` says so.

        Raises
        ------
        ValueError
            X is not usable, or has another shape than in `fit`.
        """
        return super().score_samples(X)

    def _check_parameters(self, n_samples):
        check_backbone_channels(self.image_shape_, **frozen_parameters(self))

    def _fit(self, images, run):
        if not run.is_warm:
            self.backbone_ = self._build_backbone(self.weights)
            shape = self.backbone_.grid(*self.image_shape_[:2])
            self._n_channels, self.grid_shape_ = shape[0], shape[1:]
        self._check_border()
        network = self._empty_network("network_")
        if run.is_warm:
            network.load_state_dict(self.network_.state_dict())
        source = self._hold_features(images, run.device)
        self._train(network.to(run.device), source, run)
        self._keep(network, source, run)

    def _identity_of_frozen(self):
        return {"backbone_": fingerprint(self.backbone_)}

    def _keep(self, network, images, run):
        self.network_ = network.cpu().eval()

        def evidence(cells, codes):
            maxima = map_maxima(self._pixel_errors(cells))
            return self._image_errors(cells), codes, maxima

        errors, codes, maxima = self._map(images, run.device, evidence)
        run.scores = Scores(-errors, relative_spread(codes), map_maxima=maxima)

    def _check_border(self):
        rows, columns = self.grid_shape_
        if self.border is not None and 2 * self.border >= min(rows, columns):
            raise ValueError(
                f"border={self.border} leaves no cell of an image. Got a grid of {rows} x "
                f"{columns} cells. Set border=None or less than half of a side, or a "
                "larger image_size."
            )

    def _build_backbone(self, weights):
        join = JoinedMaps(self.interpolation)
        return FrozenFeatures.of(self, join, weights, self.image_shape_)

    def _empty_network(self, attribute):
        """Return the module of a fitted attribute before its weights are loaded."""
        if attribute == "backbone_":
            return self._build_backbone(weights=None)
        if self.autoencoder is not None:
            return OwnAutoencoder(self.autoencoder, (self._n_channels, *self.grid_shape_))
        return FeatureAutoencoder(self._n_channels, self.latent_dim)

    def _check_loaded(self):
        self._check_parameters(len(self.train_scores_))
        shape = self.backbone_.grid(*self.image_shape_[:2])
        if shape != (self._n_channels, *self.grid_shape_):
            raise ValueError(f"grid_shape_={self.grid_shape_}, of features {shape}")
        self._check_border()
        return {}

    def _extractor(self, source, device):
        """Return a function from batches of a source to features (b, d, rows, columns)."""
        if isinstance(source, ResidentMaps):
            return lambda batch: batch  # it holds features
        backbone = self._on_device(self.backbone_, device)
        dtype = self._dtype(device)
        extract = cached(backbone.extract, self.memory)

        @torch.no_grad()
        def features_of(batch):
            features = backbone.join(extract(batch.to(dtype))).float()
            # The layout of features that are held: rounding depends on it.
            rows = features.permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format)
            return rows.permute(0, 3, 1, 2)

        return features_of

    def _hold_features(self, images, device):
        """Return a source of the features, or the images where features do not fit."""
        shape = (len(images), self._n_channels, *self.grid_shape_)
        limit = self.max_feature_bytes
        if limit is not None and 4 * math.prod(shape) > limit:
            logger.info("%s: features are computed in each epoch", type(self).__name__)
            return images
        logger.info("%s: computes features of %d images", type(self).__name__, len(images))
        batches = ImageBatches(images, self.batch_size, device=device)
        extract = self._extractor(images, device)
        stream = stream_batches(self.backbone_, batches, extract, stage="features")
        return hold_maps(stream, shape, device)

    def _train(self, network, source, run):
        """Train the autoencoder on some of the images until the others get no better."""
        trained, held_out = self._hold_out(source, run)
        extract = self._extractor(source, run.device)

        def loss_fn(batch):
            features = extract(batch)
            return squared_error_map(network(features), features).mean()

        batches_of = partial(ImageBatches, batch_size=self.batch_size, device=run.device)
        self._train_network(
            network,
            loss_fn,
            batches_of(trained, generator=run.generator),
            source,
            run,
            held_out=held_out and batches_of(held_out),
        )

    def _score(self, source, device):
        def errors_and_codes(cells, codes):
            return self._image_errors(cells), codes

        errors, codes = self._map(source, device, errors_and_codes)
        return Scores(-errors, relative_spread(codes))

    def _maps_and_scores(self, source, device, of_maps):
        def maps_and_scores(cells, _):
            return of_maps(self._pixel_errors(cells)), -self._image_errors(cells)

        return self._map(source, device, maps_and_scores)

    def _embed(self, images, device):
        return self._map(images, device, lambda _, codes: codes, "embeddings")

    def _map(self, source, device, function, stage="scores"):
        """Join what a function of the errors of cells (b, h, w), and codes, returns."""
        extract, dtype = self._extractor(source, device), self._dtype(device)
        network = self._on_device(self.network_, device)

        def apply(batch):
            features = extract(batch).to(dtype)
            reconstruction, codes = network.reconstruct(features)
            errors = squared_error_map(reconstruction, features)
            return function(self._normalized(errors), codes)

        batches = ImageBatches(source, self.batch_size, device=device)
        return map_batches(network, batches, apply, stage=stage)

    def _image_errors(self, maps):
        """Return the error (b,) of images from that of their cells (b, rows, columns)."""
        rows, columns = (
            slice(border, n - border)
            for border, n in zip(self._borders(), maps.shape[1:], strict=True)
        )
        cells = maps[:, rows, columns].flatten(1).double()
        if self.cell_aggregation == "mean":
            return cells.mean(dim=1)
        n_top = (
            1 if self.cell_aggregation == "max" else min(int(self.n_top), cells.shape[1])
        )
        return cells.topk(n_top).values.mean(dim=1)

    def _pixel_errors(self, cells):
        """Return the map (b, H, W) of each image."""
        return cell_scores_to_map(cells, self.image_shape_[:2])

    def _borders(self):
        """Return the cells to leave out at the top and bottom, and at the sides."""
        return borders(self.border, self.grid_shape_, _BORDER)

    def _normalized(self, maps):
        return maps if self.score_normalization is None else divided_by_median(maps)

    def _auto_offset(self, train_scores):
        return train_scores.mean() - 3 * train_scores.std()
