"""Networks, batches and losses of a classifier of typical against atypical images."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from skocc._base.trained import split_indices
from skocc._engine.batches import ImageBatches, InTurn, Subset
from skocc._engine.device import sent_to
from skocc._engine.inference import map_batches
from skocc._nets.alexnet import (
    ALEXNET_SIZE,
    AlexNetAutoencoder,
    CompactAlexNet,
    alexnet_code_size,
    alexnet_widths,
)
from skocc._nets.architectures import ROW_DIM, ROW_WIDTHS
from skocc._nets.backbones import BackboneEncoder
from skocc._nets.distance import LearntDistance
from skocc._nets.mlp import DenseAutoencoder, dense_layers, initialize_glorot
from skocc._nets.normalization import freeze_batch_norm
from skocc._nets.own import channels_first, subject
from skocc._ops.losses import (
    closeness_loss,
    dispersion_loss,
    intra_class_loss,
)
from skocc._ops.scores import SSIM_WINDOW, structural_similarity


@dataclass(frozen=True)
class SplitNetworks:
    """Builds feature extractor and autoencoder for samples of one shape.

    Parameters
    ----------
    sample_shape : tuple (H, W, C) or (d,)
    backbone, channels, embedding_dim, dropout, batch_norm, latent_dim
        As of :class:`~skocc.DataSplitOCC`.
    difference : {"abs", "signed"} or None
        Of the features, for the distance. None: the classifier needs no distance.
    """

    sample_shape: tuple[int, ...]
    backbone: Any = None
    channels: Any = None
    embedding_dim: int | None = None
    dropout: float = 0.0
    batch_norm: str = "auto"
    latent_dim: Any = None
    difference: str | None = None

    @classmethod
    def of(cls, estimator) -> "SplitNetworks":
        """Return what builds the networks that the parameters of an estimator describe."""
        names = (
            "backbone", "channels", "embedding_dim", "dropout", "batch_norm", "latent_dim",
        )  # fmt: skip
        params = {name: getattr(estimator, name) for name in names}
        is_constrained = estimator.objective == "constrained"
        params["difference"] = estimator.difference if is_constrained else None
        return cls(estimator.image_shape_, **params)

    def check(self) -> None:
        """Raise a ValueError for parameters that would have no effect."""
        if len(self.sample_shape) == 4:
            raise ValueError(f"image_shape_={self.sample_shape} is that of clips")
        if self.batch_norm == "none" and self.backbone is not None:
            raise ValueError(
                "batch_norm='none' is for the compact AlexNet, and does not remove the "
                f"BatchNorm of a backbone. Got backbone={_shown(self.backbone)}. Set "
                "batch_norm='frozen' or 'train', or pass a module without BatchNorm."
            )
        if self.batch_norm == "frozen" and self.backbone is None:
            raise ValueError(
                "batch_norm='frozen' keeps the statistics that a backbone comes with. Got "
                "backbone=None, which has none. Set batch_norm='auto', 'train' or 'none', "
                "or a backbone."
            )
        if self.latent_dim == "map" and self._is_rows:
            raise ValueError(
                "latent_dim='map' is for images, whose code can be a map. Got rows of "
                f"{self.sample_shape[0]} values. Set image_shape=(H, W) if they are "
                "flattened images, a number as latent_dim, or None."
            )

    def classifier(self, weights: Any) -> nn.ModuleDict:
        """Return feature extractor and classifier.

        Parameters
        ----------
        weights : None, str or path
            As in `extractor`.
        """
        extractor, n_features = self.extractor(weights)
        classifier = initialize_glorot(nn.Linear(n_features, 1))
        return nn.ModuleDict({"extractor": extractor, "classifier": classifier})

    def extractor(self, weights: Any) -> tuple[nn.Module, int]:
        """Return the feature extractor, and how many features it has.

        Parameters
        ----------
        weights : None, str or path
            Initial weights of a backbone.
        """
        if self._is_rows and (self.backbone is None or isinstance(self.backbone, str)):
            return self._dense_extractor()
        if self.is_ours:
            return self._compact_extractor()
        backbone = "alexnet" if self.backbone is None else self.backbone
        extractor = BackboneEncoder(backbone, weights, hidden=True)
        return extractor, extractor.adapt(self._in_shape)

    def with_distance(self, network):
        """Return feature extractor and classifier with the distance, where it is needed.

        Parameters
        ----------
        network : torch.nn.ModuleDict
            Changed in place: it may be one of an earlier fit with another objective.
        """
        if self.difference is not None:
            if "distance" not in network:
                n_features = network["classifier"].in_features
                network["distance"] = LearntDistance(n_features, self.difference)
            network["distance"].difference = self.difference
        elif "distance" in network:
            del network["distance"]
        return network

    def autoencoder(self, latent_dim: int) -> nn.Module:
        """Return the autoencoder.

        Parameters
        ----------
        latent_dim : int
            Numbers in its code, or channels of a map.
        """
        if self._is_rows:
            return DenseAutoencoder(self.sample_shape[0], self._row_sizes(), latent_dim)
        return AlexNetAutoencoder(
            self._in_shape, latent_dim, self._image_channels(), self.latent_dim == "map"
        )

    def code_size(self) -> int:
        """Return the numbers in the code of the autoencoder, or the channels of a map."""
        if self.latent_dim not in (None, "map"):
            return int(self.latent_dim)  # True is a number too
        if self._is_rows:
            return max(1, min(32, self.sample_shape[0] // 4))
        height, width, n_channels = self.sample_shape
        return alexnet_code_size(n_channels, height, width, self.latent_dim == "map")

    @property
    def is_ours(self) -> bool:
        """Whether the extractor is the compact AlexNet, or the network for rows."""
        shape = self.sample_shape
        return self.backbone is None and (
            self._is_rows or min(shape[:2]) < ALEXNET_SIZE or shape[2] not in (1, 3)
        )

    @property
    def _is_rows(self):
        return len(self.sample_shape) == 1

    @property
    def _in_shape(self):
        return channels_first(self.sample_shape)

    def _dense_extractor(self):
        if self.backbone is not None:
            raise ValueError(
                f"backbone={self.backbone!r} is for images. Got rows of "
                f"{self.sample_shape[0]} values. Set image_shape=(H, W) if they are "
                "flattened images, pass a module that takes rows, or leave backbone at "
                "None."
            )
        n_features = int(self.embedding_dim or ROW_DIM)
        sizes = (*self.sample_shape, *self._row_sizes(), n_features)
        layers = dense_layers(sizes, self.dropout)
        return initialize_glorot(nn.Sequential(*layers)), n_features

    def _compact_extractor(self):
        channels = self._image_channels()
        n_features = int(self.embedding_dim or 2 * channels[-1])
        # For color images BatchNorm has not improved the scores.
        is_gray = self.sample_shape[2] == 1
        batch_norm = is_gray if self.batch_norm == "auto" else self.batch_norm == "train"
        extractor = CompactAlexNet(
            self._in_shape, n_features, channels, self.dropout, batch_norm
        )
        return extractor, n_features

    def _row_sizes(self):
        return tuple(self.channels or ROW_WIDTHS)

    def _image_channels(self):
        channels = tuple(self.channels or alexnet_widths(*self.sample_shape[:2]))
        if len(channels) != 5:
            raise ValueError(
                "channels are those of five convolutions for images. Got "
                f"{self.channels!r}. Set for example channels=(16, 48, 96, 64, 64)."
            )
        return channels


def _shown(backbone):
    return repr(backbone) if isinstance(backbone, str) else subject(backbone)


def check_windows(reconstruction_metric: str, sample_shape: tuple[int, ...]) -> None:
    """Raise a ValueError for structural similarity of samples that hold no window.

    Parameters
    ----------
    reconstruction_metric : {"auto", "ssim", "mse"}
    sample_shape : tuple (H, W, C) or (d,)
    """
    has_windows = len(sample_shape) == 3 and min(sample_shape[:2]) >= SSIM_WINDOW
    if reconstruction_metric == "ssim" and not has_windows:
        raise ValueError(
            f"reconstruction_metric='ssim' needs images of at least {SSIM_WINDOW} x "
            f"{SSIM_WINDOW} pixels. Got samples of shape {sample_shape}. Set "
            "reconstruction_metric='auto', or image_size to enlarge them."
        )


def reconstruction_similarities(
    reconstruction: torch.Tensor, batch: torch.Tensor, reconstruction_metric: str
) -> torch.Tensor:
    """Return the similarity (b,) of samples to their reconstructions.

    Parameters
    ----------
    reconstruction, batch : tensor of shape (b, C, H, W) or (b, d)
    reconstruction_metric : {"auto", "ssim", "mse"}
        "mse" is the negative of the mean squared error, and what "auto" is for samples that
        hold no window of the structural similarity.
    """
    has_windows = batch.dim() == 4 and min(batch.shape[2:]) >= SSIM_WINDOW
    if reconstruction_metric != "mse" and has_windows:
        return structural_similarity(reconstruction, batch)
    return -(reconstruction - batch).square().flatten(1).mean(dim=1)


def measured_similarities(
    autoencoder: nn.Module, batches, dtype: torch.dtype, reconstruction_metric: str
) -> np.ndarray:
    """Return the similarities (n,) of all samples to their reconstructions, float64.

    Parameters
    ----------
    autoencoder : torch.nn.Module
    batches : iterable
    dtype : torch.dtype
        Precision of the autoencoder.
    reconstruction_metric : {"auto", "ssim", "mse"}
    """

    def similarities_of(batch):
        batch = batch.to(dtype)
        reconstruction = autoencoder(batch)
        return reconstruction_similarities(reconstruction, batch, reconstruction_metric)

    similarities = map_batches(
        autoencoder, batches, similarities_of, stage="reconstructions"
    )
    return similarities.astype(np.float64)


def split_typical(similarities: np.ndarray, atypical_fraction: float) -> np.ndarray:
    """Return which samples are typical: all but the fraction of the least similar.

    Parameters
    ----------
    similarities : ndarray of shape (n,)
        Among equal similarities, the first samples are atypical.
    atypical_fraction : float
        Fraction of the samples that is atypical, rounded up to at least two samples.

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


