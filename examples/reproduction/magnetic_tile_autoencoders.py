r"""ConvAE and FeatureCAE on magnetic tiles: AUROC of images and of pixels.

Trains on the 400 tiles in ``train/good``, scores the whole test set, and adds a line to
``--output``::

    python examples/reproduction/magnetic_tile_autoencoders.py conv_ae --output rows.csv
    python examples/reproduction/magnetic_tile_autoencoders.py feature_cae --size 320 \
        --output rows.csv

The folder is ``magnetic_tile`` in ``--data``, by default the folder that the environment
variable SKOCC_DATA names. FeatureCAE takes ImageNet weights of MobileNetV2 from the file
``mobilenet_v2_imagenet.pt`` beside it, unless ``--weights`` says otherwise.
"""

import argparse
from pathlib import Path

from tiles import add_arguments, add_row, measure

import skocc


def make(options):
    """Return the detector and what sets this row apart from others."""
    shared = {
        "image_size": options.size,
        "device": options.device,
        "random_state": options.seed,
        "verbose": options.verbose,
    }
    for name in ("n_epochs", "batch_size"):
        if getattr(options, name) is not None:
            shared[name] = getattr(options, name)
    if options.method == "conv_ae":
        detector = skocc.ConvAE(
            reconstruction_metric=options.reconstruction_metric,
            rotations=options.rotations,
            n_augmented=options.n_augmented,
            checkpoint_dir=options.checkpoint_dir,
            **shared,
        )
        setting = f"{options.reconstruction_metric}, {options.n_augmented} copies an epoch"
        if not options.rotations:
            setting += ", no rotations"
        return detector, setting
    detector = skocc.FeatureCAE(
        backbone=options.backbone,
        weights=options.weights,
        layers=tuple(options.layers),
        normalization=options.normalization,
        interpolation=options.interpolation,
        latent_dim=options.latent_dim,
        score_normalization=options.score_normalization,
        memory=options.memory,
        **shared,
    )
    layers = " + ".join(options.layers)
    setting = f"{options.backbone}, {layers}, latent {options.latent_dim}"
    if options.interpolation != "average":
        setting += f", {options.interpolation}"
    if options.score_normalization is not None:
        setting += ", relative to the image's median"
    return detector, setting


def main():
    """Read the command line, fit, score, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("method", choices=["conv_ae", "feature_cae"])
    add_arguments(parser)
    parser.add_argument("--size", type=int, default=224, help="pixels a side")
    parser.add_argument("--n-epochs", type=int, help="at most; default of the class")
    parser.add_argument("--batch-size", type=int, help="default of the class")
    group = parser.add_argument_group("conv_ae")
    group.add_argument("--reconstruction-metric", default="mse", choices=["mse", "ssim"])
    group.add_argument("--n-augmented", type=int, default=1500)
    group.add_argument("--no-rotations", dest="rotations", action="store_false")
    group.add_argument("--checkpoint-dir", type=Path)
    group = parser.add_argument_group("feature_cae")
    group.add_argument("--backbone", default="mobilenet_v2")
    group.add_argument("--weights", help="file of a state dict, or imagenet")
    group.add_argument("--layers", nargs="+", default=["features.6", "features.13"])
    group.add_argument("--normalization", default="imagenet")
    group.add_argument("--interpolation", default="average")
    group.add_argument("--latent-dim", type=int, default=100)
    group.add_argument("--score-normalization", choices=["median"])
    group.add_argument("--memory", type=Path, help="folder that keeps the features")
    options = parser.parse_args()
    if options.weights is None:
        options.weights = options.data / "mobilenet_v2_imagenet.pt"

    detector, setting = make(options)
    row = measure(detector, options.data, setting)
    row |= {"batch": detector.batch_size, "epochs": len(detector.loss_curve_)}
    add_row(options.output, row)


if __name__ == "__main__":
    main()
