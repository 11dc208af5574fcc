"""ResNetKNN on magnetic tiles: AUROC of images and of pixels.

Fits on the 400 tiles in ``train/good``, scores the whole test set, and adds a line to
``--output``::

    python examples/reproduction/magnetic_tile_features.py --size 224 --output rows.csv
    python examples/reproduction/magnetic_tile_features.py --size 320 \
        --pooling locally_aware --patch-dim 256 --output rows.csv

The folder is ``magnetic_tile`` in ``--data``, by default the folder that the environment
variable SKOCC_DATA names. The ImageNet weights of MobileNetV2 are the file
``mobilenet_v2_imagenet.pt`` beside it, unless ``--weights`` says otherwise.

Maps have the size of the resized images, and the masks are brought to it (nearest pixel).
The AUROC of pixels is over all pixels of all test images.
"""

import argparse
import csv
import os
import resource
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.metrics import roc_auc_score

from skocc import ResNetKNN
from skocc.datasets import load_mvtec_layout


def load_masks(paths, size):
    """Return the masks (n, H, W) of the test images, all false for normal ones."""
    masks = np.zeros((len(paths), size, size), dtype=bool)
    for mask, path in zip(masks, paths, strict=True):
        if path is not None:
            image = Image.open(path).convert("L")
            image = image.resize((size, size), Image.Resampling.NEAREST)
            mask[:] = np.asarray(image) >= 128
    return masks


def peak_memory():
    """Return the peak resident memory of this process in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def parse_arguments():
    """Return the options of the command line."""
    folder = os.environ.get("SKOCC_DATA")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=folder and Path(folder))
    parser.add_argument("--output", type=Path, help="CSV file to add a line to")
    parser.add_argument("--size", type=int, default=224, help="pixels a side")
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--weights", help="file of a state dict, or imagenet")
    parser.add_argument("--layers", nargs="+", default=["features.6", "features.13"])
    parser.add_argument("--normalization", default="imagenet", choices=["imagenet", "none"])
    parser.add_argument(
        "--pooling", default="average", choices=["average", "locally_aware"]
    )
    parser.add_argument("--interpolation", default="average")
    parser.add_argument("--patch-dim", type=int, default=1024)
    parser.add_argument("--aggregation", default="min", choices=["min", "mean"])
    parser.add_argument("--n-neighbors", type=int, default=5)
    parser.add_argument("--reweighting", type=int)
    parser.add_argument("--smoothing", type=float, default=0.0)
    parser.add_argument("--subsampling", default="random", choices=["random", "coreset"])
    parser.add_argument("--bank-fraction", type=float, default=1.0)
    parser.add_argument("--memory", type=Path, help="folder that keeps the features")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", help="default: the fastest there is")
    parser.add_argument("--verbose", type=int, default=0)
    options = parser.parse_args()
    if options.data is None:
        parser.error("pass --data, or set the environment variable SKOCC_DATA")
    if options.weights is None:
        options.weights = options.data / "mobilenet_v2_imagenet.pt"
    return options


def make(options):
    """Return the detector and what sets this row apart from others."""
    normalization = None if options.normalization == "none" else options.normalization
    detector = ResNetKNN(
        backbone=options.backbone,
        weights=options.weights,
        layers=tuple(options.layers),
        normalization=normalization,
        pooling=options.pooling,
        interpolation=options.interpolation,
        patch_dim=options.patch_dim,
        n_neighbors=options.n_neighbors,
        aggregation=options.aggregation,
        subsampling=options.subsampling,
        bank_fraction=options.bank_fraction,
        reweighting=options.reweighting,
        smoothing=options.smoothing,
        memory=options.memory,
        image_size=options.size,
        device=options.device,
        random_state=options.seed,
        verbose=options.verbose,
    )
    setting = [" + ".join(options.layers)]
    if normalization is None:
        setting.append("not normalized")
    if options.pooling == "locally_aware":
        setting.append(f"locally aware, {options.patch_dim}")
    elif options.interpolation != "average":
        setting.append(options.interpolation)
    if options.aggregation == "mean":
        setting.append(f"mean of {options.n_neighbors}")
    if options.reweighting is not None:
        setting.append(f"weighted by {options.reweighting}")
    if options.smoothing:
        setting.append(f"smoothed by {options.smoothing:g}")
    bank = f"{100 * options.bank_fraction:g} % {options.subsampling}"
    return detector, ", ".join(setting), "all" if options.bank_fraction == 1 else bank


def main():
    """Fit, score, print and write."""
    options = parse_arguments()
    tiles = load_mvtec_layout(options.data / "magnetic_tile")
    detector, setting, bank = make(options)
    start = time.perf_counter()
    detector.fit(tiles.train_paths)
    fit_seconds, peak = time.perf_counter() - start, peak_memory()
    start = time.perf_counter()
    scores = -detector.score_samples(tiles.test_paths)  # an anomaly is a positive
    score_seconds = time.perf_counter() - start
    maps = detector.anomaly_map(tiles.test_paths)
    masks = load_masks(tiles.test_masks, options.size)
    is_anomaly = tiles.test_labels == -1
    row = {
        "size": options.size,
        "setting": setting,
        "bank": bank,
        "vectors": len(detector.bank_),
        "image AUROC": f"{roc_auc_score(is_anomaly, scores):.3f}",
        "pixel AUROC": f"{roc_auc_score(masks.ravel(), maps.ravel()):.3f}",
        "fit, s": f"{fit_seconds:.0f}",
        "peak of fit, MiB": f"{peak:.0f}",
        "ms an image": f"{1000 * score_seconds / len(scores):.0f}",
    }
    print("  ".join(f"{key}: {value}" for key, value in row.items()), flush=True)
    if options.output is not None:
        is_new = not options.output.exists()
        with options.output.open("a", newline="") as file:
            writer = csv.DictWriter(file, row)
            if is_new:
                writer.writeheader()
            writer.writerow(row)


if __name__ == "__main__":
    main()
