r"""PatchSVDD on magnetic tiles, and what it must beat: AUROC of images and of pixels.

Fits on the 400 tiles in ``train/good``, scores the whole test set, and adds a line to
``--output``::

    python examples/reproduction/magnetic_tile_patches.py --output rows.csv
    python examples/reproduction/magnetic_tile_patches.py --control random --output rows.csv
    python examples/reproduction/magnetic_tile_patches.py --control raw --output rows.csv

The controls are those of the paper's Table 3: an encoder with the weights it starts from,
and patches compared by their pixels, after the same normalization, with as many patches in
the banks. Settings are those of the table in the documentation; ``--published`` takes those
of the paper and its code, and ``--weights`` a trained encoder, which is not trained any
further.

The ablations of the paper are runs with other parameters::

    python examples/reproduction/magnetic_tile_patches.py --quick --scales \
        --set objective=svdd --output ablations.csv

``--quick`` takes a quarter of the patches, ``--scales`` adds lines for the map of each
scale and for other ways to join them (Figures 12 and 13), all from one fit.
``--table`` prints means over seeds. ``--embeddings FILE`` keeps the t-SNE of some big
patches of normal test images, with their places in the image (Figure 8).

The folder is ``magnetic_tile`` in ``--data``, by default the folder that the environment
variable SKOCC_DATA names.
"""

import argparse
import csv
import sys
from pathlib import Path

import numpy as np
import torch
from sklearn.manifold import TSNE
from tiles import add_arguments, add_row, measure, parameter, read_rows

