"""Defects of 12 pixels in photographs of 12 megapixels: tiles against whole images.

Photographs of a brushed surface are made on the spot, as JPEG files in a temporary folder:
4000 x 3000 pixels, each with a grain, a slow change of light, a tint and noise of its own.
Ten normal ones are learned. Of forty others, half have one defect of 12 pixels: a scratch,
a spot or a hole. Compared are, with features of MobileNetV2 and a small part of the bank,

* "tiles": a `TiledDetector` of tiles of 256 pixels, as they are;
* "whole 224" and "whole 512": the same detector on photographs reduced to that size.

A process of its own for each fits and scores, and says how often it has decoded each file,
its seconds and its peak memory. A hit is a map whose highest value lies in the defect, or
within 12 pixels of it. Maps are compared with masks at a quarter of the size, in which a
pixel is defective that holds any defect. False alarms are normal photographs below the
threshold of ``contamination=0.1``::

    python examples/reproduction/large_images.py --output large_images.csv

Weights are read from mobilenet_v2_imagenet.pt in the folder that SKOCC_DATA names.
``--scale 0.25`` is quicker, and ``--places`` the other experiment: goods that always lie
alike, in which something is at the wrong place, by one detector for all tiles, and by one
for each place (``position_aware``), over ``--n-seeds`` seeds.
"""

import argparse
import csv
import math
import multiprocessing
import os
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from sklearn.metrics import roc_auc_score
from tiles import peak_memory

from skocc import ResNetKNN
from skocc._samples import sources
from skocc.metrics import aupro, pixel_auroc
from skocc.model_selection import TiledDetector

KINDS = ["scratch", "spot", "hole"]
SIDE, MARGIN, REDUCTION = 12, 12, 4
COLUMNS = [
    "method", "image AUROC", "hits", "pixel AUROC", "AUPRO", "false alarms", "found",
    "s a score", "s a map", "fit s", "peak MiB of fit", "peak MiB", "decoded in fit",
    "decoded for maps",
]  # fmt: skip


def make_photograph(rng, height, width):
    """Return a brushed surface (H, W, 3), float32, around 128."""
    grain = rng.standard_normal((height, width), dtype=np.float32)
    length = rng.uniform(5, 8)
    grain = ndimage.gaussian_filter1d(grain, length, axis=1)
    grain = ndimage.gaussian_filter1d(grain, 0.8, axis=0)
    grain *= rng.uniform(9, 11) / grain.std()
    coarse = rng.uniform(-25, 25, (4, 5)).astype(np.float32)
    light = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    surface = 128 + grain + np.asarray(light)
    surface += 2 * rng.standard_normal(surface.shape, dtype=np.float32)
    return surface[:, :, np.newaxis] * rng.uniform(0.95, 1.05, 3).astype(np.float32)


def add_defect(photograph, kind, rng):
    """Change a photograph by one defect, and return its mask (H, W)."""
    height, width = photograph.shape[:2]
    row, column = (int(rng.integers(4 * SIDE, n - 4 * SIDE)) for n in (height, width))
    window = slice(row - SIDE, row + SIDE), slice(column - SIDE, column + SIDE)
    y, x = np.mgrid[-SIDE:SIDE, -SIDE:SIDE] + 0.5
    sign = rng.choice([-1, 1])
    if kind == "scratch":
        turn = rng.uniform(0, math.pi)
        along, across = (
            x * np.cos(turn) + y * np.sin(turn),
            y * np.cos(turn) - x * np.sin(turn),
        )
        inside = (np.abs(along) <= SIDE / 2) & (np.abs(across) <= 1.25)
        change = sign * 60.0 * inside
    else:
        distance = np.hypot(y, x)
        inside = distance <= SIDE / 2
        change = sign * 35.0 * inside
        if kind == "hole":
            change = np.where(distance <= SIDE / 2 - 2, -80.0, 50.0) * inside
    photograph[window] += ndimage.gaussian_filter(change, 0.5)[:, :, np.newaxis]
    mask = np.zeros((height, width), dtype=bool)
    mask[window] = inside
    return mask


