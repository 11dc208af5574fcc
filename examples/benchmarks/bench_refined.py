"""What is searched for scores and for the thresholds of `fit`, against a full search.

``scores``: `score_samples` of ResNetKNN. The features are those of MobileNetV2 with its
ImageNet weights, of magnetic tiles at 224 pixels: 784 cells an image, 128 features. The
bank has a random tenth of the cells of ``--n-images`` training images, and then all. In
each of ``--n-pairs`` rounds, one batch of 16 test images goes through

- the network alone, on a ready batch,
- ``score_samples``, on the same images as arrays,
- the search of the farthest cells, ``search_farthest``,

and ``--n-full`` of its images through a search of all cells. The table has the medians in
milliseconds an image; the ratio of ``score_samples`` to the network, median and range over
the rounds; the share of all distances that are computed; and whether the scores are equal
to the last bit. The detector is fitted on two images, and its bank is filled by hand.

``fit``: a fit on ``--n-images`` tiles with the full bank, which searches the bank for each
of them, for the thresholds of scores and of maps; against the same with a search of all
cells and features that are computed again, which is measured on ``--n-full`` images.

``patch_svdd``: `score_samples` of PatchSVDD in the setting that docs/reproduction has for
magnetic tiles, trained for one epoch, against the maxima of its maps.

On one thread, times are those of the processor, which other processes of the machine change
little.

Run it as ``python examples/benchmarks/bench_refined.py scores``; ``--n-threads 2`` for wall
times.
"""

import argparse
import copy
import os
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image

from skocc import PatchSVDD, ResNetKNN
from skocc._ops import refined_search
from skocc._ops.memory_bank import MemoryBank, to_rows
from skocc._ops.refined_search import Cells
from skocc.datasets import load_mvtec_layout

N_SCORED = 16


def read(paths, size):
    """Return gray images (n, size, size), uint8."""
    images = (Image.open(path).convert("L").resize((size, size)) for path in paths)
    return np.stack([np.asarray(image) for image in images])


@torch.no_grad()
def cells_of(network, images):
    """Return the features (n * cells, d) of images, a batch at a time."""
    device = next(network.parameters()).device
    batches = torch.from_numpy(images)[:, None].split(N_SCORED)
    return torch.cat([to_rows(network(x.to(device).float().div(255))) for x in batches])


def count_distances(step):
    """Return how many distances a step computes, and how many a full search would."""
    counts, full, init = [], [], Cells.__init__
    bound, search, smallest = Cells.bound, Cells.search, Cells._smallest_in_clusters

    def beginning(self, queries, bank, *args, **kwargs):
        full.append(queries[..., 0].numel() * len(bank.vectors))
        init(self, queries, bank, *args, **kwargs)

    def bounding(self, chosen, level):
        centers = int(chosen.sum()) * len(self.bank.clusters.centers)
        counts.append(centers)
        bound(self, chosen, level)

    def in_clusters(self, cells, found):
        starts = torch.tensor(self.bank.clusters.starts)
        counts.append(int((starts[found + 1] - starts[found]).sum()))
        return smallest(self, cells, found)

    def searching(self, chosen):
        counts.append(int(chosen.sum()) * len(self.bank.vectors))
        search(self, chosen)

    methods = {"bound": bounding, "search": searching, "__init__": beginning}
    methods["_smallest_in_clusters"] = in_clusters
    with patch.multiple(Cells, **methods):
        step()
    return sum(counts), sum(full)


def farthest(queries, index):
    """Return the cells of images, searched for the farthest."""
    cells = Cells(queries, index)
    refined_search.search_farthest(cells)
    return cells.distances


def clock(options):
    if options.device.type == "cuda":
        torch.cuda.synchronize(options.device)
    if options.n_threads == 1 and options.device.type == "cpu":
        return time.process_time()
    return time.perf_counter()


def rounds(steps, n_rounds, options):
    """Return the seconds of each step, an array (n_rounds,), and what it returned last."""
    times, results = {name: [] for name in steps}, {}
    for _ in range(n_rounds):
        for name, step in steps.items():
            start = clock(options)
            results[name] = step()
            times[name].append(clock(options) - start)
    return {name: np.array(found) for name, found in times.items()}, results


def spread(ratios):
    return f"{np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f})"


def measure_scores(detector, bank, images, options):
    """Print the line of a bank."""
    groups = np.zeros(len(bank), dtype=np.int32)
    detector.bank_ = MemoryBank(bank, groups, detector.bank_.digests)
    index = detector.bank_.on(options.device, "exact").index
    network = copy.deepcopy(detector.network_).to(options.device)
    queries = cells_of(network, images).unflatten(0, (len(images), -1))
    few = queries[: options.n_full]
    batch = torch.from_numpy(images)[:, None].to(options.device).float().div(255)
    # Channels last, as detectors give their networks batches.
    batch = batch.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        steps = {
            "network": lambda: network(batch),
            "scores": lambda: detector.score_samples(images),
            "refined": lambda: farthest(queries, index),
            "full": lambda: index.nearest(few.flatten(0, 1)),
        }
        steps["network"](), steps["scores"]()
        times, results = rounds(steps, options.n_pairs, options)
        scores = results["refined"].amax(dim=1)[: len(few)]
        expected = results["full"][0].view(few.shape[:2]).amax(dim=1)
        n_computed, n_full = count_distances(steps["refined"])
    n_images = {name: len(few) if name == "full" else len(images) for name in steps}
    medians = "".join(
        f"{1000 * np.median(times[name]) / n_images[name]:>10.1f}" for name in steps
    )
    print(
        f"{len(bank):>8}{medians}   {spread(times['scores'] / times['network'])} "
        f"{100 * n_computed / n_full:>6.2f} %"
        f"   {'equal' if torch.equal(scores, expected) else 'NOT EQUAL'}",
        flush=True,
    )


