"""AUPRO and pixel AUROC of many maps: CPU seconds, and the memory that they need at most.

The maps are noise, every second with a brighter disk that its mask marks. They are made one
at a time by a generator, so that the memory added, by the peak of the process before and
after, is that of the metric. Each metric runs in a process of its own.

Run it as ``python examples/benchmarks/bench_aupro.py``; ``--quick`` runs all of its code on
few maps, but its figures mean nothing. The peak is read where the module ``resource`` is,
which is not on Windows.
"""

import argparse
import multiprocessing
import resource
import sys
import time

import numpy as np

from skocc import metrics

SIZE = 256


def make_masks(n_maps):
    """Yield a disk for every second image, and None for the others."""
    rng = np.random.default_rng(0)
    rows, columns = np.ogrid[:SIZE, :SIZE]
    for i in range(n_maps):
        row, column = rng.integers(0, SIZE, size=2)
        radius = rng.integers(5, 60)
        disk = (rows - row) ** 2 + (columns - column) ** 2 <= radius**2
        yield disk if i % 2 else None


def make_maps(n_maps):
    """Yield the map of each of these masks."""
    rng = np.random.default_rng(1)
    for mask in make_masks(n_maps):
        values = rng.standard_normal((SIZE, SIZE), dtype=np.float32)
        yield values if mask is None else values + np.float32(1.5) * mask


def peak():
    """Return the most memory that this process had so far, in MiB."""
    n_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return n_bytes / 2**20 if sys.platform == "darwin" else n_bytes / 2**10


def measure(name, n_maps):
    metric = getattr(metrics, name)
    metric(make_masks(2), make_maps(2))  # what a first call loads is not the metric
    before, start = peak(), time.process_time()
    value = metric(make_masks(n_maps), make_maps(n_maps))
    seconds, added = time.process_time() - start, peak() - before
    start = time.process_time()
    for _ in zip(make_masks(n_maps), make_maps(n_maps), strict=True):
        pass
    making = time.process_time() - start
    print(f"{name:<12} {value:>9.6f} {seconds - making:>10.1f} {added:>12.0f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-maps", type=int, default=2000)
    parser.add_argument("--quick", action="store_true", help="20 maps")
    arguments = parser.parse_args()
    n_maps = 20 if arguments.quick else arguments.n_maps

    defects = sum(mask.sum() for mask in make_masks(n_maps) if mask is not None)
    share = defects / (n_maps * SIZE**2)
    print(f"{n_maps} maps of {SIZE} x {SIZE}, {share:.1%} of the pixels in defects")
    print(f"{'metric':<12} {'value':>9} {'CPU (s)':>10} {'added (MiB)':>12}")
    for name in ("aupro", "pixel_auroc"):
        process = multiprocessing.get_context("spawn").Process(
            target=measure, args=(name, n_maps)
        )
        process.start()
        process.join()


if __name__ == "__main__":
    main()
