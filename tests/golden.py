"""Scores of every class and branch, to be compared bit by bit between two checkouts.

``python -m tests.golden scores.npz`` writes them, ``python -m tests.golden a.npz b.npz``
says which differ. They are equal where a change means nothing: seeds, and the order of
draws, are part of what a version does. On another processor the last digits are others.

``python -m tests.golden --models FOLDER`` writes a model file of each case that has one,
and their scores. Those of 0.1 are in ``tests/models_0_1``.
"""

import lzma
import re
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn

import skocc
from skocc.feature_extraction import DeepFeatures
from tests.quick import quick

rng = np.random.default_rng(0)
bunch = load_digits()
DIGITS = (bunch.images / 16).astype(np.float32)
NORMAL, OTHERS = DIGITS[bunch.target == 0][:60], DIGITS[bunch.target != 0][:40]
COLOR = rng.random((12, 32, 32, 3)).astype(np.float32)
ROWS = rng.random((60, 10)).astype(np.float32)
CLIPS = rng.random((4, 4, 16, 16, 3)).astype(np.float32)
VIDEOS = [rng.random((n, 16, 16)).astype(np.float32) for n in (9, 12)]
FILES = rng.integers(0, 256, (12, 16, 12), dtype=np.uint8)
EIGHT, ROW, PICTURE = (NORMAL, OTHERS), (ROWS[:50], ROWS), (COLOR[:9], COLOR)


def small_module():
    """Return a network of somebody else's, with dropout, that takes images in color."""
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.2),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(),
    )  # fmt: skip
    for weight in network.parameters():
        weight.data.normal_(generator=generator)
    return network


def small_maps():
    """Return a network of somebody else's that gives maps."""
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential()
    for index, (n_in, n_out) in enumerate([(3, 6), (6, 8)]):
        network.add_module(f"conv{index}", nn.Conv2d(n_in, n_out, 3, 2, 1))
    for weight in network.parameters():
        weight.data.normal_(generator=generator)
    return network