def hold_out_each_kind(images, typical, fraction, batch_size, run):
    """Return what is trained on, which of it is typical, and batches of what is held out.

    Of typical and of atypical samples the same fraction is held out, at random, and two at
    least remain, which are a pair.

    Parameters
    ----------
    images : image source
    typical : ndarray of shape (n,), bool
    fraction : float
        Fraction to hold out. If 0, the batches are None.
    batch_size : int
    run : Run
    """
    if fraction == 0:
        return images, typical, None
    parts = []
    for is_kind in (typical, ~typical):
        indices = np.flatnonzero(is_kind)
        sides = split_indices(len(indices), fraction, 2, run.generator)
        parts.append([indices[side] for side in sides])
    trained, others = (np.concatenate(side) for side in zip(*parts, strict=True))
    targets = torch.from_numpy(~typical[others])
    batches = ImageBatches(
        Subset(images, others), batch_size, device=run.device, targets=targets
    )
    return Subset(images, trained), typical[trained], InTurn(batches)


def check_one_end(validation_fraction: float, weight_average: float | None) -> None:
    """Raise a ValueError if training would end with two kinds of weights."""
    if validation_fraction > 0 and weight_average is not None:
        raise ValueError(
            "The network ends with averaged weights or with those of the best epoch. "
            f"Got weight_average={weight_average} and "
            f"validation_fraction={validation_fraction}. Set weight_average=None, or "
            "validation_fraction=0."
        )


