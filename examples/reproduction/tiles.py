"""What scripts share: magnetic tiles and their two AUROCs, CSV files, peak memory."""

import csv
import os
import resource
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from sklearn.metrics import roc_auc_score

# A parameter such as n_epochs=3 or objective=svdd, as the library's own command reads it.
from skocc.__main__ import _parameter as parameter  # noqa: F401
from skocc.datasets import load_mvtec_layout
from skocc.metrics import max_balanced_accuracy


def add_arguments(parser):
    """Add the options that all scripts have."""
    folder = os.environ.get("SKOCC_DATA")
    parser.add_argument(
        "--data",
        type=Path,
        default=folder and Path(folder),
        required=folder is None,
        help="folder that holds magnetic_tile; default: that of SKOCC_DATA",
    )
    parser.add_argument("--output", type=Path, help="CSV file to add a line to")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", help="default: the fastest there is")
    parser.add_argument("--verbose", type=int, default=0)


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


def with_mirrored(paths):
    """Return the images, and each mirrored left to right, top to bottom, and both."""
    images = []
    for path in paths:
        with Image.open(path) as image:
            mirrored = ImageOps.mirror(image)
            images += [mirrored, ImageOps.flip(image), ImageOps.flip(mirrored)]
    return [*paths, *images]


def measure(
    detector, folder, setting, scores_are_maxima=False, mirrored=False, n_train=None
):
    """Fit on the training tiles, score all test tiles; return a line of the table.

    Where the score of an image is the maximum of its map, maps alone are computed.
    Maps have the size of the resized images, and the masks are brought to it (nearest
    pixel). The AUROC of pixels is over all pixels of all test images.
    """
    tiles = load_mvtec_layout(Path(folder) / "magnetic_tile")
    start, train = time.perf_counter(), tiles.train_paths[:n_train]
    detector.fit(with_mirrored(train) if mirrored else train)
    fit_seconds, peak = time.perf_counter() - start, peak_memory()
    start = time.perf_counter()
    if scores_are_maxima:
        maps = detector.anomaly_map(tiles.test_paths, size="model")
        scores = maps.max(axis=(1, 2))
    else:
        scores = -detector.score_samples(tiles.test_paths)  # an anomaly is a positive
    score_seconds = time.perf_counter() - start
    if not scores_are_maxima:
        has_maps = hasattr(detector, "anomaly_map")
        maps = detector.anomaly_map(tiles.test_paths, size="model") if has_maps else None
    pixels = ""
    if maps is not None:
        masks = load_masks(tiles.test_masks, maps.shape[1])
        pixels = f"{roc_auc_score(masks.ravel(), maps.ravel()):.3f}"
    row = {
        "method": type(detector).__name__,
        "setting": setting,
        "size": detector.image_size if maps is None else maps.shape[1],
        "seed": detector.random_state,
        "image AUROC": f"{roc_auc_score(tiles.test_labels == -1, scores):.3f}",
        "pixel AUROC": pixels,
        "max BA": f"{max_balanced_accuracy(tiles.test_labels, -scores):.3f}",
        "fit, s": f"{fit_seconds:.0f}",
        "peak of fit, MiB": f"{peak:.0f}",
        "ms an image": f"{1000 * score_seconds / len(scores):.0f}",
    }
    print("  ".join(f"{key}: {value}" for key, value in row.items()), flush=True)
    for kind in sorted(set(tiles.test_defects) - {"good"}):
        of_kind = [defect in ("good", kind) for defect in tiles.test_defects]
        value = roc_auc_score(tiles.test_labels[of_kind] == -1, scores[of_kind])
        print(f"{kind} against good, image AUROC: {value:.3f}", flush=True)
    return row


def add_row(path, row):
    """Add a line to a CSV file, with the names of its columns if it is new."""
    if path is None:
        return
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, row)
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def read_rows(path):
    """Return the lines of a CSV file."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def layer_set(text):
    """Read a set of layers of the command line such as 0,1,3."""
    return tuple(int(part) for part in text.split(","))
