"""The greedy coreset against an algorithm that compares all vectors after each choice.

The features have 384 dimensions, as layers 2 and 3 of ResNet18 give them; 47,040 are the
cells of 60 images at 224 pixels, and a tenth of them is chosen. "layer" is a random layer
on points of ten dimensions, "noise" has no structure, "tiles" is ResNet18 with random
weights on magnetic tiles, which needs ``--data``. ``every_step`` below is the reference:
Gonzalez' greedy algorithm, written out, with the same projection.

The first table times both in turns, ``--n-pairs`` times. Its ratio is the median of the
pairs, with the range; the cover radius is the largest distance of a vector to the nearest
one chosen, in all 384 dimensions; and memory is the most that the tensors of a choice take,
beside the size of the projected features. The second table has the times for a
tenth of more and more vectors of "layer", and the exponent between two lines. On one
thread, times are those of the processor, which other processes change little.

Run it as ``python examples/benchmarks/bench_coreset.py``; ``--quick`` runs all of its code
on few vectors, but its figures mean nothing.
"""

import argparse
import math
import os
import time
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.profiler import ProfilerActivity, profile

from skocc import ResNetKNN
from skocc._ops.coreset import greedy_coreset
from skocc._ops.memory_bank import to_rows
from skocc._ops.neighbors import nearest
from skocc.datasets import load_mvtec_layout

N_FEATURES, N_PROJECTIONS = 384, 128


def every_step(features, size, generator):
    """Choose vectors as `greedy_coreset` does, with one pass over all of them a step."""
    chosen = torch.empty(size, dtype=torch.int64, device=features.device)
    chosen[0] = torch.randint(len(features), (), generator=generator)
    shape = (features.shape[1], N_PROJECTIONS)
    projection = torch.randn(shape, generator=generator) / math.sqrt(N_PROJECTIONS)
    center, projection = features.mean(dim=0), projection.to(features)
    features = torch.cat([(block - center) @ projection for block in features.split(16384)])
    distances = features.new_full((len(features),), torch.inf)
    for step in range(1, size):
        newest = features.index_select(0, chosen[step - 1 : step])
        added = torch.cdist(features, newest, compute_mode="donot_use_mm_for_euclid_dist")
        distances = torch.minimum(distances, added[:, 0])
        distances.index_fill_(0, chosen[step - 1 : step], -1)
        chosen[step] = distances.argmax()
    return chosen


WAYS = {"every step": every_step, "skocc": greedy_coreset}


@torch.no_grad()
def make_features(kind, n_vectors, folder):
    """Return vectors (n_vectors, 384)."""
    generator = torch.Generator().manual_seed(0)
    if kind == "noise":
        return torch.randn(n_vectors, N_FEATURES, generator=generator)
    if kind == "layer":
        points = torch.randn(n_vectors, 10, generator=generator)
        weight = torch.randn(10, N_FEATURES, generator=generator) / math.sqrt(10)
        return torch.tanh(points @ weight)
    paths = load_mvtec_layout(folder / "magnetic_tile").train_paths
    images = np.stack(
        [
            np.asarray(Image.open(path).convert("L").resize((224, 224)))
            for path in paths[: math.ceil(n_vectors / 784)]
        ]
    )
    detector = ResNetKNN(
        backbone="resnet18", weights=None, image_size=None, device="cpu", random_state=0
    )
    network = detector.fit(images[:2]).network_
    batches = torch.from_numpy(images)[:, None].float().div(255).split(10)
    return torch.cat([to_rows(network(batch)) for batch in batches])[:n_vectors].clone()


def choose(way, features, size):
    """Return the indices, on the CPU so that they are there."""
    return WAYS[way](features, size, torch.Generator().manual_seed(1)).cpu()


def clock(device):
    """Return the seconds of this process on one thread of the CPU, else those passed."""
    is_one = device.type == "cpu" and torch.get_num_threads() == 1
    return time.process_time() if is_one else time.perf_counter()


