r"""What averaging is worth on magnetic tiles: seeds of one method, and two methods.

Fits every detector once, and combines their scores by every scale and combination of
DetectorEnsemble::

    python examples/reproduction/ensembles.py seeds --seeds 10 --parts parts \
        --output seeds.csv
    python examples/reproduction/ensembles.py methods --seeds 2 --parts parts \
        --output methods.csv

``seeds``: Deep SVDD on gray tiles of 32 x 32 pixels, 10 epochs of pretraining and 10 of the
sphere, batches of 50. The AUROC of an ensemble of ``--size`` seeds is the mean over all
such subsets of the seeds, with the standard deviation over the subsets, which overlap;
that of one seed over the seeds.

``methods``: ResNetKNN and FeatureCAE on features of MobileNetV2 at 224 pixels, both with
scores relative to the image's median, beside each of the two alone: AUROC of images and of
pixels, per-region overlap, average precision of pixels and the mean AUPIMO.

400 tiles train, 414 are tested. The scores of all fits are kept in ``--parts``, and read
again where they are there. The folder ``magnetic_tile`` and the weights
``mobilenet_v2_imagenet.pt`` are in ``--data``, by default the folder that SKOCC_DATA names.
"""

import argparse
import csv
import itertools
import os
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.base import BaseEstimator
from sklearn.metrics import roc_auc_score
from tiles import load_masks

import skocc
from skocc.datasets import load_mvtec_layout
from skocc.metrics import aupimo, aupro, pixel_auroc, pixel_average_precision
from skocc.model_selection import DetectorEnsemble

SCALES, COMBINATIONS = ["p-value", "rank", "robust"], ["mean", "max", "median"]


class Known(BaseEstimator):
    """A detector of known scores and maps; X are indices, training images first."""

    def __init__(self, part):
        self.part = part

    def fit(self, X, y=None):
        """Set the known scores of the training images."""
        self.train_scores_ = self.part["train"]
        return self

    def score_samples(self, X):
        """Return the known scores."""
        return np.concatenate([self.part["train"], self.part["test"]])[np.asarray(X)]

    def anomaly_map(self, X):
        """Return the maps, those of training images for all of them being 32."""
        if np.max(X) < len(self.part["train"]):
            chosen = np.linspace(0, len(self.part["train"]) - 1, 32).astype(int)
            return self.part["train_maps"][np.searchsorted(chosen, X)]
        return self.part["test_maps"][np.asarray(X) - len(self.part["train"])]


class KnownScores(Known):
    """The same for a detector that has no maps."""

    anomaly_map = property()


def fitted(path, detector, train, test, with_maps=False):
    """Return scores and maps of a detector, from a file where they are in one."""
    if not path.exists():
        detector.fit(train)
        part = {"train": detector.train_scores_, "test": detector.score_samples(test)}
        if with_maps:
            chosen = np.linspace(0, len(train) - 1, 32).astype(int)
            some = [train[index] for index in chosen]
            for key, X in [("train_maps", some), ("test_maps", test)]:
                maps = map(Image.fromarray, detector.anomaly_map(X))
                part[key] = np.stack([resized(heat) for heat in maps])
        np.savez(path, **part)
    with np.load(path) as file:
        return dict(file)


def pixels(paths, size):
    """Return gray images (n, size, size), uint8."""
    images = (Image.open(path).convert("L") for path in paths)
    return np.stack([resized(image, size) for image in images])


def resized(image, size=224):
    """Return an image, or a map, as an array (size, size)."""
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


def ensemble_of(parts, scale, combine, known=KnownScores):
    """Return a fitted ensemble of known detectors."""
    named = [(f"part{index}", known(part)) for index, part in enumerate(parts)]
    ensemble = DetectorEnsemble(named, scale=scale, combine=combine)
    return ensemble.fit(np.arange(len(parts[0]["train"])))


