"""Patch SVDD (Yi and Yoon 2020): patches compared with those of normal images."""

import copy
import os
from functools import partial
from numbers import Integral, Real

import numpy as np
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR

from skocc._base.constraints import TRAINING_CONSTRAINTS
from skocc._base.detector import Scores
from skocc._base.fitted import MAP_ATTRIBUTES, TRAINED_ATTRIBUTES, Fitted
from skocc._base.maps import AnomalyMapMixin
from skocc._base.private_sklearn import Interval, StrOptions
from skocc._base.trained import TrainedDetector
from skocc._engine.batches import ImageBatches
from skocc._engine.seeding import seeded
from skocc._nets.patch_encoder import load_encoder_weights
from skocc._ops.memory_bank import kept_under_budget, to_rows
from skocc._ops.neighbors import bank_bytes
from skocc.estimators._memory_banks import GrowingBanksMixin, check_neighbors, filled_banks
from skocc.estimators._patch_maps import map_patches, maps_and_scores, searched_maxima
from skocc.estimators._patch_networks import (
    PatchScales,
    center_banks,
    centers_of,
    embed_patches,
    learn_mean_image,
    mean_embeddings,
    patch_networks,
)
from skocc.estimators._patch_pairs import pair_loss
from skocc.estimators._patches import (
    check_kept,
    check_patch_scales,
    check_sampling,
    warn_about_positions,
)
from skocc.estimators._without_effect import PATCH_SVDD_RULES


