"""Model files: fitted estimators saved as files that contain only data.

A pickle can run code when it is read. Model files are safetensors files: they contain
numbers and a JSON header, from which `load` rebuilds a public estimator of skocc. The
content of a file is not trusted: it may contain only what the estimator's class declares.
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Sequence
from importlib import import_module
from numbers import Real
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skocc._base import versions
from skocc._base.fitted import Fitted, FittedMixin, warn_about_version
from skocc._base.old_files import current_form
from skocc._engine.whole_files import read_tensors, write_tensors
from skocc._samples.validation import check_fitted_shape
from skocc.estimators import MODULES

# Formats 1 and 2 are those of skocc 0.1; format 1 has no digest.
_FORMAT = 3
# Parameters of the running program, not of the model: neither saved nor loaded.
OF_THE_PROGRAM = ("checkpoint_dir", "memory", "n_jobs")
# Parameters that may be a network of the user, and what a file has in its place: no name,
# because `load` imports nothing that a file names.
_NETWORKS = ("backbone", "autoencoder")
_OWN_NETWORK = {"own network": True}
# Parts of memory banks that may stay in the file, by the ends of their names there.
_LARGE = ("/vectors", "/images")
# Limits far above all useful values: entries of a tuple or list, and digits of an int.
_N_ENTRIES, _N_DIGITS = 1000, 20
# Parts of an estimator that is made of others, and such within such.
_N_PARTS, _N_LEVELS = 1000, 3
# Estimators that are made of others, and what the header of a part holds; the rest is that
# of the file.
_MADE_OF_PARTS = ("DetectorEnsemble", "TiledDetector")
_KEYS_OF_PARTS = ("estimator", "params", "values", "parts")
# Limit on the bytes of a network that are not in the file but follow from sizes, such as
# tables of weights for each pixel: the larger of a number and a multiple of the file.
_OTHER_BYTES, _OTHER_FACTOR = 2**29, 64


def save(estimator, path: str | os.PathLike) -> None:
    """Save a fitted estimator as a safetensors file.

    Read more in the :ref:`User Guide <saving>`.

    Parameters
    ----------
    estimator : estimator of skocc or scikit-learn
        Fitted estimator, on any device, or a
        :class:`~skocc.model_selection.DetectorEnsemble` or
        :class:`~skocc.model_selection.TiledDetector` of such; or any other estimator with
        detectors in it, such as a Pipeline or a
        :class:`~skocc.model_selection.ThresholdTuner`, which needs skops (``pip install
        "skocc[skops]"``). `memory`, `checkpoint_dir` and `n_jobs` belong to the running
        program and are not saved: they are None after :func:`load`.
    path : str or Path
        File to write: safetensors, or a zip archive of such and of what skops writes, for
        estimators that are not skocc's alone. An existing file is replaced at the end, and
        keeps its permissions. A symbolic link is kept, and its target is replaced.

    Raises
    ------
    ValueError
        A parameter cannot be written as data, or was changed after `fit` so that it does
        not match the fitted networks; or a network of your own computes with more than its
        parameters and buffers. Use ``joblib.dump`` for these.
    ImportError
        skops is needed and not installed.
    OSError
        The file cannot be written; an existing file is unchanged. The error's `filename` is
        the path.
    sklearn.exceptions.NotFittedError
        The estimator is not fitted.

    See Also
    --------
    load : Read the file again.

    Notes
    -----
    Every estimator can also be stored with pickle or joblib. To exchange models, use
    `save`: reading its files runs no code from the file.

    A network of your own, given as `backbone` or `autoencoder`, has its weights in the
    file, and nothing else: give it to :func:`load` again.

    If the process or the machine stops, the file is either the old one or the complete new
    one. A process that is killed may leave a file whose name starts with ``.skocc-`` or
    ``.tmp``. The same model gives the same bytes in the same environment, except in an
    archive. Saving takes as much additional memory as the model, or twice that.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import skocc
    >>> from sklearn.datasets import load_digits
    >>> images = load_digits(n_class=1).images / 16
    >>> detector = skocc.DeepSVDD(pretrain_n_epochs=1, n_epochs=1).fit(images)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "zeros.safetensors"
    ...     skocc.save(detector, path)
    ...     loaded = skocc.load(path)
    >>> bool((loaded.score_samples(images) == detector.score_samples(images)).all())
    True
    """
    check_is_fitted(estimator)
    if is_saved_alone(estimator):
        header, arrays = contents_of_file(estimator)
        write_tensors(path, arrays, header)
    else:
        from skocc._persistence.archives import write_archive

        write_archive(estimator, path)


def versions_in(path):
    """Return the versions of packages that a valid file was written with, by name."""
    from safetensors import safe_open

    from skocc._persistence.archives import is_archive, versions_in_archive

    if is_archive(path):
        return versions_in_archive(path)
    with safe_open(path, framework="np") as file:
        return json.loads(file.metadata()["skocc"])["versions"]


def is_saved_alone(estimator):
    """Return whether a file of tensors can hold an estimator and its parts.

    Of estimators that are made of others, and have no parts before `fit`, it holds none.
    """
    if not isinstance(estimator, FittedMixin):
        return False
    if not _has_parts(type(estimator)):
        return True
    if not has_fitted(estimator):
        return False
    parts = (part for _, part in estimator._named_parts() if not isinstance(part, str))
    return all(map(is_saved_alone, parts))


def has_fitted(estimator):
    """Return whether an estimator has any attribute that `fit` sets."""
    return any(name in vars(estimator) for name in estimator._fitted_attributes)


def contents_of_file(estimator):
    """Return the metadata and the arrays of the file of a fitted estimator.

    Raises
    ------
    ValueError
        The estimator could not be put together again.
    """
    name = type(estimator).__name__
    if _public_class(name) is not type(estimator):
        raise ValueError(
            f"save writes estimators of skocc and of registered classes. Got a {name}. "
            f"Call skocc.register({name}) before, or use joblib.dump."
        )
    header, arrays = _take_apart(estimator)
    networks = {key: getattr(estimator, key) for key in _own_networks(header)}
    try:
        _put_together(header, arrays, networks)
    except ImportError:
        raise
    except Exception as error:
        raise ValueError(
            f"{name} cannot be saved, because load could not put it together again: "
            f"{error}. Fit again if parameters were changed after fit, or use joblib.dump."
        ) from error
    header["digest"] = _digest(header, arrays)
    return {"skocc": json.dumps(header, sort_keys=True)}, arrays


def encoded_parameters(estimator):
    """Return class and parameters of a detector, fitted or not, as JSON."""
    name, params = type(estimator).__name__, estimator.get_params(deep=False)
    if _public_class(name) is not type(estimator):
        raise ValueError(f"no class {name} is registered. Call skocc.register({name})")
    return {"estimator": name, "params": _encoded(params)}


def load(
    path: str | os.PathLike,
    *,
    device: Any = None,
    mmap: bool = False,
    backbone: Any = None,
    autoencoder: Any = None,
    trusted: Sequence[str] = (),
) -> Any:
    """Read an estimator that :func:`save` wrote.

    Read more in the :ref:`User Guide <saving>`.

    Parameters
    ----------
    path : str or Path
        File that `save` has written, with this or an earlier version of skocc, on a machine
        with or without a GPU.
    device : str or torch.device, default=None
        Where the estimator computes: its parameter `device`, and that of its parts. None:
        what it was when the estimator was saved.
    mmap : bool, default=False
        Whether memory banks stay in the file: they are read where a search needs them, and
        processes on one machine share them. A file with a bank of 2 GB is then opened in
        about a second at most, because the digest of the file, which would read all of it,
        is not checked, nor whether the vectors are finite. The file must not be changed in
        place while the estimator is in use; :func:`save` replaces it by another.
    backbone, autoencoder : nn.Module, class or function, default=None
        The parameter of this name with which the detector was fitted, if that was a network
        of your own. Its code comes from you, and the weights from the file. In a Pipeline
        or the like, all detectors that need one get the same.
    trusted : sequence of str, default=()
        Names of types that the file of a Pipeline or the like may have besides those of
        skocc and scikit-learn, such as ``"my_package.MyScaler"``. They are imported, and
        their code runs.

    Returns
    -------
    estimator : estimator of skocc or scikit-learn
        Fitted estimator, with its networks on the CPU. `memory`, `checkpoint_dir` and
        `n_jobs` are None.

    Raises
    ------
    ValueError
        The file does not exist, was not written by `save`, is damaged, or was written by a
        newer skocc; or it needs `backbone` or `autoencoder`, or another one, or none; or it
        has types that are not trusted. The error names the file. Or `device` is not
        available here.
    ImportError
        The model has a network of torchvision, which cannot be imported; or it is that of a
        Pipeline or the like, and skops cannot.

    Warns
    -----
    sklearn.exceptions.InconsistentVersionWarning
        Another minor version of skocc wrote the file.

    See Also
    --------
    save : Write the file.

    Notes
    -----
    A file may come from an untrusted source. `load` reads and writes nothing else, runs no
    code from the file, and imports or downloads nothing that the file names. The file must
    contain an estimator that skocc exports, parameters that its `fit` accepts, and the
    attributes that `fit` sets, with matching types and shapes. Otherwise a ValueError is
    raised before memory of more than a few times the size of the file is allocated. The
    file has a digest, which reveals damage but does not prove who wrote the file.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import skocc
    >>> from sklearn.datasets import load_digits
    >>> images = load_digits(n_class=1).images / 16
    >>> detector = skocc.DeepSVDD(pretrain_n_epochs=1, n_epochs=1).fit(images)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "zeros.safetensors"
    ...     skocc.save(detector, path)
    ...     detector = skocc.load(path)
    >>> detector.predict(images).shape
    (178,)
    """
    from skocc._engine.device import resolve_device
    from skocc._persistence.archives import is_archive, read_archive

    path = os.fsdecode(path)
    if device is not None:
        device = str(resolve_device(device))
    networks = {"backbone": backbone, "autoencoder": autoencoder}
    networks = {key: value for key, value in networks.items() if value is not None}
    advice = (
        "a file written by skocc.save, or copy it anew; pickles are read by joblib.load"
    )
    try:
        if is_archive(path):
            if mmap:
                raise ValueError("mmap=True takes files of a detector alone")
            estimator, version = read_archive(path, device, networks, tuple(trusted))
        else:
            metadata, arrays = read_tensors(path, mapped=_LARGE if mmap else ())
            header, version = _checked_header(metadata, arrays, has_digest=not mmap)
            needed = _own_networks(header)
            advice = advice_on_networks(needed, networks) or advice
            estimator = _fitted(header, arrays, device, networks)
    except ImportError:
        raise
    # Networks and constraints raise errors of any kind for invalid values in a file.
    except Exception as error:
        # Without the error itself, which would print unescaped text of the file.
        raise ValueError(
            f"{path!r} cannot be read as a model: {_shown(error)}. Pass {advice}."
        ) from None
    warn_about_version(type(estimator).__name__, version)
    return estimator


def read_detector(metadata, arrays, device, networks):
    """Return the detector of a file in an archive, and the networks that it has taken.

    Parameters
    ----------
    metadata, arrays : dict
        What :func:`contents_of_file` has returned.
    device : str or None
    networks : dict of str to nn.Module, class or function
        As in :func:`load`; those that this detector does not need are left alone.
    """
    header, _ = _checked_header(metadata, arrays)
    networks = {k: v for k, v in networks.items() if k in _own_networks(header)}
    return _fitted(header, arrays, device, networks), {*networks}


def read_parameters(entry, device, networks):
    """Return an unfitted detector, as :func:`read_detector` returns a fitted one."""
    networks = {k: v for k, v in networks.items() if k in _own_networks(entry)}
    if device is not None:
        _set_device(entry, device)
    entry = {"versions": {"skocc": None}, **entry}
    return _with_parameters(entry, networks), {*networks}


def _fitted(header, arrays, device, networks):
    """Return the estimator of a header, with the arrays of its file."""
    import torch

    if int(header["format"]) < 3:
        header, arrays = current_form(header, arrays)
    if device is not None:
        _set_device(header, device)
    estimator = _put_together(header, arrays, networks)
    with torch.inference_mode(False):  # else the networks could not be trained
        _fill(estimator, arrays)
    return estimator


def register(detector: type) -> type:
    """Let :func:`save` write, and :func:`load` read, a class of your own.

    A file names a class by its name alone, and `load` imports nothing: it knows the classes
    of skocc, and those that the program has registered. Read more in the :ref:`User Guide
    <own_method>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    detector : type
        Subclass of :class:`skocc.base.BaseDetector`, or of a detector of skocc.

    Returns
    -------
    detector : type
        The same class, so that `register` can decorate it.

    Raises
    ------
    ValueError
        `detector` is no such class, or its name is that of a class of skocc or of another
        registered one. A class that is defined again, as in a notebook, replaces the
        earlier one.

    See Also
    --------
    skocc.base.NetworkDetector : Base class of your own detectors.

    Examples
    --------
    >>> import skocc
    >>> @skocc.register
    ... class MyDeepSVDD(skocc.DeepSVDD):
    ...     pass
    """
    from skocc._base.detector import BaseDetector

    if not (isinstance(detector, type) and issubclass(detector, BaseDetector)):
        raise ValueError(
            f"register takes a subclass of skocc.base.BaseDetector. Got {detector!r}. "
            "Derive it from that class, or from a detector of skocc."
        )
    name = detector.__name__
    known = _registered.get(name)
    is_new = known is None or _origin(known) == _origin(detector)
    if _exported_class(name) is not None or not is_new:
        other = "skocc" if is_new else known.__module__
        raise ValueError(
            f"register needs a name that no other class has. Got {name!r} of "
            f"{detector.__module__}, which is a class of {other} too. Rename yours."
        )
    _registered[name] = detector
    return detector


# Classes by their names. A file can name no other code.
_registered: dict[str, type] = {}


def _origin(cls):
    return cls.__module__, cls.__qualname__


def _public_class(name):
    """Return the estimator that files call by a name, or None if there is none."""
    return _exported_class(name) or _registered.get(name)


def _exported_class(name):
    """Return the public estimator of a name, or None if there is none."""
    # The name may come from a file. It is looked up only among the exported names, and
    # other folders are not imported.
    if name in MODULES:
        value, folder = getattr(import_module(MODULES[name]), name), "skocc.estimators."
    elif name in (features := import_module("skocc.feature_extraction")).__all__:
        value, folder = getattr(features, name), "skocc.feature_extraction."
    elif name in _MADE_OF_PARTS:
        return getattr(import_module("skocc.model_selection"), name)
    else:
        return None
    is_estimator = isinstance(value, type) and issubclass(value, FittedMixin)
    return value if is_estimator and value.__module__.startswith(folder) else None


def _has_parts(kind):
    """Return whether estimators of a class are made of others."""
    return kind.__name__ in _MADE_OF_PARTS and _public_class(kind.__name__) is kind


def _take_apart(estimator):
    """Return header and arrays of a fitted estimator."""
    params = estimator.get_params(deep=False)
    values, arrays, parts = {}, {}, None
    # Callbacks belong to the program.
    left_out = {*params, "_skl_callbacks"}
    if _has_parts(type(estimator)):
        parts, arrays = _take_parts_apart(estimator)
        left_out.update(estimator._part_names)
        params = {k: v for k, v in params.items() if k not in estimator._part_names}
    for name, value in vars(estimator).items():
        if name in left_out:
            continue
        if name not in estimator._fitted_attributes:
            raise ValueError(
                f"save writes what fit sets on a {type(estimator).__name__}. Got an "
                f"attribute {name!r} besides. Use joblib.dump, or delete it before."
            )
        kind = estimator._fitted_attributes[name]
        if value is None:
            values[name] = None
        elif kind.kind == "bank":
            arrays |= {f"{name}/{part}": array for part, array in _bank_parts(value, kind)}
        elif kind.kind == "network":
            arrays |= _state_of(value, name)
        elif kind.is_list:
            for index, array in enumerate(value):
                arrays[f"{name}/{index}"] = np.asarray(array)
        elif kind.axes:
            arrays[name] = np.asarray(value)
        else:
            values[name] = _encode(value, name)
    header = {
        "format": str(_FORMAT),
        "estimator": type(estimator).__name__,
        "params": _encoded(params),
        "values": values,
        "versions": versions.installed_versions() | {"skocc": versions.__version__},
    }
    if parts:
        header["parts"] = parts
    return header, arrays


def _encoded(params):
    """Return parameters as JSON, without the values of those of the program."""
    return {
        name: None if name in OF_THE_PROGRAM else _encode(value, name)
        for name, value in params.items()
    }


def _state_of(network, name):
    """Return the tensors of a fitted network as arrays, by their names in a file."""
    state = network.state_dict()
    for entry, tensor in state.items():
        if not hasattr(tensor, "cpu"):
            raise ValueError(
                f"{name} has a state that is no tensor. Got {entry!r}, a "
                f"{type(tensor).__name__}. Use joblib.dump."
            )
    return {f"{name}/{entry}": tensor.cpu().numpy() for entry, tensor in state.items()}


def _own_networks(header):
    """Return the names of parameters that were networks of the user."""
    return [name for name in _NETWORKS if header["params"].get(name) == _OWN_NETWORK]


def advice_on_networks(needed, given):
    """Return what to pass instead where a file needs networks of the user."""
    if not needed:
        return "no network" if given else ""
    names = " and ".join(f"{name}=" for name in needed)
    return f"the network that the detector was fitted with as {names}, and no other"


def _take_parts_apart(estimator):
    """Return pairs of a name and a header, None if dropped, and the arrays of all parts."""
    parts, arrays = [], {}
    whole = type(estimator).__name__
    for index, (name, part) in enumerate(estimator._named_parts()):
        if isinstance(part, str):  # dropped
            parts.append([name, None])
            continue
        kind = type(part)
        if _public_class(kind.__name__) is not kind:
            raise ValueError(
                f"The part {name!r} of the {whole} cannot be saved: save writes "
                f"estimators of skocc. Got a {kind.__name__}. Use joblib.dump."
            )
        header, of_part = _take_apart(part)
        if _own_networks(header):
            raise ValueError(
                f"The part {name!r} of the {whole} cannot be saved, because load takes "
                "networks of whole detectors only. Got one with a network of your own. Use "
                "joblib.dump, or save the parts one by one."
            )
        parts.append([name, {key: header[key] for key in _KEYS_OF_PARTS if key in header}])
        arrays |= {f"parts/{index}/{key}": array for key, array in of_part.items()}
    return parts, arrays


def _set_device(header, device):
    """Let the estimator of a header, and its parts, compute on another device."""
    if "device" in header["params"]:
        header["params"]["device"] = device
    for _, part in header.get("parts") or []:
        if part is not None:
            _set_device(part, device)


def _checked_header(metadata, arrays, has_digest=True):
    """Return the header of a file of tensors, and the version of skocc that wrote it."""
    if "skocc" not in metadata:
        raise ValueError("it holds tensors but no estimator")
    header = json.loads(
        metadata["skocc"], object_pairs_hook=_without_repeats, parse_int=_short_int
    )
    if not isinstance(header, dict):
        raise ValueError("its header is no object")
    return header, _check_origin(header, arrays, has_digest)


def _check_origin(header, arrays, has_digest=True):
    """Return the version of skocc that wrote a file, or raise an error if it is damaged.

    Without `has_digest`, damage is not looked for.
    """
    number, written_by = header.get("format"), header.get("versions")
    if not isinstance(written_by, dict) or not re.fullmatch(r"[1-9]\d{0,5}", str(number)):
        raise ValueError("its header has no format or no versions")
    version = written_by.get("skocc")
    if not isinstance(version, str | None):
        raise ValueError("its header has no version of skocc")
    if int(number) > _FORMAT:
        raise ValueError(
            f"it was written by skocc {version} in format {number}, and skocc "
            f"{versions.__version__} reads formats up to {_FORMAT}: install that version"
        )
    digest = header.pop("digest", None)
    if has_digest and number != "1" and digest != _digest(header, arrays):
        raise ValueError("it was damaged since it was written, its digest says")
    return version


def _digest(header, arrays):
    """Return a digest of the header and the arrays."""
    digest = hashlib.blake2b(json.dumps(header, sort_keys=True).encode(), digest_size=16)
    for name, array in sorted(arrays.items()):
        digest.update(repr((name, array.dtype.name, array.shape)).encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
    return digest.hexdigest()


def _put_together(header, arrays, own_networks, level=0):
    """Return the estimator with networks on the device "meta", or raise an error.

    The attributes must match each other. The arrays are not copied.
    """
    if header.get("parts") is None:
        estimator = _with_parameters(header, own_networks)
    else:
        _check_own_networks([], own_networks)
        estimator, arrays = _with_parts(header, arrays, level)
    return _with_attributes(estimator, header["values"], arrays)


def _with_parts(header, arrays, level):
    """Return an estimator of its parts, put together, and the arrays of itself alone."""
    parts, whole_class = header["parts"], _public_class(header["estimator"])
    if whole_class is None or not _has_parts(whole_class):
        raise ValueError("it has parts, and is not made of any")
    if level == _N_LEVELS or len(parts) > _N_PARTS:
        raise ValueError(f"it has {len(parts)} parts, at level {level}, or more")
    own, of_parts = {}, [{} for _ in parts]
    for key, array in arrays.items():
        prefix, _, rest = key.partition("/")
        if prefix == "parts":
            index, _, rest = rest.partition("/")
            of_parts[_digits(index, len(parts))][rest] = array
        else:
            own[key] = array
    pairs, fitted = [], []
    for (name, of_part), its_arrays in zip(parts, of_parts, strict=True):
        if of_part is None:
            pairs.append((name, "drop"))
            continue
        if not of_part.keys() <= {*_KEYS_OF_PARTS}:
            raise ValueError(f"its part {name!r} has more than a part")
        of_part = {"versions": header["versions"], **of_part}
        part = _put_together(of_part, its_arrays, {}, level + 1)
        pairs.append((name, type(part)(**part.get_params(deep=False))))
        fitted.append(part)
    _check_other_bytes(fitted, arrays)
    params = {
        key: None if key in OF_THE_PROGRAM else _decode(value)
        for key, value in header["params"].items()
    }
    return whole_class._of_parts(pairs, fitted, params), own


def _digits(text, limit):
    """Return the index of a part, written as `save` writes it."""
    index = int(text) if re.fullmatch("0|[1-9][0-9]{0,2}", text) else limit
    if index >= limit:
        raise ValueError(f"it has arrays of a part {text!r}")
    return index


def _check_other_bytes(parts, arrays):
    """Raise an error if the networks of all parts together would take too much memory."""
    others = sum(_other_bytes(net) for part in parts for net in _networks_of(part))
    n_bytes = sum(array.nbytes for array in arrays.values())
    if others > max(_OTHER_BYTES, _OTHER_FACTOR * n_bytes):
        raise ValueError(f"its parts would take {others} bytes beside the file's")


def _networks_of(estimator):
    """Return the fitted networks of an estimator, and of its parts."""
    networks = [net for _, part in _parts_of(estimator) for net in _networks_of(part)]
    for name, kind in estimator._fitted_attributes.items():
        if kind.kind == "network" and getattr(estimator, name, None) is not None:
            networks.append(getattr(estimator, name))
    return networks


def _with_attributes(estimator, values, arrays):
    """Return the estimator with the attributes of a file."""
    import torch

    attributes = estimator._fitted_attributes
    groups = {}
    for key, array in arrays.items():
        name, slash, entry = key.partition("/")
        groups.setdefault(name, {})[entry if slash else None] = array
    unknown = (values.keys() | groups.keys()) - attributes.keys()
    if unknown or values.keys() & groups.keys():
        raise ValueError(f"it has attributes {sorted(unknown)[:5]}, or some twice")
    networks, n_bytes = [], sum(array.nbytes for array in arrays.values())
    for name, kind in attributes.items():
        if name in values and (value := values[name]) is None:
            if not kind.nullable:
                raise ValueError(f"{name} is None")
            setattr(estimator, name, None)
        elif kind.kind == "network":
            networks.append(name)
        elif name in groups and kind.kind == "bank":
            setattr(estimator, name, _bank_of(name, groups[name], kind))
        elif name in groups and kind.axes:
            setattr(estimator, name, _ungroup(name, groups[name], kind))
        elif name in values and not kind.axes:
            setattr(estimator, name, _decode_attribute(name, value, kind.kind))
        elif name in values or name in groups or not kind.optional:
            raise ValueError(f"{name} is missing, or of another kind")
    names = getattr(estimator, "feature_names_in_", None)
    if names is not None and len(names) != getattr(estimator, "n_features_in_", None):
        raise ValueError(f"feature_names_in_ has {len(names)} names")
    if "image_shape_" in attributes:
        check_fitted_shape(estimator)
    sizes = _check_arrays(estimator)
    for name in networks:
        with torch.device("meta"):
            network = estimator._empty_network(name).eval()
        _check_state(name, network.state_dict(), groups.get(name, {}))
        if (others := _other_bytes(network)) > max(_OTHER_BYTES, _OTHER_FACTOR * n_bytes):
            raise ValueError(f"{name} would take {others} bytes beside the file's")
        setattr(estimator, name, network)
    with torch.no_grad():
        _check_sizes(estimator, sizes, estimator._check_loaded())
    return estimator


def _with_parameters(header, own_networks):
    """Return an unfitted estimator with the parameters of a file, and own networks."""
    import torch

    needed = _own_networks(header)
    _check_own_networks(needed, own_networks)
    name, version = header["estimator"], header["versions"]["skocc"]
    public_class = _public_class(name)
    if public_class is None:
        raise ValueError(
            f"it was written by skocc {version} as {name!r}, which skocc "
            f"{versions.__version__} cannot read unless a class of that name is registered"
        )
    params, known = header["params"], public_class().get_params(deep=False).keys()
    # Parameters that an earlier version did not have keep their defaults.
    if unknown := params.keys() - known:
        raise ValueError(
            f"it was written by skocc {version} with parameters {sorted(unknown)[:5]}, "
            f"which a {name} of skocc {versions.__version__} has not"
        )
    params = {
        key: None if key in OF_THE_PROGRAM else _decode(value)
        for key, value in params.items()
        if key not in needed
    }
    estimator = public_class(**params, **own_networks)
    estimator._validate_params()
    if getattr(estimator, "device", None) is not None:
        torch.device(estimator.device)
    return estimator


def _check_own_networks(needed, given):
    """Raise an error unless the networks of the user are those that a file needs."""
    if {*needed} != given.keys():
        raise ValueError(
            f"it was fitted with {' and '.join(needed) or 'no network'} of the user's. Got "
            f"{' and '.join(given) or 'none'}"
        )


def _ungroup(name, arrays, kind):
    """Return an array, or a list of arrays, of a declared dtype and number of axes."""
    keys = [str(i) for i in range(len(arrays))] if kind.is_list else [None]
    if arrays.keys() != set(keys):
        raise ValueError(f"{name} has other entries than it should")
    for array in arrays.values():
        if array.dtype.name != kind.kind or array.ndim != len(kind.axes):
            raise ValueError(f"{name} is {array.dtype.name} of shape {array.shape}")
        if not array.size:
            raise ValueError(f"{name} is empty")
        is_checked = kind.finite and not isinstance(array, np.memmap)
        if is_checked and array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"{name} has values that are not finite")
    return [arrays[key] for key in keys] if kind.is_list else arrays[None]


def _bank_kinds(kind):
    """Return the declarations of the parts of a memory bank."""
    n_vectors, n_features = kind.axes
    return {
        "vectors": Fitted("float32", (n_vectors, n_features)),
        "images": Fitted("int32", (n_vectors,), below="n"),
        "digests": Fitted("uint8", ("n", 16)),
        "groups": Fitted("int32", ("n",), below="n", optional=True),
    }


def _bank_parts(bank, kind):
    """Return pairs of a name and an array, of the parts that a memory bank has."""
    pairs = [(part, getattr(bank, part)) for part in _bank_kinds(kind)]
    return [(part, array) for part, array in pairs if array is not None]


def _bank_of(name, arrays, kind):
    """Return the memory bank made from the arrays of a file."""
    from skocc._ops.memory_bank import MemoryBank

    kinds = _bank_kinds(kind)
    needed = {part for part, its_kind in kinds.items() if not its_kind.optional}
    if not needed <= arrays.keys() <= kinds.keys():
        raise ValueError(f"{name} has other entries than it should")
    parts = {
        part: _ungroup(f"{name}/{part}", {None: array}, kinds[part])
        for part, array in arrays.items()
    }
    return MemoryBank(**parts)


def _check_arrays(estimator):
    """Return the sizes of named axes, and raise an error if two of them differ."""
    sizes, arrays = {}, []
    for name, kind in estimator._fitted_attributes.items():
        value = getattr(estimator, name, None)
        if value is None or not kind.axes or kind.is_list:
            continue
        if kind.kind == "bank":
            kinds = _bank_kinds(kind)
            for part, array in _bank_parts(value, kind):
                arrays.append((f"{name}/{part}", kinds[part], array))
        else:
            arrays.append((name, kind, value))
    for name, kind, array in arrays:
        for axis, size in zip(kind.axes, array.shape, strict=True):
            if size != (axis if isinstance(axis, int) else sizes.setdefault(axis, size)):
                raise ValueError(f"{name} has shape {array.shape}, sizes being {sizes}")
    for name, kind, array in arrays:
        if kind.below and not 0 <= array.min() <= array.max() < sizes[kind.below]:
            raise ValueError(f"{name} has values out of range")
    return sizes


def _check_sizes(estimator, sizes, expected):
    """Raise an error if the sizes of arrays do not match those of the networks."""
    for axis, size in expected.items():
        if isinstance(size, int) and sizes.get(axis, size) != size:
            raise ValueError(f"arrays have a size {axis} of {sizes[axis]}, not {size}")
    for name, kind in estimator._fitted_attributes.items():
        if kind.is_list:
            found = [array.shape for array in getattr(estimator, name)]
            needed = [*zip(*(expected[axis] for axis in kind.axes), strict=True)]
            if found != needed:
                raise ValueError(f"{name} has shapes {found}, not {needed}")


def _check_state(name, expected, found):
    """Raise an error unless the arrays match the state of a network."""
    if expected.keys() != found.keys():
        raise ValueError(
            f"{name} has other tensors than its network, among them "
            f"{sorted(map(str, expected.keys() ^ found.keys()))[:5]}"
        )
    for entry, tensor in expected.items():
        array = found[entry]
        dtype = "float32" if tensor.is_floating_point() else str(tensor.dtype)[6:]
        if array.dtype.name != dtype or array.shape != tuple(tensor.shape):
            raise ValueError(
                f"{name}/{entry} is {array.dtype.name} of shape {array.shape}, not {dtype} "
                f"of shape {tuple(tensor.shape)}"
            )


def _fill(estimator, arrays):
    """Load the weights of the networks, and copy the arrays of the estimator."""
    import torch

    from skocc._engine.ambient import own_settings
    from skocc._engine.seeding import seeded

    for index, part in _parts_of(estimator):
        prefix = f"parts/{index}/"
        keys = [key for key in arrays if key.startswith(prefix)]
        _fill(part, {key.removeprefix(prefix): arrays.pop(key) for key in keys})
    for name, kind in estimator._fitted_attributes.items():
        value = getattr(estimator, name, None)
        if value is None:
            continue
        if kind.is_list:
            setattr(estimator, name, [_aligned(array).numpy() for array in value])
        elif kind.kind == "bank":
            parts = {
                part: array if isinstance(array, np.memmap) else _aligned(array).numpy()
                for part, array in _bank_parts(value, kind)
            }
            setattr(estimator, name, type(value)(**parts))
        elif kind.axes:
            setattr(estimator, name, _aligned(value).numpy())
        elif kind.kind == "network":
            prefix = f"{name}/"
            state = {
                key.removeprefix(prefix): _aligned(arrays.pop(key))
                for key in [*arrays]
                if key.startswith(prefix)
            }
            if _other_bytes(value):
                # Tensors that are not in the file are computed from the sizes, as in fit.
                with own_settings(), seeded(0, torch.device("cpu")):
                    value = estimator._empty_network(name).eval()
                setattr(estimator, name, value)
            value.load_state_dict(state, assign=True)


def _parts_of(estimator):
    """Return the index and the fitted part, for all parts of an estimator."""
    if not _has_parts(type(estimator)):
        return []
    parts = enumerate(part for _, part in estimator._named_parts())
    return [(index, part) for index, part in parts if not isinstance(part, str)]


def _aligned(array):
    """Return a copy as a tensor in memory that torch allocates, and so aligns."""
    import torch

    if isinstance(array, np.memmap):
        array = np.array(array)  # which may be written to, or torch warns
    return torch.from_numpy(array).clone()


def _other_bytes(network):
    """Return the bytes of tensors that are not part of the state of a network."""
    known = network.state_dict().keys()
    return sum(b.nbytes for name, b in network.named_buffers() if name not in known)


def _encode(value, key):
    """Return `value` as JSON; tuples and arrays of text keep their type."""
    if isinstance(value, tuple):
        return {"tuple": [_encode(item, key) for item in value]}
    if isinstance(value, list):
        return [_encode(item, key) for item in value]
    if isinstance(value, np.ndarray) and value.dtype.kind in "OU":
        return {"text": [str(item) for item in value]}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if key in _NETWORKS and callable(value):
        return _OWN_NETWORK
    if type(value).__module__ == "torch" and type(value).__name__ == "device":
        return str(value)
    raise ValueError(
        f"{key}={value!r} cannot be saved as data. Use joblib.dump(estimator, path), or "
        "replace it by a plain value with set_params."
    )


def _decode(value, depth=0):
    """Return a parameter: text, a number, or tuples and lists of them."""
    is_tuple = isinstance(value, dict) and value.keys() == {"tuple"}
    items = value["tuple"] if is_tuple else value
    if isinstance(items, list) and len(items) <= _N_ENTRIES and depth < 3:
        items = [_decode(item, depth + 1) for item in items]
        return tuple(items) if is_tuple else items
    if isinstance(value, dict | list):
        raise ValueError("it has a parameter that is no plain value")
    return value


def _decode_attribute(name, value, kind):
    """Return a fitted attribute that is not an array, or raise an error."""
    if kind == "text" and isinstance(value, dict) and value.keys() == {"text"}:
        value = value["text"]
        if _is_list_of(lambda item: isinstance(item, str), value):
            return np.array(value, dtype=object)
    value = _decode(value) if kind in ("integers", "layers") else value
    valid = {
        "bool": lambda: isinstance(value, bool),
        "count": lambda: _is_int(value) and value >= 0,
        "float": lambda: _is_real(value) and math.isfinite(value),
        "integers": lambda: isinstance(value, tuple) and all(map(_is_int, value)),
        "layers": lambda: isinstance(value, tuple) and all(map(_is_layer, value)),
        "losses": lambda: _are_losses(value),
        "loss lists": lambda: _is_list_of(_are_losses, value),
    }
    if kind not in valid or not valid[kind]():
        raise ValueError(f"{name} is nothing that fit sets")
    return value


def _is_int(value):
    return isinstance(value, int) and not isinstance(value, bool)


def _is_layer(value):
    return _is_int(value) or isinstance(value, str)


def _is_real(value):
    return isinstance(value, Real) and not isinstance(value, bool)


def _are_losses(value):
    return _is_list_of(_is_real, value)


def _is_list_of(is_one, value):
    return isinstance(value, list) and all(map(is_one, value))


def _without_repeats(pairs):
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("its header names something twice")
    return found


def _short_int(text):
    if len(text) > _N_DIGITS:
        raise ValueError("its header has a number of too many digits")
    return int(text)


def _shown(error):
    """Return the text of an error for a message, with unprintable characters escaped."""
    text = str(error)[:300]
    if type(error) is not ValueError:
        text = f"{type(error).__name__}: {text}"
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in text
    )
