"""False alarms of a conformal threshold, and of one from the training images.

Normal images are divided at random, ``--splits`` times, into those that a detector is
trained on, those held out for a conformal threshold, and those that are tested. Beside the
conformal threshold stands the quantile of the scores of the training images, which is what
``contamination`` sets, at the same rate::

    python examples/reproduction/thresholds.py --output thresholds.csv

MNIST (the digit 3) and Fashion-MNIST (shirts): 800 images to train on, 200 held out, 1,000
to test, and 1,000 of other classes. Isolation forest and one-class SVM on the pixels, with
PCA before the SVM, and Deep SVDD with a much shortened training.

Magnetic tiles: all 642 images without a defect, of which 320 train, 80 are held out and the
others are tested, with the 172 that have one. ResNetKNN with MobileNetV2 at 128 pixels, far
below what finds such small defects well. As a tile was photographed up to six times, the
images are also divided by tile, half of the tiles for training, an eighth held out.

Printed, and written to ``--output``, in percent: means over the splits and, of the false
alarms, their standard error; ``binomial`` is the standard error that a rate of exactly
``--rate`` would have, from so many images held out and so many tested, if the splits were
independent. The data are read from the folder that SKOCC_DATA names.
"""

import argparse
import csv
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from one_vs_rest import load
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.svm import OneClassSVM

import skocc
from skocc.datasets import load_mvtec_layout
from skocc.model_selection import ThresholdTuner, find_threshold

COLUMNS = [
    "data", "detector", "splits", "held out", "tested", "conformal", "standard error",
    "binomial", "training quantile", "standard error of it", "detected, conformal",
    "detected, training quantile", "AUROC",
]  # fmt: skip
DETECTORS = ["IsolationForest", "OneClassSVM", "DeepSVDD"]
NORMAL_CLASS = {"mnist": 3, "fashion_mnist": 6}


def pixel_detector(name, seed):
    """Return a detector of flattened images (n, 784), floats in [0, 1]."""
    if name == "IsolationForest":
        return IsolationForest(random_state=seed)
    if name == "OneClassSVM":
        return make_pipeline(PCA(50, random_state=seed), OneClassSVM(nu=0.05))
    return skocc.DeepSVDD(
        pretrain_n_epochs=5, n_epochs=5, image_shape=(28, 28), device="cpu",
        random_state=seed,
    )  # fmt: skip


def load_pixels(name):
    """Return normal and anomalous images (n, 28, 28)."""
    train_images, train_labels, test_images, test_labels = load(name, root=None)
    images = np.concatenate([train_images, test_images])
    labels = np.concatenate([train_labels, test_labels])
    is_normal = labels == NORMAL_CLASS[name]
    return images[is_normal], images[~is_normal]


def to_rows(images):
    return (images.reshape(len(images), -1) / 255).astype(np.float32)


def measure(detector, train, calibration, test, anomalies, rate):
    """Return rates of both thresholds on normal and anomalous images, and the AUROC."""
    detector.fit(train)
    tuner = ThresholdTuner(detector, max_fpr=rate, cv="prefit").fit(calibration)
    quantile = find_threshold(
        detector.score_samples(train), rule="percentile", max_fpr=rate
    )
    normal, anomalous = tuner.score_samples(test), tuner.score_samples(anomalies)
    is_anomaly = np.repeat([0, 1], [len(normal), len(anomalous)])
    return [
        len(calibration),
        len(normal),
        np.mean(normal < tuner.offset_),
        np.mean(normal < quantile),
        np.mean(anomalous < tuner.offset_),
        np.mean(anomalous < quantile),
        roc_auc_score(is_anomaly, -np.concatenate([normal, anomalous])),
    ]


def summary(data, detector, measured, rate):
    """Return a line of the table from the measurements of all splits."""
    measured = np.array(measured)
    n_splits = len(measured)
    held_out, tested, conformal, quantile, found, found_quantile, auroc = measured.mean(0)
    errors = measured.std(axis=0, ddof=1) / np.sqrt(n_splits)
    binomial = np.sqrt(rate * (1 - rate) * (1 / held_out + 1 / tested) / n_splits)
    percent = [
        conformal, errors[2], binomial, quantile, errors[3], found, found_quantile, auroc,
    ]  # fmt: skip
    counts = [n_splits, round(held_out), round(tested)]
    values = [data, detector, *counts, *(f"{100 * value:.2f}" for value in percent)]
    return dict(zip(COLUMNS, values, strict=True))


