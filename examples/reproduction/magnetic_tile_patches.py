r"""PatchSVDD on magnetic tiles, and what it must beat: AUROC of images and of pixels.

Fits on the 400 tiles in ``train/good``, scores the whole test set, and adds a line to
``--output``::

    python examples/reproduction/magnetic_tile_patches.py --output rows.csv
    python examples/reproduction/magnetic_tile_patches.py --control random --output rows.csv
    python examples/reproduction/magnetic_tile_patches.py --control raw --output rows.csv

The controls are those of the paper's Table 3: an encoder with the weights it starts from,
and patches compared by their pixels, after the same normalization, with as many patches in
the banks. Settings are those of the table in the documentation; ``--published`` takes the
defaults of the class, and ``--weights`` a trained encoder, which is not trained further.

The folder is ``magnetic_tile`` in ``--data``, by default the folder that the environment
variable SKOCC_DATA names.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from tiles import add_arguments, add_row, measure

from skocc import PatchSVDD
from skocc._nets.normalization import LocalContrastNormalization
from skocc._ops.coreset import random_subset
from skocc._ops.maps import patch_scores_to_map
from skocc._ops.neighbors import bank_bytes, nearest
from skocc._samples.sources import FileImages
from skocc._samples.windows import window_starts

# What was chosen for these tiles, whose light varies and whose defects are small.
TILES = {
    "patch_size": 16,
    "strides": (2, 2),
    "normalization": "local_contrast",
    "padding_mode": "reflect",
    "svdd_weight": 0.003,
    "noise": 0.05,
    "n_epochs": 4,
}


class RawPatches:
    """Patches compared by their pixels, for `tiles.measure`: a detector without training.

    Parameters
    ----------
    settings : PatchSVDD
        Its patches, strides, normalization, border, budget, size and seed are taken.
    """

    def __init__(self, settings):
        self.settings, self.random_state = settings, settings.random_state
        size, side = settings.image_size, settings.patch_size
        strides = settings.strides or (side // 16, side // 4)
        self._sides = (side // 2, side)
        self._starts = [
            window_starts(size, s, stride)
            for s, stride in zip(self._sides, strides, strict=True)
        ]
        self._normalize = torch.nn.Identity()
        if settings.normalization == "local_contrast":
            self._normalize = LocalContrastNormalization((size, size), size / 16)

    def fit(self, paths):
        """Keep patches of all images, as many as PatchSVDD does."""
        settings = self.settings
        generator = torch.Generator().manual_seed(settings.random_state)
        images = FileImages(paths, (settings.image_size,) * 2, 1)
        share = min(
            1.0,
            settings.max_bank_bytes
            / bank_bytes(len(images) * sum(len(s) ** 2 for s in self._starts), 64),
        )
        self._mean = sum(self._load(images, i) for i in range(len(images))) / len(images)
        banks = [[], []]
        for index in range(len(images)):
            for bank, vectors in zip(banks, self._patches(images, index), strict=True):
                n_kept = max(1, round(share * len(vectors)))
                bank.append(vectors[random_subset(len(vectors), n_kept, generator)])
        self._banks = [torch.cat(bank) for bank in banks]
        return self

    def anomaly_map(self, paths):
        """Return the product of the maps of both scales, (n, H, W)."""
        size = self.settings.image_size
        images = FileImages(paths, (size, size), 1)
        maps = np.ones((len(images), size, size), dtype=np.float32)
        for index in range(len(images)):
            scales = zip(
                self._patches(images, index),
                self._banks,
                self._starts,
                self._sides,
                strict=True,
            )
            for vectors, bank, starts, side in scales:
                scores = nearest(vectors, bank)[0].numpy().reshape(1, len(starts), -1)
                maps[index] *= patch_scores_to_map(
                    scores, starts, starts, side, (size, size), self.settings.border
                )[0]
        return maps

    def _load(self, images, index):
        batch = torch.from_numpy(images.load([index])).permute(0, 3, 1, 2) / 255
        return self._normalize(batch)

    def _patches(self, images, index):
        image = self._load(images, index) - self._mean
        for side, starts in zip(self._sides, self._starts, strict=True):
            windows = image[0, 0].unfold(0, side, 1).unfold(1, side, 1)
            yield windows[starts][:, starts].flatten(2).flatten(0, 1)


def main():
    """Read the command line, fit, score, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--size", type=int, default=256, help="pixels a side")
    parser.add_argument("--control", choices=["random", "raw"])
    parser.add_argument("--published", action="store_true", help="defaults of PatchSVDD")
    parser.add_argument("--patch-size", type=int)
    parser.add_argument("--strides", type=int, nargs=2)
    parser.add_argument("--normalization", choices=["mean", "local_contrast"])
    parser.add_argument("--padding-mode", choices=["mean", "reflect"])
    parser.add_argument("--svdd-weight", type=float)
    parser.add_argument("--noise", type=float)
    parser.add_argument("--sampling", choices=["dense", "patches"])
    parser.add_argument("--n-pairs", type=int)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--n-epochs", type=int)
    parser.add_argument("--weights", type=Path, help="file of a trained encoder")
    parser.add_argument("--max-bank-mib", type=float, default=2)
    parser.add_argument("--n-threads", type=int)
    options = parser.parse_args()
    if options.n_threads:
        torch.set_num_threads(options.n_threads)

    params = {} if options.published else dict(TILES)
    for name in PatchSVDD().get_params():
        if getattr(options, name, None) is not None:
            params[name] = getattr(options, name)
    if options.control == "random" or options.weights is not None:
        params["n_epochs"] = 0
    shown = {k: v for k, v in params.items() if k != "weights" and TILES.get(k) != v}
    shown = {k: v for k, v in shown.items() if k not in ("device", "verbose")}
    setting = "published" if options.published else "tiles"
    setting = ", ".join([setting, *(f"{k}={v}" for k, v in shown.items())])
    if options.weights is not None:
        setting += f", weights of {options.weights.stem}"
    detector = PatchSVDD(
        image_size=options.size,
        max_bank_bytes=int(options.max_bank_mib * 2**20),
        random_state=options.seed,
        **params,
    )
    if options.control == "raw":
        detector = RawPatches(detector)
    row = measure(detector, options.data, setting, scores_are_maxima=True)
    if options.control == "random":
        row["method"] = "PatchSVDD, random encoder"
    add_row(options.output, row)


if __name__ == "__main__":
    main()
