r"""Magnetic tiles that no settings were chosen on: training tiles, some with made defects.

The settings of Patch SVDD for magnetic tiles were chosen on test images. What they are
worth elsewhere is measured on other tiles: 280 of the 400 in ``train/good`` are trained on,
60 are normal ones of the test, and 60 have a defect that is drawn into them::

    python examples/reproduction/made_tiles.py DATA OUT
    python examples/reproduction/magnetic_tile_patches.py --data OUT --output rows.csv
    python examples/reproduction/magnetic_tile_patches.py --data OUT --output rows.csv \
        --defaults

DATA holds ``magnetic_tile``, and OUT will hold a folder of that name, whose images are
gray and have 256 pixels a side. Defects are twisted discs and scratches (30 of each), of
the size of real ones: 0.14 % of an image is the median of blowholes, 0.31 % that of cracks.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from skocc._samples.sources import FileImages
from skocc.datasets import load_mvtec_layout, make_defects

# Radii, lengths and widths, as fractions of the side.
DEFECTS = {
    "twist": {"n_defects": 1, "radius": (0.02, 0.04)},
    "scratch": {"length": (0.1, 0.3), "width": (0.01, 0.02), "contrast": (0.1, 0.3)},
}


def write(images, folder, suffix=""):
    """Write images (n, H, W), uint8, as PNG files with numbers as names."""
    folder.mkdir(parents=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number:03}{suffix}.png")


def main():
    """Read the command line, and write the folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder that holds magnetic_tile")
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--n-train", type=int, default=280)
    parser.add_argument("--n-each", type=int, default=30, help="tiles with each defect")
    options = parser.parse_args()
    paths = load_mvtec_layout(options.data / "magnetic_tile").train_paths
    images = FileImages(paths, (256, 256), 1).load(range(len(paths)))[..., 0]
    images = images[np.random.default_rng(0).permutation(len(images))]
    folder, n_train, n_each = options.out / "magnetic_tile", options.n_train, options.n_each
    write(images[:n_train], folder / "train" / "good")
    first = n_train
    for kind, sizes in DEFECTS.items():
        part = images[first : first + n_each]
        defective, masks = make_defects(part, kind=kind, random_state=0, **sizes)
        write(defective, folder / "test" / kind)
        write(np.uint8(255 * masks), folder / "ground_truth" / kind, "_mask")
        area = 100 * np.median(masks.mean(axis=(1, 2)))
        print(f"{kind}: {len(part)} tiles, in the median {area:.2f} % of the image")
        first += n_each
    write(images[first:], folder / "test" / "good")
    print(f"{n_train} tiles to train on, {len(images) - first} normal ones to test on")


if __name__ == "__main__":
    main()
