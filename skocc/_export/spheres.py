"""Scores and maps of detectors with spheres, as modules of tensors alone."""

import torch
from torch import nn

from skocc._export.tensors import exportable
from skocc._ops.losses import squared_distance
from skocc._ops.maps import covering_weights
from skocc._ops.tensors import tensor_view


class Sphere(nn.Module):
    """Score of DeepSVDD.

    Parameters
    ----------
    detector : DeepSVDD
        Fitted.
    """

    has_maps = False
    center: torch.Tensor

    def __init__(self, detector):
        super().__init__()
        self.network = exportable(detector.network_)
        self.register_buffer("center", tensor_view(detector.center_).clone())
        self.bias = detector.radius_**2 if detector.boundary == "soft" else 0.0

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor]:
        """Map a batch to scores (b,)."""
        return (self.bias - squared_distance(self.network(batch), self.center),)


class LayerSpheres(nn.Module):
    """Scores of MOCCA, with maps where it has patches, and of the clips of VideoMOCCA.

    Parameters
    ----------
    detector : MOCCA or VideoMOCCA
        Fitted.
    """

    rows: torch.Tensor
    columns: torch.Tensor
    radii: torch.Tensor

    def __init__(self, detector):
        super().__init__()
        self.network = exportable(detector.network_)
        self.layers, self.patches = detector.layers_, detector._patches()
        self.centers = nn.ParameterList(
            nn.Parameter(tensor_view(center).clone(), requires_grad=False)
            for center in detector.centers_
        )
        # -d_j, or R_j^2 - d_j for a soft boundary, or the same without squares.
        self.has_squares = detector.distance == "sqeuclidean"
        radii = torch.zeros(len(self.layers), dtype=torch.float64)
        if detector.boundary == "soft":
            radii = tensor_view(detector.radii_) ** (2 if self.has_squares else 1)
        self.register_buffer("radii", radii.float())
        patch_size = getattr(detector, "patch_size", None)
        self.has_maps = patch_size is not None
        if self.has_maps:
            for name, starts, n_pixels in zip(
                ("rows", "columns"),
                self.patches.starts,
                detector.image_shape_[:2],
                strict=True,
            ):
                weights = covering_weights(starts, patch_size, n_pixels)
                self.register_buffer(name, torch.from_numpy(weights).float())

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Map a batch to scores (b,), and maps (b, H, W) if there are any."""
        tiles = self.patches.tile(self.network["normalize"](batch))
        scores = self._scores(self.network["encoder"].layer_features(tiles, self.layers))
        scores = scores.reshape(-1, self.patches.n_score_patches)
        if not self.has_maps:
            return (scores.amin(dim=1),)
        grids = scores.unflatten(1, (self.rows.shape[1], self.columns.shape[1]))
        return scores.amin(dim=1), self.rows @ -grids @ self.columns.T

    def _scores(self, features):
        """Return scores (b * patches,) from the features of each layer."""
        distances = torch.stack(
            [squared_distance(z, c) for z, c in zip(features, self.centers, strict=True)],
            dim=1,
        )
        if not self.has_squares:
            distances = distances.sqrt()
        return (self.radii - distances).mean(dim=1)


class ClipSpheres(LayerSpheres):
    """Scores of the clips of VideoMOCCA, and how well they are reconstructed.

    Parameters
    ----------
    detector : VideoMOCCA
        Fitted.
    """

    def __init__(self, detector):
        super().__init__(detector)
        self.reconstructs = detector._reconstructs()

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Map clips to scores (b,), and errors (b,) of the reconstruction if there are any.

        The errors are those that `score_frames` adds to the distances.
        """
        if not self.reconstructs:
            return super().forward(batch)
        batch = self.network["normalize"](batch)
        codes, features = self.network["encoder"].codes_and_features(batch, self.layers)
        errors = (self.network["decoder"](codes) - batch).square().flatten(1).sum(dim=1)
        return self._scores(features), errors
