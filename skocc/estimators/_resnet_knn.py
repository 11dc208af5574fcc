"""Nearest neighbors of deep features (after SPADE and PatchCore): ResNetKNN."""

import math
from numbers import Integral, Real

import torch

from skocc._base.constraints import CONTAMINATION_OR_AUTO, DETECTOR_CONSTRAINTS
from skocc._base.detector import BaseDetector, Scores
from skocc._base.fitted import DETECTOR_ATTRIBUTES, MAP_ATTRIBUTES, Fitted
from skocc._base.frozen import FROZEN_CONSTRAINTS, frozen_parameters
from skocc._base.maps import AnomalyMapMixin, map_maxima
from skocc._base.private_sklearn import Interval, StrOptions
from skocc._engine.ambient import isolated
from skocc._engine.batches import ImageBatches
from skocc._engine.feature_cache import cached
from skocc._engine.inference import map_batches
from skocc._engine.seeding import seeded
from skocc._nets.feature_maps import (
    FrozenFeatures,
    JoinedMaps,
    LocallyAwarePatches,
    UnitLength,
)
from skocc._nets.named import size_of_weights
from skocc._ops.maps import cell_scores_to_map, changed_pixels
from skocc._ops.memory_bank import kept_under_budget, to_rows
from skocc._ops.neighbors import bank_bytes
from skocc._ops.refined_search import Scale, search_farthest, search_highest
from skocc._ops.scores import divided_by_median
from skocc._ops.turns import turned
from skocc._samples.progress import waiting
from skocc._samples.validation import check_backbone_channels
from skocc.estimators._memory_banks import (
    GrowingBanksMixin,
    check_neighbors,
    filled_banks,
    patchcore_weights,
)
from skocc.estimators._without_effect import RESNET_KNN_RULES


