"""Embeddings of all patches of an image: fully convolutional against patch by patch.

Patch SVDD compares an image by its patches: of 256 x 256 pixels, at the published strides,
3,249 of 32 pixels and 169 of 64. The encoder has no padding and a stride of 2, so that
overlapping patches share nearly all of their computation, and one pass over the image
(``dense_scales``) gives the embeddings of both scales.

It is compared with the same encoder on the patches, cut out beforehand: one at a time, and
in batches. All run in turns, so that other work on the machine slows all of them; given are
the medians, the median of the ratios, and the largest difference of an embedding. Against
one patch at a time the target is a ratio of 40; the difference should be at most 1e-5.

Counted in multiplications, the pass is 21 times cheaper, which is what it gains on large
batches of patches. The rest is the cost of small calls, and depends on the machine and on
the threads, of which a single patch makes little use.

Run it as ``python examples/benchmarks/bench_dense.py --n-threads 1``.
"""

import argparse
import statistics
import time

import torch

from skocc._nets.patch_encoder import HierarchicalPatchEncoder
from skocc._samples.windows import window_starts

STRIDE_SMALL, STRIDE_BIG = 4, 16


def cut(image, patch_size, stride):
    """Return all patches (n, 3, patch_size, patch_size) of an image (1, 3, H, W)."""
    rows, columns = (window_starts(size, patch_size, stride) for size in image.shape[2:])
    return torch.cat(
        [image[:, :, i : i + patch_size, j : j + patch_size] for i in rows for j in columns]
    )


def make_ways(image_size, batch_sizes, device):
    """Return the ways to embed all patches of an image, by their names, dense first."""
    encoder = HierarchicalPatchEncoder().eval().to(device)
    image = torch.randn(1, 3, image_size, image_size)
    # The layout in which image sources deliver batches.
    image = image.to(device, memory_format=torch.channels_last)
    small = cut(image, encoder.enc.patch_size, STRIDE_SMALL)
    big = cut(image, encoder.patch_size, STRIDE_BIG)
    print(f"{len(small)} patches of 32 pixels and {len(big)} of 64")

    def dense():
        scales = encoder.dense_scales(image, STRIDE_SMALL, STRIDE_BIG)
        return [z.flatten(2)[0].T for z in scales]

    def by_patch(batch_size):
        return [
            torch.cat([net(patches) for patches in all_patches.split(batch_size)])
            for net, all_patches in ((encoder.enc, small), (encoder, big))
        ]

    ways = {f"patches, {n} a batch": lambda n=n: by_patch(n) for n in batch_sizes}
    return {"dense": dense, **ways}


def timed(function):
    """Return the seconds a function takes, and its result on the CPU."""
    start = time.perf_counter()
    result = [z.cpu() for z in function()]
    return time.perf_counter() - start, result


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=(1, 64))
    parser.add_argument("--n-repeats", type=int, default=3)
    parser.add_argument("--n-threads", type=int)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    if arguments.n_threads:
        torch.set_num_threads(arguments.n_threads)

    torch.manual_seed(0)
    ways = make_ways(arguments.image_size, arguments.batch_sizes, arguments.device)
    dense = ways.pop("dense")
    for _ in range(2):
        dense()
    ways[f"patches, {max(arguments.batch_sizes)} a batch"]()
    print(f"{torch.get_num_threads()} thread(s), {arguments.device}")
    rounds = []
    for _ in range(arguments.n_repeats):
        # A pass over the image is short: the median of a few.
        runs = [timed(dense) for _ in range(5)]
        seconds, expected = statistics.median(run[0] for run in runs), runs[0][1]
        times = {"dense": (seconds, 1.0, 0.0)}
        for name, way in ways.items():
            slow, z = timed(way)
            difference = max(
                float((a - b).abs().max()) for a, b in zip(z, expected, strict=True)
            )
            times[name] = slow, slow / seconds, difference
        rounds.append(times)

    print(f"{'way':<24} {'seconds':>8} {'ratio':>7} {'difference':>11}")
    for way in rounds[0]:
        seconds, ratios, differences = zip(*(times[way] for times in rounds), strict=True)
        print(
            f"{way:<24} {statistics.median(seconds):>8.3f} "
            f"{statistics.median(ratios):>7.1f} {max(differences):>11.1e}"
        )


if __name__ == "__main__":
    main()