TINY = {"backbone": "shufflenet_v2_x0_5", "weights": None, "image_size": 32}
RESIDUAL = {"backbone": "residual", "channels": (4, 4, 8, 8)}
PATCHES = {"patch_size": 8, "n_crops": 2}
CUT_CLIPS = {"clip_length": None, "embedding_dim": 8, "warm_up_n_epochs": 10}
# Attributes that are compared as well.
FITTED = re.compile(r"^(\w*loss_curves?|offset|train_scores|radius|radii|bank\w*)_$")
# Name of a case: class, parameters, images to fit on and to score.
CASES = {
    "DeepSVDD": ("DeepSVDD", {}, EIGHT),
    "DeepSVDD-soft": ("DeepSVDD", {"boundary": "soft", "warm_up_n_epochs": 1}, EIGHT),
    "DeepSVDD-soft-epoch": (
        "DeepSVDD",
        {"boundary": "soft", "warm_up_n_epochs": 0, "radius_update": "epoch"},
        EIGHT,
    ),
    "DeepSVDD-warm": ("DeepSVDD", {"warm_start": True}, EIGHT),
    "DeepSVDD-warm-soft": (
        "DeepSVDD",
        {"warm_start": True, "boundary": "soft", "warm_up_n_epochs": 1},
        EIGHT,
    ),
    "DeepSVDD-rows": ("DeepSVDD", {}, ROW),
    "DeepSVDD-rows-widths": ("DeepSVDD", {"channels": (9, 7), "embedding_dim": 5}, ROW),
    "DeepSVDD-dictionary": ("DeepSVDD", {"filter_init": "dictionary"}, EIGHT),
    "DeepSVDD-color": ("DeepSVDD", {"contamination": "auto"}, PICTURE),
    "DeepSVDD-widths": ("DeepSVDD", {"channels": (4, 6), "embedding_dim": 7}, PICTURE),
    "DeepSVDD-none": ("DeepSVDD", {"normalization": None}, EIGHT),
    "DeepSVDD-backbone": ("DeepSVDD", {**TINY, "normalization": "imagenet"}, PICTURE),
    "DeepSVDD-module": ("DeepSVDD", {"backbone": small_module}, PICTURE),
    "DeepSVDD-files": ("DeepSVDD", {"image_size": (10, 8)}, "files"),
    "MOCCA": ("MOCCA", {}, EIGHT),
    "MOCCA-soft": ("MOCCA", {"warm_up_n_epochs": 0}, EIGHT),
    "MOCCA-soft-epoch": (
        "MOCCA",
        {"warm_up_n_epochs": 1, "radius_update": "epoch", "distance": "euclidean"},
        EIGHT,
    ),
    "MOCCA-hard": ("MOCCA", {"boundary": "hard", "contamination": "auto"}, EIGHT),
    "MOCCA-layers": ("MOCCA", {"layers": (-1, 0), "filter_init": "dictionary"}, EIGHT),
    "MOCCA-warm": ("MOCCA", {"warm_start": True, "warm_up_n_epochs": 1}, EIGHT),
    "MOCCA-rows": ("MOCCA", {}, ROW),
    "MOCCA-rows-widths": ("MOCCA", {"channels": (9, 7), "embedding_dim": 5}, ROW),
    "MOCCA-residual": ("MOCCA", RESIDUAL, PICTURE),
    "MOCCA-residual-plain": (
        "MOCCA",
        {
            **RESIDUAL, "backbone": "plain_residual", "batch_norm": "frozen",
            "normalization": "gcn",
        },
        PICTURE,
    ),
    "MOCCA-patches": ("MOCCA", PATCHES, PICTURE),
    "MOCCA-patches-contrast": (
        "MOCCA",
        {**PATCHES, "normalization": "local_contrast"},
        PICTURE,
    ),
    "MOCCA-files": ("MOCCA", {"image_size": (10, 8)}, "files"),
    "VideoMOCCA": ("VideoMOCCA", CUT_CLIPS, (CLIPS, CLIPS[::-1])),
    "VideoMOCCA-videos": (
        "VideoMOCCA",
        {"clip_length": 4, "clip_stride": 2, "n_clips": 3, "embedding_dim": 8},
        (VIDEOS, VIDEOS[::-1]),
    ),
    "VideoMOCCA-no-reconstruction": (
        "VideoMOCCA",
        {
            "clip_length": None, "embedding_dim": 8, "warm_up_n_epochs": 5,
            "reconstruction_weight": 0.0, "boundary": "hard",
        },
        (CLIPS, CLIPS[::-1]),
    ),
    "VideoMOCCA-warm": (
        "VideoMOCCA",
        {**CUT_CLIPS, "warm_start": True, "warm_up_n_epochs": 0},
        (CLIPS, CLIPS[::-1]),
    ),
    "PatchSVDD": ("PatchSVDD", {}, EIGHT),
    "PatchSVDD-warm": ("PatchSVDD", {"warm_start": True}, EIGHT),
    "PatchSVDD-patches": ("PatchSVDD", {"sampling": "patches", "train_head": True}, EIGHT),
    "PatchSVDD-color": (
        "PatchSVDD",
        {"normalization": "local_contrast", "padding_mode": "reflect", "n_neighbors": 2},
        PICTURE,
    ),
    "PatchSVDD-coreset": (
        "PatchSVDD",
        {"subsampling": "coreset", "max_bank_bytes": 20_000, "svdd_weight": 0.0},
        EIGHT,
    ),
    "PatchSVDD-files": ("PatchSVDD", {"image_size": (16, 12)}, "files"),
    "DataSplitOCC": ("DataSplitOCC", {}, EIGHT),
    "DataSplitOCC-warm": ("DataSplitOCC", {"warm_start": True}, EIGHT),
    "DataSplitOCC-split": (
        "DataSplitOCC",
        {"objective": "split", "balanced": True, "reconstruction_metric": "mse"},
        EIGHT,
    ),
    "DataSplitOCC-naive": ("DataSplitOCC", {"objective": "naive"}, EIGHT),
    "DataSplitOCC-rows": ("DataSplitOCC", {"channels": None, "dropout": 0.3}, ROW),
    "DataSplitOCC-color": (
        "DataSplitOCC",
        {"latent_dim": "map", "reconstruction_metric": "ssim", "difference": "signed"},
        PICTURE,
    ),
    "DataSplitOCC-average": ("DataSplitOCC", {"weight_average": 0.9, "tol": 0.5}, EIGHT),
    "DataSplitOCC-backbone": ("DataSplitOCC", {**TINY, "image_size": None}, PICTURE),
    "DataSplitOCC-module": ("DataSplitOCC", {"backbone": small_module}, PICTURE),
    "DataSplitOCC-files": ("DataSplitOCC", {"image_size": (12, 12)}, "files"),
    "FeatureCAE": ("FeatureCAE", {}, EIGHT),
    "FeatureCAE-warm": ("FeatureCAE", {"warm_start": True}, EIGHT),
    "FeatureCAE-max": (
        "FeatureCAE",
        {
            "cell_aggregation": "max", "score_normalization": "median",
            "n_iter_no_change": 1,
        },
        PICTURE,
    ),
    "FeatureCAE-mean": (
        "FeatureCAE",
        {
            "cell_aggregation": "mean", "normalization": "imagenet",
            "max_feature_bytes": 0, "border": 1, "interpolation": "bilinear",
            "contamination": "auto",
        },
        PICTURE,
    ),
    "FeatureCAE-module": (
        "FeatureCAE",
        {"backbone": small_maps, "layers": ("conv0", "conv1")},
        PICTURE,
    ),
    "FeatureCAE-files": ("FeatureCAE", {"image_size": (16, 12)}, "files"),
    "ResNetKNN": ("ResNetKNN", {}, EIGHT),
    "ResNetKNN-mean": (
        "ResNetKNN",
        {"neighbor_aggregation": "mean", "n_neighbors": 3, "contamination": "auto"},
        PICTURE,
    ),
    "ResNetKNN-reweighting": (
        "ResNetKNN",
        {"reweighting": 3, "pooling": "locally_aware", "embedding_dim": 20},
        PICTURE,
    ),
    "ResNetKNN-coreset": (
        "ResNetKNN",
        {
            "subsampling": "coreset", "bank_fraction": 0.1, "smoothing": 2.0,
            "score_normalization": "median", "normalization": "imagenet",
        },
        PICTURE,
    ),
    "ResNetKNN-module": (
        "ResNetKNN",
        {"backbone": small_maps, "layers": ("conv0", "conv1")},
        PICTURE,
    ),
    "ResNetKNN-files": ("ResNetKNN", {"image_size": (16, 12)}, "files"),
    "ConvAE": ("ConvAE", {}, EIGHT),
    "ConvAE-warm": ("ConvAE", {"warm_start": True}, EIGHT),
    "ConvAE-augmentation": (
        "ConvAE",
        {"augmentation": True, "n_augmented": 24, "n_iter_no_change": 1},
        PICTURE,
    ),
    "ConvAE-ssim": (
        "ConvAE",
        {
            "reconstruction_metric": "ssim", "border": 2, "augmentation": True,
            "rotations": False,
        },
        PICTURE,
    ),
    "ConvAE-files": ("ConvAE", {"image_size": (16, 12)}, "files"),
    "DeepFeatures": (
        "DeepFeatures",
        {"layers": ("stage2", "stage3"), "normalization": "imagenet", **TINY},
        PICTURE,
    ),
}  # fmt: skip


