r"""How well criteria without labels choose a detector: AUROC lost to the best candidate.

Candidates are three of scikit-learn's detectors with grids of their parameters, after
scaling and a PCA of 10 components or 95 % of the variance. Each criterion chooses one of
them from normal training images alone; "20 labeled anomalies" is there to compare with::

    python examples/reproduction/model_choice.py --output choice.csv

- synthetic: mean AUROC over the folds of `SyntheticSplit`, with a twist, a cut, a scratch
  or a stain in a copy of each held-out image; "synthetic, twist" has twists only;
- mass-volume, excess-mass: on three principal components at a time, drawn at random, with a
  detector fitted on each draw, as Goix (2016) does in high dimension;
- training score: the highest mean score of held-out images, which means nothing, as scores
  of two detectors have different units; it is there as a warning.

Data: one class of MNIST and of Fashion-MNIST on pixels, and magnetic tiles on averages of a
layer of MobileNetV2. The environment variable SKOCC_DATA names the folder with
``mnist.npz``, ``fashion_mnist.npz``, ``magnetic_tile`` and ``mobilenet_v2_imagenet.pt``.
"""

import argparse
import csv
import os
import time
import warnings
from pathlib import Path

import numpy as np
from one_vs_rest import load
from PIL import Image
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.model_selection import ParameterGrid
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM

from skocc.datasets import load_mvtec_layout, make_defects
from skocc.metrics import auroc, excess_mass_auc, mass_volume_auc
from skocc.model_selection import SyntheticSplit

# Coats and threes are hard enough for detectors to differ.
NORMAL_CLASS = {"mnist": 3, "fashion_mnist": 4}
KINDS = ("twist", "cut", "scratch", "stain")
N_TRAIN, N_TEST, N_LABELED, N_FOLDS = 500, 500, 20, 3
N_DRAWS, N_COMPONENTS, N_UNIFORM = 5, 3, 10_000
TILE_SIZE = 128


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=[*NORMAL_CLASS, "magnetic_tile"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, help="CSV file to write")
    options = parser.parse_args()
    folder = Path(os.environ["SKOCC_DATA"])
    rows = []
    for name in options.data:
        start = time.perf_counter()
        lost = [
            compare(*load_features(folder, name, seed), seed)
            for seed in range(options.seeds)
        ]
        for criterion in lost[0]:
            values = 100 * np.array([result[criterion] for result in lost])
            rows.append([name, criterion, f"{values.mean():.1f}", f"{values.std():.1f}"])
            print(*rows[-1], sep=", ", flush=True)
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
    if options.output is not None:
        with options.output.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerows([["data", "criterion", "AUROC", "std"], *rows])


def load_features(folder, name, seed):
    """Return features of images to train on, and of images to test on with their labels.

    The first are a table of normal images and, by kind, one of their defective copies.
    """
    rng = np.random.default_rng(seed)
    if name == "magnetic_tile":
        tiles = load_mvtec_layout(folder / name)
        train, test = read_tiles(tiles.train_paths), read_tiles(tiles.test_paths)
        labels = tiles.test_labels
        features = tile_features(folder)
    else:
        images, classes, test, test_classes = load(name, root=None)
        images = rng.permutation(images[classes == NORMAL_CLASS[name]])
        is_normal = test_classes == NORMAL_CLASS[name]
        parts = [np.flatnonzero(part) for part in (is_normal, ~is_normal)]
        chosen = np.concatenate([rng.permutation(part)[:N_TEST] for part in parts])
        train, test = images[:N_TRAIN], test[chosen]
        labels = np.where(is_normal[chosen], 1, -1)
        features = to_pixels
    defective = {
        kind: features(make_defects(train, kind=kind, random_state=seed)[0])
        for kind in KINDS
    }
    return features(train), defective, features(test), labels


def read_tiles(paths):
    """Return files as one array."""
    size = (TILE_SIZE, TILE_SIZE)
    return np.stack([np.asarray(Image.open(p).convert("L").resize(size)) for p in paths])


def tile_features(folder):
    """Return a function from images to averages of a layer of a pretrained network."""
    from skocc.feature_extraction import DeepFeatures

    return DeepFeatures(
        backbone="mobilenet_v2",
        weights=folder / "mobilenet_v2_imagenet.pt",
        layers=("features.13",),
        normalization="imagenet",
    ).fit_transform


def to_pixels(images):
    """Return flattened images in [0, 1]."""
    return images.reshape(len(images), -1) / 255


