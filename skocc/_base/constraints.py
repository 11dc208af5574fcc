"""Parameter constraints that several classes share, in scikit-learn's format."""

import os
from numbers import Integral, Real

from skocc._base.private_sklearn import Interval, StrOptions

# For every class that accepts images.
IMAGE_CONSTRAINTS = {
    "batch_size": [Interval(Integral, 2, None, closed="left")],
    "image_shape": [None, tuple, list],
    "image_size": [None, Interval(Integral, 1, None, closed="left"), tuple, list],
    "intensity_range": [None, tuple, list],
    "random_state": ["random_state"],
    "verbose": ["verbose"],
}
_CONTAMINATION = Interval(Real, 0, 0.5, closed="right")
# For every detector, including those that train no network.
DETECTOR_CONSTRAINTS = {**IMAGE_CONSTRAINTS, "contamination": [_CONTAMINATION]}
# For methods that have their own threshold rule, `_auto_offset`.
CONTAMINATION_OR_AUTO = [StrOptions({"auto"}), _CONTAMINATION]
# With a larger value, the first step of Adam, which is ten times as large, overflows
# float32.
_LARGEST = 1e37
LEARNING_RATE = [Interval(Real, 0, _LARGEST, closed="right")]
WEIGHT_DECAY = [Interval(Real, 0, _LARGEST, closed="both")]
# For detectors that train a network.
TRAINING_CONSTRAINTS = {
    **DETECTOR_CONSTRAINTS,
    "n_epochs": [Interval(Integral, 0, None, closed="left")],
    "learning_rate": LEARNING_RATE,
    "weight_decay": WEIGHT_DECAY,
    "validation_fraction": [Interval(Real, 0, 1, closed="left")],
    "n_iter_no_change": [None, Interval(Integral, 1, None, closed="left")],
    "checkpoint_dir": [None, str, os.PathLike],
    "warm_start": ["boolean"],
}
