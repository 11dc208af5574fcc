"""Features and scikit-learn's detectors on a folder in MVTec AD's layout: image AUROC.

The four detectors of ``classical_detectors``, each with its grid, after StandardScaler and
PCA with 95 % of the variance, on one of three kinds of features::

    python examples/reproduction/magnetic_tile_classical.py FOLDER --features direct
    python examples/reproduction/magnetic_tile_classical.py FOLDER --features pixels
    python examples/reproduction/magnetic_tile_classical.py FOLDER --features deep \
        --backbone mobilenet_v2 --weights mobilenet_v2_imagenet.pt \
        --normalization imagenet --layers features.18

``direct`` are the 43 statistics of DirectFeatures at the files' own size, ``pixels`` the
same and the pixels at 224 x 224, ``deep`` layers of a network, averaged over the image.

Protocol: all of ``train`` trains. ``test`` is divided, for each of ``--seeds`` seeds, into
40 % for the final test and three folds of 20 % to choose by, each with its share of every
kind of defect. The point of the grid with the best mean AUROC over the folds is tested.
Printed and appended to ``--output``: the mean over the folds and the AUROC of the test
part, in percent, as means over the seeds with their standard deviation.
"""

import argparse
import csv
import time
from pathlib import Path

import numpy as np
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import ParameterGrid, StratifiedKFold, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skocc.datasets import load_mvtec_layout
from skocc.feature_extraction import DirectFeatures
from skocc.model_selection import classical_detectors

COLUMNS = [
    "features", "detector", "folds", "folds std", "test", "test std", "chosen at seed 0",
]  # fmt: skip


def make_features(options):
    """Return a name for the table, and the transformer."""
    if options.features == "direct":
        return "direct", DirectFeatures(n_jobs=options.n_jobs)
    if options.features == "pixels":
        return "direct and pixels", DirectFeatures(pixels=224, n_jobs=options.n_jobs)
    from skocc.feature_extraction import DeepFeatures

    name = f"{options.backbone} {' + '.join(options.layers)}, {options.image_size} pixels"
    if options.normalization is not None:
        name += ", normalised"
    return name, DeepFeatures(
        backbone=options.backbone,
        weights=options.weights,
        layers=options.layers,
        normalization=options.normalization,
        image_size=options.image_size,
    )


def split(defects, seed):
    """Return indices of the final test and of the three folds, by kind of defect."""
    choose, test = train_test_split(
        np.arange(len(defects)), test_size=0.4, stratify=defects, random_state=seed
    )
    folds = StratifiedKFold(3, shuffle=True, random_state=seed)
    return test, [choose[part] for _, part in folds.split(choose, defects[choose])]


def run(options):
    """Return the rows of the table."""
    data = load_mvtec_layout(options.root)
    name, transformer = make_features(options)
    start = time.perf_counter()
    train_table = transformer.fit_transform(data.train_paths)
    test_table = transformer.transform(data.test_paths)
    seconds = time.perf_counter() - start
    print(
        f"{name}: {train_table.shape[1]} features of {len(train_table)} + "
        f"{len(test_table)} images in {seconds:.0f} s",
        flush=True,
    )
    reduce = make_pipeline(StandardScaler(), PCA(0.95))
    train_table = reduce.fit_transform(train_table)
    test_table = reduce.transform(test_table)
    print(f"{train_table.shape[1]} components", flush=True)

    rows = []
    detectors = classical_detectors(
        scaling=None, n_components=None, n_samples=len(train_table), random_state=0
    )
    for detector_name, (detector, grid) in detectors.items():
        start = time.perf_counter()
        # Every fold trains on the same images: a point of the grid is fitted once.
        points = list(ParameterGrid(grid))
        scores = [
            clone(detector)
            .set_params(**point)
            .fit(train_table)
            .decision_function(test_table)
            for point in points
        ]
        aurocs, chosen = choose_and_test(scores, data, options.seeds)
        mean, std = aurocs.mean(axis=0), aurocs.std(axis=0)
        point = {k.removeprefix("detector__"): v for k, v in points[chosen[0]].items()}
        rows.append(
            [
                name,
                detector_name,
                *(f"{mean[0]:.1f}", f"{std[0]:.1f}", f"{mean[1]:.1f}", f"{std[1]:.1f}"),
                ", ".join(f"{key} {value}" for key, value in point.items()),
            ]
        )
        print(*rows[-1][1:], f"({time.perf_counter() - start:.0f} s)", sep="  ", flush=True)
    return rows


def choose_and_test(scores, data, n_seeds):
    """Return AUROC in percent (seeds, 2) on folds and test, and the points chosen.

    `scores` has the scores of all test images for each point of a grid.
    """
    aurocs, chosen = [], []
    for seed in range(n_seeds):
        test, folds = split(data.test_defects, seed)
        by_fold = [
            [roc_auc_score(data.test_labels[fold], point[fold]) for fold in folds]
            for point in scores  # higher is more normal, and normal is +1
        ]
        means = np.mean(by_fold, axis=1)
        chosen.append(int(np.argmax(means)))
        tested = roc_auc_score(data.test_labels[test], scores[chosen[-1]][test])
        aurocs.append([100 * means.max(), 100 * tested])
    return np.array(aurocs), chosen


def main():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, help="folder with train, test and ground_truth")
    parser.add_argument(
        "--features", choices=["direct", "pixels", "deep"], default="direct"
    )
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--weights", default="imagenet", help="imagenet, or a file")
    parser.add_argument("--layers", nargs="+", default=["layer4"])
    parser.add_argument("--normalization", choices=["imagenet"])
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--seeds", type=int, default=5, help="number of divisions")
    parser.add_argument("--n-jobs", type=int, help="processes")
    parser.add_argument("--output", type=Path, help="CSV file to add to")
    options = parser.parse_args()
    rows = run(options)
    if options.output is None:
        return
    is_new = not options.output.exists()
    with options.output.open("a", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([COLUMNS] * is_new + rows)


if __name__ == "__main__":
    main()