def run_seeds(options, tiles):
    """Return the lines of the table of seeds."""
    train, test = pixels(tiles.train_paths, 32), pixels(tiles.test_paths, 32)
    parts = []
    for seed in range(options.seeds):
        detector = skocc.DeepSVDD(
            batch_size=50, pretrain_n_epochs=10, n_epochs=10, device="cpu",
            random_state=seed,
        )  # fmt: skip
        parts.append(fitted(options.parts / f"svdd32_{seed}.npz", detector, train, test))
    indices = len(train) + np.arange(len(test))
    lines = [["one seed", "", "", *spread([auroc(tiles, p["test"]) for p in parts])]]
    for scale, combine in itertools.product(SCALES, COMBINATIONS):
        found = [
            auroc(tiles, ensemble_of(subset, scale, combine).score_samples(indices))
            for subset in itertools.combinations(parts, options.size)
        ]
        lines.append([f"{options.size} seeds", scale, combine, *spread(found)])
    return [["detector", "scale", "combine", "image AUROC", "sd", "ensembles"], *lines]


def auroc(tiles, scores):
    return roc_auc_score(tiles.test_labels, scores)  # higher is more normal, and so is 1


def spread(values):
    return f"{np.mean(values):.3f}", f"{np.std(values, ddof=1):.3f}", len(values)


def run_methods(options, tiles):
    """Return the lines of the table of methods."""
    shared = {
        "backbone": "mobilenet_v2", "weights": options.data / "mobilenet_v2_imagenet.pt",
        "normalization": "imagenet", "score_normalization": "median", "image_size": 224,
        "device": "cpu",
    }  # fmt: skip
    lines = []
    for seed in range(options.seeds):
        knn = skocc.ResNetKNN(
            layers=("features.13",), pooling="locally_aware", embedding_dim=256,
            bank_fraction=0.25, random_state=seed, **shared,
        )  # fmt: skip
        cae = skocc.FeatureCAE(
            layers=("features.6", "features.13"), latent_dim=24, batch_size=4,
            random_state=seed, **shared,
        )  # fmt: skip
        parts = [
            fitted(options.parts / f"{name}224_{seed}.npz", detector,
                   tiles.train_paths, tiles.test_paths, with_maps=True)
            for name, detector in [("knn", knn), ("cae", cae)]
        ]  # fmt: skip
        for name, part in [("ResNetKNN", parts[0]), ("FeatureCAE", parts[1])]:
            row = measured(tiles, part["test"], part["test_maps"])
            lines.append([seed, name, "", "", *row])
        indices = 400 + np.arange(len(tiles.test_paths))
        for scale, combine in itertools.product(SCALES, ["mean", "max"]):
            both = ensemble_of(parts, scale, combine, Known)
            row = measured(tiles, both.score_samples(indices), both.anomaly_map(indices))
            lines.append([seed, "both", scale, combine, *row])
            print(*lines[-1], flush=True)
    columns = ["seed", "detector", "scale", "combine", "image AUROC", "pixel AUROC"]
    return [[*columns, "AUPRO", "pixel AP", "AUPIMO"], *lines]


def measured(tiles, scores, maps):
    """Return all metrics of scores and maps."""
    masks = load_masks(tiles.test_masks, 224)
    values = [auroc(tiles, scores)]
    values += [metric(masks, maps) for metric in (pixel_auroc, aupro)]
    values += [pixel_average_precision(masks, maps), np.nanmean(aupimo(masks, maps))]
    return [f"{value:.3f}" for value in values]


def main():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", choices=["seeds", "methods"])
    folder = os.environ.get("SKOCC_DATA")
    parser.add_argument("--data", type=Path, default=folder, required=folder is None)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--size", type=int, default=5, help="seeds of an ensemble")
    parser.add_argument("--parts", type=Path, default=Path("parts"))
    parser.add_argument("--output", type=Path, help="CSV file to write")
    options = parser.parse_args()
    options.parts.mkdir(exist_ok=True)
    tiles = load_mvtec_layout(options.data / "magnetic_tile")
    run = run_seeds if options.table == "seeds" else run_methods
    lines = run(options, tiles)
    for line in lines:
        print(*line, sep="  ")
    if options.output is not None:
        with options.output.open("w", newline="") as file:
            csv.writer(file).writerows(lines)


if __name__ == "__main__":
    main()