def make_detector(options):
    return ResNetKNN(
        backbone="mobilenet_v2",
        weights=options.data / "mobilenet_v2_imagenet.pt",
        normalization="imagenet",
        layers=("features.6", "features.13"),
        image_size=None,
        device=options.device,
        random_state=0,
    )


def scores(tiles, options):
    """Print a table: a random tenth of the bank, and all of it."""
    train = read(tiles.train_paths[: options.n_images], 224)
    step = max(1, len(tiles.test_paths) // N_SCORED)
    test = read(tiles.test_paths[::step][:N_SCORED], 224)
    detector = make_detector(options).fit(train[:2])
    bank = cells_of(detector.network_, train).numpy()
    tenth = np.sort(np.random.default_rng(0).permutation(len(bank))[: len(bank) // 10])
    print(f"{'bank':>8}{'network':>10}{'scores':>10}{'refined':>10}{'full':>10}   ratio")
    for vectors in (bank[tenth], bank):
        measure_scores(detector, vectors, test, options)


def fit(tiles, options):
    """Print the seconds of a fit, and those of one that searches all cells."""
    train = read(tiles.train_paths[: options.n_images], 224)
    detector = make_detector(options)
    start = clock(options)
    counts = count_distances(lambda: detector.fit(train))
    seconds = clock(options) - start
    few = train[: options.n_full]
    # Features of all images again, and all cells of the few in the whole bank.
    steps = {
        "network": lambda: cells_of(detector.network_, few),
        "maps": lambda: detector.anomaly_map(few, size="model", return_scores=True),
    }
    steps["network"]()
    times, results = rounds(steps, options.n_pairs, options)
    network, maps = (np.median(times[name]) / len(few) for name in steps)
    full = (network + maps) * len(train)
    found, scored = results["maps"]
    maxima = found.reshape(len(few), -1).max(axis=1)
    is_equal = np.array_equal(maxima, detector.train_map_maxima_[: len(few)])
    is_equal &= np.array_equal(scored, detector.train_scores_[: len(few)])
    print(
        f"{len(train)} images, bank of {len(detector.bank_)}: fit {seconds:.1f} s; network "
        f"{1000 * network:.1f} ms an image, maps {1000 * maps:.0f}, full search "
        f"{full:.0f} s: {full / seconds:.1f} times; {100 * counts[0] / counts[1]:.2f} % of "
        f"the distances; thresholds {'equal' if is_equal else 'NOT EQUAL'}"
    )


def patch_svdd(tiles, options):
    """Print milliseconds of `score_samples` an image, and of maps."""
    train = read(tiles.train_paths[: options.n_images], 256)
    step = max(1, len(tiles.test_paths) // N_SCORED)
    test = read(tiles.test_paths[::step][:N_SCORED], 256)[: options.n_full]
    detector = PatchSVDD(
        normalization="local_contrast",
        padding_mode="reflect",
        n_epochs=1,
        random_state=0,
        device=options.device,
    ).fit(train)
    steps = {
        "scores": lambda: detector.score_samples(test),
        "maps": lambda: detector.anomaly_map(test, size="model", return_scores=True),
    }
    times, results = rounds(steps, options.n_pairs, options)
    n_computed, n_full = count_distances(steps["scores"])
    is_equal = np.array_equal(results["maps"][1], results["scores"])
    ms = {name: 1000 * np.median(found) / len(test) for name, found in times.items()}
    print(
        f"banks of {len(detector.bank_small_)} and {len(detector.bank_big_)}: scores "
        f"{ms['scores']:.0f} ms an image, maps {ms['maps']:.0f}, ratio "
        f"{spread(times['maps'] / times['scores'])}; {100 * n_computed / n_full:.1f} % of "
        f"the distances; {'equal' if is_equal else 'NOT EQUAL'}"
    )


def main():
    """Read the command line, and print a table."""
    folder = os.environ.get("SKOCC_DATA")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["scores", "fit", "patch_svdd"])
    parser.add_argument("--data", type=Path, default=folder and Path(folder))
    parser.add_argument("--n-images", type=int, default=100, help="in the bank")
    parser.add_argument("--n-pairs", type=int, default=5)
    parser.add_argument("--n-full", type=int, default=2, help="images of full searches")
    parser.add_argument("--n-threads", type=int, default=1)
    parser.add_argument("--device", type=torch.device, default="cpu")
    options = parser.parse_args()
    if options.data is None:
        parser.error("pass --data, or set the environment variable SKOCC_DATA")
    torch.set_num_threads(options.n_threads)
    tiles = load_mvtec_layout(options.data / "magnetic_tile")
    capability = torch.backends.cpu.get_cpu_capability()
    print(
        f"torch {torch.__version__}, {capability}, {options.n_threads} thread(s), "
        f"{options.device}"
    )
    {"scores": scores, "fit": fit, "patch_svdd": patch_svdd}[options.what](tiles, options)


if __name__ == "__main__":
    main()
