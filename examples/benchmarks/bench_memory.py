"""Memory of fitting on files, by their number.

A list of paths is decoded a batch at a time, so that a training set need not fit in
memory: the peak of a fit on 20,000 files must be that of a fit on 1,000. Measured is
DeepSVDD on JPEG files of 1024 x 1024 pixels, reduced to 32 as they are decoded, each fit in
a process of its own. A few files are made in a temporary folder and named many times, by
symbolic links where the system has them; decoding knows nothing of that and reads each
anew. Decoded, one file takes 3 MB.

The table gives the peak resident memory of the process, and what the fit has added to the
peak of a fit on the first 300 files in the same process.

With ``--method patch_svdd --image-size 128`` it is PatchSVDD. Its banks would hold 961 and
225 vectors of 256 bytes of each image, and have a budget of 16 MiB (``--bank-mib``), which
the first 300 files already exceed; the peak must be at most the budget plus 1 GiB.
``--subsampling coreset`` chooses from a pool that is larger by up to 256 MiB.

Run it as ``python examples/benchmarks/bench_memory.py``; ``--n-files 1000 5000`` is
quicker. A fit reads every file three times here, for the center, to train and to score;
for 20,000 files that takes minutes.
"""

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from skocc import DeepSVDD, PatchSVDD


def make_files(folder, n_distinct, side):
    """Write JPEG files of smooth random colors; return their paths."""
    rng = np.random.default_rng(0)
    paths = []
    for index in range(n_distinct):
        coarse = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
        paths.append(folder / f"original_{index:03d}.jpg")
        image.save(paths[-1], quality=85)
    return paths


def name_often(folder, paths, n_files):
    """Return `n_files` different paths that lead to the files."""
    links = []
    for index in range(n_files):
        link = folder / f"{n_files}_{index:06d}.jpg"
        try:
            link.symlink_to(paths[index % len(paths)])
        except OSError:  # not every system lets every user make links
            return [paths[index % len(paths)] for index in range(n_files)]
        links.append(link)
    return links


def peak_memory():
    """Return the peak resident memory of this process in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def make_detector(arguments):
    """Return a small detector that trains for an epoch."""
    shared = {
        "image_size": arguments.image_size,
        "n_epochs": 1,
        "device": "cpu",
        "random_state": 0,
    }
    if arguments.method == "patch_svdd":
        return PatchSVDD(
            patch_size=16,
            strides=(4, 8),
            max_bank_bytes=int(arguments.bank_mib * 2**20),
            subsampling=arguments.subsampling,
            **shared,
        )
    return DeepSVDD(
        channels=(8, 4),
        embedding_dim=32,
        normalization=None,  # saves one pass
        pretrain_n_epochs=0,
        batch_size=100,
        **shared,
    )


def measure_fit(paths, arguments, results):
    """Put the memory before and after a fit, and its seconds, into a queue."""
    if arguments.n_threads:
        torch.set_num_threads(arguments.n_threads)
    model = make_detector(arguments)
    # torch's own buffers, and the batches in flight, are there from the first batch on.
    model.fit(paths[:300])
    before = peak_memory()
    start = time.perf_counter()
    model.fit(paths)
    results.put((before, peak_memory(), time.perf_counter() - start))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--method", default="deep_svdd", choices=["deep_svdd", "patch_svdd"]
    )
    parser.add_argument("--bank-mib", type=float, default=16)
    parser.add_argument("--subsampling", default="random", choices=["random", "coreset"])
    parser.add_argument("--n-files", type=int, nargs="+", default=[1000, 5000, 20000])
    parser.add_argument("--n-distinct", type=int, default=20)
    parser.add_argument("--side", type=int, default=1024, help="pixels of a file's side")
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--n-threads", type=int, help="threads of torch")
    arguments = parser.parse_args()

    # A forked process would begin with the peak of this one.
    context = multiprocessing.get_context("spawn")
    print(f"{'files':>7} {'before (MB)':>12} {'peak (MB)':>10} {'added (MB)':>11} {'s':>7}")
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        originals = make_files(folder, arguments.n_distinct, arguments.side)
        for n_files in arguments.n_files:
            paths = name_often(folder, originals, n_files)
            results = context.Queue()
            process = context.Process(
                target=measure_fit,
                args=(paths, arguments, results),
            )
            process.start()
            before, peak, seconds = results.get()
            process.join()
            print(
                f"{n_files:>7} {before:>12.0f} {peak:>10.0f} {peak - before:>11.0f} "
                f"{seconds:>7.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
