"""Training PatchSVDD: pairs picked from dense maps against patches cut out one by one.

A step is one of the estimator, forward and backward, on 8 images. Dense training draws 256
pairs of each kind and scale from a crop of each image; cutting out draws 8, so that a step
has 64, as published. Both run in turns on the same images; given are the medians of the
seconds of a step, the pairs of each kind and scale in a second, and their ratio.

More pairs in a second are not learning that much faster: those of one crop have much in
common. What the two reach on real images is in ``docs/reproduction``.

Run it as ``python examples/benchmarks/bench_patch_training.py --n-threads 1``.
"""

import argparse
import statistics
import time

import torch

from skocc import PatchSVDD

N_IMAGES = 8


def make_step(sampling, n_pairs, patch_size, images, device):
    """Return a function that does one step of training."""
    detector = PatchSVDD(patch_size=patch_size, sampling=sampling, n_pairs=n_pairs)
    detector.image_shape_ = (*images.shape[2:], images.shape[1])
    network = detector._empty_network("network_").to(device)
    loss_fn = detector._make_loss(network, torch.Generator().manual_seed(0))
    learned = [weight for weight in network.parameters() if weight.requires_grad]
    optimizer = torch.optim.Adam(learned, lr=1e-3)

    def step():
        optimizer.zero_grad()
        loss_fn(images).backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return step


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--patch-sizes", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--n-repeats", type=int, default=3)
    parser.add_argument("--n-threads", type=int)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    if arguments.n_threads:
        torch.set_num_threads(arguments.n_threads)
    device = torch.device(arguments.device)
    torch.manual_seed(0)
    images = torch.rand(N_IMAGES, 1, arguments.image_size, arguments.image_size)
    images = images.to(device)
    print(f"{torch.get_num_threads()} thread(s), {device}")
    print(f"{'patch':>5} {'sampling':<9} {'s a step':>9} {'pairs/s':>9} {'ratio':>7}")
    for patch_size in arguments.patch_sizes:
        n_pairs = {"dense": 256, "patches": 8}
        steps = {
            sampling: make_step(sampling, n, patch_size, images, device)
            for sampling, n in n_pairs.items()
        }
        seconds = {sampling: [] for sampling in steps}
        for step in steps.values():
            step()  # what a first call loads is not training
        for _ in range(arguments.n_repeats):
            for sampling, step in steps.items():
                start = time.perf_counter()
                step()
                seconds[sampling].append(time.perf_counter() - start)
        medians = {key: statistics.median(values) for key, values in seconds.items()}
        rates = {key: N_IMAGES * n_pairs[key] / medians[key] for key in medians}
        for key, rate in rates.items():
            ratio = rate / rates["patches"]
            print(
                f"{patch_size:>5} {key:<9} {medians[key]:>9.3f} {rate:>9.0f} {ratio:>7.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
