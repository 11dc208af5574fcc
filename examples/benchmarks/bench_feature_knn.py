"""ResNetKNN with a coreset against the full bank, and the memory of its fit.

``compare`` fits twice on the 400 magnetic tiles, with MobileNetV2 and its ImageNet weights:
with the full bank and with a tenth of it as a coreset. It prints the AUROC of both, and the
time that a test image takes with either, in the same run.

``speed`` times the heat maps of a few test images, for which all cells are searched,
against the features of all 400, and against a random tenth of them: how long a search takes
does not depend on which vectors are kept. It fits on two images only, which leaves out the
scores of the other training images, and fills the bank by hand. For scores see
``bench_refined.py``.

``memory`` fits once, on ResNet50 with random weights and 400 images of noise at 224 pixels,
and prints the peak of resident memory of the process before and after, beside the bytes
that the bank was allowed. With 1536 features a cell, the full bank would take 1.9 GB.

Run it as ``python examples/benchmarks/bench_feature_knn.py compare --size 160`` or
``... memory --max-bank-bytes 134217728``. The time of the greedy coreset grows nearly with
the square of the number of cells: on one core, a tenth of the 47,040 cells of 60 tiles at
224 pixels takes 5 seconds (``bench_coreset.py``), and 400 tiles have 313,600 cells.
"""

import argparse
import os
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

from skocc import ResNetKNN
from skocc._ops.memory_bank import MemoryBank
from skocc.datasets import load_mvtec_layout


def peak_memory():
    """Return the peak resident memory of this process in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def load_masks(paths, size):
    """Return the masks (n, H, W) of the test images, all false for normal ones."""
    masks = np.zeros((len(paths), size, size), dtype=bool)
    for mask, path in zip(masks, paths, strict=True):
        if path is not None:
            image = Image.open(path).convert("L")
            mask[:] = np.asarray(image.resize((size, size), Image.NEAREST)) >= 128
    return masks


def make(options, **params):
    """Return a detector on MobileNetV2."""
    return ResNetKNN(
        backbone="mobilenet_v2",
        weights=options.data / "mobilenet_v2_imagenet.pt",
        layers=tuple(options.layers),
        normalization="imagenet",
        pooling=options.pooling,
        embedding_dim=256,
        score_normalization=options.score_normalization,
        image_size=options.size,
        device=options.device,
        random_state=0,
        **params,
    )


def measure_speed(options):
    """Print the time of an image with all vectors and with a tenth."""
    tiles = load_mvtec_layout(options.data / "magnetic_tile")
    detector = make(options).fit(tiles.train_paths[:2])
    vectors = []
    for path in tiles.train_paths:
        image = Image.open(path).convert("L").resize((options.size, options.size))
        batch = torch.from_numpy(np.asarray(image, np.float32) / 255)[None, None]
        with torch.no_grad():
            vectors.append(detector.network_(batch)[0].flatten(1).T.clone())
    vectors = torch.cat(vectors).numpy()
    tenth = np.random.default_rng(0).permutation(len(vectors))[: len(vectors) // 10]
    paths, times = tiles.test_paths[: options.n_images], {}
    for name, bank in [("all", vectors), ("a tenth", vectors[tenth])]:
        images = np.zeros(len(bank), dtype=np.int32)
        detector.bank_ = MemoryBank(bank, images, detector.bank_.digests)
        detector.anomaly_map(paths[:2], size="model")
        start = time.perf_counter()
        detector.anomaly_map(paths, size="model")
        times[name] = (time.perf_counter() - start) / len(paths)
        print(
            f"{name:<10}{len(bank):>8} vectors {1000 * times[name]:>7.0f} ms an image",
            flush=True,
        )
    print(f"ratio {times['all'] / times['a tenth']:.1f}")


def compare(options):
    """Print a line for the full bank and one for the coreset."""
    tiles = load_mvtec_layout(options.data / "magnetic_tile")
    is_anomaly = tiles.test_labels == -1
    masks = load_masks(tiles.test_masks, options.size)
    print(f"{'bank':<16}{'vectors':>9}{'image':>8}{'pixel':>8}{'fit, s':>9}{'ms':>8}")
    for name, params in [
        ("full", {}),
        ("10 % coreset", {"bank_fraction": 0.1, "subsampling": "coreset"}),
    ]:
        detector = make(options, **params)
        start = time.perf_counter()
        detector.fit(tiles.train_paths)
        fitted = time.perf_counter()
        scores = -detector.score_samples(tiles.test_paths)
        seconds = time.perf_counter() - fitted
        maps = detector.anomaly_map(tiles.test_paths, size="model")
        print(
            f"{name:<16}{len(detector.bank_):>9}"
            f"{roc_auc_score(is_anomaly, scores):>8.4f}"
            f"{roc_auc_score(masks.ravel(), maps.ravel()):>8.4f}"
            f"{fitted - start:>9.0f}{1000 * seconds / len(scores):>8.0f}",
            flush=True,
        )


def measure_memory(options):
    """Print the peak of memory of a fit beside the budget of the bank."""
    images = np.random.default_rng(0).integers(
        0, 256, (options.n_images, 224, 224), dtype=np.uint8
    )
    detector = ResNetKNN(
        weights=None,
        max_bank_bytes=options.max_bank_bytes,
        device=options.device,
        random_state=0,
    )
    full = detector.bank_bytes(len(images)) / 2**20
    before = peak_memory()
    start = time.perf_counter()
    detector.fit(images)
    after = peak_memory()
    print(f"full bank {full:.0f} MiB, budget {options.max_bank_bytes / 2**20:.0f} MiB")
    print(
        f"bank of {len(detector.bank_)} vectors, "
        f"{detector.bank_.vectors.nbytes / 2**20:.0f} MiB"
    )
    print(f"peak before the fit {before:.0f} MiB, after {after:.0f} MiB")
    added = after - before - options.max_bank_bytes / 2**20
    print(f"added by the fit beyond the budget {added:.0f} MiB")
    print(f"{time.perf_counter() - start:.0f} s")


def main():
    """Read the command line."""
    folder = os.environ.get("SKOCC_DATA")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["compare", "speed", "memory"])
    parser.add_argument("--data", type=Path, default=folder and Path(folder))
    parser.add_argument("--size", type=int, default=224, help="pixels a side")
    parser.add_argument("--layers", nargs="+", default=["features.6", "features.13"])
    parser.add_argument(
        "--pooling", default="average", choices=["average", "locally_aware"]
    )
    parser.add_argument("--score-normalization", choices=["median"])
    parser.add_argument("--max-bank-bytes", type=int, default=2**27)
    parser.add_argument("--n-images", type=int, default=400, help="of speed and memory")
    parser.add_argument("--device", help="default: the fastest there is")
    options = parser.parse_args()
    if options.what == "memory":
        measure_memory(options)
    elif options.data is None:
        parser.error("pass --data, or set the environment variable SKOCC_DATA")
    elif options.what == "speed":
        measure_speed(options)
    else:
        compare(options)


if __name__ == "__main__":
    main()