class PatchSVDD(GrowingBanksMixin, AnomalyMapMixin, TrainedDetector):
    r"""Patch-level one-class detector with heat maps: how far patches are from normal ones.

    An encoder learns from normal images to tell the position of a patch's neighbor, and to
    map patches that nearly coincide close to each other. Memory banks keep the embeddings
    of the patches of the training images. An image is scored by the distances of its
    patches to the nearest embeddings in the banks, at two sizes of patches. Read more in
    the :ref:`User Guide <patch_svdd>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    patch_size : int, default=64
        Side of the big patches in pixels; the small ones have half of it. A multiple of 8
        up to 64, or 128, 256 and so on. The images must be at least as large.
    strides : tuple (small, big), default=None
        Pixels from one small patch to the next, and from one big patch to the next. None:
        a sixteenth and a quarter of `patch_size`, 4 and 16 as published. One more patch is
        flush with the border where they would leave pixels uncovered.
    backbone : torch.nn.Module, class or function, default=None
        A network of your own from small patches (b, C, `patch_size` / 2, `patch_size` / 2)
        to (b, features): a module, which is copied, or a class or function that builds one,
        see :ref:`own networks <own_networks>`. It takes the place of the encoder of small
        patches and passes over each patch on its own, which takes long. None: that of the
        paper.
    embedding_dim : int, default=64
        Size of an embedding. A backbone has its own.
    hierarchical : bool, default=True
        Whether big patches are embedded from the embeddings of their quadrants. False
        gives them an encoder of their own, as in Table A2 of the paper, and needs
        ``sampling="patches"``.
    normalization : {"mean", "local_contrast"}, default="mean"
        Normalization of the pixels. "mean" subtracts the mean image of the training
        images, as published. "local_contrast" before that shifts and scales each pixel by
        mean and deviation of those around it, with Gaussian weights that are 1/16 of the
        shorter side wide, for images whose light and contrast vary.
    objective : {"patch", "pairs", "svdd"}, default="patch"
        What the encoder learns. "patch": the position of a neighbor, and with
        `svdd_weight` to map patches close to each other that nearly coincide (Eq. 6).
        "pairs": the latter alone (Eq. 4). "svdd": to map all patches close to one center,
        their mean at the start (Eq. 2, 3); a patch is scored by its distance to it, which
        takes the place of the banks. The last two are for comparison (Table 2).
    svdd_weight : float, default=1e-3
        Weight :math:`\lambda` of the distance of patches that nearly coincide, at least 0.
        The paper advises a large weight for textures and a small one for objects. Too
        large a weight collapses the encoder.
    train_head : bool, default=False
        Whether the last layer of the position classifiers learns its weights. See Notes.
    noise : float, default=0.02
        Standard deviation of the noise on each pixel, and of that on the colors of a
        patch, in units of the pixels.
    sampling : {"dense", "patches"}, default="dense"
        How the pairs of patches are embedded in training. "dense" encodes a crop of each
        image once and picks pairs from the map; "patches" cuts them out and encodes each on
        its own, as published, and takes a small `n_pairs`. See Notes.
    n_pairs : int, default=256
        Number of pairs of patches of each kind that an epoch draws from an image.
    weight_init : {"he", "torch"}, default="he"
        Distribution of the encoder's weights at the start. "torch", as published, maps all
        patches to nearly the same embedding at first.
    weights : path or None, default=None
        File of the state dict of an encoder (``.pt``, ``.pth``, ``.pkl``,
        ``.safetensors``), with the keys of the published checkpoints, or of `backbone`;
        with ``n_epochs=0`` it is used as it is. None: random weights, or those it has.
    n_neighbors : int, default=1
        The score of a patch is its mean distance to this many nearest vectors of the bank.
    padding_mode : {"mean", "reflect"}, default="mean"
        How patches are averaged near the border of an image, where few cover a pixel:
        "mean" over those there are, as published; "reflect" over equally many everywhere,
        the scores beyond the border being those within it, mirrored. With "mean" the border
        varies more, and has most of the maxima of images that are all texture.
    aggregation : {"product", "sum", "max", "small", "big"}, default="product"
        How the maps of small and big patches are joined to one, pixel by pixel: their
        product, as published, their sum or the larger of the two; or the map of small, or
        of big patches, alone.
    search : {"exact", "approximate"}, default="exact"
        "approximate" searches a graph of pynndescent, for large banks on a CPU, after
        ``pip install "skocc[approximate]"``. The first one of a process compiles for a
        minute or two.
    max_bank_bytes : int or None, default=16777216
        Bytes that the vectors of both banks take at most. None: all patches are kept. See
        :meth:`bank_bytes`. An exact search takes as much once more.
    subsampling : {"random", "coreset"}, default="random"
        Which vectors are kept if they do not fit: a random subset, or a coreset by greedy
        k-center, which leaves no vector far from all kept ones and takes much longer.
    schedule : {"cosine", "constant"}, default="cosine"
        Whether the step size falls to zero along a cosine, or stays, as published.
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
    n_epochs : int, default=20
        Passes over the images. In each, an image gives a crop and `n_pairs` pairs.
    learning_rate : float, default=1e-3
        Step size of Adam at the start.
    weight_decay : float, default=0.0
        L2 penalty of the weights.
    batch_size : int, default=8
        Images per batch, at least 2. Scores do not depend on it.
    contamination : float, default=0.1
        Fraction of the training images called anomalous, in (0, 0.5]; it sets `offset_`.
    image_shape : tuple (H, W) or (H, W, C), default=None
        Shape of the images in flattened rows, in pixels; one entry may be -1.
    image_size : int or tuple (H, W), default=None
        Size in pixels that all images are resized to (bilinear, antialiased). None: the
        images have one size already. The paper has 256.
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
        Whether a second `fit` continues from the fitted weights, with the same mean image.

    Attributes
    ----------
    network_ : torch.nn.ModuleDict
        On the CPU: "normalize", of which the last step subtracts the mean image; "encoder";
        and the position classifiers "classify_small" and "classify_big". With
        ``objective="svdd"`` also "centers", of small and of big patches.
    bank_small_ : ndarray of shape (n_small, embedding_dim), float32
        Embeddings of small patches of the training images, or their center.
    bank_big_ : ndarray of shape (n_big, embedding_dim), float32
        The same for big patches.
    loss_curve_ : list of float
        Mean loss per epoch.
    validation_loss_curve_ : list of float
        Loss of the held-out images after each epoch, in eval mode; empty without them.
    best_epoch_ : int or None
        Index in `validation_loss_curve_` (of the last `fit`) of the epoch whose weights
        were kept; None without held-out images.
    offset_ : float
        Threshold: ``decision_function(X) = score_samples(X) - offset_``.
    train_scores_ : ndarray of shape (n_samples,), float64
        Leave-one-image-out scores of the training images: the patches of each are compared
        with those of the other images.
    n_samples_seen_ : int
        Number of training images, of all calls of `partial_fit`.
    pixel_threshold_ : float
        Threshold of heat maps, which `contamination` sets for `train_map_maxima_`:
        `anomaly_mask` marks what is above it.
    train_map_maxima_ : ndarray of shape (n_samples,), float64
        Highest value of the heat map of each training image, compared so as well.
    collapsed_ : bool
        Whether all training images have nearly the same score, or all patches the same
        embedding.
    image_shape_ : tuple (H, W, C)
        Shape of the images as the network sees them.
    n_features_in_ : int
        Values per sample of X.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where X was a table with names that are all text.

    See Also
    --------
    DeepSVDD : One embedding of the whole image, for images that are aligned and small.

    Notes
    -----
    The loss is that of [1]_ at both scales,

    .. math::

       L = \sum_{s} \mathrm{CE}_s
           + \lambda \, \mathrm{mean} \lVert f_s(p) - f_s(p') \rVert

    with the cross-entropy CE of the position of a neighbor. The map gives each pixel the
    mean score of the patches that cover it, for each scale, and multiplies the two; the
    score of an image is the negative of the map's maximum.

    A training image would find its own patches in the bank. It is recognized by its
    pixels, which must be equal, and its own patches are excluded from its neighbors, in
    `fit` and afterwards: the threshold is one for new images, and ``fit(X).predict(X)``
    says which training images are unlike the others.

    Where paper and code [2]_ differ, the position classifier is the code's: the columns of
    its last layer are divided by their length without a gradient, so that they stay at
    random values. ``train_head=True`` is the perceptron of the paper.

    The paper chooses :math:`\lambda` by class and does not publish it: `svdd_weight` is
    that of the code's commands, 1e-3, where the code itself has 1. It perturbs colors "at
    random": the deviation of 0.02 in `noise` is the code's. Its training, 300 epochs of
    100 draws from each image, and its start are reached by parameters, see
    :doc:`reproduction </reproduction/patch_svdd>`.

    Further departures. With ``sampling="dense"`` an epoch takes a crop of twice the patch
    size of each image, makes two noisy views of it, encodes both densely, and draws all
    pairs from the two maps. Offsets are therefore even; the neighbor that nearly coincides
    is 2 pixels away, and has noise as well. ``sampling="patches"`` cuts out and encodes
    each patch; ``n_pairs=8`` with batches of 8 images gives the 64 pairs of a published
    step. In both, position pairs that would leave the image are not drawn, where the code
    clips them. Defaults are made for dense training. Local contrast and
    ``padding_mode="reflect"`` are ours. Pixels at the border belong to patches whatever the
    size of the image. Resizing is bilinear. The code searches the bank of small patches
    approximately, and keeps all vectors; the default here keeps a random part.

    Time is linear in the images and epochs. An exact search for scores leaves out patches
    that cannot change the maximum of the map; maps need all, and time by patches times
    bank. Patches of a batch take some hundred MB for eight images of 256 pixels.

    References
    ----------
    .. [1] J. Yi and S. Yoon, "Patch SVDD: Patch-level SVDD for anomaly detection and
       segmentation", ACCV 2020, arXiv:2006.16067.
    .. [2] https://github.com/nuclearboy95/Anomaly-Detection-PatchSVDD-PyTorch, commit
       934d623.

    Examples
    --------
    Stripes, and stripes with a spot:

    >>> import numpy as np
    >>> from skocc import PatchSVDD
    >>> rng = np.random.default_rng(0)
    >>> stripes = np.sin(np.arange(32)) + rng.normal(scale=0.1, size=(12, 32, 32))
    >>> spotted = stripes[8:].copy()
    >>> spotted[:, 10:16, 20:26] = 0
    >>> detector = PatchSVDD(patch_size=16, n_epochs=2, random_state=0).fit(stripes[:8])
    >>> scores = detector.score_samples(stripes[8:])
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
        "patch_size": [Interval(Integral, 8, None, closed="left")],
        "strides": [None, tuple, list],
        "backbone": [None, callable],
        "embedding_dim": [Interval(Integral, 1, None, closed="left")],
        "hierarchical": ["boolean"],
        "normalization": [StrOptions({"mean", "local_contrast"})],
        "objective": [StrOptions({"patch", "pairs", "svdd"})],
        "svdd_weight": [Interval(Real, 0, None, closed="left")],
        "train_head": ["boolean"],
        "noise": [Interval(Real, 0, None, closed="left")],
        "sampling": [StrOptions({"dense", "patches"})],
        "n_pairs": [Interval(Integral, 1, None, closed="left")],
        "weight_init": [StrOptions({"he", "torch"})],
        "weights": [None, str, os.PathLike],
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "padding_mode": [StrOptions({"mean", "reflect"})],
        "aggregation": [StrOptions({"product", "sum", "max", "small", "big"})],
        "search": [StrOptions({"exact", "approximate"})],
        "max_bank_bytes": [None, Interval(Integral, 1, None, closed="left")],
        "subsampling": [StrOptions({"random", "coreset"})],
        "schedule": [StrOptions({"cosine", "constant"})],
    }
    _fitted_attributes = {
        **TRAINED_ATTRIBUTES,
        **MAP_ATTRIBUTES,
        "bank_small_": Fitted("bank", ("m_small", "d")),
        "bank_big_": Fitted("bank", ("m_big", "d")),
        "n_samples_seen_": Fitted("count", optional=True),
    }

    def __init__(
        self,
        *,
        patch_size=64,
        strides=None,
        backbone=None,
        embedding_dim=64,
        hierarchical=True,
        normalization="mean",
        objective="patch",
        svdd_weight=1e-3,
        train_head=False,
        noise=0.02,
        sampling="dense",
        n_pairs=256,
        weight_init="he",
        weights=None,
        n_neighbors=1,
        padding_mode="mean",
        aggregation="product",
        search="exact",
        max_bank_bytes=2**24,
        subsampling="random",
        schedule="cosine",
        validation_fraction=0.0,
        n_iter_no_change=10,
        checkpoint_dir=None,
        n_epochs=20,
        learning_rate=1e-3,
        weight_decay=0.0,
        batch_size=8,
        contamination=0.1,
        image_shape=None,
        image_size=None,
        intensity_range=None,
        device=None,
        random_state=None,
        verbose=0,
        warm_start=False,
    ):
        self.patch_size = patch_size
        self.strides = strides
        self.backbone = backbone
        self.embedding_dim = embedding_dim
        self.hierarchical = hierarchical
        self.normalization = normalization
        self.objective = objective
        self.svdd_weight = svdd_weight
        self.train_head = train_head
        self.noise = noise
        self.sampling = sampling
        self.n_pairs = n_pairs
        self.weight_init = weight_init
        self.weights = weights
        self.n_neighbors = n_neighbors
        self.padding_mode = padding_mode
        self.aggregation = aggregation
        self.search = search
        self.max_bank_bytes = max_bank_bytes
        self.subsampling = subsampling
        self.schedule = schedule
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
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

    _without_effect = PATCH_SVDD_RULES
    # Features of a random encoder differ by 1e-3 of their size, and still rank images.
    _min_spread = 1e-6
    _train_scores_leave_one_out = True
    _fixed_parameters = ("n_epochs",)  # on which the schedule of step sizes depends

    def fit(self, X, y=None) -> "PatchSVDD":
        """Learn an encoder of patches, and keep those of the training images.

        Parameters
        ----------
        X : images or paths
            Normal images only, at least two, and at least `patch_size` pixels a side. An
            array (n, H, W), (n, H, W, C) or (n, C, H, W); flattened images (n, d) with
            `image_shape`; a tensor (n, C, H, W); a list of paths or PIL images; or a
            data set of torch.
        y : Ignored
            Present for scikit-learn. Labels of anomalies raise a warning, because they are
            being trained on.

        Returns
        -------
        self : PatchSVDD
            The fitted estimator.

        Raises
        ------
        ValueError
            X or a parameter is not usable, among them patches larger than the images; the
            message says what to do.
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
            The negative of the highest value of each anomaly map.

        Raises
        ------
        ValueError
            X is not usable, or has another shape than in `fit`.
        """
        return super().score_samples(X)

    def bank_bytes(self, n_images: int, image_size: tuple[int, int]) -> int:
        """Return the bytes of the features of all patches, to be known before fitting.

        Parameters
        ----------
        n_images : int
            How many images `fit` will be given.
        image_size : tuple (H, W)
            Size of the images in pixels, after any resizing.

        Returns
        -------
        n_bytes : int
            What `max_bank_bytes` would have to be to keep them all.
        """
        dim = self.embedding_dim
        if self.backbone is not None:
            n_channels = self.image_shape_[2] if hasattr(self, "image_shape_") else 1
            with seeded(0, torch.device("cpu")):  # weights are drawn, and not used
                network = self._build_network(None, (*image_size, n_channels))
            dim = network["encoder"].embedding_dim
        return bank_bytes(sum(self._scales().n_vectors(n_images, image_size)), dim)

    def _fit(self, images, run):
        if self.n_epochs > 0:
            warn_about_positions(self.image_shape_[:2], int(self.patch_size))
        network = copy.deepcopy(self.network_) if run.is_warm else self._new_network(images)
        self._check_bank(len(images), network["encoder"].embedding_dim)
        network.to(run.device)
        if self.objective != "svdd" and "centers" in network:
            network.pop("centers")
        elif self.objective == "svdd" and "centers" not in network:
            batches = ImageBatches(images, self.batch_size, device=run.device)
            embed = partial(self._embed, network)
            network["centers"] = mean_embeddings(network, batches, embed)
        self._train(network, images, run)
        self._keep(network, images, run)

    def _keep(self, network, images, run):
        self.network_ = network.cpu().eval()
        self._fill_banks(images, run, ())

    def _grow(self, images, run):
        self._fill_banks(images, run, (self.bank_small_, self.bank_big_))

    def _fill_banks(self, images, run, banks):
        """Set the banks, of images and those of banks before, and their scores."""
        banks, vectors = self._make_banks(images, run, banks)
        self.bank_small_, self.bank_big_ = banks
        maxima, scores = self._maxima_and_scores(images, run.device, vectors)
        spread = None if self.objective == "svdd" else self.bank_small_.spread()
        run.scores = Scores(scores, spread, map_maxima=maxima)

    def _check_parameters(self, n_samples):
        """Raise a ValueError for what the images or the other parameters do not allow."""
        check_patch_scales(int(self.patch_size), self.strides)
        if self.backbone is None:  # whose embeddings have a size that is not known yet
            self._check_bank(n_samples, self.embedding_dim)
        is_published = self.backbone is None and self.hierarchical
        check_sampling(self.sampling, is_published, int(self.n_epochs))

    def _check_bank(self, n_samples, dim):
        """Raise a ValueError for a bank that holds too few vectors."""
        if self.objective != "svdd":
            n_vectors = self._scales().n_vectors(n_samples, self.image_shape_[:2])
            n_kept = min(kept_under_budget(n_vectors, dim, self.max_bank_bytes))
            check_kept(n_kept, self.n_neighbors, n_samples)

    def _scales(self):
        return PatchScales.of(self.patch_size, self.strides)

    def _new_network(self, images):
        own_weights = None if self.backbone is None else self.weights
        network = self._build_network(own_weights, self.image_shape_)
        learn_mean_image(network, images, self.batch_size)
        if self.weights is not None and self.backbone is None:
            load_encoder_weights(network.encoder, self.weights)
        return network

    def _empty_network(self, attribute):
        """Return the module of a fitted attribute before its weights are loaded."""
        network = self._build_network(None, self.image_shape_)
        if self.objective == "svdd":
            dim = network["encoder"].embedding_dim
            network["centers"] = centers_of([torch.zeros(dim)] * 2)
        return network

    def _build_network(self, weights, image_shape):
        return patch_networks(self, weights, image_shape)

    def _check_loaded(self):
        n_images, dim = len(self.bank_small_.digests), self.network_.encoder.embedding_dim
        self._check_parameters(n_images)
        self._check_seen()
        self._check_bank(n_images, dim)
        for bank in (self.bank_small_, self.bank_big_):
            if self.objective != "svdd":
                check_neighbors(bank, self.n_neighbors)
        return {"d": dim}

    def _train(self, network, images, run):
        """Train encoder and position classifiers."""
        trained, held_out = self._hold_out(images, run)
        batches_of = partial(ImageBatches, batch_size=self.batch_size, device=run.device)
        self._train_network(
            network,
            self._make_loss(network, run.generator),
            batches_of(trained, generator=run.generator),
            images,
            run,
            held_out=held_out and batches_of(held_out),
            parameters=[w for w in network.parameters() if w.requires_grad],
            schedule=partial(CosineAnnealingLR, T_max=max(1, self.n_epochs))
            if self.schedule == "cosine"
            else None,
        )

    def _make_loss(self, network, generator):
        """Return the loss of a batch of images."""
        # Room for a patch and its farthest neighbor.
        crop_size = tuple(min(n, 2 * int(self.patch_size)) for n in self.image_shape_[:2])
        names = ("sampling", "noise", "n_pairs", "svdd_weight", "objective")
        options = {name: getattr(self, name) for name in names}
        return pair_loss(network, generator, crop_size=crop_size, **options)

    def _embed(self, network, batch):
        """Return the embeddings (b * patches, d) of small and of big patches."""
        images = network.normalize(batch.to(next(network.parameters()).dtype))
        return [to_rows(z) for z in embed_patches(network.encoder, images, self._scales())]

    def _make_banks(self, images, run, banks):
        """Return the banks of small and of big patches, and all embeddings if they fit."""
        if self.objective == "svdd":
            return center_banks(self.network_["centers"], run.n_before + len(images)), None
        network = self._on_device(self.network_, run.device)
        dim = network.encoder.embedding_dim
        return filled_banks(
            self, network, partial(self._embed, network), images, run, banks,
            n_each=self._scales().n_vectors(1, self.image_shape_[:2]), n_features=dim,
            n_kept=lambda n_vectors: kept_under_budget(n_vectors, dim, self.max_bank_bytes),
        )  # fmt: skip

    def _score(self, images, device):
        return Scores(self._maxima_and_scores(images, device)[1])

    def _maxima_and_scores(self, images, device, vectors=None):
        return map_patches(self, images, device, searched_maxima, vectors)

    def _maps_and_scores(self, images, device, of_maps):
        return map_patches(self, images, device, partial(maps_and_scores, of_maps=of_maps))
