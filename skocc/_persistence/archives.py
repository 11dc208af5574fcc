"""Files of scikit-learn's estimators around detectors: a Pipeline, a ThresholdTuner.

Such a file is a zip archive without compression. ``estimator.skops`` has what skops writes
of the whole, with a number in the place of each detector; ``detectors/<number>`` is the
model file of that detector, or, of one that is not fitted, its parameters are in
``skocc.json``. Neither part runs code when it is read.
"""

import copy
import inspect
import io
import json
import os
import re
import stat
import sys
import zipfile
from importlib import import_module

from sklearn.base import BaseEstimator
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.utils import Bunch

from skocc._base import versions
from skocc._engine.whole_files import replacing, tensors_as_bytes, tensors_of_bytes
from skocc._persistence import model_files

_FORMAT = 1
_HEADER, _WHOLE, _DETECTOR = "skocc.json", "estimator.skops", "detectors/{}"
# In the place of a detector.
_KEY = "number of a detector"
# Nested values beyond this are no estimator of anybody.
_N_LEVELS = 100


def write_archive(estimator, path):
    """Write an estimator that has detectors in it.

    Parameters
    ----------
    estimator : estimator of scikit-learn, or of skocc.model_selection
    path : str or Path

    Raises
    ------
    ImportError
        skops is not installed.
    ValueError
        Something in the estimator cannot be written, or would not be read again.
    OSError
        As in :func:`skocc._engine.whole_files.replacing`.
    """
    found: list = []
    whole = _changed(estimator, lambda value: _taken_out(value, found))
    header = {
        "format": _FORMAT,
        "versions": versions.installed_versions() | {"skocc": versions.__version__},
        "unfitted": {},
    }
    members = {_HEADER: b""}
    for number, detector in enumerate(found):
        if model_files.has_fitted(detector):
            members[_DETECTOR.format(number)] = tensors_as_bytes(
                *model_files.contents_of_file(detector)
            )
        else:
            header["unfitted"][str(number)] = model_files.encoded_parameters(detector)
    name = type(estimator).__name__
    try:
        content = _skops().dumps(whole)
    except ImportError:
        raise
    except Exception as error:
        raise ValueError(
            f"{name} cannot be saved: {error}. Use joblib.dump, or save the detector alone."
        ) from error
    _check_can_be_named(name, _unknown_types(content, ()))
    members |= {_WHOLE: content, _HEADER: json.dumps(header, sort_keys=True).encode()}
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for member, data in members.items():
            # The date is that of the format's beginning: a file says nothing about when.
            archive.writestr(zipfile.ZipInfo(member), data)


def is_archive(path):
    """Return whether a file is an archive, by its first bytes."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        return False
    with open(path, "rb") as file:
        return file.read(4) == b"PK\x03\x04"


def read_archive(path, device, networks, trusted):
    """Return the estimator of an archive, and the version of skocc that wrote it.

    Parameters
    ----------
    path : str
    device : str or None
        Device of all detectors; None leaves them theirs.
    networks : dict of str to nn.Module, class or function
        As in :func:`skocc.load`, for the detectors that need them.
    trusted : sequence of str
        Names of types that the archive may have besides those of scikit-learn.

    Raises
    ------
    Exception
        Of any kind, if the archive is no such estimator.
    """
    members = _members(path)
    header = _checked_header(members.pop(_HEADER))
    content = members.pop(_WHOLE)
    detectors, needed = {}, set()
    for number, entry in header["unfitted"].items():
        detectors[number], names = model_files.read_parameters(entry, device, networks)
        needed |= names
    for member, data in members.items():
        number = member.removeprefix(_DETECTOR.format(""))
        detectors[number], names = model_files.read_detector(
            *tensors_of_bytes(data), device, networks
        )
        needed |= names
    if needed != networks.keys():
        raise ValueError(model_files.advice_on_networks(needed, networks))
    if unknown := _unknown_types(content, trusted):
        raise ValueError(
            f"it has types that are neither skocc's nor trusted by skops: {unknown}. Look "
            "at them, and pass trusted= with their names if they may run"
        )
    whole = _skops().loads(content, trusted=[*_own_types(), *trusted])
    own: list = []
    whole = _changed(whole, lambda value: _put_back(value, detectors, own), in_place=True)
    if not isinstance(whole, BaseEstimator):
        raise ValueError("it holds no estimator")
    for estimator in own:
        estimator._validate_params()
    return whole, header["versions"]["skocc"]


def versions_in_archive(path):
    """Return the versions of packages that a valid archive was written with, by name."""
    with zipfile.ZipFile(path) as archive:  # without the banks, which may be large
        return _checked_header(archive.read(_HEADER))["versions"]


def _checked_header(text):
    """Return the header of an archive, or raise an error."""
    header = json.loads(text)
    kinds = {"format": int, "versions": dict, "unfitted": dict}
    if not isinstance(header, dict) or any(
        not isinstance(header.get(name), kind) for name, kind in kinds.items()
    ):
        raise ValueError("its header is no object, or lacks a part")
    version = header["versions"].setdefault("skocc", None)
    if header["format"] != _FORMAT:
        raise ValueError(
            f"it was written by skocc {version} in format {header['format']} of archives, "
            f"and skocc {versions.__version__} reads {_FORMAT}: install that version"
        )
    if not isinstance(version, str | None):
        raise ValueError("its header has no version of skocc")
    return header


def _members(path):
    """Return the members of an archive as bytes, of no more than its size together."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        _check_stored(archive, os.stat(path).st_size, "it")
        others = [name for name in names if not re.fullmatch(r"detectors/\d+", name)]
        if len({*names}) < len(names) or sorted(others) != sorted([_HEADER, _WHOLE]):
            raise ValueError(f"it has other parts than {_HEADER}, {_WHOLE} and detectors")
        return {name: archive.read(name) for name in names}


