"""Features of a pretrained network as a table."""

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted
from torch import nn

from skocc._base.constraints import IMAGE_CONSTRAINTS
from skocc._base.fitted import IMAGE_ATTRIBUTES, Fitted, FittedMixin
from skocc._base.frozen import FROZEN_CONSTRAINTS, frozen_parameters
from skocc._base.private_sklearn import fit_context
from skocc._base.reading import unchanged_on_error, validate_images
from skocc._engine.ambient import isolated
from skocc._engine.batches import ImageBatches
from skocc._engine.device import inference_dtype, on_device, resolve_device
from skocc._engine.feature_cache import cached
from skocc._engine.inference import map_batches
from skocc._engine.seeding import seeded
from skocc._nets.feature_maps import FrozenFeatures, GlobalAverages
from skocc._nets.named import size_of_weights
from skocc._samples.validation import check_backbone_channels


class DeepFeatures(FittedMixin, TransformerMixin, BaseEstimator):
    """Compute features of a pretrained network as a table with one row per image.

    A network that was trained on ImageNet, and is not trained further, describes an image
    by the mean activations of some of its layers. Any scikit-learn estimator can use the
    table, including its one-class detectors. Read more in the :ref:`User Guide
    <deep_features>`.

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
        Layers to read, named as in ``backbone.named_modules()``. Maps are averaged over
        all their cells; vectors are used unchanged. None: the last of stride 32, which is
        ("layer4",) of a ResNet; see the :ref:`User Guide <default_layers>`.
    n_prefix_tokens : int or None, default=None
        Class and register tokens that layers of a transformer return first, and that are
        dropped. None: as known; an error asks for it where it is not.
    normalization : {"imagenet", "weights"} or None, default=None
        Whether ImageNet's mean color is subtracted and the deviation divided by, or those
        that torchvision or timm says the weights were trained with. The report
        [1]_ does not.
    memory : path, joblib.Memory or None, default=None
        Folder in which the features of each image are kept for other fits, so that a search
        over the parameters of a pipeline computes them once. None means that they are not
        kept.
    batch_size : int, default=32
        Number of images per batch, at least 2. Features do not depend on it.
    image_shape : tuple (H, W) or (H, W, C), default=None
        Shape of the images in flattened rows, in pixels; one entry may be -1.
    image_size : int, tuple (H, W), "weights" or None, default=224
        Size in pixels that all images are resized to (bilinear, antialiased), or that the
        weights were trained for. None: the images have one size already.
    intensity_range : tuple (low, high), default=None
        Values that are scaled to 0 and 1 in all images, such as (0, 4095) for a 12-bit
        camera that writes 16-bit files. None means the range of uint8 and uint16, and no
        scaling of other types.
    device : str or torch.device, default=None
        Device to compute on. None means CUDA if available, else MPS, else the CPU.
    random_state : int, RandomState or None, default=None
        Seed of the random weights for ``weights=None``.
    verbose : int, default=0
        Whether progress bars are shown, of each stage that takes two seconds or more.

    Attributes
    ----------
    network_ : torch.nn.Module
        Network on the CPU, which maps images (n, C, H, W) to features (n, d).
    image_shape_ : tuple (H, W, C)
        Shape of the images that enter the network.
    n_features_in_ : int
        Number of values per sample of X.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, if X was a table whose column names are all strings.

    See Also
    --------
    skocc.ResNetKNN : Compares features cell by cell, and locates anomalies in an image.

    Notes
    -----
    `fit` reads no pixels: it builds the network, and learns the shape of the images.

    The report [1]_ compares classical detectors on such features. It uses 2048 features
    from the last stage of ResNet50, which is the default here, or 512 + 1024 features from
    its second and third stages, ``layers=("layer2", "layer3")``. It calls the last stage
    "block 3", counted from 0. It does not state how maps become features; only the mean
    gives the numbers of features that it states.

    The time is that of one pass of the network per image, up to the last of the layers.

    References
    ----------
    .. [1] "Project MVTec Anomaly Detection, Report 2".

    Examples
    --------
    The pipeline of the report, with random weights, which need no download:

    >>> from sklearn.datasets import load_digits
    >>> from sklearn.decomposition import PCA
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from sklearn.svm import OneClassSVM
    >>> from skocc.feature_extraction import DeepFeatures
    >>> digits = load_digits()
    >>> images = digits.images / 16
    >>> features = DeepFeatures(
    ...     backbone="resnet18", weights=None, layers=("layer2",), image_size=32,
    ...     random_state=0,
    ... )
    >>> pipeline = make_pipeline(features, StandardScaler(), PCA(0.95), OneClassSVM(nu=0.1))
    >>> _ = pipeline.fit(images[digits.target == 0][:60])
    >>> bool(pipeline.predict(images[digits.target == 4][:60]).mean() < 0)
    True
    >>> pipeline[0].get_feature_names_out()[:2]
    array(['layer2_0', 'layer2_1'], dtype=object)
    """

    _parameter_constraints = {
        **IMAGE_CONSTRAINTS,
        **FROZEN_CONSTRAINTS,
    }
    _fitted_attributes = {**IMAGE_ATTRIBUTES, "network_": Fitted("network")}
    _size_of_weights = size_of_weights

    def __init__(
        self,
        *,
        backbone="resnet50",
        weights="imagenet",
        layers=None,
        n_prefix_tokens=None,
        normalization=None,
        memory=None,
        batch_size=32,
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
        self.memory = memory
        self.batch_size = batch_size
        self.image_shape = image_shape
        self.image_size = image_size
        self.intensity_range = intensity_range
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @fit_context(prefer_skip_nested_validation=True)
    @isolated
    def fit(self, X, y=None) -> "DeepFeatures":
        """Build the network, and learn the shape of the images.

        Parameters
        ----------
        X : images or paths
            An array (n, H, W), (n, H, W, C) or (n, C, H, W); flattened images (n, d) with
            `image_shape`; a tensor (n, C, H, W); a list of paths or PIL images; or a
            torch data set.
        y : Ignored
            Present for scikit-learn.

        Returns
        -------
        self : DeepFeatures
            The fitted transformer.

        Raises
        ------
        ValueError
            X or a parameter is invalid, for example layers that the backbone does not have;
            the message says what to do.
        """
        with unchanged_on_error(self):
            device = resolve_device(self.device)
            validate_images(self, X, reset=True)
            self._check_channels()
            with seeded(self.random_state, device):
                self.network_ = self._build_network(self.weights)
            self._layer_sizes()
        return self

    @isolated
    def transform(self, X) -> np.ndarray:
        """Compute the features of images.

        Parameters
        ----------
        X : images or paths
            As in `fit`.

        Returns
        -------
        table : ndarray of shape (n_samples, n_columns), float32
            One row per image; `get_feature_names_out` returns the names of the columns.

        Raises
        ------
        ValueError
            X is invalid, or its shape differs from that in `fit`.
        """
        check_is_fitted(self)
        images = validate_images(self, X, reset=False)
        device = resolve_device(self.device, fall_back=True)
        dtype = inference_dtype(self.image_shape_, device)
        # The cache keeps the means, not the large maps from which they are computed.
        network = _InTuple(on_device(self.network_, device, dtype))
        compute = cached(network, self.memory)
        batches = ImageBatches(images, self.batch_size, device=device)
        return map_batches(
            network,
            batches,
            lambda batch: compute(batch.to(dtype))[0].float(),
            stage="features",
        )

    def get_feature_names_out(self, input_features=None) -> np.ndarray:
        """Return the names of the table's columns.

        Parameters
        ----------
        input_features : Ignored
            Present for scikit-learn; the names do not depend on those of X.

        Returns
        -------
        names : ndarray of shape (n_columns,), object
            Names of layer and channel, such as ``layer4_0``.
        """
        check_is_fitted(self)
        layers = self.network_.extract.maps.layers
        names = [
            f"{layer}_{channel}"
            for layer, size in zip(layers, self._layer_sizes(), strict=True)
            for channel in range(size)
        ]
        return np.array(names, dtype=object)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = []
        return tags

    def _layer_sizes(self):
        """Return the number of channels of each layer."""
        maps = self.network_.extract.maps
        return [size for size, *_ in maps.shapes(*self.image_shape_[:2], only_maps=False)]

    def _build_network(self, weights):
        join = GlobalAverages()
        return FrozenFeatures.of(self, join, weights, self.image_shape_, strides=(32,))

    def _empty_network(self, attribute):
        """Return the module of a fitted attribute, whose weights are loaded later."""
        return self._build_network(weights=None)

    def _check_loaded(self):
        self._check_channels()
        self._layer_sizes()
        return {}

    def _check_channels(self):
        check_backbone_channels(self.image_shape_, **frozen_parameters(self))


class _InTuple(nn.Module):
    """Network that returns its single result in a tuple, as the cache requires."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, batch):
        return (self.network(batch),)
