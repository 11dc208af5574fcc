"""Banks of ResNetKNN that grow, on magnetic tiles: ten parts against one fit.

For each seed, 200 of the tiles in ``train/good`` are drawn and given to `fit` at once, or
to `partial_fit` in ten parts of 20, which are whole batches. Banks hold all vectors, a
tenth of them, or as many as a limit in bytes allows, which are a tenth of those of all 200
images and are reached with the second part::

    python examples/reproduction/magnetic_tile_growing.py --output rows.csv
    python examples/reproduction/magnetic_tile_growing.py --equal

The AUROC is that of all test images. False alarms are the normal test images below
`offset_`, or with a pixel above `pixel_threshold_`; ``contamination`` is 0.1. Three rules
for these thresholds are compared where a budget leaves out vectors of earlier images:

* "kept": the scores of the call that an image came in, as `partial_fit` has them;
* "last half": of these only the scores of the later half of the images;
* "anew": all images are scored again in the last bank, for which they must be at hand.

With ``--equal``, it says whether ten parts and one fit with all vectors are equal to the
last bit instead: bank, training scores, maxima of maps, thresholds, scores of 50 test
images; and how long they took.
"""

import argparse
import tempfile
import time
from itertools import product

import numpy as np
from sklearn.metrics import roc_auc_score
from tiles import add_arguments, add_row

from skocc import ResNetKNN
from skocc.datasets import load_mvtec_layout

N_IMAGES, N_PARTS = 200, 10
# A tenth of 28 x 28 cells of 128 features, of all images.
LIMIT = 200 * 784 * 128 * 4 // 10
TENTH, LIMITED = {"bank_fraction": 0.1}, {"max_bank_bytes": LIMIT}
CORESET = {"subsampling": "coreset"}
# Names of banks, in which way they are given the images, and parameters.
BANKS = [
    ("a tenth, random", "one fit", TENTH),
    ("a tenth, random", "ten parts", TENTH),
    ("limit, random", "ten parts", LIMITED),
    ("all vectors", "one fit", {}),
    ("a tenth, coreset", "ten parts", TENTH | CORESET),
    ("a tenth, coreset", "one fit", TENTH | CORESET),
    ("limit, coreset", "ten parts", LIMITED | CORESET),
]
EQUAL = ("train_scores_", "train_map_maxima_", "offset_", "pixel_threshold_")


def make(options, seed, memory, **params):
    """Return an unfitted detector."""
    return ResNetKNN(
        backbone="mobilenet_v2", weights=options.data / "mobilenet_v2_imagenet.pt",
        layers=("features.6", "features.13"), normalization="imagenet", memory=memory,
        batch_size=N_IMAGES // N_PARTS, device=options.device, random_state=seed, **params,
    )  # fmt: skip


def in_parts(detector, paths):
    """Return the detector, which was given the images in parts."""
    for part in np.array_split(np.array(paths), N_PARTS):
        detector.partial_fit(part)
    return detector


def compare(options, paths, tiles, seed):
    """Print whether ten parts and one fit are equal, and the seconds that they took."""
    start = time.perf_counter()
    first = make(options, seed, None).fit(paths)
    middle = time.perf_counter()
    second = in_parts(make(options, seed, None), paths)
    seconds = middle - start, time.perf_counter() - middle
    pairs = [(getattr(first, name), getattr(second, name)) for name in EQUAL]
    pairs.append((first.bank_.vectors, second.bank_.vectors))
    new = tiles.test_paths[::8][:50]
    pairs.append((first.score_samples(new), second.score_samples(new)))
    same = all(np.array_equal(*pair) for pair in pairs)
    print(
        f"seed {seed}: equal: {same}, {seconds[0]:.0f} s and {seconds[1]:.0f} s", flush=True
    )


def thresholds(detector, paths, way):
    """Yield each rule, and what it makes of scores and of the highest values of maps."""
    scores, maxima = detector.train_scores_, detector.train_map_maxima_
    half = len(scores) // 2
    yield "kept", scores, maxima
    if way != "one fit":  # which has no earlier images
        yield "last half", scores[half:], maxima[half:]
        yield "anew", *detector._scores_and_map_maxima(paths)


def rows_of(detector, paths, tiles, setting):
    """Yield the lines of a fitted detector."""
    scores, maxima = detector._scores_and_map_maxima(tiles.test_paths)
    is_good = tiles.test_labels == 1
    auroc = roc_auc_score(is_good, scores)
    for rule, own, own_maxima in thresholds(detector, paths, setting["given in"]):
        offset = detector._offset_of_contamination(own)
        highest = -detector._offset_of_contamination(-own_maxima)
        yield setting | {
            "thresholds": rule,
            "vectors": len(detector.bank_),
            "AUROC": f"{auroc:.4f}",
            "false alarms, %": f"{100 * np.mean(scores[is_good] < offset):.1f}",
            "found, %": f"{100 * np.mean(scores[~is_good] < offset):.1f}",
            "false alarms of maps, %": f"{100 * np.mean(maxima[is_good] > highest):.1f}",
        }


def main():
    """Fit and score, and write a line for each bank, way, seed and rule."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--memory", help="folder that keeps the features")
    names = list(dict.fromkeys(name for name, *_ in BANKS))
    parser.add_argument("--banks", nargs="+", default=names, choices=names)
    parser.add_argument("--equal", action="store_true", help="compare, and write no lines")
    options = parser.parse_args()
    tiles = load_mvtec_layout(options.data / "magnetic_tile")
    draws = {}
    for seed in options.seeds:
        order = np.random.default_rng(seed).permutation(len(tiles.train_paths))
        draws[seed] = [tiles.train_paths[index] for index in order[:N_IMAGES]]
        if options.equal:
            compare(options, draws[seed], tiles, seed)
    if options.equal:
        return
    with tempfile.TemporaryDirectory() as folder:
        banks = [setting for setting in BANKS if setting[0] in options.banks]
        for (bank, way, params), seed in product(banks, options.seeds):
            paths = draws[seed]
            detector = make(options, seed, options.memory or folder, **params)
            detector.fit(paths) if way == "one fit" else in_parts(detector, paths)
            setting = {"bank": bank, "given in": way, "seed": seed}
            for row in rows_of(detector, paths, tiles, setting):
                print("  ".join(f"{k}: {v}" for k, v in row.items()), flush=True)
                add_row(options.output, row)


if __name__ == "__main__":
    main()
