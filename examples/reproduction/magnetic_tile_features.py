"""ResNetKNN on magnetic tiles: AUROC of images and of pixels.

Fits on the 400 tiles in ``train/good``, scores the whole test set, and adds a line to
``--output``::

    python examples/reproduction/magnetic_tile_features.py --size 224 --output rows.csv
    python examples/reproduction/magnetic_tile_features.py --size 320 \
        --pooling locally_aware --embedding-dim 256 --output rows.csv
    python examples/reproduction/magnetic_tile_features.py --n-train 200 \
        --backbone timm/tf_efficientnet_lite0 --weights offline --normalization weights \
        --layers blocks.4

The folder is ``magnetic_tile`` in ``--data``, by default the folder that the environment
variable SKOCC_DATA names. The ImageNet weights of MobileNetV2 are the file
``mobilenet_v2_imagenet.pt`` beside it, unless ``--weights`` says otherwise.

Maps have the size of the resized images, and the masks are brought to it (nearest pixel).
The AUROC of pixels is over all pixels of all test images.
"""

import argparse
from pathlib import Path

from tiles import add_arguments, add_row, measure

from skocc import ResNetKNN


def parse_arguments():
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--size", type=int, default=224, help="pixels a side")
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--weights", help="file of a state dict, imagenet or offline")
    parser.add_argument("--n-train", type=int, help="train on the first N tiles alone")
    parser.add_argument("--layers", nargs="+", default=["features.6", "features.13"])
    parser.add_argument(
        "--normalization", default="imagenet", choices=["imagenet", "weights", "none"]
    )
    parser.add_argument(
        "--pooling", default="average", choices=["average", "locally_aware"]
    )
    parser.add_argument("--interpolation", default="average")
    parser.add_argument("--embedding-dim", type=int, default=1024)
    parser.add_argument("--neighbor-aggregation", default="min", choices=["min", "mean"])
    parser.add_argument("--n-neighbors", type=int, default=1)
    parser.add_argument("--reweighting", type=int)
    parser.add_argument("--score-normalization", choices=["median"])
    parser.add_argument("--smoothing", type=float, default=0.0)
    parser.add_argument("--subsampling", default="random", choices=["random", "coreset"])
    parser.add_argument("--bank-fraction", type=float, default=1.0)
    parser.add_argument(
        "--mirrored",
        action="store_true",
        help="put the training images in the bank mirrored, too: both ways and turned",
    )
    parser.add_argument("--memory", type=Path, help="folder that keeps the features")
    options = parser.parse_args()
    if options.weights is None:
        options.weights = options.data / "mobilenet_v2_imagenet.pt"
    return options


def make(options):
    """Return the detector and what sets this row apart from others."""
    normalization = None if options.normalization == "none" else options.normalization
    detector = ResNetKNN(
        backbone=options.backbone,
        weights=options.weights,
        layers=tuple(options.layers),
        normalization=normalization,
        pooling=options.pooling,
        interpolation=options.interpolation,
        embedding_dim=options.embedding_dim,
        n_neighbors=options.n_neighbors,
        neighbor_aggregation=options.neighbor_aggregation,
        subsampling=options.subsampling,
        bank_fraction=options.bank_fraction,
        reweighting=options.reweighting,
        score_normalization=options.score_normalization,
        smoothing=options.smoothing,
        memory=options.memory,
        image_size=options.size,
        device=options.device,
        random_state=options.seed,
        verbose=options.verbose,
    )
    setting = [" + ".join(options.layers)]
    if options.backbone != "mobilenet_v2":
        setting.insert(0, options.backbone)
    if options.n_train is not None:
        setting.append(f"{options.n_train} tiles")
    if normalization is None:
        setting.append("not normalized")
    if options.pooling == "locally_aware":
        setting.append(f"locally aware, {options.embedding_dim}")
    elif options.interpolation != "average":
        setting.append(options.interpolation)
    if options.neighbor_aggregation == "mean":
        setting.append(f"mean of {options.n_neighbors}")
    if options.reweighting is not None:
        setting.append(f"weighted by {options.reweighting}")
    if options.score_normalization is not None:
        setting.append("relative to the image's median")
    if options.smoothing:
        setting.append(f"smoothed by {options.smoothing:g}")
    if options.bank_fraction < 1:
        setting.append(f"bank {100 * options.bank_fraction:g} %, {options.subsampling}")
    if options.mirrored:
        setting.append("mirrored, too")
    return detector, ", ".join(setting)


def main():
    """Fit, score, print and write."""
    options = parse_arguments()
    detector, setting = make(options)
    row = measure(
        detector,
        options.data,
        setting,
        mirrored=options.mirrored,
        n_train=options.n_train,
    )
    add_row(options.output, row)


if __name__ == "__main__":
    main()
