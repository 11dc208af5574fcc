r"""MOCCA on magnetic tiles as textures: AUROC of images and of pixels.

Trains on random patches of the 400 tiles in ``train/good``, scores the grid of patches of
the whole test set, and adds a line to ``--output``::

    python examples/reproduction/magnetic_tile_mocca.py --output rows.csv
    python examples/reproduction/magnetic_tile_mocca.py --patch-size 32 --size 256 \
        --normalization local_contrast --output rows.csv

``--published`` takes size and patches of the paper, 512 and 64 pixels, and its step size.
``--layers -1`` is Deep SVDD on patches. The folder is ``magnetic_tile`` in ``--data``, by
default the folder that the environment variable SKOCC_DATA names.
"""

import argparse

import torch
from tiles import add_arguments, add_row, measure

from skocc import MOCCA

# Parameters of MOCCA that have an option of the same name, which is the default where None.
NUMBERS = {
    "patch_size": int,
    "n_crops": int,
    "nu": float,
    "warm_up_n_epochs": int,
    "embedding_dim": int,
    "pretrain_n_epochs": int,
    "pretrain_learning_rate": float,
    "n_epochs": int,
    "learning_rate": float,
    "batch_size": int,
}
CHOICES = {
    "boundary": ["soft", "hard"],
    "distance": ["sqeuclidean", "euclidean"],
    "backbone": ["lenet", "residual", "plain_residual"],
    "normalization": ["gcn", "symmetric", "local_contrast"],
    "filter_init": ["random", "dictionary"],
}


def make(options):
    """Return the detector and what sets this row apart from others."""
    params = {"patch_size": 32, "milestones": (), "pretrain_milestones": ()}
    if options.published:
        params = {"patch_size": 64, "learning_rate": 1e-3}
    for name in [*NUMBERS, *CHOICES, "layers", "milestones", "pretrain_milestones"]:
        if getattr(options, name) is not None:
            value = getattr(options, name)
            params[name] = tuple(value) if isinstance(value, list) else value
    setting = ", ".join(f"{name}={value}" for name, value in params.items() if value != ())
    detector = MOCCA(
        image_size=options.size or (512 if options.published else 256),
        device=options.device,
        random_state=options.seed,
        verbose=options.verbose,
        **params,
    )
    return detector, setting


def main():
    """Read the command line, fit, score, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--size", type=int, help="pixels a side; default 256")
    parser.add_argument("--published", action="store_true", help="sizes of the paper")
    parser.add_argument("--layers", type=int, nargs="+")
    parser.add_argument("--milestones", type=int, nargs="*")
    parser.add_argument("--pretrain-milestones", type=int, nargs="*")
    for name, kind in NUMBERS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind)
    for name, choices in CHOICES.items():
        parser.add_argument(f"--{name.replace('_', '-')}", choices=choices)
    parser.add_argument("--n-threads", type=int)
    options = parser.parse_args()
    if options.n_threads:
        torch.set_num_threads(options.n_threads)
    detector, setting = make(options)
    add_row(options.output, measure(detector, options.data, setting))
    print(f"loss {detector.loss_curve_[-1:]}, radii {detector.radii_.round(3)}", flush=True)


if __name__ == "__main__":
    main()
