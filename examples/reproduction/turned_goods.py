"""ResNetKNN from few images of goods that lie turned: what helps, and by how much.

Banks of 1, 4 and 8 images, drawn with each of ``--seeds`` seeds, with the images in one
turn, 4 or 8 (``bank_rotations``), scores relative to the image's median, and images that
are registered before: turned and shifted to lie as the first training image does, by phase
correlation (:func:`registered`). A bank of 32 images in one turn is compared with::

    python examples/reproduction/turned_goods.py --output rows.csv --summary table.csv

Data are the magnetic tiles at 224 pixels, all of which lie the same way, with every other
test image; and `make_objects` at 96 pixels, "nut" and "washer", each turned at random: 60
for the banks, 40 normal ones, and 40 with a small piece cut out and set in elsewhere. A
bank of one image is given that image twice, as `fit` compares each with another: this
changes the threshold, and no score of another image.
"""

import argparse
import csv
import sys
import tempfile
import warnings

import numpy as np
from skimage.registration import phase_cross_correlation
from skimage.transform import EuclideanTransform, warp, warp_polar
from sklearn.metrics import roc_auc_score
from tiles import add_arguments, add_row

import skocc
from skocc.datasets import cut_defects, load_mvtec_layout, make_objects

N_IMAGES, N_MANY = (1, 4, 8), 32
WAYS = {
    "as it is": {},
    "4 rotations": {"bank_rotations": 4},
    "8 rotations": {"bank_rotations": 8},
    "relative to the median": {"score_normalization": "median"},
    "registered": {},
}
N_POOL, N_TEST = 60, 40


def registered(image, reference):
    """Return an image (H, W) that is turned and shifted to lie as the reference does."""
    # Seen from their middles, a turn is a shift along the angle.
    polar = [warp_polar(x, middle(x), radius=min(x.shape) / 2) for x in (reference, image)]
    (degrees, _), _, _ = phase_cross_correlation(*polar, normalization=None)
    center = (np.array(image.shape) - 1) / 2
    lie_alike = (
        EuclideanTransform(translation=-center[::-1])
        + EuclideanTransform(rotation=-np.radians(degrees))
        + EuclideanTransform(translation=middle(image)[::-1])
    )
    return warp(image, lie_alike, order=3, mode="reflect").astype(np.float32)


def middle(image):
    """Return the row and column of the middle of what is light in an image."""
    return np.argwhere(image > (image.min() + image.max()) / 2).mean(axis=0)


def objects(kind):
    """Return images for banks, test images, and which of these are defective."""
    images = make_objects(N_POOL + 2 * N_TEST, kind=kind, size=96, random_state=0)
    good, bad = np.split(images[N_POOL:], 2)
    bad, _ = cut_defects(bad, area=(0.004, 0.01), foreground=True, random_state=0)
    return images[:N_POOL], np.concatenate([good, bad]), np.repeat([False, True], N_TEST)


def load(name, root):
    """Return images for banks, test images, which are defective, and parameters."""
    if name != "tiles":
        return *objects(name), {"image_size": None}
    tiles = load_mvtec_layout(root / "magnetic_tile")
    is_bad = tiles.test_labels == -1
    return tiles.train_paths, tiles.test_paths[::2], is_bad[::2], {}


def run(name, options, memory):
    """Yield the lines of a data set, one for each number of images, way and seed."""
    pool, test, is_bad, params = load(name, options.data)
    detector = skocc.ResNetKNN(
        backbone="mobilenet_v2", weights=options.data / "mobilenet_v2_imagenet.pt",
        layers=("features.6", "features.13"), normalization="imagenet", memory=memory,
        batch_size=64, device=options.device, random_state=0, **params,
    )  # fmt: skip
    for seed in range(options.seeds):
        order = np.random.default_rng(seed).permutation(len(pool))
        for way, settings in WAYS.items():
            if way not in options.ways:
                continue
            X, new = [pool[index] for index in order[:N_MANY]], test
            if way.startswith("registered"):
                if name == "tiles":
                    continue  # they have no outline, and lie the same way
                X, new = ([registered(x, X[0]) for x in images] for images in (X, test))
            for n in (*N_IMAGES, N_MANY) if way == "as it is" else N_IMAGES:
                detector.set_params(bank_rotations=1, score_normalization=None)
                detector.set_params(**settings).fit(X[:n] if n > 1 else X[:1] * 2)
                auroc = roc_auc_score(is_bad, -detector.score_samples(new))
                line = {"data": name, "images": n, "way": way, "seed": seed}
                yield line | {"AUROC": f"{auroc:.4f}"}


def summarize(lines):
    """Return a line for each data set and way, with the mean AUROC by number of images."""
    found = {}
    for line in lines:
        cell = found.setdefault((line["data"], line["way"]), {})
        cell.setdefault(int(line["images"]), []).append(100 * float(line["AUROC"]))
    for (data, way), cells in found.items():
        means = {
            f"{n} images": f"{np.mean(cells[n]):.1f} ({np.std(cells[n], ddof=1):.1f})"
            for n in sorted(cells)
        }
        yield {"data": data, "bank": way} | means


def main():
    """Run, and write the lines and the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--names", nargs="+", default=["nut", "washer", "tiles"])
    parser.add_argument("--ways", nargs="+", default=[*WAYS], choices=[*WAYS])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--summary", help="CSV file of the table to write")
    options = parser.parse_args()
    warnings.simplefilter("ignore", skocc.CollapseWarning)  # of one image, given twice
    lines = []
    with tempfile.TemporaryDirectory() as memory:
        for name in options.names:
            for line in run(name, options, memory):
                print("  ".join(f"{k}: {v}" for k, v in line.items()), flush=True)
                add_row(options.output, line)
                lines.append(line)
    table = [*summarize(lines)]
    with open(options.summary, "w", newline="") if options.summary else sys.stdout as file:
        writer = csv.DictWriter(file, table[0])
        writer.writeheader()
        writer.writerows(table)


if __name__ == "__main__":
    main()
