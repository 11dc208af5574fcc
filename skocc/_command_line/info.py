"""The command ``info``: what is in the file of a model."""

import json
import sys

import numpy as np
from safetensors import safe_open

import skocc
from skocc._command_line.folders import add_model


def add_info(commands):
    """Add the command to the parsers of all commands."""
    info = commands.add_parser("info", help="say what is in the file of a model")
    add_model(info)
    info.add_argument("--json", action="store_true", help="print one JSON object")
    info.set_defaults(run=_info)


def _info(options):
    detector = skocc.load(options.model)
    with safe_open(options.model, framework="np") as file:  # which load has checked
        versions = json.loads(file.metadata()["skocc"])["versions"]
    facts = describe(detector) | {"versions": versions}
    lines = [json.dumps(facts)]
    if not options.json:
        width = max(map(len, facts))
        lines = [
            f"{name.replace('_', ' '):<{width}}  {_shown(value)}"
            for name, value in facts.items()
        ]
    sys.stdout.write("\n".join(lines) + "\n")


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
        the training images that the threshold calls anomalous. Only what the detector has.
    """
    defaults = type(detector)().get_params() if _has_defaults(detector) else {}
    changed = {
        name: _plain(value)
        for name, value in detector.get_params(deep=False).items()
        if name not in defaults or not _is_same(value, defaults[name])
    }
    facts = {"class": type(detector).__name__, "parameters": changed}
    scores = getattr(detector, "train_scores_", None)
    if scores is not None:
        facts["training_images"] = len(scores)
    for name in ("image_shape_", "offset_", "pixel_threshold_"):
        if hasattr(detector, name):
            facts[name.rstrip("_")] = _plain(getattr(detector, name))
    if scores is not None and hasattr(detector, "offset_"):
        facts["flagged_training_images"] = float(np.mean(scores < detector.offset_))
    return facts


def _has_defaults(detector):
    """Return whether a class can be made without arguments, as ensembles cannot."""
    return type(detector).__name__ in skocc.DETECTORS


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