from skocc import PatchSVDD
from skocc._nets.normalization import LocalContrastNormalization
from skocc._ops.coreset import random_subset
from skocc._ops.maps import patch_scores_to_map
from skocc._ops.neighbors import bank_bytes, nearest
from skocc._samples.sources import FileImages
from skocc._samples.windows import window_starts
from skocc.datasets import load_mvtec_layout
from skocc.estimators._patch_networks import PatchScales, embed_patches

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
# A quarter of the patches.
QUICK = {**TILES, "strides": (4, 4)}
# 300 epochs, the first before any training, of 100 draws an image, 64 in a step: here 8 of
# each of 8 images.
PUBLISHED = {
    "patch_size": 64,
    "strides": (4, 16),
    "svdd_weight": 1e-3,
    "noise": 0.02,
    "sampling": "patches",
    "n_pairs": 8,
    "batch_size": 8,
    "n_epochs": 299 * 100 // 8,
    "learning_rate": 1e-4,
    "schedule": "constant",
    "weight_init": "torch",
}
CONTROLS = {
    None: "PatchSVDD",
    "random": "PatchSVDD, random encoder",
    "raw": "raw patches",
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

    def anomaly_map(self, paths, size="model"):
        """Return the product of the maps of both scales, (n, H, W)."""
        shape = (self.settings.image_size,) * 2
        images = FileImages(paths, shape, 1)
        maps = np.ones((len(images), *shape), dtype=np.float32)
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
                    scores, starts, starts, side, shape, self.settings.padding_mode
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


class EachScale:
    """The map of each scale, and maps joined from them, for `tiles.measure`.

    Parameters
    ----------
    detector : PatchSVDD
        It is fitted by the first call of `fit`, and no more.
    """

    def __init__(self, detector):
        self._detector, self.random_state = detector, detector.random_state
        self.aggregation, self._maps = "product", None

    def fit(self, paths):
        """Fit the detector, unless it is."""
        if not hasattr(self._detector, "offset_"):
            self._detector.fit(paths)
        return self

    def anomaly_map(self, paths, size):
        """Return maps (n, H, W), joined as `aggregation` says."""
        if self._maps is None:
            self._maps = {
                scale: self._detector.set_params(aggregation=scale).anomaly_map(
                    paths, size=size
                )
                for scale in ("small", "big")
            }
        join = {"product": np.multiply, "sum": np.add, "max": np.maximum}
        if self.aggregation in join:
            return join[self.aggregation](self._maps["small"], self._maps["big"])
        return self._maps[self.aggregation]


def keep_embedding(detector, data, path, n_images=20, n_patches=1500):
    """Write the t-SNE of random big patches, and their places from -1 to 1, as CSV."""
    tiles = load_mvtec_layout(Path(data) / "magnetic_tile")
    normal = np.array(tiles.test_paths)[tiles.test_labels == 1][:n_images]
    images = FileImages(normal, (detector.image_size,) * 2, 1).load(range(len(normal)))
    batch = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    scales = PatchScales.of(detector.patch_size, detector.strides)
    network = detector.network_
    with torch.no_grad():
        z = embed_patches(network.encoder, network.normalize(batch), scales)[1]
    places = np.indices(z.shape[2:]).reshape(2, -1).T / (np.array(z.shape[2:]) - 1)
    places = np.tile(2 * places - 1, (len(z), 1))
    vectors = z.permute(0, 2, 3, 1).flatten(0, 2).numpy()
    rng = np.random.default_rng(detector.random_state)
    chosen = rng.choice(len(vectors), min(n_patches, len(vectors)), replace=False)
    points = TSNE(random_state=detector.random_state).fit_transform(vectors[chosen])
    for point, (row, column) in zip(points, places[chosen], strict=True):
        values = {"x": point[0], "y": point[1], "row": row, "column": column}
        add_row(path, {key: f"{value:.3f}" for key, value in values.items()})


def run(options):
    """Fit, score, print and write."""
    bases = {"published": PUBLISHED, "quick": QUICK, "defaults": {}}
    name = next((name for name in bases if getattr(options, name)), "tiles")
    base = bases.get(name, TILES)
    changed = dict(options.set)
    if options.control == "random" or options.weights is not None:
        changed["n_epochs"] = 0
    setting = ", ".join([name, *(f"{key}={value}" for key, value in changed.items())])
    if options.weights is not None:
        setting += f", weights of {options.weights.stem}"
    params = {"max_bank_bytes": int(options.max_bank_mib * 2**20), **base, **changed}
    # What has no effect must be left at its default.
    if params.get("objective", "patch") != "patch":
        params.pop("svdd_weight", None)
    if params.get("objective") == "svdd":
        params.pop("max_bank_bytes")
    detector = PatchSVDD(
        image_size=options.size,
        weights=options.weights,
        random_state=options.seed,
        device=options.device,
        verbose=options.verbose,
    ).set_params(**params)
    measured = {"product": RawPatches(detector) if options.control == "raw" else detector}
    if options.scales:
        scales = EachScale(detector)
        measured = dict.fromkeys(("product", "small", "big", "sum", "max"), scales)
    for aggregation, model in measured.items():
        model.aggregation = aggregation
        row = measure(
            model, options.data, setting, scores_are_maxima=True, n_train=options.n_train
        )
        row |= {"method": CONTROLS[options.control], "map": aggregation}
        add_row(options.output, row)
    if options.embeddings is not None:
        keep_embedding(detector, options.data, options.embeddings)


def table(path):
    """Print mean and standard deviation over seeds of each setting and map, as CSV."""
    groups = {}
    for row in read_rows(path):
        key = row["method"], row["setting"], row["map"]
        groups.setdefault(key, []).append(row)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    names = ("image AUROC", "pixel AUROC")
    writer.writerow(["method", "setting", "map", *names, "seeds"])
    for key, rows in groups.items():
        columns = ([100 * float(row[name]) for row in rows] for name in names)
        cells = [
            f"{np.mean(c):.1f}" + f" ± {np.std(c):.1f}" * (len(c) > 1) for c in columns
        ]
        writer.writerow([*key, *cells, len(rows)])


def main():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--size", type=int, default=256, help="pixels a side")
    parser.add_argument("--control", choices=["random", "raw"])
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--published", action="store_true", help="as in the paper")
    group.add_argument("--defaults", action="store_true", help="those of PatchSVDD")
    group.add_argument("--quick", action="store_true", help="patches every 4 pixels")
    parser.add_argument(
        "--set", type=parameter, nargs="+", default=[], metavar="NAME=VALUE",
        help="parameters of PatchSVDD, such as objective=svdd strides=4,4",
    )  # fmt: skip
    parser.add_argument("--scales", action="store_true", help="lines of each scale as well")
    parser.add_argument("--embeddings", type=Path, help="CSV file for a t-SNE")
    parser.add_argument("--weights", type=Path, help="file of a trained encoder")
    parser.add_argument("--max-bank-mib", type=float, default=2)
    parser.add_argument("--n-train", type=int, help="tiles to fit on; default all")
    parser.add_argument("--n-threads", type=int)
    parser.add_argument("--table", action="store_true", help="print means and stop")
    options = parser.parse_args()
    if options.table:
        table(options.output)
        return
    if options.n_threads:
        torch.set_num_threads(options.n_threads)
    run(options)


if __name__ == "__main__":
    main()
