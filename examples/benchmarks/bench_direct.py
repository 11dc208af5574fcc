"""Seconds of DirectFeatures by the number of processes.

The images are 100 of 512 x 512 pixels in color: smooth shapes with noise, so that there
are edges, objects and spots to be found. ``n_jobs=1`` computes in this process, more start
others, which takes seconds that the first pass shows and the second does not. CPU seconds
are those of all processes; on a machine that others use, they say more than the clock.

Run it as ``python examples/benchmarks/bench_direct.py``.
"""

import argparse
import resource
import time

import numpy as np
from joblib.externals.loky import get_reusable_executor
from PIL import Image

from skocc.feature_extraction import DirectFeatures


def make_images(n_images, side):
    """Return color images (n, side, side, 3) of smooth shapes with noise."""
    rng = np.random.default_rng(0)
    images = np.empty((n_images, side, side, 3), dtype=np.uint8)
    for image in images:
        coarse = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC))
        noisy = smooth + rng.normal(0, 5, smooth.shape)
        image[:] = np.clip(noisy, 0, 255)
    return images


def cpu_seconds():
    """Return the CPU seconds of this process and of those it has ended."""
    usages = [
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    ]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--n-images", type=int, default=100)
    parser.add_argument("--side", type=int, default=512, help="pixels of an image's side")
    parser.add_argument("--n-jobs", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()

    images = make_images(arguments.n_images, arguments.side)
    DirectFeatures().fit_transform(images[:1])  # imports
    print(f"{'n_jobs':>7} {'first (s)':>10} {'second (s)':>11} {'CPU of both (s)':>16}")
    tables = []
    for n_jobs in arguments.n_jobs:
        features = DirectFeatures(n_jobs=n_jobs).fit(images)
        cpu, seconds = cpu_seconds(), []
        for _ in range(2):
            start = time.perf_counter()
            tables.append(features.transform(images))
            seconds.append(time.perf_counter() - start)
        if n_jobs != 1:
            # The time of a process is known when it has ended.
            get_reusable_executor().shutdown(wait=True)
        used = cpu_seconds() - cpu
        print(
            f"{n_jobs:>7} {seconds[0]:>10.1f} {seconds[1]:>11.1f} {used:>16.1f}", flush=True
        )
    if not all(np.array_equal(table, tables[0]) for table in tables):
        raise AssertionError("the table depends on n_jobs")


if __name__ == "__main__":
    main()
