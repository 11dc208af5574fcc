"""Cost of a training epoch against a bare loop, of every trained method and stage.

What the library puts around a network (reading uint8 images, normalizing each, shuffling,
private random numbers, bookkeeping of losses) must cost little next to the network itself.
An epoch is the call of ``train`` that ``fit`` makes, caught there with its network, loss,
batches, optimizer and stopping rule. The bare loop is what one would write by hand for the
same network and optimizer, over a float32 tensor that is ready and normalized: forward,
loss, backward, step, and the pass over held-out images where the method has one. It keeps
the channels of a pixel side by side, images and weights alike; ``--bare-layout contiguous``
takes torch's default, which is slower on a CPU.

Both are timed in one run, one after the other and in changing order. On one thread, times
are those of the processor, which other processes of the machine change little. The figure
is the median of the ratios of these pairs, of which the range is given too; it should be at
most 1.10 for every stage.

Run it as ``python examples/benchmarks/bench_epoch.py``; ``--quick`` runs all of its code on
few images, and its figures mean nothing.
"""

import argparse
import copy
import statistics
import time
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from torch.nn import functional

import skocc
from skocc._base import trained
from skocc._engine import training
from skocc._engine.batches import InTurn
from skocc._engine.seeding import seeded

DIRECTIONS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))


class Caught(Exception):
    """Ends a fit at the stage that is measured, and holds the arguments of `train`."""

    def __init__(self, module, loss_fn, batches, **options):
        self.module, self.loss_fn, self.batches = module, loss_fn, batches
        self.options = options


def catch(detector, images, n_stages_before):
    """Fit until the stage after `n_stages_before` others; return what it trains with."""
    stages, attributes = [], {}

    def train(*args, **options):
        stages.append(args)
        if len(stages) > n_stages_before:
            attributes.update(vars(detector))
            raise Caught(*args, **options)
        return original(*args, **options)

    original = training.train
    with patch.object(training, "train", train), patch.object(trained, "train", train):
        try:
            detector.fit(images)
        except Caught as caught:
            # A fit that fails takes back what it has set.
            vars(detector).update(attributes)
            caught.detector = detector
            return caught
    raise RuntimeError(f"{detector} has no more than {len(stages)} stages")


# Bare losses: from a network and the detector to a function of a batch.


def autoencoder_loss(network, detector):
    return lambda batch: ((network(batch) - batch) ** 2).flatten(1).sum(dim=1).mean()


def cell_loss(network, detector):
    return lambda batch: ((network(batch) - batch) ** 2).mean()


def inner_loss(network, detector):
    def loss_fn(batch):
        height, width = batch.shape[2:]
        top, side = detector._borders()
        inside = (
            slice(None),
            slice(None),
            slice(top, height - top),
            slice(side, width - side),
        )
        return ((network(batch)[inside] - batch[inside]) ** 2).mean()

    return loss_fn


def augmented_loss(network, detector):
    from torchvision.transforms import v2

    size, loss_fn = detector.image_shape_[:2], inner_loss(network, detector)
    shifted = v2.RandomAffine(
        0, (0.04, 0.04), (0.95, 1.05), interpolation=v2.InterpolationMode.BILINEAR
    )
    turns = [v2.Lambda(lambda x, k=k: torch.rot90(x, k, dims=(-2, -1))) for k in (1, 2, 3)]
    vary = v2.Compose(
        [
            v2.RandomHorizontalFlip(),
            v2.RandomApply(
                [v2.Pad(6, padding_mode="edge"), shifted, v2.CenterCrop(size)], p=0.75
            ),
            v2.RandomApply([v2.RandomChoice(turns)], p=0.75),
            v2.GaussianBlur(3, sigma=(0.01, 0.05)),
        ]
    )

    def augmented(batch):
        return laid_out(torch.stack([vary(x) for x in batch]), torch.channels_last)

    return lambda batch: loss_fn(augmented(batch) if network.training else batch)


def sphere_loss(network, detector):
    encoder, center = network.encoder, like(network, detector.center_)
    return lambda batch: ((encoder(batch) - center) ** 2).sum(dim=1).mean()


