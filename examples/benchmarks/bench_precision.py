"""Mixed precision, memory layout and data on the device: what pays on a GPU.

``train(..., mixed_precision=True)`` computes in bfloat16 where torch holds that to be safe.
That speeds up large convolutions and costs conversions, so that small nets may lose. This
script times an epoch of the one-class stage in either precision, for the LeNets and for
ResNet18 at 64 and 224 pixels, so that somebody with a GPU can decide where it pays.

Batches arrive with the channels last, as images are stored. Each variant is also run with
them laid out channels first, torch's default, and with the images in host memory, copied
batch by batch, against images kept on the device (``keep_on_device``), as ``fit`` does.

All variants of a net run in turns; given are the medians, and the median of the ratios to
the first, float32 with the images kept on the device. The nets start from random weights.
Without CUDA the script says so and ends; ``--device cpu --quick`` runs all of its code on
few images, but its figures mean nothing.
"""

import argparse
import statistics
import time

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


def seconds(function, device):
    start = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batch-size", type=int, default=128)
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
    batch_size = 8 if arguments.quick else arguments.batch_size
    n_repeats = 1 if arguments.quick else arguments.n_repeats

    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    print(f"{'net':<13} {'variant':<25} {'epoch (s)':>10} {'images/s':>9} {'ratio':>6}")
    for net in NETS:
        name, _, n_channels, side, n_images = net
        n_images = 2 * batch_size if arguments.quick else n_images
        pixels = rng.integers(0, 256, (n_images, side, side, n_channels), dtype=np.uint8)
        epochs = {
            variant[0]: make_epoch(net, variant, pixels, batch_size, device)
            for variant in VARIANTS
        }
        for epoch in epochs.values():
            epoch()
        rounds = [
            {variant: seconds(epoch, device) for variant, epoch in epochs.items()}
            for _ in range(n_repeats)
        ]
        for variant in epochs:
            median = statistics.median(times[variant] for times in rounds)
            ratio = statistics.median(
                times[variant] / times[VARIANTS[0][0]] for times in rounds
            )
            print(
                f"{name:<13} {variant:<25} {median:>10.3f} {n_images / median:>9.0f} "
                f"{ratio:>6.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
