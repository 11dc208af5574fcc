"""Thresholds of heat maps on magnetic tiles: false alarms, and how well masks fit.

Fits ResNetKNN on the 400 tiles in ``train/good``, and marks the pixels of all test tiles
that are above a threshold of maps: ``pixel_threshold_`` at several values of
`contamination`, that of ``ThresholdTuner(cv="loo")`` at the same rates, and that of
``ThresholdTuner(cv="prefit")`` on a random half of the good test tiles, on average over 200
halves. A line of the table, which is added to ``--output``, says

- which share of the good test tiles has any pixel that is marked, of the other half in the
  third case;
- which share of the tiles with a defect has a marked pixel within the defect;
- which share of the pixels of defects is marked (recall), and the intersection over the
  union (IoU), both over all pixels of all tiles with a defect.

Run it as ``python examples/reproduction/magnetic_tile_masks.py --output rows.csv``; options
``--size``, ``--score-normalization`` and others are those of ``magnetic_tile_features.py``.
Maps have the size of the resized images, and the masks are brought to it (nearest pixel).
"""

import numpy as np
from magnetic_tile_features import make, parse_arguments
from tiles import add_row, load_masks

from skocc.datasets import load_mvtec_layout
from skocc.model_selection import find_threshold

_RATES = (0.05, 0.1)
_N_HALVES = 200


def thresholds_of(detector, held_out):
    """Yield names and thresholds of maps, and which of the held-out tiles they are new to.

    Parameters
    ----------
    detector : ResNetKNN
        Fitted.
    held_out : ndarray of shape (n_held_out,)
        Highest values of the maps of good test tiles.
    """
    every = np.arange(len(held_out))
    for rate in _RATES:
        detector.set_contamination(rate)
        yield f"contamination={rate}", detector.pixel_threshold_, every
        # What ThresholdTuner does, without a new fit for each rate.
        loo = -find_threshold(-detector.train_map_maxima_, max_fpr=rate)
        yield f"loo, max_fpr={rate}", loo, every
        for seed in range(_N_HALVES):
            order = np.random.default_rng(seed).permutation(every)
            half, others = np.array_split(order, 2)
            threshold = -find_threshold(-held_out[half], max_fpr=rate)
            yield f"held out, max_fpr={rate}", threshold, others


def quality(maps, masks, threshold):
    """Return share of tiles found, recall and IoU of pixels, for tiles with a defect."""
    marked = maps > threshold
    both = marked & masks
    found = both.any(axis=(1, 2)).mean()
    return found, both.sum() / masks.sum(), both.sum() / (marked | masks).sum()


def main():
    """Fit, mark, print and write."""
    options = parse_arguments()
    detector, setting = make(options)
    tiles = load_mvtec_layout(options.data / "magnetic_tile")
    detector.fit(tiles.train_paths)
    maps = detector.anomaly_map(tiles.test_paths, size="model")
    masks = load_masks(tiles.test_masks, maps.shape[1])
    is_good = tiles.test_labels != -1
    held_out = maps[is_good].max(axis=(1, 2)).astype(np.float64)
    maps, masks = maps[~is_good], masks[~is_good]
    rows = {}
    for name, threshold, new in thresholds_of(detector, held_out):
        alarms = (held_out[new] > threshold).mean()
        rows.setdefault(name, []).append([alarms, *quality(maps, masks, threshold)])
    for name, values in rows.items():
        columns = ("good tiles marked", "defects found", "recall", "IoU")
        shown = [f"{value:.3f}" for value in np.mean(values, axis=0)]
        row = {"setting": setting, "size": maps.shape[1], "seed": detector.random_state}
        add_row(
            options.output,
            row | {"threshold": name} | dict(zip(columns, shown, strict=True)),
        )


if __name__ == "__main__":
    main()
