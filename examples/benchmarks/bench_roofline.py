"""What share of what a device can do is reached: the roofline of the benchmarks' steps.

Measured first are products of large matrices and convolutions, in float32 (with TF32 where
torch uses it) and bfloat16, and a copy. Then the steps of the other benchmarks: epochs, a
search, embeddings. The least time of a step is that of its operations at the speed of the
faster of product and convolution, or that of its bytes at the speed of the copy, if that is
more; *share* is the least time by the time it took. Bytes are what each operation of torch
reads and writes, as if nothing stayed in a cache, so that a share may exceed 1.

Run it as ``python examples/benchmarks/bench_roofline.py --device cuda``; ``--quick`` runs
all of its code on small tensors, but its figures mean nothing.
"""

import argparse
import statistics

import bench_dense
import bench_epoch
import bench_neighbors
import bench_precision
import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from skocc._ops.neighbors import nearest


class Bytes(TorchDispatchMode):
    """Adds up the sizes of what each operation reads and writes."""

    total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            for value in tree_leaves((args, kwargs, result)):
                if isinstance(value, torch.Tensor):
                    self.total += value.numel() * value.element_size()
        return result


def median_seconds(function, device, n_repeats):
    return statistics.median(
        bench_epoch.seconds(function, device) for _ in range(n_repeats)
    )


def peaks(device, quick=False):
    """Yield what the device does in a second: name, dtype, operations or bytes."""
    n_repeats = 1 if quick else 5
    for dtype in (torch.float32, torch.bfloat16):
        for name, function in dense_work(dtype, device, quick).items():
            with FlopCounterMode(display=False) as counter:
                function()
            seconds = median_seconds(function, device, n_repeats)
            yield name, dtype, counter.get_total_flops() / seconds
    block = torch.zeros(2**22 if quick else 2**28, device=device)
    block.clone()
    seconds = median_seconds(block.clone, device, n_repeats)
    yield "copy", torch.float32, 2 * block.numel() * block.element_size() / seconds


def measure(function, device, speed, bandwidth, n_repeats):
    """Return what a step takes, as a dict.

    `speed` are operations a second of the dtype that the step computes in, `bandwidth` are
    bytes a second.
    """
    function()
    with FlopCounterMode(display=False) as counter, Bytes() as traffic:
        function()
    seconds = median_seconds(function, device, n_repeats)
    computing, moving = counter.get_total_flops() / speed, traffic.total / bandwidth
    return {
        "seconds": seconds,
        "gflop": counter.get_total_flops() / 1e9,
        "gbyte": traffic.total / 1e9,
        "bound": "compute" if computing > moving else "memory",
        "share": max(computing, moving) / seconds,
    }


def lines(device, quick=False, is_time_left=lambda: True):
    """Yield a dict for each peak and each step, an error in place of figures included."""
    speeds = {}
    for name, dtype, speed in peaks(device, quick):
        if name == "copy":
            bandwidth = speed
            yield {"what": name, "gbyte_per_s": speed / 1e9}
        else:
            speeds[dtype] = max(speed, speeds.get(dtype, 0))
            yield {"what": name, "dtype": str(dtype), "gflop_per_s": speed / 1e9}
    for name, make in steps(device, quick):
        if not is_time_left():
            yield {"what": name, "status": "out of time"}
            continue
        speed = speeds[torch.bfloat16 if "bfloat16" in name else torch.float32]
        try:
            figures = measure(make(), device, speed, bandwidth, 1 if quick else 5)
        except Exception as error:  # out of memory, say: the others are still to be had
            figures = {"status": "failed", "error": repr(error)}
        yield {"what": name, **figures}


def dense_work(dtype, device, quick):
    """Return a large matrix product, and a convolution as ResNets have them."""
    n, batch = (256, 2) if quick else (8192, 128)
    matrix = torch.randn(n, n, dtype=dtype, device=device)
    maps = torch.randn(batch, 256, 28, 28, dtype=dtype, device=device)
    weight = torch.randn(256, 256, 3, 3, dtype=dtype, device=device)
    maps, weight = (x.to(memory_format=torch.channels_last) for x in (maps, weight))
    return {
        "matrix product": lambda: matrix @ matrix,
        "convolution": lambda: torch.nn.functional.conv2d(maps, weight, padding=1),
    }


def steps(device, quick=False):
    """Yield names, and functions that make what is timed: the steps of the benchmarks."""
    for stage in ("DeepSVDD, one class", "DeepSVDD, autoencoder"):
        for index, kind in enumerate(("skocc", "bare loop")):

            def epoch(stage=stage, index=index):
                n_images = 400 if quick else 6000
                return bench_epoch.make_epochs(stage, device, n_images=n_images)[index]

            yield f"epoch, {stage}, {kind}", epoch
    for net in bench_precision.NETS[: 2 if quick else None]:
        for variant in bench_precision.VARIANTS[: 2 if quick else None]:

            def epoch(net=net, variant=variant):
                _, _, n_channels, side, n = net
                shape = (16 if quick else n, side, side, n_channels)
                pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
                size = 8 if quick else 128
                return bench_precision.make_epoch(net, variant, pixels, size, device)

            yield f"epoch, {net[0]}, {variant[0]}", epoch
    for collapsed in (False, True):

        def search(collapsed=collapsed):
            n = (2000, 100) if quick else (650_000, 57 * 57)
            bank, queries = bench_neighbors.make_features(*n, 10, collapsed)
            bank, queries = bank.to(device), queries.to(device)
            return lambda: nearest(queries, bank)

        yield f"search{', collapsed features' if collapsed else ''}", search
    size, batch = (96, 64) if quick else (256, 1024)
    for way in ("dense", f"patches, {batch} a batch"):

        def embed(way=way):
            function = bench_dense.make_ways(size, [batch], device)[way]
            return torch.no_grad()(function)

        yield f"embeddings, {way}", embed


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", type=torch.device, default="cpu")
    parser.add_argument("--quick", action="store_true", help="small tensors")
    arguments = parser.parse_args()
    for line in lines(arguments.device, arguments.quick):
        texts = [f"{v:.4g}" if isinstance(v, float) else str(v) for v in line.values()]
        print("  ".join(f"{k}: {v}" for k, v in zip(line, texts, strict=True)), flush=True)


if __name__ == "__main__":
    main()
