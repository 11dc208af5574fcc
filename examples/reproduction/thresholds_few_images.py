"""False alarms, and anomalies found, of thresholds from 120 normal images.

Normal images are divided at random, ``--splits`` times, into 120 for `ThresholdTuner` and
200 that are tested, beside anomalies, which are the same in all splits. Compared are

* "split": 24 of the 120 are held out, and the detector is fitted on the others;
* "cv=5": five fits, each scores the fifth that it has not seen, and all five are kept;
* "cv=5, refit": one more fit on all 120, whose scores are compared with those of the five;
* "loo": one fit on all 120, and its leave-one-image-out training scores::

    python examples/reproduction/thresholds_few_images.py --output splits.csv

Magnetic tiles: all 642 images without a defect, and the 57 with cracks, at 96 pixels.
Fashion-MNIST: 700 shirts, and 100 images of other classes, enlarged to 64 pixels. The
detectors are

* ResNetKNN on ``features.6`` of MobileNetV2, with its whole bank. The distances between the
  images are computed once for all splits, and scores of the first split are checked against
  those of a ResNetKNN;
* Deep SVDD with a shortened training, on averages of the same features;
* Patch SVDD with a much shortened training, at 28 pixels for shirts and 40 for tiles.

``--by-tile`` divides the tiles by piece, of which there are several photographs each: the
tested images show other pieces than those that the detector learns from (120 images, and
the rest of the last piece), and folds keep pieces together. In ``--output`` a line is one
split, written when it is done. Printed are means over the splits in percent, standard
deviations over splits, and the standard error of the mean. The data are read from the
folder that SKOCC_DATA names.
"""

import argparse
import csv
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from one_vs_rest import load
from PIL import Image
from sklearn.base import BaseEstimator, clone
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skocc
from skocc.datasets import load_mvtec_layout
from skocc.feature_extraction import DeepFeatures
from skocc.model_selection import ThresholdTuner, conformal_p_values

RATES = (0.01, 0.05, 0.1)
N_TRAIN, N_TEST = 120, 200
COLUMNS = ["data", "detector", "split", "rule", "rate", "false alarms", "found", "AUROC"]
DETECTORS = ["ResNetKNN", "DeepSVDD", "PatchSVDD"]
CELLS = {}  # of each data set, distances (image, image, cell of the first)


class StoredNeighbors(BaseEstimator):
    """What ResNetKNN scores with its whole bank, for images given by their numbers."""

    _train_scores_leave_one_out = True

    def __init__(self, data=None):
        self.data = data

    def fit(self, X, y=None):
        """Keep the numbers of the images, and score each against the others."""
        self.images_ = X[:, 0]
        self.train_scores_ = self.score_samples(X)
        return self

    def score_samples(self, X):
        """Return the distance of the cell that is farthest from the bank, negative."""
        images = X[:, 0]
        distances = CELLS[self.data][np.ix_(images, self.images_)]
        distances[images[:, np.newaxis] == self.images_] = np.inf
        return -distances.min(axis=1).max(axis=1).astype(np.float64)


def backbone(root):
    return {
        "backbone": "mobilenet_v2", "weights": root / "mobilenet_v2_imagenet.pt",
        "layers": ("features.6",), "image_size": None, "device": "cpu",
    }  # fmt: skip