def timed(way, features, size):
    """Return the seconds that a choice takes, and the indices."""
    start = clock(features.device)
    chosen = choose(way, features, size)
    return clock(features.device) - start, chosen


def added_memory(way, features):
    """Return the MiB that the tensors of a choice of a hundredth take at most.

    What they take does not grow with the number of steps.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        choose(way, features, len(features) // 100)
    events = profiled.profiler.kineto_results.events()
    changes = [(e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"]
    return max(accumulate(n_bytes for _, n_bytes in sorted(changes))) / 2**20


def compare(kind, n_vectors, options):
    """Print a line for each way."""
    features = make_features(kind, n_vectors, options.data).to(options.device)
    size, times, chosen = n_vectors // 10, {way: [] for way in WAYS}, {}
    for way in WAYS:
        choose(way, features[:1000], 20)
    for _ in range(options.n_pairs):
        for way in WAYS:
            seconds, chosen[way] = timed(way, features, size)
            times[way].append(seconds)
    ratios = np.array(times["every step"]) / times["skocc"]
    is_equal = torch.equal(*chosen.values())
    for way in WAYS:
        radius = float(nearest(features, features[chosen[way]])[0].max())
        memory = added_memory(way, features)
        print(
            f"{kind:<8}{way:<12}{np.median(times[way]):>8.2f}{radius:>12.6f}{memory:>8.0f}",
            flush=True,
        )
    print(
        f"{'':<8}{n_vectors} vectors, ratio {np.median(ratios):.1f} ({ratios.min():.1f} to "
        f"{ratios.max():.1f}, {len(ratios)} pairs), "
        f"{'equal' if is_equal else 'DIFFERENT'} indices; projected features "
        f"{n_vectors * N_PROJECTIONS * 4 / 2**20:.0f} MiB",
        flush=True,
    )


def grow(sizes, options):
    """Print the time for a tenth of each number of vectors."""
    print(f"{'vectors':>8}{'chosen':>8}{'seconds':>9}{'exponent':>10}")
    last = None
    for n_vectors in sizes:
        features = make_features("layer", n_vectors, options.data).to(options.device)
        seconds, _ = timed("skocc", features, n_vectors // 10)
        exponent = ""
        if last is not None:
            slope = math.log(seconds / last[1]) / math.log(n_vectors / last[0])
            exponent = f"{slope:.2f}"
        last = n_vectors, seconds
        print(
            f"{n_vectors:>8}{n_vectors // 10:>8}{seconds:>9.2f}{exponent:>10}", flush=True
        )


def main():
    """Read the command line, and print the tables."""
    folder = os.environ.get("SKOCC_DATA")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=folder and Path(folder))
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--n-threads", type=int, default=1)
    parser.add_argument("--n-vectors", type=int, default=47_040)
    parser.add_argument("--n-pairs", type=int, default=5)
    parser.add_argument("--kinds", nargs="+", choices=["layer", "noise", "tiles"])
    parser.add_argument("--no-growth", action="store_true", help="only the first table")
    parser.add_argument("--quick", action="store_true", help="few vectors")
    options = parser.parse_args()
    torch.set_num_threads(options.n_threads)
    kinds = options.kinds or ["layer", "noise", *(["tiles"] if options.data else [])]
    n_vectors = 1568 if options.quick else options.n_vectors
    capability = torch.backends.cpu.get_cpu_capability()
    print(
        f"torch {torch.__version__}, {options.n_threads} thread(s), {capability}, "
        f"{options.device}"
    )
    print(f"{'':<20}{'seconds':>8}{'radius':>12}{'MiB':>8}")
    for kind in kinds:
        compare(kind, n_vectors, options)
    if not options.no_growth:
        sizes = [1_470, 4_704, 14_700, 47_040, 147_000]
        grow(sizes[:2] if options.quick else sizes, options)


if __name__ == "__main__":
    main()
