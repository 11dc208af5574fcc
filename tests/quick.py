"""Small parameters of the estimators, in one table, so that classes carry no test data.

A new class needs a line in ``SMALL``, and in the tables below that hold for it. Nothing is
guessed from the names of parameters.
"""

import inspect

import skocc

ESTIMATORS = [getattr(skocc, name) for name in skocc.DETECTORS]

# Parameters by which every class trains in milliseconds.
SHARED = {"random_state": 0, "device": "cpu", "batch_size": 50}
# The smallest network of torchvision, and of it the first convolution.
FIRST_CONV = {
    "backbone": "shufflenet_v2_x0_5", "weights": None, "layers": ("conv1",),
    "image_size": None,
}  # fmt: skip
SMALL = {
    "ConvAE": {
        "n_epochs": 2, "n_iter_no_change": None, "augmentation": False, "base_channels": 4,
    },
    "DataSplitOCC": {
        "pretrain_n_epochs": 2, "n_epochs": 2, "channels": (4, 12, 24, 16, 16),
    },
    "DeepFeatures": FIRST_CONV,
    "DeepSVDD": {
        "pretrain_n_epochs": 2, "n_epochs": 2, "filter_init": "random",
    },
    "FeatureCAE": {
        "n_epochs": 2, "n_iter_no_change": None, "latent_dim": 32, **FIRST_CONV,
    },
    "LinearAE": {"n_epochs": 20},  # of tests/test_contributing.py
    "MOCCA": {"pretrain_n_epochs": 2, "warm_up_n_epochs": 2, "n_epochs": 2},
    "PatchSVDD": {
        "n_epochs": 2, "n_pairs": 2, "patch_size": 8, "strides": (2, 4),
        "max_bank_bytes": 2**18,
    },
    "ResNetKNN": {"max_bank_bytes": 2**18, **FIRST_CONV},
    # Images are videos of one frame.
    "VideoMOCCA": {
        "warm_up_n_epochs": 2, "n_epochs": 2, "clip_length": 1, "embedding_dim": 8,
    },
}  # fmt: skip

# Parameters by which scores of digits rank, and the AUROC that they must exceed; without a
# line those of SMALL, and 0.9.
RANKING = {
    "ConvAE": ({"n_epochs": 40}, 0.9),
    # Twelve atypical images are too few to learn from, and an autoencoder that overfits
    # splits normal images at random. Over ten seeds the AUROC is 0.935 +- 0.048, over three
    # with other kernels 0.962 +- 0.008: the kernels count no more than the seed.
    "DataSplitOCC": (
        {
            "atypical_fraction": 0.3, "learning_rate": 1e-3, "latent_dim": 2,
            "pretrain_n_epochs": 20, "n_epochs": 20, "channels": None,
        },
        0.75,
    ),
    "DeepSVDD": ({"pretrain_n_epochs": 40, "n_epochs": 40}, 0.9),
    # The few features of an untrained layer say little of a cell, unless they are
    # centered, and what is normal takes more steps to learn.
    "FeatureCAE": ({"n_epochs": 40, "normalization": "imagenet", "batch_size": 10}, 0.9),
    "MOCCA": ({"pretrain_n_epochs": 40, "warm_up_n_epochs": 0, "n_epochs": 40}, 0.9),
    "PatchSVDD": ({"n_epochs": 40}, 0.9),
    # Of a single frame there is little to reconstruct, and the errors would be the larger
    # part of the loss by far.
    "VideoMOCCA": (
        {
            "warm_up_n_epochs": 0, "n_epochs": 8, "learning_rate": 1e-3, "batch_size": 10,
            "layers": (0, 1), "reconstruction_weight": 0.01,
        },
        0.85,
    ),
}  # fmt: skip
# Classes that take plain rows, with enough epochs of the other defaults to get past the
# warm-up; all of the defaults take minutes.
ON_ROWS = {
    "DataSplitOCC": {"pretrain_n_epochs": 2, "n_epochs": 12},
    "DeepSVDD": {"pretrain_n_epochs": 2, "n_epochs": 12},
    "MOCCA": {"pretrain_n_epochs": 2, "n_epochs": 12},
}
# Parameters for images of one row: these are too low for the patches of some, and without
# the other layers and the decoder others take half the time.
ONE_ROW = {
    "PatchSVDD": {"image_size": 8},
    "VideoMOCCA": {"layers": (0,), "reconstruction_weight": 0},
}
# Parameters by which classes give heat maps of digits that need some to do so.
LOCALIZING = {"MOCCA": {"patch_size": 4}}
# Classes whose decoder ends in a sigmoid, and which warn of images outside of [0, 1].
WITH_SIGMOID = {"ConvAE", "DataSplitOCC"}


def quick(estimator_class, **params):
    """Return an unfitted estimator that trains in milliseconds.

    Parameters
    ----------
    estimator_class : type
        Has a line in ``SMALL``.
    **params : parameters
        In place of those of the table, of which what then has no effect is left out.

    Returns
    -------
    estimator : estimator
    """
    small = SMALL[estimator_class.__name__]
    estimator = estimator_class(**(SHARED | small | params))
    defaults = inspect.signature(estimator_class).parameters
    for rule in getattr(estimator_class, "_without_effect", ()):
        for name in {*rule.parameters} & small.keys() - params.keys():
            if rule.when(estimator):
                estimator.set_params(**{name: defaults[name].default})
    return estimator


def trains(estimator_class):
    """Return whether a class trains a network."""
    return "n_epochs" in SMALL[estimator_class.__name__]


def with_epochs(estimator_class, n_epochs):
    """Return parameters by which every stage of a training has `n_epochs` epochs."""
    small = SMALL[estimator_class.__name__]
    return {name: n_epochs for name in small if name.endswith("n_epochs")}