def run_pixels(name, detectors, n_splits, rate):
    """Yield the lines of MNIST or Fashion-MNIST."""
    normal, others = load_pixels(name)
    for detector in detectors:
        lines = []
        for seed in range(n_splits):
            rng = np.random.default_rng(seed)
            parts = np.split(rng.permutation(len(normal))[:2000], [800, 1000])
            anomalies = to_rows(others[rng.permutation(len(others))[:1000]])
            images = [to_rows(normal[part]) for part in parts]
            lines.append(measure(pixel_detector(detector, seed), *images, anomalies, rate))
        setting = ", 5 + 5 epochs" if detector == "DeepSVDD" else ""
        yield summary(name, f"{detector}{setting}", lines, rate)


def split_images(n_images, rng):
    """Return indices to train on, to hold out and to test, drawn image by image."""
    return np.split(rng.permutation(n_images), [320, 400])


def split_tiles(tiles, rng):
    """Return the same, drawn tile by tile."""
    order = rng.permutation(np.unique(tiles))
    parts = np.split(order, [len(order) // 2, 5 * len(order) // 8])
    return [np.flatnonzero(np.isin(tiles, part)) for part in parts]


def run_tiles(folder, n_splits, rate):
    """Yield the lines of the magnetic tiles."""
    data = load_mvtec_layout(folder / "magnetic_tile")
    normal = [*data.train_paths, *np.array(data.test_paths)[data.test_labels == 1]]
    anomalies = list(np.array(data.test_paths)[data.test_labels == -1])
    with (folder / "magnetic_tile" / "manifest.csv").open() as file:
        groups = {row["file"]: row["tile_group"] for row in csv.DictReader(file)}
    root = folder / "magnetic_tile"
    tiles = np.array([groups[Path(path).relative_to(root).as_posix()] for path in normal])
    with tempfile.TemporaryDirectory() as memory:
        for data_name in ("magnetic_tile", "magnetic_tile, by tile"):
            lines = []
            for seed in range(n_splits):
                rng = np.random.default_rng(seed)
                if data_name == "magnetic_tile":
                    parts = split_images(len(normal), rng)
                else:
                    parts = split_tiles(tiles, rng)
                detector = skocc.ResNetKNN(
                    backbone="mobilenet_v2",
                    weights=folder / "mobilenet_v2_imagenet.pt",
                    layers=("features.13",),
                    normalization="imagenet",
                    score_normalization="median",
                    bank_fraction=0.25,
                    image_size=128,
                    memory=memory,
                    device="cpu",
                    random_state=seed,
                )
                images = [[normal[index] for index in part] for part in parts]
                lines.append(measure(detector, *images, anomalies, rate))
            yield summary(data_name, "ResNetKNN, 128 pixels", lines, rate)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="+", default=[*NORMAL_CLASS, "magnetic_tile"])
    parser.add_argument(
        "--detectors", nargs="+", default=DETECTORS, help="on MNIST and Fashion-MNIST"
    )
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--rate", type=float, default=0.05)
    parser.add_argument("--output", type=Path, help="CSV file to write")
    options = parser.parse_args()
    folder = Path(os.environ["SKOCC_DATA"])
    lines = []
    writer = csv.DictWriter(sys.stdout, COLUMNS)
    writer.writeheader()
    for name in options.data:
        start = time.perf_counter()
        run = (
            run_tiles(folder, options.splits, options.rate)
            if name == "magnetic_tile"
            else run_pixels(name, options.detectors, options.splits, options.rate)
        )
        for line in run:
            lines.append(line)
            writer.writerow(line)
            sys.stdout.flush()
        print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
    if options.output is not None:
        with options.output.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(lines)


if __name__ == "__main__":
    main()