def _check_stored(archive, n_bytes, what):
    """Raise an error if members of an archive of `n_bytes` could make much of little."""
    infos = archive.infolist()
    is_stored = all(info.compress_type == zipfile.ZIP_STORED for info in infos)
    if not is_stored or sum(info.file_size for info in infos) > n_bytes:
        raise ValueError(f"{what} is compressed, or its parts overlap")


def _skops():
    """Return the module of skops that reads and writes."""
    try:
        return import_module("skops.io")
    except ImportError as error:
        raise ImportError(
            "Files of scikit-learn's estimators need skops, which cannot be imported: "
            f'{error}. Install it with pip install "skocc[skops]".'
        ) from error


def _unknown_types(content, trusted):
    """Return the sorted names of types that neither skops nor skocc nor the user trusts."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        _check_stored(archive, len(content), _WHOLE)
    found = _skops().get_untrusted_types(data=content)
    return sorted({*found} - {*_own_types(), *trusted})


def _own_types():
    """Return names of harmless types that skops does not trust.

    They are what skocc exports, and what the parameters `cv` and `scoring` are made of. Of
    functions they are metrics alone.
    """
    types = [Bunch, type(make_scorer(accuracy_score))]
    for name in (
        "skocc.feature_extraction", "skocc.metrics", "skocc.model_selection",
        "sklearn.metrics", "sklearn.model_selection",
    ):  # fmt: skip
        module = import_module(name)
        # Experimental classes are in __all__ and not there.
        exported = [vars(module).get(key) for key in module.__all__]
        is_metrics = name.endswith("metrics")
        types += filter(callable if is_metrics else inspect.isclass, exported)
    return [f"{kind.__module__}.{kind.__qualname__}" for kind in types]


def _check_can_be_named(name, unknown):
    """Raise an error for types that no program could import by their names."""
    for kind in unknown:
        module, _, own_name = kind.rpartition(".")
        if module == "__main__" or not hasattr(sys.modules.get(module), own_name):
            raise ValueError(
                f"{name} cannot be saved, because no other program can import {kind}. Move "
                "it to the top level of a module, or use joblib.dump."
            )


def _taken_out(value, found):
    """Return what is written in the place of a detector, or None for any other value."""
    if not model_files.is_saved_alone(value):
        return None
    if not any(value is detector for detector in found):
        found.append(value)
    return {_KEY: [value is detector for detector in found].index(True)}


def _put_back(value, detectors, own):
    """Return the detector of a number, or None for any other value.

    Estimators of skocc that are no detectors of a number are added to `own`.
    """
    if isinstance(value, BaseEstimator) and type(value).__module__.startswith("skocc."):
        own.append(value)
    if not isinstance(value, dict) or value.keys() != {_KEY}:
        return None
    return detectors[str(value[_KEY])]


def _changed(value, change, *, in_place=False, known=None, level=0):
    """Return estimators, and lists and the like, in which some values are others.

    Parameters
    ----------
    value : object
    change : callable
        Returns the other value, or None.
    in_place : bool, default=False
        Whether the estimators that are walked through are changed, not copied. Copies are
        without parameters of the running program.
    """
    known = {} if known is None else known
    if level > _N_LEVELS:
        raise ValueError("it is nested too deeply")
    if id(value) in known:
        return known[id(value)][1]
    other = change(value)
    if other is not None:
        result = other
    elif isinstance(value, BaseEstimator):
        result = value if in_place else copy.copy(value)
        # Before its attributes, among which it may be itself.
        known[id(value)] = value, result
        for name, attribute in [*vars(value).items()]:
            vars(result)[name] = _changed(
                attribute, change, in_place=in_place, known=known, level=level + 1
            )
        if not in_place:
            of_the_program = {*model_files.OF_THE_PROGRAM} & {*vars(result)}
            vars(result).update(dict.fromkeys(of_the_program))
    elif type(value) in (list, tuple):
        result = type(value)(
            _changed(item, change, in_place=in_place, known=known, level=level + 1)
            for item in value
        )
    elif type(value) in (dict, Bunch):
        result = type(value)()
        for key, item in value.items():
            result[key] = _changed(
                item, change, in_place=in_place, known=known, level=level + 1
            )
    else:
        return value
    # With the value itself, so that no other gets its id meanwhile.
    known[id(value)] = value, result
    return result
