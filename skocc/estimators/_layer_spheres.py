"""Spheres in several layers of a network, the part that MOCCA and VideoMOCCA share."""

import copy
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from skocc._base.constraints import CONTAMINATION_OR_AUTO, TRAINING_CONSTRAINTS
from skocc._base.detector import Scores, check_finite
from skocc._base.embeddings import EmbeddingMixin
from skocc._base.fitted import TRAINED_ATTRIBUTES, Fitted
from skocc._base.private_sklearn import Interval, StrOptions
from skocc._base.trained import TrainedDetector
from skocc._engine.ambient import isolated
from skocc._engine.batches import ImageBatches
from skocc._engine.device import sample_without_values
from skocc._engine.inference import map_batches
from skocc._engine.training import milestone_schedule
from skocc._nets.layer_encoder import LayerEncoder
from skocc._nets.own import channels_first
from skocc._ops.losses import squared_distance
from skocc._ops.tensors import tensor_view
from skocc._samples.validation import check_integers
from skocc.estimators._patches import WholeSamples
from skocc.estimators._spheres import (
    distances_to_centers,
    final_radius,
    initial_centers,
    make_boundary,
)


class LayerSpheres(EmbeddingMixin, TrainedDetector):
    """Base class of detectors with a sphere in each of several layers.

    A class implements `_architecture`, `_build_network`, and where they differ `_patches`,
    `_default_layers`, `_pretrain`, `_loss_of` and `_lowest`.
    """

    _parameter_constraints = {
        **TRAINING_CONSTRAINTS,
        "contamination": CONTAMINATION_OR_AUTO,
        "layers": [None, tuple, list],
        "boundary": [StrOptions({"soft", "hard"})],
        "nu": [Interval(Real, 0, 1, closed="right")],
        "radius_update": [StrOptions({"batch", "epoch"})],
        "warm_up_n_epochs": [Interval(Integral, 0, None, closed="left")],
        "distance": [StrOptions({"sqeuclidean", "euclidean"})],
        "embedding_dim": [None, Interval(Integral, 1, None, closed="left")],
        "milestones": [tuple, list],
    }
    _fitted_attributes = {
        **TRAINED_ATTRIBUTES,
        "layers_": Fitted("layers"),
        "centers_": Fitted("float32", ("d",), is_list=True),
        "radii_": Fitted("float64", ("n_layers",)),
    }

    @isolated
    def layer_scores(self, X) -> np.ndarray:
        """Score samples by each layer alone: higher is more normal.

        Parameters
        ----------
        X : images, rows or paths
            As in `fit`.

        Returns
        -------
        scores : ndarray of shape (n_samples, n_layers), float64
            A column for each of `layers_`. Their mean is the score of `score_samples`,
            unless a sample is cut into patches or clips: each layer then has a lowest patch
            or clip of its own.

        Raises
        ------
        ValueError
            X is not usable, or has another shape than in `fit`.
        """
        check_is_fitted(self)
        images = self._read(X, reset=False)
        distances, _ = self._distances(images, self._scoring_device())
        return self._lowest(self._layer_scores(distances), images)

    def _check_parameters(self, n_samples):
        for name in ("channels", "milestones", "pretrain_milestones"):
            check_integers(name, getattr(self, name, None))
        self._architecture()  # which raises for samples that it cannot be built for

    def _fit(self, images, run):
        patches = self._patches()
        trained, held_out = self._hold_out(images, run)
        batches = self._train_batches(images, patches.n_train_patches, run)
        if run.is_warm:
            network = copy.deepcopy(self.network_).to(run.device)
        else:
            network = self._build_network(images).to(run.device)
        layers = self._check_layers(network.encoder)

        def sample(batch):
            varied = self._vary(network.normalize(batch), run.generator)
            return patches.sample(varied, run.generator)

        if not run.is_warm:
            self._pretrain(network, sample, batches, run)
        known = self._known_spheres(run.device) if run.is_warm else {}
        centers = self._find_centers(network, patches, images, layers, known, run.device)
        self.layers_ = layers
        self.centers_ = [center.cpu().numpy() for center in centers]
        batches = self._train_batches(trained, patches.n_train_patches, run)
        boundaries = self._make_boundaries(layers, known, len(batches), run.device)
        self._train_network(
            network,
            self._make_loss(network, sample, layers, centers, boundaries),
            batches,
            images,
            run,
            held_out=held_out
            and self._batches(held_out, patches.n_train_patches, run.device),
            schedule=milestone_schedule(self.milestones),
            loss_state={f"boundary {j}": b for j, b in enumerate(boundaries)},
        )
        self._keep(network, images, run)

    def _keep(self, network, images, run):
        self.network_ = network.cpu().eval()
        distances, spread = self._distances(images, run.device)
        check_finite(distances)
        n_layers = len(self.layers_)
        self.radii_ = np.array(
            [final_radius(d, self.nu) for d in distances.reshape(-1, n_layers).T]
        )
        scores = self._scores_from(distances, spread, run.source)
        run.scores = scores._replace(map_maxima=self._map_maxima(distances))

    def _score(self, images, device):
        return self._scores_from(*self._distances(images, device), images)

    def _vary(self, batch, generator):
        """Return variants of a batch to train on: by default, the batch."""
        return batch

    def _patches(self):
        """Return how samples are cut into the patches that the network takes."""
        return WholeSamples(self.image_shape_)

    def _own_encoder(self, weights):
        """Return `backbone`, tried out on a patch without values."""
        encoder = LayerEncoder(self.backbone, weights)
        encoder.adapt(channels_first(self._patches().shape))
        return encoder

    def _default_layers(self, n_layers):
        return tuple(range(n_layers))

    def _check_layers(self, encoder):
        """Return the layers as numbers from 0 on, ascending, or as names."""
        if isinstance(encoder, LayerEncoder):
            return encoder.ordered(self.layers)
        n_layers = encoder.n_layers
        if self.layers is None:
            return self._default_layers(n_layers)
        layers = tuple(self.layers)
        if not layers or not all(
            isinstance(j, Integral) and -n_layers <= j < n_layers for j in layers
        ):
            raise ValueError(
                f"layers must hold numbers from 0 to {n_layers - 1}, or from {-n_layers} "
                f"to -1, counted from the last. Got {self.layers!r}. Set for example "
                "layers=(-1,), or layers=None."
            )
        layers = tuple(sorted(int(j) % n_layers for j in layers))
        if len(set(layers)) < len(layers):
            raise ValueError(
                f"layers must name each layer once. Got {self.layers!r}, of a network with "
                f"{n_layers} layers. Set layers={tuple(sorted(set(layers)))}."
            )
        return layers

    def _train_batches(self, images, n_patches, run):
        return self._batches(images, n_patches, run.device, generator=run.generator)

    def _batches(self, images, n_patches, device, **options):
        """Return batches of about `batch_size` patches."""
        n_images = max(1, self.batch_size // n_patches)
        return ImageBatches(images, n_images, device=device, **options)

    def _empty_network(self, attribute):
        """Return the module of a fitted attribute before its weights are loaded."""
        return self._build_network()

    def _check_loaded(self):
        encoder, layers = self.network_["encoder"], self.layers_
        if isinstance(encoder, LayerEncoder):
            encoder.ordered(layers)
        elif not layers or list(layers) != sorted({*layers} & {*range(encoder.n_layers)}):
            raise ValueError(f"layers_={layers}, of a network of {encoder.n_layers}")
        patch = sample_without_values(self._patches().shape)
        features = encoder.layer_features(patch, layers)
        return {"d": [z.shape[1] for z in features], "n_layers": len(layers)}

    def _pretrain(self, network, sample, batches, run):
        """Train before there are spheres: by default, not at all."""

    def _known_spheres(self, device):
        """Return center and radius of each layer of an earlier fit."""
        return {
            layer: (tensor_view(center).to(device), float(radius))
            for layer, center, radius in zip(
                self.layers_, self.centers_, self.radii_, strict=True
            )
        }

    def _find_centers(self, network, patches, images, layers, known, device):
        """Return the centers: those of an earlier fit, else means over the images."""
        centers = {layer: center for layer, (center, _) in known.items()}
        new = tuple(layer for layer in layers if layer not in known)
        if new:
            means = initial_centers(
                network,
                _features(network, patches, new),
                self._batches(images, patches.n_score_patches, device),
            )
            centers |= {j: mean.to(device) for j, mean in zip(new, means, strict=True)}
        return [centers[layer] for layer in layers]

    def _make_boundaries(self, layers, known, n_batches, device):
        """Return the loss of distances for each layer, which keeps its radius."""
        n_epochs_done = len(self.loss_curve_) if known else 0
        return [
            make_boundary(
                self.boundary,
                self.nu,
                n_batches=n_batches,
                warm_up_n_epochs=self.warm_up_n_epochs,
                update=self.radius_update,
                n_epochs_done=n_epochs_done,
                radius=known[layer][1] if layer in known else 0.0,
                device=device,
            )
            for layer in layers
        ]

    def _make_loss(self, network, sample, layers, centers, boundaries):
        """Return the loss of a batch: the mean over the layers of that of each sphere."""

        def loss_fn(batch):
            features, other_loss = self._features_and_loss(network, sample(batch), layers)
            losses = [
                boundary(squared_distance(z, center))
                for z, center, boundary in zip(features, centers, boundaries, strict=True)
            ]
            return torch.stack(losses).mean() + other_loss

        return loss_fn

    def _features_and_loss(self, network, batch, layers):
        """Return the features of a batch, and a term to add to the loss of the spheres."""
        return network.encoder.layer_features(batch, layers), 0.0

    def _distances(self, images, device):
        """Return squared distances (n, n_patches, n_layers), and the spread of features."""
        network, patches = self._on_device(self.network_, device), self._patches()
        dtype = self._dtype(device)
        features = _features(network, patches, self.layers_)
        distances, spreads = distances_to_centers(
            network,
            lambda batch: features(batch.to(dtype)),
            self._batches(images, patches.n_score_patches, device),
            [tensor_view(c).to(device, dtype) for c in self.centers_],
        )
        # One layer that differs is enough to rank by.
        return distances.reshape(len(images), patches.n_score_patches, -1), max(spreads)

    def _embed(self, images, device):
        """Return the features of all spheres side by side, means over the patches."""
        network, patches = self._on_device(self.network_, device), self._patches()
        dtype, n_patches = self._dtype(device), patches.n_score_patches
        features = _features(network, patches, self.layers_)

        def embeddings(batch):
            z = torch.cat(features(batch.to(dtype)), dim=1)
            return z.reshape(len(batch), n_patches, -1).mean(dim=1)

        batches = self._batches(images, n_patches, device)
        return map_batches(network, batches, embeddings, stage="embeddings")

    def _scores_from(self, distances, spread, images):
        scores = self._lowest(self._layer_scores(distances).mean(axis=2), images)
        return Scores(scores, spread, distances.mean(axis=(1, 2)))

    def _map_maxima(self, distances):
        """Return the highest value of each heat map; None where there are no maps."""

    def _layer_scores(self, distances):
        """Return scores from squared distances, of any shape (..., n_layers)."""
        # -d_j, or R_j^2 - d_j for a soft boundary, or the same without squares.
        exponent = 1 if self.distance == "sqeuclidean" else 0.5
        scores = -(distances.astype(np.float64) ** exponent)
        if self.boundary == "hard":
            return scores
        return scores + self.radii_ ** (2 * exponent)

    def _lowest(self, scores, images):
        """Return the lowest of the scores (n, n_patches, ...) of each sample's patches."""
        return scores.min(axis=1)

    def _auto_offset(self, train_scores):
        # Soft scores are zero at the spheres; hard ones have no boundary but this one.
        if self.boundary == "soft":
            return 0.0
        return float(self._layer_scores(self.radii_**2).mean())


def _features(network, patches, layers):
    """Return the function from a batch of samples to the features of all their patches."""

    def features(batch):
        tiles = patches.tile(network.normalize(batch))
        return network.encoder.layer_features(tiles, layers)

    return features
