"""Saving fitted estimators in a file that holds data only.

A pickle can run code when it is read. The files written here are safetensors: numbers,
and a header of JSON, from which a public estimator of skocc is put together again.
"""

import json
import os

import numpy as np
from sklearn.utils.validation import check_is_fitted

import skocc
from skocc._versions import installed_versions

_FORMAT = "1"


def save(estimator, path):
    """Save a fitted estimator as a safetensors file.

    Parameters
    ----------
    estimator : estimator of skocc
        Fitted, on whatever device.
    path : str or Path
        File to write; an existing one is replaced.

    Raises
    ------
    ValueError
        A parameter cannot be written as data, such as a module given as `backbone`. Use
        ``joblib.dump`` for these.
    sklearn.exceptions.NotFittedError
        The estimator is not fitted.

    See Also
    --------
    load : Read the file again.

    Notes
    -----
    Pickle and joblib work on every estimator too. A file of `save` is the one to exchange:
    reading it runs no code of its own.

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
    import torch
    from safetensors.torch import save_file

    check_is_fitted(estimator)
    name = type(estimator).__name__
    if _public_class(name) is not type(estimator):
        raise ValueError(
            f"save writes estimators of skocc. Got a {name}. Use joblib.dump, which also "
            "takes a Pipeline."
        )
    params = estimator.get_params(deep=False)
    values, modules, lists, tensors = {}, [], {}, {}
    for key, value in vars(estimator).items():
        if key in params:
            continue
        if key in getattr(estimator, "_rebuilt", ()):  # made of the rest on first use
            value = None
        if isinstance(value, torch.nn.Module):
            modules.append(key)
            for entry, tensor in value.state_dict().items():
                tensors[f"{key}/{entry}"] = tensor.contiguous().clone()
        elif _is_numeric(value):
            tensors[key] = torch.from_numpy(np.array(value))
        elif isinstance(value, list) and value and all(map(_is_numeric, value)):
            lists[key] = len(value)
            for index, array in enumerate(value):
                tensors[f"{key}/{index}"] = torch.from_numpy(np.array(array))
        else:
            values[key] = _encode(value, key)
    header = {
        "format": _FORMAT,
        "estimator": name,
        "modules": modules,
        "lists": lists,
        "params": {key: _encode(value, key) for key, value in params.items()},
        "values": values,
        "versions": installed_versions(),
    }
    save_file(tensors, path, metadata={"skocc": json.dumps(header)})


def load(path):
    """Read an estimator that :func:`save` wrote.

    Parameters
    ----------
    path : str or Path
        A file of `save`, written on a machine with or without a GPU.

    Returns
    -------
    estimator : estimator of skocc
        Fitted, with its networks on the CPU.

    Raises
    ------
    ValueError
        The file is not one of `save`, or a newer skocc wrote it.

    See Also
    --------
    save : Write the file.
    """
    from safetensors import SafetensorError, safe_open

    from skocc.engine.ambient import own_settings

    path = os.fspath(path)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            header = json.loads((file.metadata() or {}).get("skocc", "null"))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, FileNotFoundError) as error:
        raise ValueError(
            f"{path!r} cannot be read as a safetensors file: {error}. Pass a file "
            "written by skocc.save; pickles are read by joblib.load."
        ) from error
    if header is None:
        raise ValueError(
            f"{path!r} holds tensors but no estimator. Pass a file written by skocc.save."
        )
    public_class = _public_class(header["estimator"])
    if header["format"] != _FORMAT or public_class is None:
        raise ValueError(
            f"{path!r} was written by skocc {header['versions']['skocc']} as "
            f"{header['estimator']}, which skocc {skocc.__version__} cannot read. Install "
            "that version, or a newer one."
        )
    params = {key: _decode(value) for key, value in header["params"].items()}
    estimator = public_class(**params)
    for key, value in header["values"].items():
        setattr(estimator, key, _decode(value))
    for key, tensor in tensors.items():
        if "/" not in key:
            setattr(estimator, key, tensor.numpy())
    for key, length in header.get("lists", {}).items():
        setattr(estimator, key, [tensors[f"{key}/{i}"].numpy() for i in range(length)])
    for module in header["modules"]:
        with own_settings():
            network = estimator._empty_network(module)
        prefix = f"{module}/"
        state = {
            key.removeprefix(prefix): tensor
            for key, tensor in tensors.items()
            if key.startswith(prefix)
        }
        network.load_state_dict(state)
        setattr(estimator, module, network.eval())
    return estimator


def _public_class(name):
    """Return the public estimator of a name, None where there is none."""
    for module in (skocc, skocc.feature_extraction):
        if name in module.__all__:
            return getattr(module, name)
    return None


def _is_numeric(value):
    return isinstance(value, np.ndarray) and value.dtype.kind in "biuf"


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
    if type(value).__module__ == "torch" and type(value).__name__ == "device":
        return str(value)
    raise ValueError(
        f"{key}={value!r} cannot be saved as data. Use joblib.dump(estimator, path), or "
        "replace it by a plain value with set_params."
    )


def _decode(value):
    if isinstance(value, dict) and "tuple" in value:
        return tuple(_decode(item) for item in value["tuple"])
    if isinstance(value, dict):
        return np.array(value["text"], dtype=object)
    return [_decode(item) for item in value] if isinstance(value, list) else value