def balanced_indices(typical: np.ndarray) -> np.ndarray:
    """Return indices of all typical samples, and of as many atypical ones, repeated.

    Parameters
    ----------
    typical : ndarray of shape (n,), bool
        At least one is False.
    """
    first, second = np.flatnonzero(typical), np.flatnonzero(~typical)
    return np.concatenate([first, np.resize(second, len(first))])


def weight_groups(network: nn.Module) -> list[dict[str, Any]]:
    """Return groups of weights for an optimizer: those of convolutions, and all others.

    Parameters
    ----------
    network : torch.nn.Module

    Returns
    -------
    groups : list of dict
        The second has no L2 penalty.
    """
    decayed = [
        layer.weight
        for layer in network.modules()
        if isinstance(layer, nn.modules.conv._ConvNd)
    ]
    known = {id(weight) for weight in decayed}
    others = [p for p in network.parameters() if id(p) not in known]
    return [{"params": decayed}, {"params": others, "weight_decay": 0.0}]


def kinds_of_batches(images, typical, batches_of, constrained, balanced):
    """Return the kinds of batches that take turns in training.

    Parameters
    ----------
    images : image source
    typical : ndarray of shape (n,), bool
    batches_of : callable
        From an image source, and `targets` of its samples, to batches.
    constrained : bool
        Whether there are batches of typical images before the mixed ones, and batches of
        atypical images after them.
    balanced : bool
        Whether atypical images are repeated in the mixed batches.
    """
    source, is_typical = images, typical
    if balanced and not typical.all():
        indices = balanced_indices(typical)
        source, is_typical = Subset(images, indices), typical[indices]
    mixed = batches_of(source, targets=torch.from_numpy(~is_typical))
    if not constrained:
        return [mixed]
    first, second = (
        Subset(images, np.flatnonzero(is_kind)) for is_kind in (typical, ~typical)
    )
    return [batches_of(first), mixed, batches_of(second)]


