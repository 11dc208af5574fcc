"""Scores and maps of a DetectorEnsemble, as a module of tensors alone."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from skocc.model_selection import _scales


class Interpolation(nn.Module):
    """Piecewise linear function, constant beyond its points, as of ``numpy.interp``.

    Parameters
    ----------
    places, values : ndarray of shape (m,), float64
        Points of the function, the places ascending and all different.
    """

    places: torch.Tensor
    values: torch.Tensor
    slopes: torch.Tensor

    def __init__(self, places: np.ndarray, values: np.ndarray):
        super().__init__()
        # In float64, in which no two places are equal.
        slopes = np.diff(values, append=values[-1]) / np.diff(places, append=np.inf)
        for name, array in zip(
            ("places", "values", "slopes"), (places, values, slopes), strict=True
        ):
            self.register_buffer(name, torch.from_numpy(np.asarray(array)).float())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (b,) to (b,)."""
        x = torch.maximum(x, self.places[0])
        index = (x[:, None] >= self.places).long().sum(dim=1) - 1
        index = index.clamp(min=0)  # NaN
        return self.values[index] + self.slopes[index] * (x - self.places[index])


class Scale(nn.Module):
    """Map from the scores of a part to the scale of the ensemble.

    Parameters
    ----------
    name : {"p-value", "rank", "robust"}
        As the parameter `scale` of the ensemble.
    train_scores : ndarray of shape (n,), float64
        Of the part.
    """

    def __init__(self, name: str, train_scores: np.ndarray):
        super().__init__()
        self.name = name
        self.middle = float(np.median(train_scores))
        self.deviation = float(_scales.deviation(train_scores))
        self.start, self.top, self.decay = map(float, _scales.ends(train_scores))
        values, p = _scales.distribution(train_scores)
        y = np.log(p) if name == "p-value" else p
        self.interpolation = Interpolation(values, y)
        self.at_start, self.at_top = float(np.interp(self.start, values, y)), float(y[-1])

    def forward(self, scores: torch.Tensor) -> torch.Tensor:
        """Map scores (b,) as the function of this name in ``_scales`` does."""
        if self.name == "robust":
            return (scores - self.middle) / self.deviation
        scaled = self.interpolation(scores)
        below = (self.start - scores).clamp(min=0) / self.decay
        above = 1 + (scores - self.top).clamp(min=0) / self.decay
        if self.name == "p-value":
            low, high = self.at_start - below, self.at_top / above
        else:
            low, high = self.at_start / (1 + below), 1 - (1 - self.at_top) / above
        scaled = torch.where(scores < self.start, low, scaled)
        return torch.where(scores > self.top, high, scaled)


class CombinedScores(nn.Module):
    """Scores of a DetectorEnsemble, and maps where a part has them.

    Parameters
    ----------
    ensemble : DetectorEnsemble
        Fitted.
    module_of : callable
        Function from a fitted part to the module of its scores.
    """

    def __init__(self, ensemble, module_of: Callable):
        super().__init__()
        self.combine = ensemble.combine
        self.parts = nn.ModuleList(module_of(part) for part in ensemble.estimators_)
        self.scales = nn.ModuleList(
            Scale(ensemble.scale, scores) for scores in ensemble.part_train_scores_.T
        )
        self.map_scales = ensemble.map_scales_.tolist()
        self.has_maps = any(part.has_maps for part in self.parts)

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Map images to scores (b,), and maps (b, H, W) if there are any."""
        scores, maps = [], []
        for part, scale, (middle, deviation) in zip(
            self.parts, self.scales, self.map_scales, strict=True
        ):
            score, *rest = part(batch)
            scores.append(scale(score.float()))
            if part.has_maps:
                maps.append((rest[0] - middle) / deviation)
        # Higher is more normal for scores, and the opposite for maps.
        score = -_combined(self.combine, [-values for values in scores])
        return (score, _combined(self.combine, maps)) if maps else (score,)


def _combined(combine, parts):
    """Return the mean, the maximum or the median of tensors."""
    values = torch.stack(parts)
    if combine == "mean":
        return values.mean(dim=0)
    if combine == "max":
        return values.amax(dim=0)
    # numpy's median is the mean of two in the middle, where their number is even.
    n_largest, n_middle = len(parts) // 2 + 1, 2 - len(parts) % 2
    largest = values.topk(n_largest, dim=0).values
    return largest[n_largest - n_middle :].mean(dim=0)
