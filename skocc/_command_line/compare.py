"""The command that compares detectors on a folder, and writes a page about them."""

import argparse
import csv
import shlex
from pathlib import Path

import numpy as np

import skocc
from skocc._base.versions import installed_versions
from skocc._command_line.folders import (
    check_destination,
    normal_files,
    path_argument,
    say,
)
from skocc.datasets import load_image_folder, load_mvtec_layout
from skocc.model_selection import OneClassSplit, classical_detectors, compare
from skocc.plotting._page import check_matplotlib, page_of

# Detectors that are compared, with budgets of a minute or two for a hundred images on two
# cores. The first take features of a pretrained network, of images in the full size; the
# others are trained from the start, on images that are smaller by a factor.
_ON_FEATURES = {
    "ResNetKNN": {
        "pooling": "locally_aware",
        "embedding_dim": 256,
        "max_bank_bytes": 2**23,
    },
    "FeatureCAE": {"n_epochs": 15, "latent_dim": 50},
}
_FROM_THE_START = {
    "PatchSVDD": (
        2,
        {
            "patch_size": 32, "strides": (8, 8), "normalization": "local_contrast",
            "n_epochs": 4, "n_pairs": 64, "max_bank_bytes": 2**22,
        },
    ),
    "MOCCA": (
        2,
        {
            "patch_size": 32, "n_crops": 4, "pretrain_n_epochs": 10, "n_epochs": 15,
            "warm_up_n_epochs": 5, "milestones": (), "pretrain_milestones": (),
        },
    ),
    "ConvAE": (2, {"n_epochs": 5, "n_augmented": 200}),
    "DeepSVDD": (
        4,
        {
            "batch_size": 32, "pretrain_n_epochs": 30, "n_epochs": 30, "milestones": (),
            "pretrain_milestones": (),
        },
    ),
    "DataSplitOCC": (4, {"batch_size": 32, "pretrain_n_epochs": 20, "n_epochs": 15}),
}  # fmt: skip
_CLASSICAL = ("OneClassSVM", "IsolationForest", "LocalOutlierFactor", "EllipticEnvelope")
_METHODS = (*_ON_FEATURES, *_FROM_THE_START, *_CLASSICAL)
# Networks that are trained from the start need patches, and poolings, to fit in.
_SMALLEST_IMAGE = 64
# Worst misses and false alarms that are drawn.
_N_EXAMPLES = 8


def add_compare(commands):
    compare = commands.add_parser(
        "compare", help="compare detectors on a folder, and write a page about them"
    )
    compare.add_argument(
        "folder",
        type=path_argument,
        help="normal images, and anomalous ones if there are some: in the layout of MVTec "
        "AD, or in folders named by --normal. Without anomalies, some are made",
    )
    for name, what in [
        ("--normal", "folder, or pattern, within it of the normal images"),
        ("--anomalous", "those of the anomalous ones (default: all other folders)"),
        ("--masks", "folder within it of the masks of defects"),
    ]:
        compare.add_argument(name, metavar="NAME", help=what)
    compare.add_argument(
        "--methods",
        type=_methods,
        default=_METHODS,
        metavar="NAME,NAME",
        help=f"detectors to compare: {', '.join(_METHODS)} (default: all)",
    )
    _add_networks(compare)
    compare.add_argument(
        "--n-train", type=int, metavar="N", help="train on N normal images, drawn at random"
    )
    compare.add_argument("--seed", type=int, default=0, help="of everything (default: 0)")
    compare.add_argument("--device", help="where to compute (default: the fastest)")
    compare.add_argument(
        "--output", type=path_argument, required=True, help="HTML page to write"
    )
    compare.add_argument(
        "--table", type=path_argument, help="CSV file to write the table to"
    )
    compare.add_argument(
        "--directory",
        type=path_argument,
        help="folder that keeps the results of each detector, by which the same command "
        "goes on (default: the output with .kept behind it)",
    )
    compare.set_defaults(run=_compare)


def _add_networks(compare):
    compare.add_argument(
        "--image-size",
        type=int,
        default=256,
        metavar="PIXELS",
        help="that images are resized to; networks that are trained from the start get a "
        "half or a quarter of it (default: 256)",
    )
    compare.add_argument(
        "--backbone",
        default="resnet18",
        metavar="NAME",
        help="network for detectors on features: a name of torchvision, or timm/ and a "
        "name of timm (default: resnet18)",
    )
    compare.add_argument(
        "--weights",
        default="imagenet",
        metavar="FILE",
        help="its weights: imagenet, which torchvision or timm downloads; offline, those "
        "of the extra skocc[offline] for timm/tf_efficientnet_lite0; a file of a state "
        "dict; or none (default: imagenet)",
    )
    compare.add_argument(
        "--budget",
        type=float,
        default=1.0,
        metavar="FACTOR",
        help="what epochs are multiplied by (default: 1)",
    )