def losses_of_kinds(network, generator, constrained):
    """Return a function from a batch to its loss for each kind of batches.

    Parameters
    ----------
    network : torch.nn.ModuleDict
    generator : torch.Generator
        For the pairs of samples.
    constrained : bool
        As in `kinds_of_batches`.
    """
    losses = [lambda batch: classification_loss(network, batch)]
    if not constrained:
        return losses
    return [
        lambda batch: closeness_loss(pair_distances(network, batch, generator)),
        *losses,
        lambda batch: dispersion_loss(pair_distances(network, batch, generator)),
    ]


def loss_of_turns(network, generator, constrained, is_frozen):
    """Return the loss of a pair (kind, batch), where kinds of batches take turns.

    In eval mode it is the intra-class loss of held-out samples.

    Parameters
    ----------
    network, generator, constrained
        As in `losses_of_kinds`.
    is_frozen : bool
        Whether BatchNorm keeps its statistics.
    """
    losses = losses_of_kinds(network, generator, constrained)

    def loss_fn(turn):
        kind, batch = turn
        if not network.training:
            return classification_loss(network, batch)
        if is_frozen:
            freeze_batch_norm(network)
        return losses[kind](batch)

    return loss_fn


def classification_loss(network, batch):
    """Return the intra-class loss of a batch.

    Parameters
    ----------
    network : torch.nn.ModuleDict
        With "extractor" and "classifier".
    batch : tuple (samples, is_atypical)
    """
    samples, is_atypical = batch
    logits = network["classifier"](network["extractor"](samples)).squeeze(1)
    return intra_class_loss(logits.float(), is_atypical)


def logits_and_sums(network, batch):
    """Return logits (b,) of samples, and sums (1, d) of their features.

    Parameters
    ----------
    network : torch.nn.ModuleDict
        With "extractor" and "classifier".
    batch : tensor
        Samples.

    Returns
    -------
    logits, *sums
        Of the features, of their squares, and of their absolute values.
    """
    z = network["extractor"](batch)
    sums = [part.sum(dim=0, keepdim=True) for part in (z, z.square(), z.abs())]
    return network["classifier"](z).squeeze(1), *sums


def spread_from_sums(sums, n_samples):
    """Return the mean standard deviation of features, relative to their mean size.

    Parameters
    ----------
    sums : list of three ndarray of shape (n_batches, d)
        As of `logits_and_sums`.
    n_samples : int
    """
    mean, square, size = (s.sum(axis=0, dtype=np.float64) / n_samples for s in sums)
    deviation = np.sqrt((square - mean**2).clip(0)).mean()
    return deviation / max(size.mean(), 1e-30)


def pair_distances(network, batch, generator):
    """Return logits of the distance of each sample to another of its batch, at random.

    Parameters
    ----------
    network : torch.nn.ModuleDict
        With "extractor" and "distance".
    batch : tensor
        Samples.
    generator : torch.Generator
        For the pairs.
    """
    z = network["extractor"](batch)
    # Neighbors on a random circle: no sample is its own partner.
    order = sent_to(torch.randperm(len(z), generator=generator), z.device)
    z = z[order]
    # In bfloat16 losses would have fewer digits than the stopping rule compares.
    return network["distance"](z, z.roll(1, dims=0)).float()