class ResNetKNN(GrowingBanksMixin, AnomalyMapMixin, BaseDetector):
    r"""Nearest-neighbor detector with heat maps on the features of a pretrained network.

    A network that was trained on ImageNet, and is not trained further, describes each cell
    of a grid over the image by the activations of some of its layers. A memory bank keeps
    the features of all cells of the training images. The score of an image is the distance
    of its most unusual cell to the nearest vector of the bank. A coreset of the bank,
    PatchCore's patch features and its weighting are options. Read more in the :ref:`User
    Guide <resnet_knn>`.

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
        stride 8 and of 16, ("layer2", "layer3") of a ResNet; see the :ref:`default layers
        <default_layers>` of others.
    n_prefix_tokens : int or None, default=None
        Class and register tokens that layers of a transformer return first, and that are
        dropped. None: as known; an error asks for it where it is not.
    normalization : {"imagenet", "weights"} or None, default=None
        Whether ImageNet's mean color is subtracted and the deviation divided by, or those
        that torchvision or timm says the weights were trained with. The source does not.
    pooling : {"average", "locally_aware"} or None, default="average"
        Whether the features of a cell are the mean of its 3 x 3 neighborhood, come from
        all nine entries, as in PatchCore, or are its own (None), for transformers.
    interpolation : {"average", "bilinear"}, default="average"
        How smaller layers are brought to the grid of the largest. Locally aware patches are
        always brought there bilinearly.
    embedding_dim : int, default=1024
        Size of the features of a cell for ``pooling="locally_aware"``.
    metric : {"euclidean", "cosine"}, default="euclidean"
        Distance of a cell from a vector of the bank. "cosine" is one minus the cosine of
        their angle: their lengths do not count.
    n_neighbors : int, default=1
        Number of neighbors that ``neighbor_aggregation="mean"`` averages over. More than
        one needs "mean".
    neighbor_aggregation : {"min", "mean"}, default="min"
        The score of a cell is its distance to the nearest vector of the bank ("min"), or
        its mean distance to the `n_neighbors` nearest ones ("mean").
    n_top : int, default=1
        Number of cells whose mean is the score of an image: those with the highest scores.
        The source takes one, AnomalyDINO a hundredth of the cells. More than one are for
        defects that are larger than a cell.
    search : {"exact", "approximate"}, default="exact"
        "approximate" searches a graph of pynndescent, for large banks on a CPU, after
        ``pip install "skocc[approximate]"``. The first one of a process compiles for a
        minute or two.
    subsampling : {"random", "coreset"}, default="random"
        Which vectors are kept if not all are: a random subset, or a coreset by greedy
        k-center, which leaves no vector far from all kept ones and takes much longer.
    bank_fraction : float, default=1.0
        Fraction of the vectors that is kept, in (0, 1].
    max_bank_bytes : int or None, default=2147483648
        Bytes that the bank takes at most; fewer vectors are kept where it would take more.
        None: no limit. See :meth:`bank_bytes`. An exact search takes as much once more.
    bank_rotations : int, default=1
        Number of turns, evenly spaced over the full circle, in which the bank holds each
        training image, for things that lie turned and few images of them. Quarter turns of
        square images are exact; others are bilinear, with corners filled by reflection.

        .. versionadded:: 0.1
    reweighting : int or None, default=None
        Number of bank vectors, at least 2, that the score of an image is weighted by: those
        around the nearest neighbor of its worst cell tell how usual that neighbor is. The
        paper of PatchCore weights scores so, for ``n_top=1`` and Euclidean distances. None:
        no weights, as in its code.
    score_normalization : {"median"} or None, default=None
        "median" divides the scores of an image's cells by their median, for images that
        differ from each other as a whole, in light for example, and have small defects:
        only what stands out in its own image counts, and an image that is anomalous all
        over is not found. The source has none.
    smoothing : float, default=0.0
        Standard deviation in pixels of the Gaussian that `anomaly_map` is smoothed by.
        PatchCore has 4. Scores of images are not affected.
    memory : path, joblib.Memory or None, default=None
        Folder in which the features of each image are kept, for other fits: a search over
        parameters then computes them once. None: they are not kept.
    batch_size : int, default=16
        Images per batch, at least 2. Scores do not depend on it.
    contamination : float or "auto", default=0.1
        Fraction of the training images called anomalous, in (0, 0.5]; it sets `offset_`.
        "auto" puts the threshold two standard deviations below the mean of their scores.
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
        For the choice of vectors, and for ``weights=None``.
    verbose : int, default=0
        Whether progress bars are shown, of each stage that takes two seconds or more.

    Attributes
    ----------
    network_ : torch.nn.Module
        On the CPU; maps images (n, C, H, W) to features (n, d, rows, columns).
    grid_shape_ : tuple (rows, columns)
        Cells of an image.
    bank_ : ndarray of shape (n_vectors, d), float32
        Features of cells of the training images.
    offset_ : float
        Threshold: ``decision_function(X) = score_samples(X) - offset_``.
    train_scores_ : ndarray of shape (n_samples,), float64
        Leave-one-image-out scores of the training images: the cells of each are compared
        with those of the other images.
    n_samples_seen_ : int
        Number of training images, of all calls of `partial_fit`.
    pixel_threshold_ : float
        Threshold of heat maps, which `contamination` sets for `train_map_maxima_`:
        `anomaly_mask` marks what is above it.
    train_map_maxima_ : ndarray of shape (n_samples,), float64
        Highest value of the heat map of each training image, compared so as well.
    collapsed_ : bool
        Whether all training images have nearly the same score, or all cells the same
        features.
    image_shape_ : tuple (H, W, C)
        Shape of the images as the network sees them.
    n_features_in_ : int
        Values per sample of X.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where X was a table with names that are all text.

    See Also
    --------
    PatchSVDD : Learns its features from the training images.
    sklearn.neighbors.LocalOutlierFactor : Compares distances with those around the
        neighbors, for rows.

    Notes
    -----
    For the cell c of an image with the features f(c), and the bank B,

    .. math::

       m(c) = \min_{b \in B} \lVert f(c) - b \rVert, \qquad s = \max_c m(c) .

    The map is m, brought to the size of the images by bilinear interpolation and then, if
    asked for, smoothed; the score of an image is -s, from m before either. (The maximum of
    a smoothed map would be another score.) With ``reweighting=n``, s is multiplied by

    .. math::

       w = 1 - \frac{\exp(s / \sqrt d)}{\sum_{b \in N} \exp(\lVert f - b \rVert / \sqrt d)}

    with the features f of the cell that attains s, and N the n vectors of the bank nearest
    to the neighbor found for it, itself among them. Whether it is, [2]_ leaves open; so w
    lies between 0 and 1.

    With ``n_top=n``, s is the mean of the n largest m(c). With ``metric="cosine"``,
    features are scaled to length 1, and m is half the square of the distance, which is one
    minus the cosine; with more than one neighbor, half the square of their mean distance.
    AnomalyDINO [3]_ has both.

    With ``score_normalization="median"`` m is divided by the median of its cells before the
    maximum is taken; w is computed from the distances all the same. No source has it. On
    photographs taken under several lights no other setting gains as much. It needs a bank
    without near-duplicates of the images that are scored: most of their cells are at no
    distance, and any other is then a large multiple of the median.

    A training image is recognized by its pixels, which must be equal, and its own cells are
    excluded from its neighbors, in `fit` and afterwards: the threshold is one for new
    images, and ``fit(X).predict(X)`` says which training images are unlike the others.

    The source [1]_ states two rules: the mean distance to five neighbors, and the minimum,
    which it calls s*. Its public relatives have the maximum over cells of the minimum,
    which is the default here, and average pooling over 3 x 3 cells without padding. They
    keep a random tenth of the bank; the default here keeps all. Their threshold, the mean
    and two standard deviations ("auto"), is here that of leave-one-image-out scores; the
    report puts it where F1 on the labeled test images is highest. PatchCore and AnomalyDINO
    in one call each are in the :ref:`User Guide <recipes>`.

    `score_samples`, `predict`, `decision_function` and the thresholds of `fit` search the
    bank exactly, but only for the cells that may be the farthest of their image, which
    takes less time than the network unless the bank is very large. `anomaly_map` and
    ``score_normalization="median"`` need all cells, and time in proportion to the bank: 400
    images have one of 1.9 GB for ResNet50. `fit` computes features once if the bank keeps
    all of them, or they take at most 512 MiB, and else twice, unless `memory` keeps them.

    References
    ----------
    .. [1] "Project MVTec Anomaly Detection, Report 2": ResNet50 features with nearest
       neighbors.
    .. [2] K. Roth et al., "Towards total recall in industrial anomaly detection", CVPR
       2022, arXiv:2106.08265. Code: https://github.com/amazon-science/patchcore-inspection.
    .. [3] S. Damm et al., "AnomalyDINO: Boosting patch-based few-shot anomaly detection
       with DINOv2", WACV 2025, arXiv:2405.14529. Code:
       https://github.com/dammsi/AnomalyDINO.

    Examples
    --------
    Stripes, and stripes with a spot. Random weights suffice here, and need no download:

    >>> import numpy as np
    >>> from skocc import ResNetKNN
    >>> rng = np.random.default_rng(0)
    >>> stripes = np.sin(np.arange(32)) + rng.normal(scale=0.1, size=(12, 32, 32))
    >>> spotted = stripes[8:].copy()
    >>> spotted[:, 10:16, 20:26] = 0
    >>> detector = ResNetKNN(
    ...     backbone="resnet18", weights=None, layers=("relu",), image_size=None,
    ...     random_state=0,
    ... )
    >>> scores = detector.fit(stripes[:8]).score_samples(stripes[8:])
    >>> bool(scores.min() > detector.score_samples(spotted).max())
    True
    >>> maps = detector.anomaly_map(spotted)
    >>> maps.shape
    (4, 32, 32)
    >>> bool(maps[:, 10:16, 20:26].mean() > 2 * maps.mean())
    True
    """

    _parameter_constraints = {
        **DETECTOR_CONSTRAINTS,
        **FROZEN_CONSTRAINTS,
        "contamination": CONTAMINATION_OR_AUTO,
        "pooling": [None, StrOptions({"average", "locally_aware"})],
        "interpolation": [StrOptions({"average", "bilinear"})],
        "embedding_dim": [Interval(Integral, 1, None, closed="left")],
        "metric": [StrOptions({"euclidean", "cosine"})],
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "neighbor_aggregation": [StrOptions({"min", "mean"})],
        "n_top": [Interval(Integral, 1, None, closed="left")],
        "search": [StrOptions({"exact", "approximate"})],
        "subsampling": [StrOptions({"random", "coreset"})],
        "bank_fraction": [Interval(Real, 0, 1, closed="right")],
        "max_bank_bytes": [None, Interval(Integral, 1, None, closed="left")],
        "bank_rotations": [Interval(Integral, 1, None, closed="left")],
        "reweighting": [None, Interval(Integral, 2, None, closed="left")],
        "score_normalization": [None, StrOptions({"median"})],
        "smoothing": [Interval(Real, 0, None, closed="left")],
    }
    _fitted_attributes = {
        **DETECTOR_ATTRIBUTES,
        **MAP_ATTRIBUTES,
        "network_": Fitted("network"),
        "grid_shape_": Fitted("integers"),
        "bank_": Fitted("bank", ("m", "d")),
        "n_samples_seen_": Fitted("count", optional=True),
    }

    def __init__(
        self,
        *,
        backbone="resnet50",
        weights="imagenet",
        layers=None,
        n_prefix_tokens=None,
        normalization=None,
        pooling="average",
        interpolation="average",
        embedding_dim=1024,
        metric="euclidean",
        n_neighbors=1,
        neighbor_aggregation="min",
        n_top=1,
        search="exact",
        subsampling="random",
        bank_fraction=1.0,
        max_bank_bytes=2**31,
        bank_rotations=1,
        reweighting=None,
        score_normalization=None,
        smoothing=0.0,
        memory=None,
        batch_size=16,
        contamination=0.1,
        image_shape=None,
        image_size=224,
        intensity_range=None,
        device=None,
        random_state=None,
        verbose=0,
    ):
        self.backbone = backbone
        self.weights = weights
        self.layers = layers
        self.n_prefix_tokens = n_prefix_tokens
        self.normalization = normalization
        self.pooling = pooling
        self.interpolation = interpolation
        self.embedding_dim = embedding_dim
        self.metric = metric
        self.n_neighbors = n_neighbors
        self.neighbor_aggregation = neighbor_aggregation
        self.n_top = n_top
        self.search = search
        self.subsampling = subsampling
        self.bank_fraction = bank_fraction
        self.max_bank_bytes = max_bank_bytes
        self.bank_rotations = bank_rotations
        self.reweighting = reweighting
        self.score_normalization = score_normalization
        self.smoothing = smoothing
        self.memory = memory
        self.batch_size = batch_size
        self.contamination = contamination
        self.image_shape = image_shape
        self.image_size = image_size
        self.intensity_range = intensity_range
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    _without_effect = RESNET_KNN_RULES
    _size_of_weights = size_of_weights
    # Features of random networks differ by little of their size, and still rank.
    _min_spread = 1e-6
    _train_scores_leave_one_out = True

    def fit(self, X, y=None) -> "ResNetKNN":
        """Keep the features of normal images.

        Parameters
        ----------
        X : images or paths
            Normal images only, at least two. An array (n, H, W), (n, H, W, C) or
            (n, C, H, W); flattened images (n, d) with `image_shape`; a tensor (n, C, H, W);
            a list of paths or PIL images; or a data set of torch.
        y : Ignored
            Present for scikit-learn. Labels of anomalies raise a warning, because they are
            being trained on.

        Returns
        -------
        self : ResNetKNN
            The fitted estimator.

        Raises
        ------
        ValueError
            X or a parameter is not usable, among them layers that the backbone does
            not have; the message says what to do.
        """
        return super().fit(X, y)

    @isolated
    def bank_bytes(
        self, n_images: int, image_size: int | tuple[int, int] | None = None
    ) -> int:
        """Return the bytes of the features of all cells, in all turns, before fitting.

        Parameters
        ----------
        n_images : int
            How many images `fit` will be given.
        image_size : int or tuple (H, W), default=None
            Size of the images in pixels. None: the parameter `image_size`.

        Returns
        -------
        n_bytes : int
            Of these, `fit` keeps the fraction `bank_fraction`, and no more than
            `max_bank_bytes`.
        """
        size = self.image_size if image_size is None else image_size
        size = self._size_of_weights() if isinstance(size, str) else size
        height, width = (size, size) if isinstance(size, int | Integral) else size
        with seeded(0, torch.device("cpu")):  # weights are drawn, and not used
            n_channels = self.image_shape_[2] if hasattr(self, "image_shape_") else 1
            network = self._build_network(None, (height, width, n_channels))
        n_features, n_rows, n_columns = network.grid(height, width)
        n_cells = n_rows * n_columns * int(self.bank_rotations)
        return bank_bytes(n_images * n_cells, n_features)

    def _fit(self, images, run):
        self.network_ = self._build_network(self.weights, self.image_shape_)
        n_features, *grid_shape = self.network_.grid(*self.image_shape_[:2])
        self.grid_shape_ = tuple(grid_shape)
        self._fill_bank(images, run, (), n_features)

    def _grow(self, images, run):
        self._fill_bank(images, run, (self.bank_,), self.bank_.vectors.shape[1])

    def _fill_bank(self, images, run, banks, n_features):
        """Set the bank, of images and those of banks before, and their scores."""
        self.bank_, vectors = self._make_bank(images, run, banks, n_features)
        check_neighbors(self.bank_, self._n_neighbors())
        maxima, scores = self._maxima_and_scores(images, run.device, vectors)
        run.scores = Scores(scores, self.bank_.spread(), map_maxima=maxima)

    def _check_parameters(self, n_samples):
        """Raise a ValueError for other channels, and for parameters that clash."""
        check_backbone_channels(self.image_shape_, **frozen_parameters(self))
        if self.neighbor_aggregation == "min" and self.n_neighbors > 1:
            raise ValueError(
                "neighbor_aggregation='min' uses the nearest neighbor alone. Got "
                f"n_neighbors={self.n_neighbors}. Set n_neighbors=1, or "
                "neighbor_aggregation='mean'."
            )
        if self.reweighting is not None and (self.n_top > 1 or self.metric == "cosine"):
            raise ValueError(
                "reweighting weights the Euclidean distance of the farthest cell. Got "
                f"n_top={self.n_top} and metric={self.metric!r}. Set reweighting=None, or "
                "n_top=1 and metric='euclidean'."
            )

    def _n_neighbors(self):
        return int(self.n_neighbors) if self.neighbor_aggregation == "mean" else 1

    def _build_network(self, weights, image_shape):
        join: JoinedMaps | LocallyAwarePatches | UnitLength
        if self.pooling == "locally_aware":
            join = LocallyAwarePatches(int(self.embedding_dim))
        else:
            join = JoinedMaps(self.interpolation, averages=self.pooling == "average")
        if self.metric == "cosine":
            join = UnitLength(join)
        return FrozenFeatures.of(self, join, weights, image_shape)

    def _empty_network(self, attribute):
        """Return the module of a fitted attribute before its weights are loaded."""
        return self._build_network(None, self.image_shape_)

    def _check_loaded(self):
        self._check_parameters(len(self.train_scores_))
        self._check_seen()
        n_features, *grid_shape = self.network_.grid(*self.image_shape_[:2])
        if list(self.grid_shape_) != grid_shape:
            raise ValueError(f"grid_shape_={self.grid_shape_}, of a grid of {grid_shape}")
        check_neighbors(self.bank_, self._n_neighbors())
        return {"d": n_features}

    def _features_on(self, device):
        """Return the network on a device, and a function from images to features."""
        network, dtype = self._on_device(self.network_, device), self._dtype(device)
        extract = cached(network.extract, self.memory)
        # Queries and bank are rounded alike: an image in the bank has distance 0.
        return network, lambda batch: network.join(extract(batch.to(dtype))).float()

    def _make_bank(self, images, run, banks, n_features):
        """Return the bank, and the features of all cells if they are in memory."""
        network, features_of = self._features_on(run.device)
        n_turns, n_cells = int(self.bank_rotations), math.prod(self.grid_shape_)

        def embed(batch):
            turns = [to_rows(features_of(images)) for images in turned(batch, n_turns)]
            parts = [rows.unflatten(0, (len(batch), n_cells)) for rows in turns]
            return [torch.cat(parts, dim=1).flatten(0, 1)]

        def n_kept(n_vectors):
            kept = kept_under_budget(n_vectors, n_features, self.max_bank_bytes)
            return [min(kept[0], max(1, round(self.bank_fraction * n_vectors[0])))]

        (bank,), vectors = filled_banks(
            self, network, embed, images, run, banks,
            n_each=[n_turns * n_cells], n_features=n_features, n_kept=n_kept,
            fraction=self.bank_fraction, n_turns=n_turns,
        )  # fmt: skip
        return bank, vectors

    def _score(self, images, device):
        def scores(cells, *rest):
            self._search_farthest(cells)
            return -self._image_scores(cells, *rest)

        return Scores(self._map_cells(images, device, scores))

    def _maps_and_scores(self, images, device, of_maps):
        def maps_and_scores(cells, *rest):
            cells.search_all()
            maps = of_maps(self._pixel_scores(cells.distances))
            return maps, -self._image_scores(cells, *rest)

        return self._map_cells(images, device, maps_and_scores)

    def _maxima_and_scores(self, images, device, vectors=None):
        rows, columns = (
            changed_pixels(*sides, self.smoothing)
            for sides in zip(self.grid_shape_, self.image_shape_[:2], strict=True)
        )

        def maxima_and_scores(cells, *rest):
            self._search_farthest(cells)
            where = cells.bounds.device
            scales = [Scale(cells, rows.to(where), columns.to(where))]
            maps = search_highest(scales, self._pixel_scores)
            return map_maxima(maps), -self._image_scores(cells, *rest)

        return self._map_cells(images, device, maxima_and_scores, vectors)

    def _search_farthest(self, cells):
        """Search for the cells that are needed for the scores of images."""
        if self.score_normalization is None:
            search_farthest(cells, int(self.n_top))
        else:  # a median needs all cells
            cells.search_all()

    def _map_cells(self, images, device, reduce, vectors=None):
        """Apply a function to the cells of each batch, and join what it returns.

        `vectors` are the batches of the images as `_make_bank` returns them, if it does.
        """
        network, features_of = self._features_on(device)
        bank = self.bank_.on(device, self.search, waiting)
        n_cells = math.prod(self.grid_shape_)

        def reduced(batch):
            if vectors is None:
                batch = self.bank_.numbers_of(batch), [to_rows(features_of(batch))]
            numbers, rows = batch[0].to(device), batch[1][0].to(device)
            cells = bank.cells(
                rows.unflatten(0, (-1, n_cells)), numbers, self._n_neighbors()
            )
            return reduce(cells, rows, numbers, bank)

        batches = vectors or ImageBatches(images, self.batch_size, device=device)
        return map_batches(network, batches, reduced)

    def _image_scores(self, cells, rows, numbers, bank):
        """Return the score (b,) of each image, higher being more anomalous."""
        values = self._cell_scores(cells.distances)
        if self.n_top > 1:
            return values.topk(min(int(self.n_top), values.shape[1])).values.mean(dim=1)
        # s* of PatchCore (Eq. 6), the distance of the cell that is farthest from the bank.
        s_star, worst = values.max(dim=1)
        if self.reweighting is None:
            return s_star
        worst = worst + cells.shape[1] * torch.arange(len(worst), device=worst.device)
        m_star = cells.indices.flatten()[worst].cpu()
        m_test, n = rows[worst.to(rows.device)], int(self.reweighting)
        weights = patchcore_weights(self.bank_, bank, m_test, m_star, numbers, n)
        return s_star * weights.to(s_star.device)

    def _pixel_scores(self, cells):
        """Return the map (b, H, W) of each image."""
        grids = self._cell_scores(cells).unflatten(1, self.grid_shape_)
        return cell_scores_to_map(grids, self.image_shape_[:2], self.smoothing)

    def _cell_scores(self, distances):
        """Return the scores of cells (b, c) from their distances, or from bounds."""
        if self.metric == "cosine":  # of vectors of length 1
            # Minus infinity marks cells that were not searched, and has to stay below.
            distances = distances.square().copysign(distances) / 2
        if self.score_normalization is None:
            return distances
        return divided_by_median(distances)

    def _auto_offset(self, train_scores):
        return train_scores.mean() - 2 * train_scores.std()