def make_candidates(seed):
    """Return the detectors to choose from, without and with what comes before."""
    grids = [
        (OneClassSVM(), {"nu": [0.01, 0.1, 0.5], "gamma": ["scale", 0.001, 0.1]}),
        (OneClassSVM(kernel="linear"), {}),
        (
            IsolationForest(random_state=seed),
            {"n_estimators": [20, 200], "max_features": [0.2, 1.0]},
        ),
        (LocalOutlierFactor(novelty=True), {"n_neighbors": [2, 10, 50]}),
    ]
    detectors = [
        clone(detector).set_params(**point)
        for detector, grid in grids
        for point in ParameterGrid(grid)
    ]
    return [
        (detector, make_pipeline(StandardScaler(), PCA(n, random_state=seed), detector))
        for n in (10, 0.95)
        for detector in detectors
    ]


def compare(train, defective, test, labels, seed):
    """Return the test AUROC of the best candidate and of those that criteria choose."""
    rng = np.random.default_rng(seed)
    candidates = make_candidates(seed)
    # Labeled anomalies have no part in the test.
    shown = rng.choice(np.flatnonzero(labels == -1), N_LABELED, replace=False)
    rest = np.setdiff1d(np.arange(len(labels)), shown)
    tested = np.array(
        [
            auroc(labels[rest], clone(pipeline).fit(train).score_samples(test[rest]))
            for _, pipeline in candidates
        ]
    )
    kind_of = rng.integers(len(KINDS), size=len(train))
    mixed = np.stack([defective[KINDS[k]][i] for i, k in enumerate(kind_of)])
    held_out = {
        "synthetic": mixed,
        "synthetic, twist": defective["twist"],
        f"{N_LABELED} labeled anomalies": test[shown],
    }
    values = {name: [] for name in [*held_out, "training score"]}
    for _, pipeline in candidates:
        for name, value in validate(pipeline, train, held_out, seed).items():
            values[name].append(value)
    values |= level_sets(candidates, train, seed)
    result = {"best candidate": tested.max(), "mean of all candidates": tested.mean()}
    for name, value in values.items():
        result[name] = tested[int(np.argmax(value))]
    return result


def validate(pipeline, train, anomalies, seed):
    """Return the mean AUROC over folds for each set of anomalies, and the mean score."""
    n = len(train)
    y, groups = np.repeat([1, -1], n), np.tile(np.arange(n), 2)
    values = {name: [] for name in [*anomalies, "training score"]}
    for fit, check in SyntheticSplit(N_FOLDS, random_state=seed).split(y, y, groups):
        fitted = clone(pipeline).fit(train[fit])
        held_out = check[check < n]
        normal = fitted.score_samples(train[held_out])
        values["training score"].append(normal.mean())
        for name, table in anomalies.items():
            # Copies of held-out images only; labeled anomalies are copies of none.
            other = fitted.score_samples(table[held_out] if len(table) == n else table)
            y_true = np.repeat([1, -1], [len(normal), len(other)])
            values[name].append(auroc(y_true, np.concatenate([normal, other])))
    return {name: np.mean(value) for name, value in values.items()}


def level_sets(candidates, train, seed):
    """Return both criteria of level sets for each candidate, higher being better."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(train))
    fit, check = order[: 2 * len(order) // 3], order[2 * len(order) // 3 :]
    scaler = StandardScaler().fit(train[fit])
    values = {"mass-volume": [], "excess-mass": []}
    draws = [rng.permutation(10)[:N_COMPONENTS] for _ in range(N_DRAWS)]
    uniform = rng.uniform(size=(N_UNIFORM, N_COMPONENTS))
    for detector, pipeline in candidates:
        pca = clone(pipeline[1]).set_params(whiten=True).fit(scaler.transform(train[fit]))
        table = pca.transform(scaler.transform(train))
        areas = []
        for columns in draws:
            part = table[:, columns]
            fitted = clone(detector).fit(part[fit])
            low, high = part.min(axis=0), part.max(axis=0)
            scores = [
                fitted.score_samples(x) for x in (part[check], low + uniform * (high - low))
            ]
            areas.append([mass_volume_auc(*scores), excess_mass_auc(*scores)])
        volume, excess = np.mean(areas, axis=0)
        values["mass-volume"].append(-volume)
        values["excess-mass"].append(excess)
    return values


if __name__ == "__main__":
    warnings.filterwarnings("ignore", "Defects can hardly be seen")
    main()