def _methods(text):
    """Return names of detectors, in words."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    unknown = [name for name in names if name not in _METHODS]
    if unknown or not names:
        raise argparse.ArgumentTypeError(
            f"names out of {', '.join(_METHODS)} expected, got {text!r}"
        )
    return names


def _compare(options):
    # What is missing is said before anything is fitted.
    check_matplotlib()
    is_word = options.weights in ("imagenet", "offline", "none")
    if not is_word and not Path(options.weights).is_file():
        raise ValueError(
            f"There is no file of weights. Got --weights {options.weights!r}. Name a file, "
            "or pass imagenet, offline or none."
        )
    images = _images_to_compare(options)
    for destination in filter(None, (options.output, options.table)):
        check_destination(destination, *images["X"])
    kept = options.directory or options.output.with_name(options.output.name + ".kept")
    detectors = _detectors(options, n_train=len(images["cv"][0][0]))
    comparison = compare(
        detectors,
        **images,
        n_examples=_N_EXAMPLES,
        directory=kept,
        random_state=options.seed,
        verbose=1,
    )
    content = page_of(
        comparison,
        title=f"Detectors of anomalies, compared on {options.folder.resolve().name}",
        detectors=detectors,
        command=_command_of(options),
        versions=installed_versions(),
    )
    options.output.write_bytes(content)
    if options.table is not None:
        _write_table(options.table, comparison.table)
    say(
        f"{str(options.output)!r}: {len(detectors)} detectors, {len(content) / 2**20:.1f} "
        f"MiB; best: {comparison.best}"
    )
    if comparison.best is None:
        raise ValueError(
            f"All detectors failed. Got of the first: {comparison.table['error'][0]}"
        )


def _images_to_compare(options):
    """Return the arguments of `compare` that are images, labels, masks and a split."""
    folder, rng = options.folder, np.random.default_rng(options.seed)
    named = (options.normal, options.anomalous, options.masks)
    is_named = any(name is not None for name in named)
    if not is_named and all((folder / part).is_dir() for part in ("train/good", "test")):
        tiles = load_mvtec_layout(folder)
        train = tiles.train_paths
        train = [train[i] for i in _draw(len(train), options.n_train, rng)]
        n_train, n = len(train), len(train) + len(tiles.test_paths)
        return {
            "X": train + tiles.test_paths,
            "y": np.concatenate([np.repeat("good", n_train), tiles.test_defects]),
            "masks": [None] * n_train + tiles.test_masks if any(tiles.test_masks) else None,
            "cv": [(np.arange(n_train), np.arange(n_train, n))],
        }
    if not is_named:
        X, y, masks = normal_files(folder, None), None, None
    else:
        arguments = dict(zip(("normal", "anomalous", "masks"), named, strict=True))
        found = load_image_folder(folder, **arguments)
        X, y = found.paths, found.defects
        masks = found.masks if any(found.masks) else None
    ((train, test),) = OneClassSplit(random_state=options.seed).split(X, y)
    train = train[_draw(len(train), options.n_train, rng)]
    return {"X": X, "y": y, "masks": masks, "cv": [(train, test)]}


def _draw(n, n_wanted, rng):
    """Return sorted indices of some of the n normal images, or of all."""
    if n_wanted is None:
        return np.arange(n)
    if not 2 <= n_wanted <= n:
        raise ValueError(
            f"--n-train must be a number of the {n} normal images to train on, at least 2. "
            f"Got {n_wanted}. Leave it out to train on all."
        )
    return np.sort(rng.permutation(n)[:n_wanted])


def _detectors(options, n_train):
    """Return the detectors that are compared, by name, with parameters of small budgets."""
    shared = {"device": options.device}
    # Random weights were trained on nothing, and any scale of the pixels is as good.
    is_random = options.weights == "none"
    features = shared | {
        "backbone": options.backbone,
        "weights": None if is_random else options.weights,
        "image_size": options.image_size,
        "normalization": "imagenet" if is_random else "weights",
    }
    classical = {}
    if set(options.methods) & set(_CLASSICAL):
        classical = classical_detectors(
            features=skocc.feature_extraction.DeepFeatures(**features),
            # Of fewer samples than four a component, no covariance can be estimated well.
            n_components=max(1, min(32, n_train // 4)),
            random_state=options.seed,
        )
        # As many as there are at most, of which the detector would warn.
        n_neighbors = max(1, min(20, n_train - 1))
        classical["LocalOutlierFactor"][0].set_params(detector__n_neighbors=n_neighbors)
    detectors = {}
    for name in options.methods:
        if name in _CLASSICAL:
            detectors[name] = classical[name][0]
            continue
        if name in _ON_FEATURES:
            params = features | _ON_FEATURES[name]
        else:
            factor, params = _FROM_THE_START[name]
            size = max(_SMALLEST_IMAGE, options.image_size // factor)
            params = shared | params | {"image_size": size}
        for stage in ("n_epochs", "pretrain_n_epochs", "warm_up_n_epochs"):
            if stage in params:
                params[stage] = max(1, round(options.budget * params[stage]))
        detectors[name] = getattr(skocc, name)(**params, random_state=options.seed)
    return detectors


def _command_of(options):
    """Return the command, without the names of folders, which say who ran it and where."""
    words = ["python -m skocc compare", shlex.quote(options.folder.resolve().name)]
    for name in ("normal", "anomalous", "masks", "image_size", "backbone", "weights",
                 "budget", "n_train", "seed", "device"):  # fmt: skip
        value = getattr(options, name)
        if value is not None:
            value = Path(value).name if name == "weights" else str(value)
            words.append(f"--{name.replace('_', '-')} {shlex.quote(value)}")
    if options.methods != _METHODS:
        words.append(f"--methods {','.join(options.methods)}")
    return " ".join([*words, f"--output {shlex.quote(options.output.name)}"])


def _write_table(path, table):
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(table)
        for row in zip(*(table[name] for name in table), strict=True):
            cells = (f"{cell:.4g}" if isinstance(cell, float) else cell for cell in row)
            writer.writerow("" if cell in ("nan", None) else cell for cell in cells)