def make_files(folder, n_train, n_test, height, width, seed):
    """Write JPEG files; return those to train on, to test, and of masks or None."""
    train, test, masks = [], [], []
    for index in range(n_train + n_test):
        rng = np.random.default_rng([seed, index])
        photograph, mask = make_photograph(rng, height, width), None
        if index >= n_train + n_test // 2:
            mask = add_defect(photograph, KINDS[index % len(KINDS)], rng)
        pixels = photograph.clip(0, 255).astype(np.uint8)
        path = folder / f"{index:03d}.jpg"
        Image.fromarray(pixels).save(path, quality=92)
        (train if index < n_train else test).append(path)
        if index >= n_train:
            masks.append(None if mask is None else path.with_suffix(".png"))
        if mask is not None:
            Image.fromarray(mask).save(masks[-1])
    return train, test, masks


def reduced(mask):
    """Return a mask at a quarter of its size: any defective pixel counts."""
    height, width = (side // REDUCTION * REDUCTION for side in mask.shape)
    blocks = mask[:height, :width].reshape(
        height // REDUCTION, REDUCTION, width // REDUCTION, REDUCTION
    )
    return blocks.any(axis=(1, 3))


def make_detector(method, options):
    """Return an unfitted detector by its name."""
    size = None if method == "tiles" else int(method.split()[1])
    bank_fraction = options.bank_fraction if method == "tiles" else 0.1
    detector = ResNetKNN(
        backbone="mobilenet_v2",
        weights=Path(os.environ["SKOCC_DATA"]) / "mobilenet_v2_imagenet.pt",
        layers=tuple(options.layers),
        normalization="imagenet",
        bank_fraction=bank_fraction,
        image_size=size,
        batch_size=8,
        device=options.device,
        random_state=options.seed,
    )
    if method != "tiles":
        return detector
    # No photograph stays in memory for the second pass of `fit`.
    return TiledDetector(detector, tile_size=256, max_cache_bytes=0)


class CountedDecoding:
    """How often each file has been decoded, from the construction on."""

    def __init__(self):
        self.counts = Counter()
        decode = sources._decode

        def counted(item, *arguments):
            self.counts[item] += 1
            return decode(item, *arguments)

        sources._decode = counted

    def taken(self):
        """Return the range of the counts since the last call, as text."""
        counts = self.counts.values()
        self.counts = Counter()
        return (
            f"{min(counts)}" if len({*counts}) == 1 else f"{min(counts)} to {max(counts)}"
        )


def measure(method, train, test, masks, options):
    """Return a line of the table."""
    if options.n_threads:
        torch.set_num_threads(options.n_threads)
    decoding, detector = CountedDecoding(), make_detector(method, options)
    start = time.perf_counter()
    detector.fit(train)
    line = {"method": method, "fit s": time.perf_counter() - start}
    line["decoded in fit"] = decoding.taken()
    line["peak MiB of fit"] = peak_memory()
    start = time.perf_counter()
    detector.score_samples(test[: options.n_timed])
    line["s a score"] = (time.perf_counter() - start) / options.n_timed
    decoding.taken()
    is_defective = np.array([mask is not None for mask in masks])
    hits, maps, small_masks = 0, [], []
    scores, start = np.empty(len(test)), time.perf_counter()
    for index, (path, mask) in enumerate(zip(test, masks, strict=True)):
        (heat,), (scores[index],) = detector.anomaly_map([path], return_scores=True)
        mask = None if mask is None else np.asarray(Image.open(mask))
        if mask is not None:
            near = ndimage.binary_dilation(mask, iterations=MARGIN)
            hits += bool(near[np.unravel_index(heat.argmax(), heat.shape)])
        size = heat.shape[1] // REDUCTION, heat.shape[0] // REDUCTION
        maps.append(np.asarray(Image.fromarray(heat).resize(size, Image.Resampling.BOX)))
        small_masks.append(
            np.zeros(maps[-1].shape, bool) if mask is None else reduced(mask)
        )
    line["s a map"] = (time.perf_counter() - start) / len(test)
    line["decoded for maps"] = decoding.taken()
    line["peak MiB"] = peak_memory()
    is_called = scores < detector.offset_
    line |= {
        "image AUROC": roc_auc_score(is_defective, -scores),
        "hits": f"{hits} of {is_defective.sum()}",
        "pixel AUROC": pixel_auroc(small_masks, maps),
        "AUPRO": aupro(small_masks, maps),
        "false alarms": f"{(is_called & ~is_defective).sum()} of {(~is_defective).sum()}",
        "found": f"{(is_called & is_defective).sum()} of {is_defective.sum()}",
    }
    return line


def shown(value):
    """Return a cell of the table as text."""
    if isinstance(value, float):
        return (
            f"{value:.3f}"
            if value <= 1
            else f"{value:.1f}"
            if value < 100
            else f"{value:.0f}"
        )
    return str(value)


def compare_methods(options):
    """Measure all methods on the same files, and yield the lines of the table."""
    height, width = (round(side * options.scale) for side in (3000, 4000))
    # A forked process would begin with the peak of this one.
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        numbers = (options.n_train, options.n_test, height, width, options.seed)
        files = make_files(Path(folder), *numbers)
        print(f"{options.n_train} and {options.n_test} files made", flush=True)
        for method in options.methods:
            with ProcessPoolExecutor(1, mp_context=context) as pool:
                line = pool.submit(measure, method, *files, options).result()
            yield {column: shown(line[column]) for column in COLUMNS}


def make_goods(rng, n_images, side=192):
    """Return photographs (n, H, W) of goods that lie alike: nine parts of three kinds."""
    y, x = np.mgrid[-32:32, -32:32] + 0.5
    disc, square = np.hypot(y, x) < 18, np.maximum(abs(y), abs(x)) < 18
    cross = (np.minimum(abs(y), abs(x)) < 6) & (np.maximum(abs(y), abs(x)) < 22)
    parts = np.stack([disc, square, cross]).astype(np.float32)
    images = np.full((n_images, side, side), 0.3, np.float32)
    for image in images:
        for place in range(9):
            row, column = (64 * n + int(rng.integers(-2, 3)) for n in divmod(place, 3))
            lit = np.roll(parts[place % 3], (row % 64, column % 64), axis=(0, 1))
            top, left = 64 * (place // 3), 64 * (place % 3)
            image[top : top + 64, left : left + 64] += rng.uniform(0.35, 0.45) * lit
    return images + rng.normal(0, 0.02, images.shape).astype(np.float32)


def compare_places(options):
    """Yield lines about goods of which two parts are exchanged, or one has a spot."""
    for seed in range(options.n_seeds):
        rng = np.random.default_rng(seed)
        train, normal = make_goods(rng, 20), make_goods(rng, 20)
        wrong, spotted = make_goods(rng, 20), make_goods(rng, 20)
        for image in wrong:  # what belongs to the left is in the middle, and vice versa
            image[:64, :128] = np.roll(image[:64, :128], 64, axis=1)
        for image in spotted:
            row, column = rng.integers(8, 176, 2)
            image[row : row + 6, column : column + 6] += 0.3 * rng.choice([-1, 1])
        for position_aware in (False, True):
            detector = ResNetKNN(
                backbone="mobilenet_v2",
                weights=Path(os.environ["SKOCC_DATA"]) / "mobilenet_v2_imagenet.pt",
                layers=("features.6",),
                normalization="imagenet",
                image_size=None,
                device=options.device,
                random_state=seed,
            )
            tiled = TiledDetector(
                detector, tile_size=64, overlap=0, position_aware=position_aware
            ).fit(train)
            scores = [tiled.score_samples(part) for part in (normal, wrong, spotted)]
            line = {"seed": seed, "position_aware": position_aware}
            for kind, found in zip(["exchanged", "spot"], scores[1:], strict=True):
                labels = np.repeat([0, 1], 20)
                line[kind] = shown(roc_auc_score(labels, -np.r_[scores[0], found]))
            line["false alarms"] = f"{(scores[0] < tiled.offset_).sum()} of 20"
            yield line


def main():
    """Read the command line, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="CSV file to write")
    parser.add_argument("--methods", nargs="+", default=["whole 224", "whole 512", "tiles"])
    parser.add_argument("--n-train", type=int, default=10)
    parser.add_argument("--n-test", type=int, default=40)
    parser.add_argument("--n-timed", type=int, default=4, help="scored without maps")
    parser.add_argument("--scale", type=float, default=1.0, help="of the sides")
    parser.add_argument("--layers", nargs="+", default=["features.6"])
    parser.add_argument("--bank-fraction", type=float, default=0.001)
    parser.add_argument("--n-threads", type=int, help="of torch")
    parser.add_argument("--places", action="store_true")
    parser.add_argument("--n-seeds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    lines = []
    for line in compare_places(options) if options.places else compare_methods(options):
        lines.append(line)
        print("; ".join(f"{name} {value}" for name, value in line.items()), flush=True)
    if options.output:
        with options.output.open("w", newline="") as file:
            writer = csv.DictWriter(file, lines[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(lines)


if __name__ == "__main__":
    main()
