"""The command ``info``: what is in the file of a model."""

import inspect
import sys

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline

import skocc
from skocc._command_line.folders import add_json, add_model, print_json
from skocc._persistence.model_files import versions_in


def add_info(commands):
    """Add the command to the parsers of all commands."""
    info = commands.add_parser("info", help="say what is in the file of a model")
    add_model(info)
    add_json(info, "all of it")
    info.set_defaults(run=_info)


def _info(options):
    detector = skocc.load(options.model)
    facts = describe(detector) | {"versions": versions_in(options.model)}
    if options.json:
        print_json(facts)
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        sys.stdout.write(f"{name.replace('_', ' '):<{width}}  {_shown(value)}\n")


def _shown(value):
    if isinstance(value, dict):
        return ", ".join(f"{name}={part!r}" for name, part in value.items())
    return value


def describe(detector):
    """Return what there is to say of a fitted detector, as plain values.

    Parameters
    ----------
    detector : estimator
        Fitted.

    Returns
    -------
    facts : dict
        Class; parameters that are not the defaults; number of training images; shape of the
        images as the network sees them; thresholds of scores and of maps; the fraction of
        the training images that the threshold calls anomalous; the number of images that
        were held out for the threshold; the same of the detectors, and steps, within. Only
        what the detector has.
    """
    kind = type(detector)
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(kind).parameters.items()
    }
    changed = {
        name: _plain(value)
        for name, value in detector.get_params(deep=False).items()
        if not _is_same(value, defaults[name])
    }
    facts = {"class": kind.__name__, "parameters": changed}
    scores = getattr(detector, "train_scores_", None)
    if scores is not None:
        facts["training_images"] = len(scores)
    for name in ("image_shape_", "offset_", "pixel_threshold_"):
        if hasattr(detector, name):
            facts[name.rstrip("_")] = _plain(getattr(detector, name))
    if scores is not None and hasattr(detector, "offset_"):
        facts["flagged_training_images"] = float(np.mean(scores < detector.offset_))
    if hasattr(detector, "calibration_scores_"):
        facts["held_out_images"] = len(detector.calibration_scores_)
    if within := _within(detector):
        facts["within"] = [describe(part) for part in within]
    return facts


def _within(detector):
    """Return the fitted estimators that a detector is made of."""
    if isinstance(detector, Pipeline):
        return [step for _, step in detector.steps if isinstance(step, BaseEstimator)]
    if hasattr(detector, "estimator_"):
        return [detector.estimator_]
    return getattr(detector, "estimators_", [])


def _is_same(value, default):
    return type(value) is type(default) and value == default


def _plain(value):
    """Return a value as JSON has it; of a network, its class."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, tuple | list):
        return [_plain(part) for part in value]
    is_plain = value is None or isinstance(value, bool | int | float | str)
    return value if is_plain else type(value).__name__
