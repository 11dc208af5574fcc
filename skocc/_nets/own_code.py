"""What a network computes with beside its weights: code and settings, as a text.

Two networks with equal weights differ in what this text says, and it is the same in every
process: no address, no order of a set, nothing that Python draws at its start is in it.
"""

import functools
import hashlib
import types
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

# How far attributes are followed into objects, such as the configuration of a network.
_MAX_DEPTH = 8
# Attributes of every module, which hold its parts or the state of a run.
_OF_MODULES = frozenset(vars(nn.Module())) - {"training"}


def code_of(model: nn.Module) -> str:
    """Return a digest of the code of a network's modules, and of their settings.

    Parameters
    ----------
    model : nn.Module

    Returns
    -------
    digest : str
        It depends on the functions of the modules' classes, with those that they call in
        the same file and the constants that they use; and on the attributes of each
        module. It does not depend on weights, which a key has anyway, nor on the code of
        torch.
    """
    known: set = set()
    digest = hashlib.blake2b(digest_size=16)
    for name, module in model.named_modules():
        settings = {
            key: value for key, value in vars(module).items() if key not in _OF_MODULES
        }
        texts = [name, type(module).__qualname__, _text(settings, known, 0)]
        texts += [_class_text(cls, known) for cls in type(module).__mro__]
        digest.update(repr(texts).encode())
    return digest.hexdigest()


def _class_text(cls, known):
    """Return the code of a class, once; nothing for those of torch and Python."""
    if cls in known or cls.__module__.partition(".")[0] in ("torch", "builtins"):
        return ""
    known.add(cls)
    members = {
        key: value
        for key, value in vars(cls).items()
        if not key.startswith("__") or callable(value)
    }
    return f"{cls.__module__}.{cls.__qualname__} {_text(members, known, 0)}"


def _text(value: Any, known: set, depth: int) -> str:
    """Return a text of a value that is equal in every process."""
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        return repr(value)
    if isinstance(value, torch.Tensor):
        return _tensor_text(value)
    if isinstance(value, staticmethod | classmethod):
        return _text(value.__func__, known, depth)
    if isinstance(value, property):
        return _text((value.fget, value.fset), known, depth)
    if isinstance(value, functools.partial):
        return _text((value.func, value.args, value.keywords), known, depth)
    if isinstance(value, types.MethodType):
        return _text(value.__func__, known, depth)
    if isinstance(value, types.FunctionType):
        return _function_text(value, known, depth)
    if isinstance(value, types.CodeType):
        return _code_text(value, known, depth)
    if isinstance(value, type | types.ModuleType | types.BuiltinFunctionType):
        name = getattr(value, "__qualname__", value.__name__)
        return f"{getattr(value, '__module__', None)}.{name}"
    if isinstance(value, nn.Module) or depth > _MAX_DEPTH:
        return type(value).__qualname__  # a part of the network has its own entry
    if isinstance(value, set | frozenset):
        return f"set {sorted(_text(item, known, depth + 1) for item in value)}"
    if isinstance(value, Mapping):
        pairs = (
            (_text(key, known, depth + 1), _text(item, known, depth + 1))
            for key, item in value.items()
        )
        return f"{type(value).__qualname__} {sorted(pairs)}"
    if isinstance(value, tuple | list):
        return f"{[_text(item, known, depth + 1) for item in value]}"
    if isinstance(value, torch.dtype | torch.device | torch.layout | range | slice):
        return repr(value)
    # Any other object: an array by its bytes, others by their attributes.
    if hasattr(value, "tobytes") and hasattr(value, "dtype"):
        return f"{value.dtype} {value.shape} {_digest(value.tobytes())}"
    return f"{type(value).__qualname__} {_attributes_text(value, known, depth)}"


def _attributes_text(value, known, depth):
    attributes = getattr(value, "__dict__", None)
    if not attributes or id(value) in known:
        return ""
    known.add(id(value))
    try:
        return _text(dict(attributes), known, depth + 1)
    finally:
        known.discard(id(value))


def _function_text(function, known, depth):
    """Return the code of a function, with what it uses of its file and its closure."""
    if function in known or depth > _MAX_DEPTH:
        return function.__qualname__
    known.add(function)
    code = function.__code__
    closure = []
    for cell in function.__closure__ or ():
        try:
            closure.append(_text(cell.cell_contents, known, depth + 1))
        except ValueError:  # an empty cell
            closure.append("")
    used = []
    for name in code.co_names:
        value = function.__globals__.get(name)
        is_near = getattr(value, "__module__", None) == function.__module__
        is_plain = isinstance(value, bool | int | float | str | bytes | tuple | list)
        if is_plain or (is_near and isinstance(value, types.FunctionType)):
            used.append((name, _text(value, known, depth + 1)))
    defaults = _text((function.__defaults__, function.__kwdefaults__), known, depth + 1)
    return repr((_text(code, known, depth + 1), defaults, closure, used))


def _code_text(code, known, depth):
    """Return bytecode with its names and constants; constants may be code in turn."""
    constants = [_text(item, known, depth + 1) for item in code.co_consts]
    return repr((_digest(code.co_code), code.co_names, code.co_varnames, constants))


def _tensor_text(tensor):
    # Parameters and buffers are not among the attributes that get here.
    if tensor.device.type == "meta":
        return f"{tensor.dtype} {tuple(tensor.shape)}"
    values = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
    return f"{tensor.dtype} {tuple(tensor.shape)} {_digest(values.numpy().tobytes())}"


def _digest(data):
    return hashlib.blake2b(data, digest_size=16).hexdigest()
