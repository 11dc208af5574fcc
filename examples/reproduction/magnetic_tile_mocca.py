r"""MOCCA on magnetic tiles: AUROC of images and of pixels, and the paper's table of layers.

Trains on random patches of the 400 tiles in ``train/good``, scores the grid of patches of
the whole test set, and adds a line to ``--output``::

    python examples/reproduction/magnetic_tile_mocca.py --output rows.csv
    python examples/reproduction/magnetic_tile_mocca.py --output rows.csv \
        --set normalization=local_contrast pretrain_n_epochs=10 n_epochs=14

``--published`` takes what the paper has for textures: images of 512 pixels, rotated by up
to 45 degrees, patches of 64 and a step size of 1e-3; ``--objects`` what it has for objects,
whole images of 128 pixels. ``--set layers=-1,`` is Deep SVDD on patches.

``--layer-sets`` trains each of several sets of layers, with each of ``--boundaries``, from
one autoencoder (Table VII)::

    python examples/reproduction/magnetic_tile_mocca.py --published --output layers.csv \
        --boundaries hard soft --layer-sets 6 5,6 4,5,6 3,4,5,6 2,3,4,5,6 1,2,3,4,5,6 \
        0,1,2,3,4,5,6

The folder is ``magnetic_tile`` in ``--data``, by default the folder that the environment
variable SKOCC_DATA names.
"""

import argparse
import copy
from pathlib import Path

import torch
from tiles import add_arguments, add_row, layer_set, measure, parameter

from skocc import MOCCA
from skocc.datasets import load_mvtec_layout

BASES = {
    "tiles": {
        "image_size": 256, "patch_size": 32, "milestones": (), "pretrain_milestones": (),
    },
    "published": {
        "image_size": 512, "patch_size": 64, "learning_rate": 1e-3,
        "rotation_range": (0, 45),
    },
    "objects": {"image_size": 128, "learning_rate": 1e-3},
}  # fmt: skip


def detectors(options, params):
    """Yield the detectors to fit and measure, which may share a fitted autoencoder."""
    if not options.layer_sets:
        yield MOCCA(**params)
        return
    tiles = load_mvtec_layout(Path(options.data) / "magnetic_tile")
    pretrained = MOCCA(**{**params, "n_epochs": 0, "warm_start": True})
    pretrained.fit(tiles.train_paths[: options.n_train])
    n_epochs = params.get("n_epochs", MOCCA().n_epochs)
    for boundary in options.boundaries:
        for layers in options.layer_sets:
            detector = copy.deepcopy(pretrained)
            yield detector.set_params(boundary=boundary, layers=layers, n_epochs=n_epochs)


def run(options):
    """Fit, score, print and write."""
    base, changed = options.base or "tiles", dict(options.set)
    params = {**BASES[base], **changed, "random_state": options.seed}
    params |= {"device": options.device, "verbose": options.verbose}
    setting = ", ".join([base, *(f"{name}={value}" for name, value in changed.items())])
    for detector in detectors(options, params):
        row = measure(detector, options.data, setting, n_train=options.n_train)
        layers = "+".join(str(layer) for layer in detector.layers_)
        row |= {"layers": layers, "boundary": detector.boundary}
        add_row(options.output, row)
        print(f"loss {detector.loss_curve_[-1:]}, radii {detector.radii_.round(3)}")


def main():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--published", dest="base", action="store_const", const="published")
    parser.add_argument("--objects", dest="base", action="store_const", const="objects")
    parser.add_argument(
        "--set", type=parameter, nargs="+", default=[], metavar="NAME=VALUE",
        help="parameters of MOCCA, such as boundary=hard layers=4,5,6",
    )  # fmt: skip
    parser.add_argument("--layer-sets", type=layer_set, nargs="+")
    parser.add_argument("--boundaries", nargs="+", default=["hard", "soft"])
    parser.add_argument("--n-train", type=int, help="tiles to fit on; default all")
    parser.add_argument("--n-threads", type=int)
    options = parser.parse_args()
    if options.n_threads:
        torch.set_num_threads(options.n_threads)
    run(options)


if __name__ == "__main__":
    main()
