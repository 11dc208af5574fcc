"""Maps of Patch SVDD: the product of the mean distances of patches at each scale."""

from collections.abc import Sequence

import torch

from skocc._ops.maps import covering_weights
from skocc._ops.refined_search import Cells, Scale
from skocc.estimators._patch_networks import PatchScales


class PatchMaps:
    """Maps of the distances of patches at several scales.

    Parameters
    ----------
    scales : PatchScales
    image_size : tuple (H, W)
    padding_mode : {"mean", "reflect"}
        As of :class:`~skocc.PatchSVDD`.
    """

    def __init__(self, scales: PatchScales, image_size: tuple[int, int], padding_mode: str):
        # How much the rows, and the columns, of patches count in those of a map.
        self._weights = [
            [
                covering_weights(starts, side, n_pixels, padding_mode)
                for starts, n_pixels in zip(grid, image_size, strict=True)
            ]
            for grid, side in zip(scales.grids(image_size), scales.sides, strict=True)
        ]

    def of(self, *distances: torch.Tensor) -> torch.Tensor:
        """Return maps (b, H, W), float64, of distances (b, patches) at each scale."""
        product = 1.0
        for (rows, columns), scores in zip(self._weights, distances, strict=True):
            grid = scores.cpu().numpy().reshape(-1, rows.shape[1], columns.shape[1])
            # Weights are not negative: no value falls where a distance rises, not even in
            # its last digit. Double precision, or the product of two small means would
            # lose digits.
            product = product * (rows @ grid @ columns.T)
        return torch.from_numpy(product)

    def scales_of(self, cells: Sequence[Cells]) -> list[Scale]:
        """Return the patches at each scale, with the pixels that they change."""
        return [
            Scale(
                part,
                *(torch.from_numpy(w > 0).float().to(part.bounds.device) for w in weights),
            )
            for part, weights in zip(cells, self._weights, strict=True)
        ]
