"""Mixed precision, memory layout and data on the device: what pays on a GPU.

``train(..., mixed_precision=True)`` computes in bfloat16 where torch holds that to be safe.
That speeds up large convolutions and costs conversions, so that small nets may lose. This
script times an epoch of the one-class stage in either precision, for the LeNets and for
ResNet18 at 64 and 224 pixels, so that somebody with a GPU can decide where it pays.

Batches arrive with the channels last, as images are stored. Each variant is also run with
them laid out channels first, torch's default, and with the images in host memory, copied
batch by batch, against images kept on the device (``keep_on_device``), as ``fit`` does.

All variants of a net run in turns; given are the medians, and the median and the range of
the ratios to the first, float32 with the images kept on the device. The nets start from
random weights.

``--part methods`` does the same with an epoch of every trained method and stage, as ``fit``
runs it (see ``bench_epoch.py``), and ``--part compiled`` with two networks after
``torch.compile``: the first epoch, which compiles, and the following ones. On a CPU all is
measured on one thread, in the processor's time; compiling starts processes of its own, so
that it is timed by the clock.

Without CUDA the script says so and ends; ``--device cpu`` goes on. ``--quick`` runs all of
its code on few images, but its figures mean nothing.
"""

import argparse
import statistics
import time

import bench_epoch
import numpy as np
import torch
from torch import nn

from skocc._engine.batches import ImageBatches, keep_on_device
from skocc._engine.training import train
from skocc._nets.backbones import BackboneEncoder
from skocc._nets.lenet import LeNetEncoder, lenet_latent_dim, lenet_widths
from skocc._ops.losses import hard_boundary_loss, squared_distance
from skocc._samples.sources import ArrayImages

# Name, backbone, channels, pixels, images of an epoch.
NETS = (
    ("LeNet 28", None, 1, 28, 6000),
    ("LeNet 32", None, 3, 32, 6000),
    ("LeNet 64", None, 3, 64, 3000),
    ("LeNet 224", None, 3, 224, 1000),
    ("ResNet18 64", "resnet18", 3, 64, 3000),
    ("ResNet18 224", "resnet18", 3, 224, 1000),
)
# Name, mixed precision, channels first, images kept on the device.
VARIANTS = (
    ("float32", False, False, True),
    ("bfloat16", True, False, True),
    ("float32, channels first", False, True, True),
    ("bfloat16, channels first", True, True, True),
    ("float32, images on host", False, False, False),
    ("bfloat16, images on host", True, False, False),
)


def make_encoder(backbone, n_channels, side):
    if backbone is not None:
        return BackboneEncoder(backbone, weights=None)
    widths = lenet_widths(side, side)
    return LeNetEncoder((n_channels, side, side), lenet_latent_dim(widths), widths)


class ChannelsFirst(nn.Module):
    """A network that lays its input out in torch's default, the channels first."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, batch):
        """Apply the network."""
        return self.network(batch.contiguous())


def make_epoch(net, variant, pixels, batch_size, device):
    """Return a function that trains one epoch."""
    _, backbone, n_channels, side, _ = net
    _, mixed_precision, channels_first, resident = variant
    network = make_encoder(backbone, n_channels, side)
    network = (ChannelsFirst(network) if channels_first else network).to(device)
    images = ArrayImages(pixels)
    if resident:
        images = keep_on_device(images, device)
    batches = ImageBatches(
        images, batch_size, device=device, generator=torch.Generator().manual_seed(0)
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    return lambda: train(
        network,
        # The center only shifts the loss; zero serves as well as any for timing.
        lambda batch: hard_boundary_loss(squared_distance(network(batch), 0.0)),
        batches,
        optimizer=optimizer,
        n_epochs=1,
        mixed_precision=mixed_precision,
    )


def in_turns(epochs, n_repeats, device):
    """Yield the name, median seconds, and ratios to the first of functions in turns."""
    for epoch in epochs.values():
        epoch()
    rounds = [
        {name: bench_epoch.seconds(epoch, device) for name, epoch in epochs.items()}
        for _ in range(n_repeats)
    ]
    first = next(iter(epochs))
    for name in epochs:
        ratios = [times[name] / times[first] for times in rounds]
        yield name, statistics.median(times[name] for times in rounds), ratios


def nets(device, arguments):
    """Yield a line for each variant of each net."""
    rng = np.random.default_rng(0)
    for net in NETS:
        name, _, n_channels, side, n_images = net
        n_images = arguments.n_images or n_images
        pixels = rng.integers(0, 256, (n_images, side, side, n_channels), dtype=np.uint8)
        epochs = {
            variant[0]: make_epoch(net, variant, pixels, arguments.batch_size, device)
            for variant in VARIANTS
        }
        for line in in_turns(epochs, arguments.n_repeats, device):
            yield name, *line


def methods(device, arguments):
    """Yield a line for each precision of each stage of the trained methods."""
    for name in bench_epoch.STAGES:
        caught, _ = bench_epoch.caught_stage(name, device, arguments.n_images)
        epochs = {
            precision: bench_epoch.library_epoch(caught, device, mixed_precision=is_mixed)
            for precision, is_mixed in (("float32", False), ("bfloat16", True))
        }
        for line in in_turns(epochs, arguments.n_repeats, device):
            yield name, *line


def compiled(device, arguments):
    """Yield a line for two networks as they are and compiled, and for the compilation."""
    for name in ("DeepSVDD, one class", "ConvAE"):
        epochs = {}
        for kind in ("as it is", "compiled"):
            caught, _ = bench_epoch.caught_stage(name, device, arguments.n_images)
            epochs[kind] = bench_epoch.library_epoch(caught, device)
        caught.module.compile()
        start = time.perf_counter()
        epochs["compiled"]()
        yield name, "first epoch, which compiles", time.perf_counter() - start, [np.nan]
        for line in in_turns(epochs, arguments.n_repeats, device):
            yield name, *line


PARTS = {"nets": nets, "methods": methods, "compiled": compiled}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--part", nargs="+", default=["nets"], choices=[*PARTS])
    parser.add_argument("--batch-size", type=int, default=128, help="of the nets")
    parser.add_argument("--n-images", type=int, help="in place of the number of each")
    parser.add_argument("--n-repeats", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="few images, one repeat")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("No CUDA device: nothing to measure. Try --device cpu --quick for a dry run.")
        return
    if device.type == "cuda":
        print(f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}")
        print(f"TF32 in convolutions: {torch.backends.cudnn.allow_tf32}")
    else:
        torch.set_num_threads(1)
        capability = torch.backends.cpu.get_cpu_capability()
        print(f"torch {torch.__version__}, {capability}, one thread")
    if arguments.quick:
        arguments.n_images, arguments.batch_size, arguments.n_repeats = 16, 8, 1

    torch.manual_seed(0)
    print(f"{'net':<28} {'variant':<28} {'epoch (s)':>10} {'ratio':>6}   range")
    for part in arguments.part:
        for net, variant, median, ratios in PARTS[part](device, arguments):
            print(
                f"{net:<28} {variant:<28} {median:>10.3f} {statistics.median(ratios):>6.2f}"
                f"   {min(ratios):.2f}-{max(ratios):.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
