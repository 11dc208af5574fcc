"""A parameter that is set and changes nothing is an error before any work."""

import numpy as np
import pytest
from torch import nn

import skocc
from skocc._base.effects import NoEffect, check_effects
from tests.quick import quick

X = np.random.default_rng(0).random((8, 12, 12, 3)).astype(np.float32)
OWN = {"backbone": nn.Conv2d(3, 2, 3), "pretrain_n_epochs": 0}


class Estimator:
    _without_effect = (
        NoEffect(("width", "size"), lambda e: e.mode == "off", "it is off", "set mode"),
    )

    def __init__(self, mode="on", width=3, size=(1, 2)):
        self.mode, self.width, self.size = mode, width, size


def test_only_other_values_than_the_default_are_looked_at():
    check_effects(Estimator("on", 4, (5,)))
    for same in (3, np.int64(3).item()):
        check_effects(Estimator("off", same, [1, 2]))
    message = r"^width has no effect: it is off\. Got width=4\. Leave width at 3, or"
    with pytest.raises(ValueError, match=message):
        check_effects(Estimator("off", 4))
    with pytest.raises(ValueError, match=r"size=\(1, 3\)"):
        check_effects(Estimator("off", 3, (1, 3)))
    with pytest.raises(ValueError, match="Got width=True"):
        check_effects(Estimator("off", True))


# Class, parameters of which the first has no effect, and what is said.
CASES = [
    ("ConvAE", {"n_augmented": 9}, "without augmentation"),
    ("ConvAE", {"checkpoint_every": 2}, "without a folder"),
    ("ConvAE", {"base_channels": 4, "autoencoder": nn.Conv2d(3, 3, 1)}, "of your own"),
    ("DataSplitOCC", {"weights": "missing.pt"}, "it is for a backbone"),
    ("DataSplitOCC", {"embedding_dim": 9, "backbone": nn.Conv2d(3, 2, 3)}, "the compact"),
    ("DataSplitOCC", {"dropout": 0.5, "backbone": nn.Conv2d(3, 2, 3)}, "the compact"),
    ("DataSplitOCC", {"n_iter_no_change": 2, "tol": None}, "does not end early"),
    (
        "DataSplitOCC",
        {"pretrain_learning_rate": 1e-2, "pretrain_n_epochs": 0},
        "pretrain_n_epochs=0",
    ),
    ("DeepSVDD", {"radius_update": "epoch"}, "a hard boundary"),
    ("DeepSVDD", {"warm_up_n_epochs": 2}, "a hard boundary"),
    ("DeepSVDD", {"weights": "missing.pt"}, "it is for a backbone"),
    ("DeepSVDD", {"channels": (4, 4), **OWN}, "has its own layers"),
    ("DeepSVDD", {"embedding_dim": 4, **OWN}, "has its own layers"),
    ("DeepSVDD", {**OWN, "pretrain_n_epochs": 3}, "is not pretrained"),
    ("DeepSVDD", {"pretrain_milestones": (3,), "pretrain_n_epochs": 0}, "that stage"),
    ("FeatureCAE", {"n_top": 3, "cell_aggregation": "max"}, "'top-k'"),
    ("FeatureCAE", {"latent_dim": 3, "autoencoder": nn.Conv2d(24, 24, 1)}, "of your own"),
    ("MOCCA", {"n_crops": 3}, "are not cropped"),
    ("MOCCA", {"weights": "IMAGENET1K_V1"}, "of torchvision or of your own"),
    ("MOCCA", {"weights": "missing.pt", "backbone": "lenet"}, "of torchvision or"),
    ("MOCCA", {"filter_init": "dictionary", "backbone": "residual"}, "a dictionary"),
    ("MOCCA", {"embedding_dim": 4, **OWN}, "the encoders of the paper"),
    ("MOCCA", {"warm_up_n_epochs": 2, "boundary": "hard"}, "a hard boundary"),
    ("PatchSVDD", {"embedding_dim": 9, "backbone": nn.Conv2d(3, 2, 3)}, "own features"),
    ("PatchSVDD", {"subsampling": "coreset", "max_bank_bytes": None}, "all vectors are"),
    ("PatchSVDD", {"svdd_weight": 1.0, "objective": "pairs"}, "the latter alone"),
    ("PatchSVDD", {"n_neighbors": 2, "objective": "svdd"}, "a center takes the place"),
    ("ResNetKNN", {"embedding_dim": 9}, "cells keep the channels"),
    ("ResNetKNN", {"subsampling": "coreset", "max_bank_bytes": None}, "all vectors are"),
    ("VideoMOCCA", {"embedding_dim": 8, "backbone": nn.Conv3d(3, 2, 1)}, "has its own"),
    (
        "VideoMOCCA",
        {
            "reconstruction_weight": 0.5, "embedding_dim": None,
            "backbone": nn.Conv3d(3, 2, 1),
        },
        "has no decoder",
    ),
    ("DataSplitOCC", {"tol": 1e-2, "validation_fraction": 0.25}, "held-out images say"),
    *(
        (name, {"n_iter_no_change": 3, "validation_fraction": 0.0}, "no images are held")
        for name in ("DeepSVDD", "FeatureCAE", "MOCCA", "PatchSVDD", "VideoMOCCA")
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "params", "message"), CASES)
def test_every_case_is_refused(name, params, message):
    with pytest.raises(ValueError, match=rf"^\w+ has no effect: .*{message}.*Leave .*or "):
        quick(getattr(skocc, name), **params).fit(X)


def test_every_rule_has_a_case():
    rules = {
        (name, rule.because)
        for name in skocc.DETECTORS
        for rule in getattr(skocc, name)._without_effect
    }
    for name, _, message in CASES:
        rules -= {(n, reason) for n, reason in rules if n == name and message in reason}
    # Clips are another input.
    assert {reason for _, reason in rules} <= {
        "with clip_length=None, X holds the clips",
        "a hard boundary has no radius to update",
        "pretrain_n_epochs=0 leaves that stage out",
        "a backbone that is not the paper's is not pretrained as an autoencoder",
    }


def test_missing_weights_of_a_network_of_the_user():
    with pytest.raises(ValueError, match=r"weights='missing.pt' is not a file"):
        quick(skocc.DeepSVDD, **OWN, weights="missing.pt").fit(X)