def spheres_loss(network, detector):
    centers = [like(network, center) for center in detector.centers_]
    radii = [center.new_zeros(()) for center in centers]

    def loss_fn(batch):
        if "decoder" in network:
            codes, features = network.encoder.codes_and_features(batch, detector.layers_)
            loss = ((network.decoder(codes) - batch) ** 2).flatten(1).sum(dim=1).mean()
        else:
            features, loss = network.encoder.layer_features(batch, detector.layers_), 0
        for j, (z, center) in enumerate(zip(features, centers, strict=True)):
            d = ((z - center) ** 2).sum(dim=1)
            outside = torch.relu(d - radii[j] ** 2).mean() / detector.nu
            loss = loss + (radii[j] ** 2 + outside) / len(centers)
            radii[j] = torch.quantile(d.detach().sqrt(), 1 - detector.nu)
        return loss

    return loss_fn


def patches_loss(network, detector):
    encoder, noise = network.encoder, detector.noise
    is_dense, cell = detector.sampling == "dense", 2 if detector.sampling == "dense" else 1
    directions = torch.tensor(DIRECTIONS)

    def noisy(images):
        shift = torch.randn((*images.shape[:2], 1, 1), device=images.device)
        return images + noise * (shift + torch.randn_like(images))

    def embed(scale, images, image, cells, view=None):
        rows, columns = cells.to(image.device).unbind(dim=1)
        if is_dense:
            return scale.pick(images[view or 0], image, rows, columns)
        side = scale.patch_size
        patches = images.unfold(2, side, 1).unfold(3, side, 1)[image, :, rows, columns]
        patches = patches if view is None else noisy(patches)
        return scale(patches.to(memory_format=torch.channels_last))

    def loss_fn(images):
        image = torch.arange(len(images), device=images.device)
        image, loss = image.repeat_interleave(detector.n_pairs), 0.0
        if is_dense:
            side = 2 * detector.patch_size
            starts = torch.randint(images.shape[2] - side + 1, (len(images), 2)).tolist()
            crops = torch.stack(
                [
                    x[:, i : i + side, j : j + side]
                    for x, (i, j) in zip(images, starts, strict=True)
                ]
            )
            views = torch.cat([noisy(crops), noisy(crops)])
            images = encoder.base_map(views.to(memory_format=torch.channels_last)).chunk(2)
        for scale, classify in (
            (encoder.enc, network.classify_small),
            (encoder, network.classify_big),
        ):
            size, n = scale.patch_size // cell, len(image)
            if is_dense:
                last = torch.tensor(scale.map_size(images[0])) - 1
            else:
                last = torch.tensor(images.shape[2:]) - scale.patch_size
            which = torch.randint(8, (n,))
            far = 3 * size // 4 + torch.randint(max(1, size // 4), (n, 2))
            offset = directions[which] * far
            low, high = (-offset).clamp(min=0), torch.minimum(last, last - offset)
            cells = low + (torch.rand(n, 2) * (high - low + 1)).long()
            logits = classify(
                embed(scale, images, image, cells, 0),
                embed(scale, images, image, cells + offset, 1),
            )
            loss = loss + functional.cross_entropy(logits, which.to(image.device))
            offset = directions[torch.randint(8, (n,))] * max(1, size // 32)
            cells = (torch.rand(n, 2) * (last + 1)).long()
            others = torch.minimum((cells + offset).clamp(min=0), last)
            z, z_other = (embed(scale, images, image, c) for c in (cells, others))
            loss = loss + detector.svdd_weight * (z - z_other).norm(dim=1).mean()
        return loss

    return loss_fn


def turns_epoch(caught, pixels, network, optimizer):
    """Return the bare epoch of DataSplitOCC: typical, all and atypical images in turn."""
    size, typical = caught.detector.batch_size, torch.from_numpy(caught.detector.typical_)
    images, is_typical = pixels.to(typical.device), typical.to(pixels.device)
    kinds = [torch.nonzero(kind)[:, 0].to(pixels.device) for kind in (typical, ~typical)]

    def shuffled(indices):
        while True:
            yield from indices[torch.randperm(len(indices), device=indices.device)].split(
                size
            )

    def distance(indices):
        z = network["extractor"](images[indices])
        z = z[torch.randperm(len(z), device=z.device)]
        return network["distance"](z, z.roll(1, dims=0))

    def intra(indices):
        logits = network["classifier"](network["extractor"](images[indices]))[:, 0]
        target = (~is_typical[indices]).float()
        return functional.binary_cross_entropy_with_logits(logits, target)

    def epoch():
        streams = [shuffled(kind) for kind in kinds]
        for indices in torch.randperm(len(images), device=images.device).split(size):
            for loss_fn in (
                lambda: functional.softplus(distance(next(streams[0]))).mean(),
                lambda indices=indices: intra(indices),
                lambda: functional.softplus(-distance(next(streams[1]))).mean(),
            ):
                optimizer.zero_grad()
                loss_fn().backward()
                optimizer.step()

    return epoch


# What is normalized before a bare loop, by hand.


def contrast(batch):
    batch = batch - batch.mean(dim=(1, 2, 3), keepdim=True)
    batch = batch / batch.abs().mean(dim=(1, 2, 3), keepdim=True)
    return (batch - batch.min()) / (batch.max() - batch.min())


def symmetric(batch):
    return (batch - 0.5) / 0.5


def centered(batch):
    return colored(batch - batch.mean(dim=0))


def colored(batch):
    return batch.expand(-1, 3, -1, -1)


def as_it_is(batch):
    return batch


class Stage(NamedTuple):
    """A stage: a detector's class and parameters, its images, and its bare loop.

    `n_before` are the stages before it, `side` and `n_images` are of the images, whose
    number makes an epoch some tenths of a second.
    """

    detector: type
    params: dict
    n_before: int
    side: int
    n_images: int
    prepare: Any
    loss: Any = None  # None: DataSplitOCC, whose batches take turns
    n_frames: int = 0


RESIDUAL = {"backbone": "residual", "warm_up_n_epochs": 0, "batch_size": 32}
PATCHES = {"patch_size": 16, "sampling": "patches", "n_pairs": 8}
FEATURES = {"backbone": "resnet18", "weights": None, "image_size": None}
AUGMENTED = {"augmentation": True, "n_augmented": 160}
STAGES = {
    "DeepSVDD, autoencoder": Stage(
        skocc.DeepSVDD, {}, 0, 28, 1000, contrast, autoencoder_loss
    ),
    "DeepSVDD, one class": Stage(skocc.DeepSVDD, {}, 1, 28, 2000, contrast, sphere_loss),
    "MOCCA, autoencoder": Stage(skocc.MOCCA, {}, 0, 28, 1000, contrast, autoencoder_loss),
    "MOCCA, one class": Stage(
        skocc.MOCCA, {"warm_up_n_epochs": 0}, 1, 28, 2000, contrast, spheres_loss
    ),
    "MOCCA residual, autoencoder": Stage(
        skocc.MOCCA, RESIDUAL, 0, 64, 32, symmetric, autoencoder_loss
    ),
    "MOCCA residual, one class": Stage(
        skocc.MOCCA, RESIDUAL, 1, 64, 64, symmetric, spheres_loss
    ),
    "VideoMOCCA": Stage(
        skocc.VideoMOCCA, {"warm_up_n_epochs": 0}, 0, 32, 8, as_it_is, spheres_loss, 8
    ),
    "PatchSVDD, dense": Stage(
        skocc.PatchSVDD, {"patch_size": 16}, 0, 64, 16, centered, patches_loss
    ),
    "PatchSVDD, patches": Stage(
        skocc.PatchSVDD, PATCHES, 0, 64, 16, centered, patches_loss
    ),
    "DataSplitOCC, autoencoder": Stage(
        skocc.DataSplitOCC, {}, 0, 28, 128, as_it_is, autoencoder_loss
    ),
    "DataSplitOCC, classifier": Stage(skocc.DataSplitOCC, {}, 1, 28, 128, as_it_is),
    "FeatureCAE": Stage(skocc.FeatureCAE, FEATURES, 0, 64, 80, as_it_is, cell_loss),
    "ConvAE": Stage(skocc.ConvAE, {"augmentation": False}, 0, 64, 160, colored, inner_loss),
    "ConvAE, augmented": Stage(
        skocc.ConvAE, AUGMENTED, 0, 64, 160, colored, augmented_loss
    ),
}


def like(network, array):
    return torch.from_numpy(array).to(next(network.parameters()).device)


def laid_out(tensor, layout):
    """Return a tensor of images or weights, or clips as they are, in a layout."""
    return tensor.to(memory_format=layout) if tensor.dim() == 4 else tensor


def caught_stage(name, device, n_images=None):
    """Return what a stage trains with, and its images."""
    stage = STAGES[name]
    n_images = n_images or stage.n_images
    shape = (n_images, *[stage.n_frames] * (stage.n_frames > 0), stage.side, stage.side, 1)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    params = {"n_epochs": 1, "device": device, "random_state": 0, **stage.params}
    if "pretrain_n_epochs" in stage.detector._parameter_constraints:
        params["pretrain_n_epochs"] = 1
    if stage.n_frames:
        params["clip_length"] = stage.n_frames
    return catch(stage.detector(**params), pixels, stage.n_before), pixels


def library_epoch(caught, device, **options):
    """Return an epoch of the library, with other options of `train`."""
    options = {**caught.options, **options}

    def epoch():
        with seeded(0, device):
            training.train(caught.module, caught.loss_fn, caught.batches, **options)

    return epoch


def make_epochs(name, device, layout=torch.channels_last, n_images=None):
    """Return two functions, an epoch of the library and one of the bare loop."""
    stage = STAGES[name]
    caught, pixels = caught_stage(name, device, n_images)
    network, optimizer = copy.deepcopy((caught.module, caught.options["optimizer"]))
    for weight in network.parameters():
        weight.data = laid_out(weight.data, layout)
    if isinstance(caught.batches, InTurn):
        images = torch.from_numpy(pixels).movedim(-1, 1).to(device).float() / 255
        bare = turns_epoch(caught, laid_out(images, layout), network, optimizer)
    else:
        parts, stopping = [caught.batches], caught.options.get("stopping")
        if isinstance(stopping, training.EarlyStopping):
            parts.append(stopping.validation_batches)
        # The bare loop shuffles what the first pass has shuffled.
        parts = [laid_out(stage.prepare(torch.cat([*part])), layout) for part in parts]
        loss_fn = stage.loss(network, caught.detector)
        bare = bare_epoch(network, optimizer, loss_fn, caught.detector.batch_size, *parts)
    return library_epoch(caught, device), bare


def bare_epoch(network, optimizer, loss_fn, batch_size, images, held_out=None):
    kept = {"loss": float("inf")}

    def epoch():
        network.train()
        for indices in torch.randperm(len(images), device=images.device).split(batch_size):
            optimizer.zero_grad()
            loss_fn(images[indices]).backward()
            optimizer.step()
        if held_out is not None:
            network.eval()
            with torch.no_grad():
                losses = [loss_fn(b) * len(b) for b in held_out.split(batch_size)]
            loss = sum(losses).item()
            if loss < kept["loss"]:
                kept.update(loss=loss, state=copy.deepcopy(network.state_dict()))

    return epoch


def seconds(function, device):
    """Return the time that a call takes, of the processor if it is on one thread."""
    is_alone = device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if is_alone else time.perf_counter
    start = clock()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - start


def compare(first, second, n_pairs, device):
    """Return the times of two functions, called in turns after one call to warm up."""
    first(), second()
    times = []
    for index in range(n_pairs):
        if index % 2:
            b = seconds(second, device)
            a = seconds(first, device)
        else:
            a = seconds(first, device)
            b = seconds(second, device)
        times.append((a, b))
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", type=torch.device, default="cpu")
    parser.add_argument("--only", nargs="+", default=[*STAGES], choices=[*STAGES])
    parser.add_argument("--n-pairs", type=int, default=7)
    parser.add_argument("--n-threads", type=int, default=1, help="threads of torch")
    parser.add_argument(
        "--bare-layout", choices=("channels_last", "contiguous"), default="channels_last"
    )
    parser.add_argument("--quick", action="store_true", help="few images, one pair")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.n_threads)
    layout = torch.channels_last
    if arguments.bare_layout == "contiguous":
        layout = torch.contiguous_format
    print(
        f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, "
        f"{torch.get_num_threads()} thread(s), {arguments.device}"
    )
    header = f"{'stage':<28} {'skocc (s)':>10} {'bare (s)':>10} {'ratio':>7}   range"
    print(header, flush=True)
    for name in arguments.only:
        n_images = 10 if arguments.quick else None
        epochs = make_epochs(name, arguments.device, layout, n_images)
        times = compare(
            *epochs, 1 if arguments.quick else arguments.n_pairs, arguments.device
        )
        ratios = [a / b for a, b in times]
        print(
            f"{name:<28} {statistics.median(a for a, _ in times):>10.3f} "
            f"{statistics.median(b for _, b in times):>10.3f} "
            f"{statistics.median(ratios):>7.3f}   {min(ratios):.2f}-{max(ratios):.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
