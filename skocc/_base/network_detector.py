"""A detector that trains one network, of which a user writes the network and the loss."""

import copy

import torch

from skocc._base.constraints import TRAINING_CONSTRAINTS
from skocc._base.detector import Scores
from skocc._base.effects import NO_HELD_OUT_IMAGES
from skocc._base.fitted import TRAINED_ATTRIBUTES
from skocc._base.trained import TrainedDetector
from skocc._engine.batches import ImageBatches
from skocc._engine.inference import map_batches
from skocc._samples.progress import waiting


class NetworkDetector(TrainedDetector):
    """Base class of your own detectors that train one network.

    A subclass implements `build_network`, `loss` and `sample_scores`, and may override
    `make_optimizer` and `prepare`. Everything else is that of all detectors: what X may be,
    thresholds, seeds, devices, held-out images and early stopping, warm starts, callbacks,
    pickles, and model files after :func:`skocc.register`. Read more in the :ref:`User Guide
    <own_method>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    validation_fraction : float, default=0.0
        Fraction of the training images that is held out of the training, in [0, 1); their
        loss says when to stop, and the network of the best epoch is kept.
    n_iter_no_change : int or None, default=10
        Epochs without a lower loss of the held-out images after which training ends. None:
        it never ends early. Without held-out images it has no effect.
    checkpoint_dir : path or None, default=None
        Folder for checkpoints, from which a fit that was killed resumes; `random_state` has
        to be an int. None: none are written.
    n_epochs : int, default=50
        Epochs at most.
    learning_rate : float, default=1e-3
        Step size of the optimizer.
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
        images have one size already.
    intensity_range : tuple (low, high), default=None
        Numbers that are read as 0 and 1, in every image alike. None: the range of uint8 and
        uint16, and other numbers as they are.
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
        The trained network, on the CPU.
    loss_curve_ : list of float
        Mean loss per epoch.
    validation_loss_curve_ : list of float
        Loss of the held-out images after each epoch; empty without them.
    best_epoch_ : int or None
        Index of the epoch whose weights were kept, of the last `fit`; None without held-out
        images.
    offset_ : float
        Threshold: ``decision_function(X) = score_samples(X) - offset_``.
    train_scores_ : ndarray of shape (n_samples,), float64
        Scores of the training images, those held out among them.
    collapsed_ : bool
        Whether all training images have nearly the same score.
    image_shape_ : tuple (H, W, C)
        Shape of the images as the network sees them.
    n_features_in_ : int
        Values per sample of X.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where X was a table with names that are all text.

    See Also
    --------
    skocc.base.BaseDetector : Base class of detectors of any kind.
    skocc.register : Lets `save` and `load` know the class.

    Notes
    -----
    A class attribute ``_accepts_rows = True`` lets X be plain rows (n, d) too; batches are
    then (b, d), and `image_shape_` is (d,).

    Random numbers that `build_network`, `loss` and the layers of the network draw by
    torch's functions come from streams that `random_state` determines.

    Examples
    --------
    The distance to the center of a random sphere, on which a linear map puts normal images:

    >>> import math
    >>> from sklearn.datasets import load_digits
    >>> from torch import nn
    >>> from skocc.base import NetworkDetector
    >>> class LinearSphere(NetworkDetector):
    ...     def build_network(self):
    ...         linear = nn.Linear(math.prod(self.image_shape_), 4)
    ...         return nn.Sequential(nn.Flatten(), linear)
    ...
    ...     def loss(self, network, batch):
    ...         return -self.sample_scores(network, batch).mean()
    ...
    ...     def sample_scores(self, network, batch):
    ...         return -(network(batch) - 1).square().mean(dim=1)
    >>> digits = load_digits()
    >>> zeros = digits.images[digits.target == 0] / 16
    >>> detector = LinearSphere(learning_rate=0.01, validation_fraction=0.2, random_state=0)
    >>> labels = detector.fit(zeros[:150]).predict(digits.images[digits.target == 1] / 16)
    >>> bool((labels == -1).mean() > 0.9)
    True
    """

    _parameter_constraints = TRAINING_CONSTRAINTS
    _fitted_attributes = TRAINED_ATTRIBUTES
    _without_effect = (NO_HELD_OUT_IMAGES,)

    def __init__(
        self,
        *,
        validation_fraction=0.0,
        n_iter_no_change=10,
        checkpoint_dir=None,
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
        super().__init__(
            batch_size=batch_size,
            contamination=contamination,
            image_shape=image_shape,
            image_size=image_size,
            intensity_range=intensity_range,
            device=device,
            random_state=random_state,
            verbose=verbose,
        )
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.checkpoint_dir = checkpoint_dir
        self.n_epochs = n_epochs
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.warm_start = warm_start

    def build_network(self) -> torch.nn.Module:
        """Return the untrained network for images of shape ``self.image_shape_``.

        :func:`skocc.load` calls it as well, with the parameters and `image_shape_` of the
        file, before it loads the weights.

        Returns
        -------
        network : torch.nn.Module
            Module that holds all that is trained or saved, as parameters and buffers.
        """
        raise NotImplementedError(_missing(self, "build_network"))

    def prepare(self, network, batches) -> None:
        """Prepare the network before its first training: by default, nothing.

        Centers, or constants that normalize images, are computed here, and kept in buffers
        that `build_network` has made.

        Parameters
        ----------
        network : torch.nn.Module
            The untrained network, in eval mode and without gradients.
        batches : iterable of Tensor of shape (b, C, H, W)
            All training images in order, on the device of the network.
        """

    def loss(self, network, batch) -> torch.Tensor:
        """Return the mean loss of a batch of images.

        Parameters
        ----------
        network : torch.nn.Module
            The network, in train mode; in eval mode for held-out images.
        batch : Tensor of shape (b, C, H, W), float32
            Images on the device of the network.

        Returns
        -------
        loss : scalar Tensor
            With its graph, for torch to go back through.
        """
        raise NotImplementedError(_missing(self, "loss"))

    def sample_scores(self, network, batch) -> torch.Tensor:
        """Return the score of each image of a batch: higher is more normal.

        Parameters
        ----------
        network : torch.nn.Module
            The trained network, in eval mode.
        batch : Tensor of shape (b, C, H, W), float32, or float64 for small images
            Images, of the dtype and on the device of the network.

        Returns
        -------
        scores : Tensor of shape (b,)
            Higher is more normal.
        """
        raise NotImplementedError(_missing(self, "sample_scores"))

    def _fit(self, images, run):
        trained, held_out = self._hold_out(images, run)
        network = copy.deepcopy(self.network_) if run.is_warm else self._new_network()
        network.to(run.device)
        if not run.is_warm:
            with torch.no_grad(), waiting("constants"):
                self.prepare(network.eval(), self._batches(images, run.device))
        self._train_network(
            network,
            lambda batch: _checked(self, "loss", (), self.loss(network, batch)),
            self._batches(trained, run.device, generator=run.generator),
            images,
            run,
            held_out=held_out and self._batches(held_out, run.device),
            draws=True,
        )
        self._keep(network, images, run)

    def _keep(self, network, images, run):
        self.network_ = network.cpu().eval()

    def _score(self, images, device):
        network, dtype = self._on_device(self.network_, device), self._dtype(device)

        def scores_of(batch):
            scores = self.sample_scores(network, batch.to(dtype))
            return _checked(self, "sample_scores", (len(batch),), scores)

        return Scores(map_batches(network, self._batches(images, device), scores_of))

    def _new_network(self):
        network = self.build_network()
        if not isinstance(network, torch.nn.Module):
            raise ValueError(
                f"build_network of {type(self).__name__} must return a torch.nn.Module. "
                f"Got a {type(network).__name__}. Return the network itself."
            )
        return network

    def _batches(self, images, device, **options):
        return ImageBatches(images, self.batch_size, device=device, **options)

    def _empty_network(self, attribute):
        """Return the module of a fitted attribute before its weights are loaded."""
        return self._new_network()


def _checked(estimator, method, shape, value):
    """Return what a method of a subclass returned, or raise a ValueError."""
    is_tensor = isinstance(value, torch.Tensor)
    if not is_tensor or tuple(value.shape) != shape:
        shown = f"one of shape {tuple(value.shape)}" if is_tensor else repr(value)
        expected = f"shape {shape}, a number for each image" if shape else "one number"
        raise ValueError(
            f"{method} of {type(estimator).__name__} must return a tensor of {expected}. "
            f"Got {shown}. Take the mean over other axes."
        )
    return value


def _missing(estimator, method):
    return (
        f"A NetworkDetector needs {method}. Got a {type(estimator).__name__} without it. "
        f"Define {method} in the class."
    )
