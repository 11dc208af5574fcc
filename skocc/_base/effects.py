"""Parameters without effect: an error before any work, not a surprise after it.

A value that differs from the default and changes nothing is a misunderstanding. Each class
declares the cases in ``_without_effect``, in the form of :class:`NoEffect`.
"""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class NoEffect(NamedTuple):
    """Parameters that have no effect in some estimators of a class.

    Attributes
    ----------
    parameters : tuple of str
    when : callable
        From the estimator, whose `image_shape_` is known, to whether this is the case.
    because, instead : str
        Parts of the message: the reason, and what to do but leave the default.
    """

    parameters: tuple[str, ...]
    when: Callable[[Any], bool]
    because: str
    instead: str


# For every detector that trains a network. None says what happens anyway.
NO_HELD_OUT_IMAGES = NoEffect(
    ("n_iter_no_change",),
    lambda d: d.validation_fraction == 0 and d.n_iter_no_change is not None,
    "no images are held out",
    "set validation_fraction",
)


def check_effects(estimator) -> None:
    """Raise a ValueError for a parameter that is set and has no effect.

    Parameters
    ----------
    estimator : estimator
        With `image_shape_`. Parameters that have their default are not looked at.
    """
    defaults = inspect.signature(type(estimator).__init__).parameters
    for rule in estimator._without_effect:
        for name in rule.parameters:
            value, default = getattr(estimator, name), defaults[name].default
            if not _is_same(value, default) and rule.when(estimator):
                raise ValueError(
                    f"{name} has no effect: {rule.because}. Got {name}="
                    f"{_shown(value)}. Leave {name} at {default!r}, or {rule.instead}."
                )


def _is_same(value, default):
    if isinstance(value, list):
        value = tuple(value)
    value = value.item() if isinstance(value, np.generic) else value
    return value is default or (type(value) is type(default) and value == default)


def _shown(value):
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
