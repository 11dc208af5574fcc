"""Scores and maps of detectors with memory banks, as modules of tensors alone."""

import math

import numpy as np
import torch
from torch import nn

from skocc._export.tensors import divided_by_median, exportable
from skocc._ops.maps import cell_scores_to_map
from skocc._ops.memory_bank import to_rows
from skocc._ops.scores import reweighting
from skocc._ops.tensors import tensor_view
from skocc.estimators._patch_maps import searched

# Vectors of a bank that are compared with all queries at once: 3 MB in the memory of an
# inference for each 200 cells.
_BANK_BLOCK = 4096
# Candidates in addition to the requested neighbors, as in a search of the library.
_N_SPARE = 8
_JOINED = {"product": torch.mul, "sum": torch.add, "max": torch.maximum}


class Neighbors(nn.Module):
    """Search for the nearest neighbors in a bank that is part of the graph.

    A matrix product with each block of the bank proposes candidates, and the distances to
    these are computed from differences. Both are of vectors that are centered on a median
    of the bank, so that float32 suffices where features hardly differ.

    Parameters
    ----------
    vectors : ndarray of shape (m, d), float32
    n_neighbors : int
        At most m.

    Notes
    -----
    Unlike the library's search, nothing proves that the nearest are among the candidates:
    these are eight more than the neighbors.
    """

    center: torch.Tensor
    vectors: torch.Tensor
    half_squares: torch.Tensor

    def __init__(self, vectors: np.ndarray, n_neighbors: int):
        super().__init__()
        bank = tensor_view(vectors)
        self.n_neighbors = n_neighbors
        center = bank[:: max(1, len(bank) // 1000)].median(dim=0).values
        self.register_buffer("center", center)
        self.register_buffer("vectors", bank - center)
        norms = self.vectors.norm(dim=1, dtype=torch.float64)
        self.register_buffer("half_squares", (norms.square() / 2).float())

    def forward(self, queries: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map queries (n, d) to ascending distances, and rows of the bank, (n, k)."""
        return self.nearest(queries - self.center, self.n_neighbors)

    def nearest(
        self, queries: torch.Tensor, n_neighbors: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what `forward` does, of centered queries."""
        candidates = self._candidates(queries, min(n_neighbors + _N_SPARE, self.n_vectors))
        distances = self.distances(queries, candidates)
        distances, order = distances.topk(n_neighbors, dim=1, largest=False)
        return distances, candidates.gather(1, order)

    def distances(self, queries: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Return the distances (n, k) of centered queries to rows (n, k) of the bank."""
        # One after the other, or all differences would be in memory at once.
        return torch.stack(
            [(queries - self.vectors[column]).norm(dim=1) for column in rows.unbind(1)],
            dim=1,
        )

    @property
    def n_vectors(self) -> int:
        """Number of vectors of the bank."""
        return self.vectors.shape[0]

    def _candidates(self, queries, n_candidates):
        """Return the rows (n, n_candidates) that a matrix product finds nearest."""
        smallest, rows = None, None
        for start in range(0, self.n_vectors, _BANK_BLOCK):
            stop = min(start + _BANK_BLOCK, self.n_vectors)
            # Half the squared distances, less that of the query from the center.
            values = self.half_squares[start:stop] - queries @ self.vectors[start:stop].T
            found, where = values.topk(min(n_candidates, stop - start), 1, largest=False)
            where = where + start
            if smallest is not None:
                found = torch.cat([smallest, found], dim=1)
                where = torch.cat([rows, where], dim=1)
                found, order = found.topk(min(n_candidates, stop), dim=1, largest=False)
                where = where.gather(1, order)
            smallest, rows = found, where
        return rows


class CellNeighbors(nn.Module):
    """Scores and maps of ResNetKNN.

    Parameters
    ----------
    detector : ResNetKNN
        Fitted.
    """

    has_maps = True
    rows: torch.Tensor
    columns: torch.Tensor

    def __init__(self, detector):
        super().__init__()
        self.network = exportable(detector.network_)
        self.neighbors = Neighbors(detector.bank_.vectors, detector._n_neighbors())
        self.grid = tuple(detector.grid_shape_)
        self.is_cosine = detector.metric == "cosine"
        self.is_relative = detector.score_normalization == "median"
        self.n_top = min(int(detector.n_top), math.prod(self.grid))
        self.n_around = None
        if detector.reweighting is not None:
            self.n_around = min(int(detector.reweighting), detector.bank_.n_others())
        for name, n_cells, n_pixels in zip(
            ("rows", "columns"), self.grid, detector.image_shape_[:2], strict=True
        ):
            # Interpolation and smoothing are linear, and one axis after the other: the maps
            # of single cells are the matrix of both.
            single = torch.eye(n_cells, dtype=torch.float32)[:, :, None]
            maps = cell_scores_to_map(single, (n_pixels, 1), float(detector.smoothing))
            self.register_buffer(name, maps[:, :, 0].T.contiguous())

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map images to scores (b,) and maps (b, H, W)."""
        cells = to_rows(self.network(batch))
        distances, nearest = self.neighbors(cells)
        values = distances.mean(dim=1).unflatten(0, (-1, math.prod(self.grid)))
        if self.is_cosine:  # of vectors of length 1
            values = values.square() / 2
        if self.is_relative:
            values = divided_by_median(values)
        maps = self.rows @ values.unflatten(1, self.grid) @ self.columns.T
        return -self._image_scores(values, cells, nearest), maps

    def _image_scores(self, values, cells, nearest):
        """Return the score (b,) of images from the values (b, c) of their cells."""
        highest, where = values.topk(self.n_top, dim=1)
        if self.n_around is None:
            return highest.mean(dim=1)
        n_cells, n_features = values.shape[1], cells.shape[1]
        of_worst = where[:, :, None].expand(-1, -1, n_features)
        worst = cells.unflatten(0, (-1, n_cells)).gather(1, of_worst)[:, 0]
        found = nearest[:, 0].unflatten(0, (-1, n_cells)).gather(1, where)[:, 0]
        _, around = self.neighbors.nearest(self.neighbors.vectors[found], self.n_around)
        distances = self.neighbors.distances(worst - self.neighbors.center, around)
        return highest[:, 0] * reweighting(distances, n_features)


class PatchNeighbors(nn.Module):
    """Scores and maps of PatchSVDD.

    Parameters
    ----------
    detector : PatchSVDD
        Fitted.
    """

    has_maps = True

    def __init__(self, detector):
        super().__init__()
        network = exportable(detector.network_)
        self.normalize, self.encoder = network["normalize"], network["encoder"]
        maps, banks, n_neighbors = searched(detector)
        self.strides, self.used = detector._scales().strides, maps.used
        self.join = _JOINED.get(detector.aggregation)
        self.neighbors = nn.ModuleList(Neighbors(b.vectors, n_neighbors) for b in banks)
        self.weights = nn.ParameterList(
            nn.Parameter(torch.from_numpy(weights).float(), requires_grad=False)
            for pair in maps.weights
            for weights in pair
        )

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map images to scores (b,) and maps (b, H, W)."""
        scales = self.encoder.dense_scales(self.normalize(batch), *self.strides)
        weights, maps = [*self.weights], []
        for z, neighbors in zip(scales[self.used], self.neighbors, strict=True):
            rows, columns, weights = *weights[:2], weights[2:]
            distances, _ = neighbors(to_rows(z))
            grids = distances.mean(dim=1).reshape(-1, rows.shape[1], columns.shape[1])
            maps.append(rows @ grids @ columns.T)
        heat = maps[0] if self.join is None else self.join(*maps)
        return -heat.amax(dim=(1, 2)), heat
