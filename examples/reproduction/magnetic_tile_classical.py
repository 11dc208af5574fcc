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
kind of defect. With ``--protocol synthetic``, 60 % of ``train`` trains, the rest makes the
three folds, three quarters of each twisted into anomalies, and all of ``test`` is tested.
The point of the grid with the best mean AUROC over the folds is tested.
Printed and appended to ``--output``: the mean over the folds and the AUROC of the test
part, in percent, as means over the seeds with their standard deviation.
"""

import argparse
import csv
import time
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import ParameterGrid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skocc.datasets import load_mvtec_layout, twist_defects
from skocc.feature_extraction import DirectFeatures
from skocc.model_selection import classical_detectors, two_protocol_split

COLUMNS = [
    "features", "protocol", "detector", "folds", "folds std", "test", "test std",
    "chosen at seed 0",
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
        name += ", normalized"
    return name, DeepFeatures(
        backbone=options.backbone,
        weights=options.weights,
        layers=options.layers,
        normalization=options.normalization,
        image_size=options.image_size,
    )


def divisions(transformer, data, options):
    """Return a table of features, and for each seed how its rows are divided.

    A division is a Bunch of `two_protocol_split`, with the features of the twisted images
    as `rows`.
    """
    table = transformer.fit_transform([*data.train_paths, *data.test_paths])
    parts = []
    for seed in range(options.seeds):
        part = two_protocol_split(
            data.train_paths,
            data.test_paths,
            data.test_defects,
            protocol=options.protocol,
            make_anomalies=twist_defects,
            random_state=seed,
        )
        part.twisted = np.flatnonzero([isinstance(x, Image.Image) for x in part.X])
        if len(part.twisted):
            part.rows = transformer.transform(list(part.X[part.twisted]))
        parts.append(part)
    return table, parts


def run(options):
    """Return the rows of the table."""
    data = load_mvtec_layout(options.root)
    name, transformer = make_features(options)
    start = time.perf_counter()
    table, parts = divisions(transformer, data, options)
    print(
        f"{name}: {table.shape[1]} features of {len(table)} images, "
        f"{sum(len(part.twisted) for part in parts)} of them twisted as well, in "
        f"{time.perf_counter() - start:.0f} s",
        flush=True,
    )
    rows = []
    detectors = classical_detectors(
        scaling=None, n_components=None, n_samples=len(parts[0].train), random_state=0
    )
    for detector_name, (detector, grid) in detectors.items():
        start = time.perf_counter()
        points = list(ParameterGrid(grid))
        results = []
        for part in parts:
            # In the original protocol all seeds train on the same images.
            if not results or options.protocol == "synthetic":
                scores = score_all(detector, points, table, part)
            results.append(choose_and_test(scores, part))
        aurocs = np.array([result[:2] for result in results])
        mean, std = aurocs.mean(axis=0), aurocs.std(axis=0)
        point = points[results[0][2]]
        point = {k.removeprefix("detector__"): v for k, v in point.items()}
        rows.append(
            [
                name,
                options.protocol,
                detector_name,
                *(f"{mean[0]:.1f}", f"{std[0]:.1f}", f"{mean[1]:.1f}", f"{std[1]:.1f}"),
                ", ".join(f"{key} {value}" for key, value in point.items()),
            ]
        )
        print(*rows[-1][2:], f"({time.perf_counter() - start:.0f} s)", sep="  ", flush=True)
    return rows


def score_all(detector, points, table, part):
    """Return scores (points, images) of all images, by detectors fitted on `part.train`."""
    if len(part.twisted):
        table = table.copy()
        table[part.twisted] = part.rows
    reduce = make_pipeline(StandardScaler(), PCA(0.95)).fit(table[part.train])
    table = reduce.transform(table)
    # Every fold trains on the same images: a point of the grid is fitted once.
    return [
        clone(detector).set_params(**point).fit(table[part.train]).decision_function(table)
        for point in points
    ]


def choose_and_test(scores, part):
    """Return AUROC in percent, mean of the folds and test, and the point chosen."""
    by_fold = [
        [roc_auc_score(part.y[fold], point[fold]) for _, fold in part.cv]
        for point in scores  # higher is more normal, and normal is +1
    ]
    means = np.mean(by_fold, axis=1)
    chosen = int(np.argmax(means))
    tested = roc_auc_score(part.y[part.test], scores[chosen][part.test])
    return 100 * means[chosen], 100 * tested, chosen


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
    parser.add_argument("--protocol", choices=["original", "synthetic"], default="original")
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
