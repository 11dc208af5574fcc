"""Banks of ResNetKNN that grow, on magnetic tiles: ten parts against one fit.

For each seed, 200 of the tiles in ``train/good`` are drawn and given to `fit` at once, or
to `partial_fit` in ten parts of 20, which are whole batches. Banks hold all vectors, a
tenth of them, or as many as a limit in bytes allows, which is a tenth of those of all 200
images and is reached with the second part::

    python examples/reproduction/magnetic_tile_growing.py --output rows.csv

The AUROC is that of all test images. False alarms are the normal test images below
`offset_`, or with a pixel above `pixel_threshold_`; ``contamination`` is 0.1. Three rules
for these thresholds are compared where a budget leaves out vectors of earlier images:

* "kept": the scores of the call that an image came in, as `partial_fit` has them;
* "last half": of these only the scores of the later half of the images;
* "anew": all images are scored again in the last bank, for which they must be at hand.

The first line of a seed says whether ten parts and one fit with all vectors are equal to
the last bit: bank, training scores, maxima of maps, thresholds, scores of test images.
"""

import argparse
import tempfile

import numpy as np
from sklearn.metrics import roc_auc_score
from tiles import add_arguments, add_row

from skocc import ResNetKNN
from skocc.datasets import load_mvtec_layout

N_IMAGES, N_PARTS = 200, 10
# A tenth of 28 x 28 cells of 128 features, of all images.
LIMIT = 200 * 784 * 128 * 4 // 10
BANKS = {
    "all vectors": {},
    "a tenth, random": {"bank_fraction": 0.1},
    "a tenth, coreset": {"bank_fraction": 0.1, "subsampling": "coreset"},
    "limit, random": {"max_bank_bytes": LIMIT},
    "limit, coreset": {"max_bank_bytes": LIMIT, "subsampling": "coreset"},
}
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


def are_equal(first, second, scores):
    """Return whether two detectors and the scores of test images are the same."""
    pairs = [(getattr(first, name), getattr(second, name)) for name in EQUAL]
    pairs += [(first.bank_.vectors, second.bank_.vectors), scores]
    return all(np.array_equal(*pair) for pair in pairs)


def thresholds(detector, paths):
    """Yield each rule, and what it makes of scores and of the highest values of maps."""
    scores, maxima = detector.train_scores_, detector.train_map_maxima_
    half = len(scores) // 2
    yield "kept", scores, maxima
    yield "last half", scores[half:], maxima[half:]
    yield "anew", *detector._scores_and_map_maxima(paths)


def rows_of(detector, paths, tiles, setting):
    """Yield the lines of a fitted detector, and at last the scores of test images."""
    scores, maxima = detector._scores_and_map_maxima(tiles.test_paths)
    is_good = tiles.test_labels == 1
    auroc = roc_auc_score(is_good, scores)
    for rule, own_scores, own_maxima in thresholds(detector, paths):
        offset = detector._offset_of_contamination(own_scores)
        highest = -detector._offset_of_contamination(-own_maxima)
        yield setting | {
            "thresholds": rule,
            "vectors": len(detector.bank_),
            "AUROC": f"{auroc:.4f}",
            "false alarms, %": f"{100 * np.mean(scores[is_good] < offset):.1f}",
            "found, %": f"{100 * np.mean(scores[~is_good] < offset):.1f}",
            "false alarms of maps, %": f"{100 * np.mean(maxima[is_good] > highest):.1f}",
        }
    yield scores


def main():
    """Fit and score, and write a line for each bank, way and rule."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    tiles = load_mvtec_layout(options.data / "magnetic_tile")
    with tempfile.TemporaryDirectory() as memory:
        for seed in options.seeds:
            order = np.random.default_rng(seed).permutation(len(tiles.train_paths))
            paths = [tiles.train_paths[index] for index in order[:N_IMAGES]]
            for bank, params in BANKS.items():
                # Features that are kept would be equal in any case.
                folder = None if bank == "all vectors" else memory
                found = []
                for way in ("one fit", "ten parts"):
                    detector = make(options, seed, folder, **params)
                    way_of = detector.fit if way == "one fit" else None
                    way_of(paths) if way_of else in_parts(detector, paths)
                    setting = {"bank": bank, "given in": way, "seed": seed}
                    *rows, scores = rows_of(detector, paths, tiles, setting)
                    found.append((detector, scores))
                    for row in rows:
                        print("  ".join(f"{k}: {v}" for k, v in row.items()), flush=True)
                        add_row(options.output, row)
                if bank == "all vectors":
                    first, second = (detector for detector, _ in found)
                    same = are_equal(first, second, [scores for _, scores in found])
                    print(f"seed {seed}: equal to the last bit: {same}", flush=True)


if __name__ == "__main__":
    main()
