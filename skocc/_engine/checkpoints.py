"""The state of a training in a file, from which it goes on after an interruption."""

import os
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from skocc._engine.seeding import random_states, set_random_states


class Checkpoint:
    """A file that :func:`~skocc._engine.training.train` writes to, and goes on from.

    Parameters
    ----------
    path : str or Path
        The file. Its folder is made if there is none.
    identity : dict of str to None, bool, int, float or str
        What makes it this training and no other: parameters, and a digest of the data.
    checkpoint_every : int, default=1
        Epochs from one writing to the next. The last epoch is always written.
    generator : torch.Generator, default=None
        The one that the order of batches is drawn from.

    Notes
    -----
    The file holds tensors and plain values, and is read with ``weights_only``, so that
    reading it runs no code. A new file replaces the old one when it is complete.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        identity: dict[str, Any],
        checkpoint_every: int = 1,
        generator: torch.Generator | None = None,
    ):
        self._path = Path(path)
        self._identity = identity
        self.checkpoint_every = checkpoint_every
        self._generator = generator

    def load(
        self,
        parts: dict[str, Any],
        device: torch.device,
        check_history: Callable[[Any], None] | None = None,
    ) -> Any:
        """Give the parts and the random states back the state they had.

        Parameters
        ----------
        parts : dict of str to object or None
            Module, optimizer and the like: what has `state_dict` and `load_state_dict`.
        device : torch.device
            Whose random state is set.
        check_history : callable, default=None
            Raises an error, of any kind, for a history that is none.

        Returns
        -------
        history : object or None
            What :meth:`save` was given. None without a file; then nothing is changed.

        Raises
        ------
        ValueError
            The file is none of these, or is of another training.
        """
        if not self._path.exists():
            return None
        with self._readable():
            if not self._path.is_file():
                raise ValueError("it is no regular file")
            content = torch.load(self._path, map_location="cpu", weights_only=True)
            identity, states = dict(content["identity"]), content["states"]
            history, streams = content["history"], content["random_states"]
        self._check(identity)
        with self._readable():
            if check_history is not None:
                check_history(history)
            for name, part in parts.items():
                if part is not None:
                    part.load_state_dict(_state_for(name, part, states[name]))
            set_random_states(streams, device)
            if self._generator is not None:
                self._generator.set_state(streams["generator"])
        return history

    @contextmanager
    def _readable(self):
        """Turn any error that the content of the file leads to into one that names it."""
        try:
            yield
        except Exception as error:
            raise ValueError(
                f"The checkpoint {str(self._path)!r} cannot be read: {str(error)[:200]}. "
                "Remove the file to start from the beginning, or name another folder."
            ) from error

    def save(self, parts: dict[str, Any], history: Any, device: torch.device) -> None:
        """Write the state of the parts and the random states.

        Parameters
        ----------
        parts, device
            As in :meth:`load`.
        history : tensors, plain values, and lists, tuples and dicts of them
            Written as they are.
        """
        streams = random_states(device)
        if self._generator is not None:
            streams["generator"] = self._generator.get_state()
        content = {
            "identity": self._identity,
            "states": {
                name: part.state_dict() for name, part in parts.items() if part is not None
            },
            "history": history,
            "random_states": streams,
        }
        self._path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self._path.with_name(self._path.name + ".unfinished")
        torch.save(content, unfinished)
        os.replace(unfinished, self._path)

    def _check(self, identity):
        keys = sorted(identity.keys() | self._identity.keys())
        differences = [
            f"{key}={identity.get(key)!r} there, {self._identity.get(key)!r} here"
            for key in keys
            if identity.get(key) != self._identity.get(key)
        ]
        if differences:
            raise ValueError(
                f"The checkpoint {str(self._path)!r} is of another training: "
                f"{'; '.join(differences)}. Fit with the parameters and the data it was "
                "made with to go on from it, remove the file, or name another folder."
            )


def check_form(name: str, value: Any, like: Any) -> None:
    """Raise a ValueError unless two values differ in nothing but numbers.

    Parameters
    ----------
    name : str
        For the message.
    value, like : tensors, plain values, and lists, tuples and dicts of them
        Tensors must have the same shape and dtype, containers the same entries. An int may
        stand for a float.
    """
    if isinstance(like, dict):
        same = isinstance(value, dict) and value.keys() == like.keys()
        pairs = [(value[key], like[key]) for key in like] if same else []
    elif isinstance(like, list | tuple):
        same = isinstance(value, list | tuple) and len(value) == len(like)
        pairs = list(zip(value, like, strict=True)) if same else []
    elif isinstance(like, torch.Tensor):
        same = isinstance(value, torch.Tensor) and (
            (value.shape, value.dtype) == (like.shape, like.dtype)
        )
        pairs = []
    else:
        numbers = int | float
        same = type(value) is type(like) or (
            isinstance(value, numbers) and isinstance(like, numbers)
        )
        pairs = []
    if not same:
        raise ValueError(f"{name} is not of the form it should have")
    for part, other in pairs:
        check_form(name, part, other)


def _state_for(name, part, state):
    """Return a state as the part can load it and go on, or raise an error.

    Of an optimizer or a scheduler another version of torch may keep a little more, or less.
    """
    like = part.state_dict()
    if isinstance(part, torch.nn.Module):
        check_form(name, state, like)
        return state
    if not isinstance(part, torch.optim.Optimizer):
        return _completed(name, state, like)
    groups = [
        _completed(name, group, other)
        for group, other in zip(state["param_groups"], like["param_groups"], strict=True)
    ]
    weights = [weight for group in part.param_groups for weight in group["params"]]
    for index, values in state["state"].items():
        for value in values.values():
            shapes = (torch.Size(), weights[index].shape)
            if not isinstance(value, torch.Tensor) or value.shape not in shapes:
                raise ValueError(f"{name} is not of the form it should have")
    return {"state": state["state"], "param_groups": groups}


def _completed(name, state, like):
    state = {key: state.get(key, value) for key, value in like.items()}
    check_form(name, state, like)
    return state
