"""Fits of all estimators whose steps are looked at one by one."""

import contextlib

import numpy as np
from torch.optim.optimizer import register_optimizer_step_post_hook

import skocc
from tests.quick import quick

# Each estimator with the options that change what a step does: losses, samplers, batches.
VARIANTS = [
    ("ConvAE", {}),
    ("ConvAE", {"augmentation": True, "n_augmented": 8, "reconstruction_metric": "ssim"}),
    ("DataSplitOCC", {}),
    ("DataSplitOCC", {"objective": "split", "balanced": True, "dropout": 0.5}),
    ("DataSplitOCC", {"objective": "naive", "batch_norm": "train"}),
    ("DeepSVDD", {}),
    ("DeepSVDD", {"boundary": "soft", "warm_up_n_epochs": 0}),
    ("DeepSVDD", {"boundary": "soft", "warm_up_n_epochs": 0, "radius_update": "epoch"}),
    ("DeepSVDD", {"rows": True}),
    ("FeatureCAE", {}),
    ("FeatureCAE", {"max_feature_bytes": 1, "score_normalization": "median"}),
    ("MOCCA", {}),
    ("MOCCA", {"boundary": "soft", "warm_up_n_epochs": 0, "patch_size": 8}),
    ("PatchSVDD", {}),
    ("PatchSVDD", {"sampling": "patches", "normalization": "local_contrast"}),
    ("ResNetKNN", {}),
    ("ResNetKNN", {"subsampling": "coreset", "reweighting": 3, "bank_fraction": 0.5}),
    ("VideoMOCCA", {"videos": True, "clip_length": 4}),
]


# The quickest: the others are for the slow tests.
QUICK_VARIANTS = [
    ("DataSplitOCC", {"objective": "naive", "batch_norm": "train"}),
    ("DeepSVDD", {"boundary": "soft", "warm_up_n_epochs": 0}),
    ("MOCCA", {}),
    ("ResNetKNN", {}),
]


def fit_counting_waits(name, variant, count):
    """Fit on the device "cuda", one epoch of each stage.

    Parameters
    ----------
    name, variant
        Of `VARIANTS`.
    count : callable
        Returns how often the CPU has waited for the device so far.

    Returns
    -------
    estimator : estimator
    X : ndarray
        What it was fitted on.
    at_steps : list of list
        For each optimizer what `count` returned after each of its steps.
    """
    params = dict(variant)
    shape = (8, 16, 16)
    if params.pop("rows", False):
        shape = (8, 20)
    if params.pop("videos", False):
        shape = (8, 4, 16, 16, 1)
    X = np.random.default_rng(0).random(shape).astype(np.float32)
    estimator = quick(getattr(skocc, name), device="cuda", batch_size=4)
    one = {key: 1 for key in estimator.get_params() if key.endswith("n_epochs")}
    if getattr(estimator, "boundary", "soft") == "hard":
        del one["warm_up_n_epochs"]
    estimator.set_params(**(one | params))
    at_steps = {}

    def hook(optimizer, args, kwargs):
        at_steps.setdefault(optimizer, []).append(count())

    with contextlib.closing(_Removed(register_optimizer_step_post_hook(hook))):
        estimator.fit(X)
    return estimator, X, list(at_steps.values())


class _Removed:
    """A hook that goes when it is closed."""

    def __init__(self, handle):
        self.close = handle.remove
