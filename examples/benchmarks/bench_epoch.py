"""Cost of one training epoch against a bare loop.

What the library puts around a network (reading images, uint8 to float, contrast
normalization, shuffling, bookkeeping of the loss) must cost little next to the network
itself. Measured is one epoch of DeepSVDD's default net on images of 28 pixels, as its
``fit`` runs it on uint8 images, against a loop written by hand over a float32 tensor that
has been normalized before: forward, loss, backward, step of Adam, and nothing else. The
bare loop keeps the channels of a pixel side by side, as image sources hold them; with
``--bare-layout contiguous`` it takes torch's default, which is slower on a CPU.

Both are timed in one run, one after the other and in changing order, so that other work
on the machine slows both. The figure is the median of the ratios of these pairs; it should
be at most 1.15 for either stage.

Run it as ``python examples/benchmarks/bench_epoch.py --n-threads 1``.
"""

import argparse
import statistics
import time

import numpy as np
import torch
from torch import nn

from skocc._engine.batches import ImageBatches, keep_on_device
from skocc._engine.training import train
from skocc._nets.lenet import LeNetDecoder, LeNetEncoder
from skocc._nets.normalization import ContrastNormalization
from skocc._ops.losses import hard_boundary_loss, reconstruction_loss, squared_distance
from skocc._samples.sources import ArrayImages

IN_SHAPE, LATENT_DIM, WIDTHS = (1, 28, 28), 32, (8, 4)


def make_encoder():
    return LeNetEncoder(IN_SHAPE, LATENT_DIM, WIDTHS)


def make_autoencoder():
    return nn.Sequential(make_encoder(), LeNetDecoder(IN_SHAPE, LATENT_DIM, WIDTHS))


def adam(module):
    return torch.optim.Adam(module.parameters(), lr=1e-4, weight_decay=1e-6)


def make_images(n_images, device, layout):
    """Return a source of uint8 images, the same as a ready tensor, and what made it."""
    pixels = np.random.default_rng(0).integers(0, 256, (n_images, 28, 28, 1), np.uint8)
    normalize = ContrastNormalization(-3, 3).to(device)
    tensor = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(device, torch.float32)
    tensor = normalize(tensor / 255).to(memory_format=layout)
    return keep_on_device(ArrayImages(pixels), device), tensor, normalize


def encoder_stage(images, tensor, normalize, batch_size, layout):
    """Return one epoch of the one-class stage: the library's, and the bare loop."""
    center = torch.full((LATENT_DIM,), 0.1, device=tensor.device)
    network = nn.Sequential(normalize, make_encoder()).to(tensor.device)
    bare = make_encoder().to(tensor.device, memory_format=layout)
    return (
        library_epoch(
            network,
            lambda batch: hard_boundary_loss(squared_distance(network(batch), center)),
            images,
            batch_size,
            tensor.device,
        ),
        bare_epoch(
            bare,
            lambda batch: ((bare(batch) - center) ** 2).sum(dim=1).mean(),
            tensor,
            batch_size,
        ),
    )


def autoencoder_stage(images, tensor, normalize, batch_size, layout):
    """Return one epoch of the autoencoder's stage: the library's, and the bare loop."""
    network = make_autoencoder().to(tensor.device)
    bare = make_autoencoder().to(tensor.device, memory_format=layout)

    def loss_fn(batch):
        batch = normalize(batch)
        return reconstruction_loss(network(batch), batch)

    return (
        library_epoch(network, loss_fn, images, batch_size, tensor.device),
        bare_epoch(
            bare,
            lambda batch: ((bare(batch) - batch) ** 2).flatten(1).sum(dim=1).mean(),
            tensor,
            batch_size,
        ),
    )


def library_epoch(module, loss_fn, images, batch_size, device):
    batches = ImageBatches(
        images, batch_size, device=device, generator=torch.Generator().manual_seed(0)
    )
    optimizer = adam(module)
    return lambda: train(module, loss_fn, batches, optimizer=optimizer, n_epochs=1)


def bare_epoch(module, loss_fn, tensor, batch_size):
    optimizer = adam(module)
    module.train()

    def epoch():
        for indices in torch.randperm(len(tensor), device=tensor.device).split(batch_size):
            optimizer.zero_grad()
            loss = loss_fn(tensor[indices])
            loss.backward()
            optimizer.step()

    return epoch


def seconds(function, device):
    start = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def compare(first, second, n_repeats, device):
    """Return the times of two functions, called in turns after one call to warm up."""
    first(), second()
    times = []
    for repeat in range(n_repeats):
        if repeat % 2:
            b = seconds(second, device)
            a = seconds(first, device)
        else:
            a = seconds(first, device)
            b = seconds(second, device)
        times.append((a, b))
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--n-images", type=int, default=6000)
    parser.add_argument("--batch-size", type=int, default=200)
    parser.add_argument("--n-repeats", type=int, default=15)
    parser.add_argument("--n-threads", type=int, help="threads of torch")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--bare-layout", choices=("channels_last", "contiguous"), default="channels_last"
    )
    arguments = parser.parse_args()
    if arguments.n_threads:
        torch.set_num_threads(arguments.n_threads)
    device = torch.device(arguments.device)

    torch.manual_seed(0)
    layout = torch.channels_last
    if arguments.bare_layout == "contiguous":
        layout = torch.contiguous_format
    images, tensor, normalize = make_images(arguments.n_images, device, layout)

    print(f"{arguments.n_images} images, {torch.get_num_threads()} thread(s), {device}")
    print(f"{'stage':<12} {'skocc (s)':>10} {'bare (s)':>10} {'ratio':>7}   quartiles")
    for stage in (encoder_stage, autoencoder_stage):
        library, bare = stage(images, tensor, normalize, arguments.batch_size, layout)
        times = compare(library, bare, arguments.n_repeats, device)
        ratios = [a / b for a, b in times]
        low, ratio, high = np.percentile(ratios, (25, 50, 75))
        print(
            f"{stage.__name__.removesuffix('_stage'):<12} "
            f"{statistics.median(a for a, _ in times):>10.3f} "
            f"{statistics.median(b for _, b in times):>10.3f} "
            f"{ratio:>7.3f}   {low:.2f}-{high:.2f}"
        )


if __name__ == "__main__":
    main()
