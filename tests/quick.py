"""Small settings of the estimators, so that classes carry no test data."""

from sklearn.base import BaseEstimator

import skocc

ESTIMATORS = [
    value
    for value in (getattr(skocc, name) for name in skocc.__all__)
    if isinstance(value, type) and issubclass(value, BaseEstimator)
]


def quick(estimator_class, **params):
    """Return an unfitted estimator that trains in milliseconds.

    It is recognised by parameter names, so a new class needs no line here.
    """
    estimator = estimator_class()
    small = {name: 2 for name in estimator.get_params() if name.endswith("n_epochs")}
    small |= {"random_state": 0, "device": "cpu", "batch_size": 50}
    by_name = {
        "patch_size": 8,
        "strides": (2, 4),
        "filter_init": "random",
        "n_pairs": 2,
        "max_bank_bytes": 2**18,
        "augmentation": False,
        "width": 4,
        "patience": None,
    }
    if "clip_length" in estimator.get_params():
        # Images are videos of one frame, of few features.
        by_name |= {"clip_length": 1, "latent_dim": 8}
    if {"backbone", "layers"} <= estimator.get_params().keys():
        # The smallest network there is, and of it the first convolution.
        small |= {"backbone": "shufflenet_v2_x0_5", "weights": None, "layers": ("conv1",)}
        small["image_size"] = None
        by_name["latent_dim"] = 32
    if "code_size" in estimator.get_params():
        by_name["widths"] = (4, 12, 24, 16, 16)
    if estimator.get_params().get("patch_size") is None:
        del by_name["patch_size"]  # whole images
    small |= {name: by_name[name] for name in by_name.keys() & estimator.get_params()}
    return estimator.set_params(**(small | params))