def made(name):
    """Return the unfitted estimator of a case."""
    class_name, params, _ = CASES[name]
    params = {k: v() if callable(v) else v for k, v in params.items()}
    if class_name == "DeepFeatures":
        return DeepFeatures(**params, random_state=0, device="cpu", batch_size=5)
    return quick(getattr(skocc, class_name), **params)


def images_of(name, folder):
    """Return what a case fits on, and what it scores."""
    images = CASES[name][2]
    if images != "files":
        return images
    paths = [folder / f"{index:02d}.png" for index in range(len(FILES))]
    for path, image in zip(paths, FILES, strict=True):
        if not path.exists():
            Image.fromarray(image).save(path)
    return paths[:9], paths


def fitted(name, folder):
    """Return the fitted estimator of a case, fitted twice if it starts warm."""
    estimator, (X, _) = made(name), images_of(name, folder)
    estimator.fit(X)
    return estimator.fit(X) if name.split("-")[1:2] == ["warm"] else estimator


def results(estimator, X):
    """Return all that an estimator says of images, by the name of the method."""
    found = {}
    for method in (
        "score_samples", "anomaly_map", "layer_scores", "normal_probability", "transform",
        "reconstruction_similarity",
    ):  # fmt: skip
        if method == "reconstruction_similarity" and estimator.get_params().get(
            "objective"
        ) in (None, "naive"):
            continue
        if hasattr(estimator, method):
            found[method] = getattr(estimator, method)(X)
    if len(estimator.image_shape_) == 4:
        for normalize in ("clips", "video", None):
            frames = estimator.score_frames(X[0], normalize=normalize)
            found[f"score_frames-{normalize}"] = frames
    for attribute, value in vars(estimator).items():
        if FITTED.search(attribute):
            value = getattr(value, "vectors", value)
            found[attribute] = np.array(value, dtype=np.float64)
    return found


