"""How time and memory grow with the number of images, their pixels, and the memory bank.

An estimator is fitted, and scores other images, at five sizes over two decades; only one
quantity grows at a time. ``fit`` and ``score_samples`` have a process each for every size,
of one thread, that first does the same at the smallest size, so that nothing is loaded
within the measurement. Times are those of the processor, which other processes of
the machine change little; on a GPU, those of the clock. Memory is what the step adds to the
peak of the process (on a GPU, of the memory there): the images that it is given are not in
it, and neither is the detector that scores. A step that fits into what the first one has
left adds nothing.

Given are both at the smallest and the largest size, and the exponents: the slopes of least
squares in logarithms over all sizes, and between the largest and the size a decade below,
where constant parts weigh less. 1 is linear. Those of memory leave out sizes that add less
than 8 MB, and are nan where fewer than two remain.

- ``images``: fit and score as many images. The memory banks have a fixed budget.
- ``pixels``: pixels of an image, squares of 32 to 320 a side.
- ``bank``: vectors of the memory bank, which a fixed number of images is scored with.

The networks are small and have random weights; training takes one epoch.

Run it as ``python examples/benchmarks/bench_growth.py``, on one core some ten minutes;
``--quick`` runs all of its code on little data, and its figures mean nothing.
"""

import argparse
import multiprocessing
import platform
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from bench_memory import peak_memory

import skocc

N_SIZES = 5
BANK = {"n_vectors": 500}  # where it does not grow
# Memory below which its growth is that of torch's own buffers.
LEAST_MB = 8
PRELOADED = [
    "skocc.estimators._patch_svdd",
    "skocc._persistence.model_files",
    "torchvision.models",
]


def deep_svdd(**params):
    return skocc.DeepSVDD(
        channels=(8, 4), embedding_dim=32, pretrain_n_epochs=1, n_epochs=1,
        filter_init="random", **params,
    )  # fmt: skip


def resnet_knn(n_vectors, **params):
    return skocc.ResNetKNN(
        backbone="squeezenet1_0", weights=None, image_size=None, embedding_dim=128,
        pooling="locally_aware", max_bank_bytes=4 * 128 * n_vectors, **params,
    )  # fmt: skip


def patch_svdd(n_vectors, **params):
    return skocc.PatchSVDD(
        patch_size=16,
        strides=(4, 8),
        n_epochs=1,
        max_bank_bytes=4 * 64 * n_vectors,
        **params,
    )


# By what grows: smallest and largest size, and a function from a size to what makes the
# detector, its parameters, numbers of images to fit and to score, and their side.
CASES = {
    "DeepSVDD, images": (100, 10_000, lambda n: (deep_svdd, {}, n, n, 28)),
    "DeepSVDD, pixels": (32**2, 320**2, lambda n: (deep_svdd, {}, 50, 50, n**0.5)),
    "ResNetKNN, images": (20, 2000, lambda n: (resnet_knn, BANK, n, n, 32)),
    "ResNetKNN, pixels": (32**2, 320**2, lambda n: (resnet_knn, BANK, 16, 16, n**0.5)),
    "ResNetKNN, bank": (
        100, 10_000, lambda n: (resnet_knn, {"n_vectors": n}, 50, 16, 128)
    ),
    "PatchSVDD, images": (10, 1000, lambda n: (patch_svdd, BANK, n, n, 32)),
    "PatchSVDD, pixels": (32**2, 320**2, lambda n: (patch_svdd, BANK, 8, 8, n**0.5)),
    "PatchSVDD, bank": (100, 10_000, lambda n: (patch_svdd, {"n_vectors": n}, 48, 16, 64)),
}  # fmt: skip


def sizes_of(name, quick):
    """Return the sizes of a case, ascending; the first is also that of the warm-up."""
    low, high, _ = CASES[name]
    n_sizes = 2 if quick else N_SIZES
    return np.geomspace(low, 2 * low if quick else high, n_sizes).round().astype(int)


def prepared(name, size, device):
    """Return an unfitted detector, and the images that it fits and scores."""
    make, params, n_fitted, n_scored, side = CASES[name][2](int(size))
    shape = (round(side), round(side))
    fitted, scored = (
        np.random.default_rng(seed).integers(0, 256, (n, *shape), np.uint8)
        for seed, n in enumerate((n_fitted, n_scored))
    )
    return make(device=device, random_state=0, **params), fitted, scored


def run(step, name, size, device, path):
    """Fit and save, or load and score; return seconds and added megabytes."""
    detector, fitted, scored = prepared(name, size, device)
    is_cuda = torch.device(device).type == "cuda"
    if step == "score":
        detector = skocc.load(path).set_params(device=device)
    clock = time.perf_counter if is_cuda else time.process_time

    def peak():
        return torch.cuda.max_memory_allocated() / 2**20 if is_cuda else peak_memory()

    before, start = peak(), clock()
    if step == "score":
        detector.score_samples(scored)
    else:
        detector.fit(fitted)
    figures = clock() - start, peak() - before
    if step == "fit":
        skocc.save(detector, path)
    return figures


def measure(step, name, size, first, device, folder):
    """Return the figures of a size, after a run of the first size to warm up."""
    torch.set_num_threads(1)
    if step == "fit":
        run("fit", name, first, device, folder / "warm_up.safetensors")
    else:
        run("score", name, first, device, folder / f"{first}.safetensors")
    return run(step, name, size, device, folder / f"{size}.safetensors")


def in_a_process(*arguments):
    # From a server that has loaded torch once: a fork of this process, or of one that has
    # computed, would begin with its peak.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(measure, *arguments).result()


def exponents(sizes, values):
    """Return the slope over all sizes, and that over the last decade."""
    slopes = []
    for low in (0, 0.99 * sizes[-1] / 10):
        used = (sizes >= low) & (values > 0)
        logarithms = np.log(sizes[used]), np.log(values[used])
        slopes.append(np.polyfit(*logarithms, 1)[0] if used.sum() > 1 else np.nan)
    return "{:>8.2f} {:>6.2f}".format(*slopes)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", nargs="+", default=[*CASES], choices=[*CASES])
    parser.add_argument("--quick", action="store_true", help="two small sizes")
    arguments = parser.parse_args()
    print(
        f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, "
        f"{platform.machine()}, one thread, {arguments.device}"
    )
    print(
        f"{'what grows':<18} {'step':<6} {'range':>14} {'s':>14} {'exponent':>8} "
        f"{'decade':>6} {'added MB':>12} {'exponent':>8} {'decade':>6}",
        flush=True,
    )
    for name in arguments.only:
        sizes = sizes_of(name, arguments.quick)
        with tempfile.TemporaryDirectory() as folder:
            for step in ("fit", "score"):
                figures = [
                    in_a_process(step, name, size, sizes[0], arguments.device, Path(folder))
                    for size in sizes
                ]
                seconds, added = np.array(figures).T
                large = np.where(added >= LEAST_MB, added, 0)
                print(
                    f"{name:<18} {step:<6} {f'{sizes[0]} to {sizes[-1]}':>14} "
                    f"{f'{seconds[0]:.2f} to {seconds[-1]:.2f}':>14} "
                    f"{exponents(sizes, seconds)} "
                    f"{f'{added[0]:.0f} to {added[-1]:.0f}':>12} "
                    f"{exponents(sizes, large)}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
