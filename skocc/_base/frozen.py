"""Constraints of the parameters that say which frozen network describes the images."""

import os
from numbers import Integral

from skocc._base.constraints import IMAGE_CONSTRAINTS
from skocc._base.private_sklearn import HasMethods, Interval, StrOptions

FROZEN_CONSTRAINTS: dict[str, list] = {
    "backbone": [str, callable],
    "weights": [None, str, os.PathLike],
    "layers": [None, tuple, list],
    "n_prefix_tokens": [None, Interval(Integral, 0, None, closed="left")],
    "normalization": [None, StrOptions({"imagenet", "weights"})],
    "memory": [None, str, os.PathLike, HasMethods(["cache"])],
    "image_size": [*IMAGE_CONSTRAINTS["image_size"], StrOptions({"weights"})],
}


def frozen_parameters(estimator) -> dict:
    """Return the parameters of an estimator that say what its network takes."""
    names = ("backbone", "normalization", "weights")
    return {name: getattr(estimator, name) for name in names}