def write_scores(path, names):
    scores = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            estimator = fitted(name, Path(folder))
            _, X = images_of(name, Path(folder))
            for what, value in results(estimator, X).items():
                scores[f"{name}/{what}"] = value
    np.savez_compressed(path, **scores)


def write_models(folder):
    """Write a model file of each case, and the scores that it had."""
    scores = {}
    with tempfile.TemporaryDirectory() as images:
        for name in CASES:
            if name.endswith("-module") or "-warm" in name:
                continue  # a file cannot hold somebody's code; warm ones are as the others
            estimator = fitted(name, Path(images))
            simplify_weights(estimator)
            skocc.save(estimator, folder / "model.safetensors")
            content = (folder / "model.safetensors").read_bytes()
            (folder / "model.safetensors").unlink()
            (folder / f"{name}.xz").write_bytes(lzma.compress(content, preset=9))
            _, X = images_of(name, Path(images))
            method = "transform" if hasattr(estimator, "transform") else "score_samples"
            scores[name] = getattr(estimator, method)(X)
    np.savez_compressed(folder / "scores.npz", **scores)


def simplify_weights(estimator):
    """Give each weight one of two values, so that a file of them can be compressed."""
    for value in vars(estimator).values():
        if isinstance(value, nn.Module):
            for weight in value.parameters():
                if weight.numel() > 200:
                    weight.data = weight.data.sign() * weight.data.abs().mean()


def differing(first, second):
    """Return the names under which two files of scores differ."""
    first, second = np.load(first), np.load(second)
    names = {*first.files} ^ {*second.files}
    for name in {*first.files} & {*second.files}:
        if not np.array_equal(first[name], second[name], equal_nan=True):
            names.add(name)
    return sorted(names)


def main(arguments):
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if arguments[0] == "--models":
        write_models(Path(arguments[1]))
    elif len(arguments) == 1:
        write_scores(arguments[0], CASES)
    else:
        names = differing(*arguments)
        sys.stdout.write("".join(f"{name}\n" for name in names) or "all are equal\n")
        return 1 if names else 0
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
