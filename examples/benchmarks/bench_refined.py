"""Scores of ResNetKNN, which search few cells, against a full search and the network alone.

The features are those of MobileNetV2 with its ImageNet weights, of magnetic tiles at 224
pixels: 784 cells an image, 128 features. The bank has a random tenth of the cells of
``--n-images`` training images, and then all. In each of ``--n-pairs`` rounds, one batch of
16 test images goes through

- the network alone, on a ready batch,
- ``score_samples``, on the same images as arrays,
- the search of the farthest cells, ``search_farthest``,

and ``--n-full`` of its images through a search of all cells. The table has the medians in
milliseconds an image; the ratio of ``score_samples`` to the network, median and range over
the rounds; the share of all distances that are computed; and whether the scores are equal
to the last bit. On one thread, times are those of the processor, which other processes of
the machine change little. The detector is fitted on two images, and its bank is filled by
hand.

Run it as ``python examples/benchmarks/bench_refined.py``; ``--n-threads 2`` for wall times.
"""

import argparse
import os
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image

from skocc import ResNetKNN
from skocc._ops import farthest_cells
from skocc._ops.memory_bank import MemoryBank, to_rows
from skocc.datasets import load_mvtec_layout

N_SCORED = 16


def read(paths, size):
    """Return gray images (n, size, size), uint8."""
    images = (Image.open(path).convert("L").resize((size, size)) for path in paths)
    return np.stack([np.asarray(image) for image in images])


@torch.no_grad()
def cells_of(network, images):
    """Return the features (n * cells, d) of images, a batch at a time."""
    batches = torch.from_numpy(images)[:, None].float().div(255).split(N_SCORED)
    return torch.cat([to_rows(network(batch)) for batch in batches])


def count_distances(search):
    """Return how many distances a search computes."""
    counts, cells = [], farthest_cells._Cells
    bound, exact = cells.bound, cells.search

    def bounding(self, chosen, stride):
        counts.append(len(chosen) * len(self.bank.vectors[::stride]))
        return bound(self, chosen, stride)

    def searching(self, chosen):
        counts.append(len(chosen) * len(self.bank.vectors))
        return exact(self, chosen)

    with patch.multiple(cells, bound=bounding, search=searching):
        search()
    return sum(counts)


def measure(detector, bank, images, options):
    """Print the line of a bank."""
    groups = np.zeros(len(bank), dtype=np.int32)
    detector.bank_ = MemoryBank(bank, groups, detector.bank_.digests)
    index = detector.bank_.on(torch.device("cpu"), "exact").index
    queries = cells_of(detector.network_, images).unflatten(0, (len(images), -1))
    few = queries[: options.n_full]
    batch = torch.from_numpy(images)[:, None].float().div(255)
    # Channels last, as detectors give their networks batches.
    batch = batch.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        steps = {
            "network": lambda: detector.network_(batch),
            "scores": lambda: detector.score_samples(images),
            "refined": lambda: farthest_cells.search_farthest(queries, index),
            "full": lambda: index.nearest(few.flatten(0, 1)),
        }
        clock = time.process_time if options.n_threads == 1 else time.perf_counter
        times = {name: [] for name in steps}
        steps["network"](), steps["scores"]()
        for _ in range(options.n_pairs):
            for name, step in steps.items():
                start = clock()
                found = step()
                n_images = len(few) if name == "full" else len(images)
                times[name].append(1000 * (clock() - start) / n_images)
                if name == "refined":
                    scores = found[0].amax(dim=1)[: len(few)]
        is_equal = torch.equal(scores, found[0].view(few.shape[:2]).amax(dim=1))
        share = count_distances(steps["refined"]) / (queries[..., 0].numel() * len(bank))
    ratios = np.array(times["scores"]) / times["network"]
    medians = "".join(f"{np.median(times[name]):>10.1f}" for name in steps)
    print(
        f"{len(bank):>8}{medians}   {np.median(ratios):.2f} "
        f"({ratios.min():.2f} to {ratios.max():.2f}) {100 * share:>6.2f} %"
        f"   {'equal' if is_equal else 'NOT EQUAL'}",
        flush=True,
    )


def main():
    """Read the command line, and print a table."""
    folder = os.environ.get("SKOCC_DATA")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=folder and Path(folder))
    parser.add_argument("--n-images", type=int, default=100, help="in the bank")
    parser.add_argument("--n-pairs", type=int, default=5)
    parser.add_argument("--n-full", type=int, default=2, help="images of full searches")
    parser.add_argument("--n-threads", type=int, default=1)
    options = parser.parse_args()
    if options.data is None:
        parser.error("pass --data, or set the environment variable SKOCC_DATA")
    torch.set_num_threads(options.n_threads)
    tiles = load_mvtec_layout(options.data / "magnetic_tile")
    train = read(tiles.train_paths[: options.n_images], 224)
    step = max(1, len(tiles.test_paths) // N_SCORED)
    test = read(tiles.test_paths[::step][:N_SCORED], 224)
    detector = ResNetKNN(
        backbone="mobilenet_v2",
        weights=options.data / "mobilenet_v2_imagenet.pt",
        normalization="imagenet",
        layers=("features.6", "features.13"),
        image_size=None,
        device="cpu",
        random_state=0,
    ).fit(train[:2])
    bank = cells_of(detector.network_, train).numpy()
    tenth = np.sort(np.random.default_rng(0).permutation(len(bank))[: len(bank) // 10])
    threads = f"{options.n_threads} thread(s), {torch.backends.cpu.get_cpu_capability()}"
    print(f"torch {torch.__version__}, {threads}")
    print(f"{'bank':>8}{'network':>10}{'scores':>10}{'refined':>10}{'full':>10}   ratio")
    for vectors in (bank[tenth], bank):
        measure(detector, vectors, test, options)


if __name__ == "__main__":
    main()