def store_neighbors(name, images, params):
    """Compute, for each cell of each image, the distances to the cells of all images."""
    parts = np.array_split(images, len(images) // 50)
    detectors = [skocc.ResNetKNN(random_state=0, **params).fit(part) for part in parts]
    banks = [
        d.bank_.vectors.reshape(len(p), -1, d.bank_.vectors.shape[1])
        for d, p in zip(detectors, parts, strict=True)
    ]
    cells = torch.from_numpy(np.concatenate(banks))
    n, n_cells, _ = cells.shape
    CELLS[name] = np.empty((n, n, n_cells), dtype=np.float32)
    for index, own in enumerate(cells):
        distances = torch.cdist(own, cells.flatten(0, 1))
        nearest = distances.view(n_cells, n, n_cells).amin(dim=2)
        CELLS[name][index] = nearest.T.numpy()


def check_neighbors(name, images, train, params):
    """Compare stored distances with a ResNetKNN."""
    detector = skocc.ResNetKNN(random_state=0, **params).fit(images[train])
    stored = StoredNeighbors(name).fit(train[:, np.newaxis])
    others = np.setdiff1d(np.arange(len(images)), train)[:50]
    for ours, theirs in [
        (stored.train_scores_, detector.train_scores_),
        (
            stored.score_samples(others[:, np.newaxis]),
            detector.score_samples(images[others]),
        ),
    ]:
        np.testing.assert_allclose(ours, theirs, rtol=1e-3)


def load_tiles(root, size):
    """Return images (n, size, size), the number of normal ones, which are first, tiles."""
    data = load_mvtec_layout(root / "magnetic_tile")
    tests = np.array(data.test_paths)
    paths = [*data.train_paths, *tests[data.test_labels == 1]]
    with (root / "magnetic_tile" / "manifest.csv").open() as file:
        tiles = {row["file"]: row["tile_group"] for row in csv.DictReader(file)}
    folder = root / "magnetic_tile"
    tiles = np.array([tiles[Path(path).relative_to(folder).as_posix()] for path in paths])
    paths += [*tests[data.test_defects == "crack"]]
    return np.stack([resized(Image.open(path), size) for path in paths]), len(tiles), tiles


def load_shirts(root, size):
    images, labels, *_ = load("fashion_mnist", root=None)
    rng = np.random.default_rng(0)
    shirts = rng.permutation(np.flatnonzero(labels == 6))[:700]
    others = rng.permutation(np.flatnonzero(labels != 6))[:100]
    chosen = [Image.fromarray(image) for image in images[np.concatenate([shirts, others])]]
    return np.stack([resized(image, size) for image in chosen]), 700, None


def resized(image, size):
    return np.asarray(image.convert("L").resize((size, size), Image.Resampling.BILINEAR))


def make_detector(name, data, root, seed):
    """Return a detector, and all samples of a data set in the form that it takes."""
    read = load_shirts if data == "fashion_mnist" else load_tiles
    size = 64 if data == "fashion_mnist" else 96
    if name == "PatchSVDD":
        detector = skocc.PatchSVDD(
            patch_size=8, strides=(4, 8), embedding_dim=16, normalization="local_contrast",
            padding_mode="reflect", max_bank_bytes=2**14, n_epochs=1, n_pairs=4,
            batch_size=120, device="cpu", random_state=seed,
        )  # fmt: skip
        return detector, read(root, 28 if data == "fashion_mnist" else 40)[0]
    images = read(root, size)[0]
    if name == "DeepSVDD":
        features = DeepFeatures(batch_size=64, **backbone(root)).fit_transform(images)
        sphere = skocc.DeepSVDD(
            pretrain_n_epochs=5, n_epochs=5, batch_size=60, device="cpu",
            random_state=seed,
        )  # fmt: skip
        return make_pipeline(StandardScaler(), sphere), features
    store_neighbors(data, images, backbone(root))
    first = draw(len(images), np.random.default_rng(0), None)[0]
    check_neighbors(data, images, first, backbone(root))
    return StoredNeighbors(data), np.arange(len(images))[:, np.newaxis]


def draw(n_normal, rng, tiles):
    """Return indices of the images to learn from, and of those to test."""
    if tiles is None:
        return np.split(rng.permutation(n_normal)[: N_TRAIN + N_TEST], [N_TRAIN])
    order = rng.permutation(np.unique(tiles))
    in_order = np.concatenate([np.flatnonzero(tiles == tile) for tile in order])
    last = tiles[in_order[N_TRAIN - 1]]
    n_train = np.max(np.flatnonzero(tiles[in_order] == last)) + 1
    return in_order[:n_train], in_order[n_train:][:N_TEST]


def p_values_of(detector, X, groups, new, seed):
    """Yield the name of a rule, p-values of new samples by it, and their scores."""
    rules = {"max_fpr": 0.5, "random_state": seed}
    split = ThresholdTuner(detector, **rules).fit(X, groups=groups)
    yield "split", split.p_values(new), split.score_samples(new)
    folds = ThresholdTuner(detector, cv=5, **rules).fit(X, groups=groups)
    scores = folds.score_samples(new)
    yield "cv=5", folds._p_values_of(scores), scores
    # As cv=5 with refit=True, without fitting on the folds once more.
    full = clone(detector).fit(X)
    scores = full.score_samples(new)
    yield "cv=5, refit", conformal_p_values(scores, folds.calibration_scores_), scores
    if getattr(detector, "_train_scores_leave_one_out", False):
        yield "loo", conformal_p_values(scores, full.train_scores_), scores


def run(name, data, n_splits, root):
    """Yield the lines of a detector on a data set."""
    read = load_shirts if data == "fashion_mnist" else load_tiles
    _, n_normal, tiles = read(root, 8)
    tiles = tiles if data == "magnetic_tile, by tile" else None
    detector, samples = make_detector(name, data, root, seed=0)
    for seed in range(n_splits):
        train, test = draw(n_normal, np.random.default_rng(seed), tiles)
        new = np.concatenate([samples[test], samples[n_normal:]])
        is_anomaly = np.arange(len(new)) >= len(test)
        groups = None if tiles is None else tiles[train]
        for rule, p, scores in p_values_of(detector, samples[train], groups, new, seed):
            auroc = roc_auc_score(is_anomaly, -scores)
            for rate in RATES:
                found = p <= rate
                line = [data, name, seed, rule, rate]
                if rule == "split" and rate < 1 / (0.2 * N_TRAIN + 1):
                    line += ["", "", auroc]  # ThresholdTuner refuses this rate
                else:
                    line += [found[~is_anomaly].mean(), found[is_anomaly].mean(), auroc]
                yield dict(zip(COLUMNS, line, strict=True))


def summarize(lines):
    """Return the lines of the table, in percent, from those of all splits."""
    table = {}
    for line in lines:
        key = tuple(str(line[name]) for name in ("data", "detector", "rule", "rate"))
        table.setdefault(key, []).append([line[name] for name in COLUMNS[5:]])
    for key, rows in table.items():
        head = dict(zip(["data", "detector", "rule", "rate"], key, strict=True))
        head["rate"] = f"{100 * float(head['rate']):g}"
        head["splits"] = len(rows)
        values = dict.fromkeys(
            ["false alarms", "sd", "standard error", "found", "sd of found"], "-"
        )
        if "" not in rows[0][:2]:
            false, found = 100 * np.array(rows, dtype=float)[:, :2].T
            sd = false.std(ddof=1)
            numbers = [false.mean(), sd, sd / np.sqrt(len(rows)), found.mean()]
            numbers.append(found.std(ddof=1))
            values = dict(zip(values, (f"{number:.2f}" for number in numbers), strict=True))
        auroc = 100 * np.mean([float(row[2]) for row in rows])
        yield {**head, **values, "AUROC": f"{auroc:.1f}"}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="+", default=["magnetic_tile", "fashion_mnist"])
    parser.add_argument("--detectors", nargs="+", default=DETECTORS)
    parser.add_argument("--splits", type=int, default=100)
    parser.add_argument("--by-tile", action="store_true")
    parser.add_argument("--output", type=Path, help="CSV file of all splits to add to")
    parser.add_argument("--summary", type=Path, help="CSV file of the table to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    root = Path(os.environ["SKOCC_DATA"])
    output = options.output or Path(tempfile.mkdtemp(), "raw.csv")
    output.touch()
    data = ["magnetic_tile, by tile"] if options.by_tile else options.data
    with output.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if output.stat().st_size == 0:
            writer.writeheader()
        for detector in options.detectors:
            for name in data:
                for line in run(detector, name, options.splits, root):
                    writer.writerow(line)
                    file.flush()
    with output.open(newline="") as file:
        lines = [*summarize(csv.DictReader(file))]
    with options.summary.open("w", newline="") if options.summary else sys.stdout as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)


if __name__ == "__main__":
    main()
