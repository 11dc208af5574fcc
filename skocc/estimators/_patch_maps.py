"""Maps of Patch SVDD: the mean distances of patches at each scale, and their product."""

import functools
from collections.abc import Callable, Sequence

import numpy as np
import torch

from skocc._base.maps import map_maxima
from skocc._engine.batches import ImageBatches
from skocc._engine.inference import map_batches
from skocc._ops.maps import covering_weights
from skocc._ops.refined_search import Cells, Scale, search_highest
from skocc._samples.progress import waiting
from skocc.estimators._patch_networks import PatchScales

# Functions of the maps of both scales that do not fall where one of them rises.
_JOINED = {"product": np.multiply, "sum": np.add, "max": np.maximum}
# Scales of which the map is that of one of them.
_SINGLE = {"small": slice(0, 1), "big": slice(1, 2)}


class PatchMaps:
    """Maps of the distances of patches at several scales.

    Parameters
    ----------
    scales : PatchScales
    image_size : tuple (H, W)
    padding_mode : {"mean", "reflect"}
    aggregation : {"product", "sum", "max", "small", "big"}
        As of :class:`~skocc.PatchSVDD`.

    Attributes
    ----------
    used : slice
        Of small and big, the scales that the map is made of.
    weights : list of two ndarray, for each of these
        How much each row of patches counts in each row of pixels, (H, rows), and the same
        for columns.
    """

    def __init__(
        self,
        scales: PatchScales,
        image_size: tuple[int, int],
        padding_mode: str,
        aggregation: str = "product",
    ):
        self.used = _SINGLE.get(aggregation, slice(0, 2))
        self._join = _JOINED.get(aggregation)
        used = [*zip(scales.grids(image_size), scales.sides, strict=True)][self.used]
        self.weights = [
            [
                covering_weights(starts, side, n_pixels, padding_mode)
                for starts, n_pixels in zip(grid, image_size, strict=True)
            ]
            for grid, side in used
        ]

    def of(self, *distances: torch.Tensor) -> torch.Tensor:
        """Return maps (b, H, W), float64, of distances (b, patches) at each used scale."""
        maps = []
        for (rows, columns), scores in zip(self.weights, distances, strict=True):
            grid = scores.cpu().numpy().reshape(-1, rows.shape[1], columns.shape[1])
            # Weights are not negative: no value falls where a distance rises, not even in
            # its last digit. Double precision, or the product of two small means would
            # lose digits.
            maps.append(rows @ grid @ columns.T)
        return torch.from_numpy(
            functools.reduce(self._join, maps) if self._join else maps[0]
        )

    def scales_of(self, cells: Sequence[Cells]) -> list[Scale]:
        """Return the patches at each scale, with the pixels that they change."""
        return [
            Scale(
                part,
                *(torch.from_numpy(w > 0).float().to(part.bounds.device) for w in weights),
            )
            for part, weights in zip(cells, self.weights, strict=True)
        ]


def searched_maxima(cells, maps):
    """Return the highest values of the maps of a batch, and scores, for `map_patches`."""
    found = search_highest(maps.scales_of(cells), maps.of)
    return map_maxima(found.float()), -found.amax((1, 2))


def maps_and_scores(cells, maps, of_maps):
    """Return a function of the maps of a batch, and scores, for `map_patches`."""
    for part in cells:
        part.search_all()
    found = maps.of(*(part.distances for part in cells))
    return of_maps(found.float()), -found.amax((1, 2))


def searched(detector) -> tuple[PatchMaps, Sequence, int]:
    """Return the maps of a fitted PatchSVDD, their banks, and how many neighbors count."""
    maps = PatchMaps(
        detector._scales(),
        detector.image_shape_[:2],
        detector.padding_mode,
        detector.aggregation,
    )
    banks = (detector.bank_small_, detector.bank_big_)[maps.used]
    return maps, banks, 1 if detector.objective == "svdd" else int(detector.n_neighbors)


def map_patches(detector, images, device: torch.device, reduce: Callable, vectors=None):
    """Join a function of the patches of each batch of images.

    Parameters
    ----------
    detector : PatchSVDD
        With its network and its banks.
    images : image source
    device : torch.device
    reduce : callable
        Function ``reduce(cells, maps)`` of the patches at each used scale.
    vectors : list, default=None
        Batches of embeddings, from :meth:`TrainingVectors.batches`. None: those of
        `images` are computed.
    """
    network = detector._on_device(detector.network_, device)
    maps, banks, n_neighbors = searched(detector)
    searches = [bank.on(device, detector.search, waiting) for bank in banks]

    def reduced(batch):
        if vectors is None:
            embedded = detector._embed(network, batch)
            batch = detector.bank_small_.numbers_of(batch), embedded
        cells, (numbers, embeddings) = [], batch
        for rows, bank in zip(embeddings[maps.used], searches, strict=True):
            queries = rows.to(device).unflatten(0, (len(numbers), -1))
            cells.append(bank.cells(queries, numbers.to(device), n_neighbors))
        return reduce(cells, maps)

    batches = vectors or ImageBatches(images, detector.batch_size, device=device)
    return map_batches(network, batches, reduced)
