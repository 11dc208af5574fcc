"""Checkpoint files, from which an interrupted training resumes."""

import io
import os
import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from skocc._engine.seeding import random_states, set_random_states
from skocc._engine.whole_files import replacing


class Checkpoint:
    """File that :func:`~skocc._engine.training.train` writes, and from which it resumes.

    Parameters
    ----------
    path : str or Path
        Path of the file. Its folder is made if it does not exist.
    identity : dict of str to None, bool, int, float or str
        Values that identify the training: parameters, and a digest of the data.
    checkpoint_every : int, default=1
        Number of epochs between two checkpoints. The last epoch is always written.
    generator : torch.Generator, default=None
        Generator of the order of batches.
    keeps_interrupts : bool, default=False
        Whether Ctrl-C ends the training for good. If so, the state at that moment is
        written, and another training starts from what it has learned; if not, it goes on
        from its last whole epoch.

    Notes
    -----
    The file contains tensors and plain values, and is read with ``weights_only``, so that
    reading it runs no code. A new file replaces the old one when it is complete. A process
    that is killed may leave a file whose name starts with ``.skocc-``.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        identity: dict[str, Any],
        checkpoint_every: int = 1,
        generator: torch.Generator | None = None,
        keeps_interrupts: bool = False,
    ):
        self._path = Path(path)
        self._identity = identity
        self.checkpoint_every = checkpoint_every
        self._generator = generator
        self.keeps_interrupts = keeps_interrupts

    def load(
        self,
        parts: dict[str, Any],
        device: torch.device,
        check_history: Callable[[Any], None] | None = None,
    ) -> Any:
        """Restore the state of the parts and of the random streams.

        Parameters
        ----------
        parts : dict of str to object or None
            Module, optimizer and other objects with `state_dict` and `load_state_dict`.
        device : torch.device
            Device whose random state is set.
        check_history : callable, default=None
            Function that raises an error, of any kind, for an invalid history.

        Returns
        -------
        history : object or None
            The history that was passed to :meth:`save`. None if there is no file; then
            nothing is changed.

        Raises
        ------
        ValueError
            The file is not a checkpoint, or belongs to another training.
        """
        if not self._path.exists():
            return None
        with self._readable():
            if not self._path.is_file():
                raise ValueError("it is not a regular file")
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
        """Replace any error in the block by one that names the file."""
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
            History to write.

        Raises
        ------
        OSError
            The file cannot be written. The error names it, and an old file is unchanged.
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
        # torch reports a full disk as a RuntimeError without its number; files do not.
        buffer = io.BytesIO()
        torch.save(content, buffer)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self._path) as temporary, open(temporary, "wb") as file:
            file.write(buffer.getbuffer())

    def check_folder(self) -> None:
        """Raise an OSError before any training if the folder cannot be written to."""
        folder = self._path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise OSError(
                error.errno,
                f"{error.strerror or error}. Checkpoints cannot be written. Name another "
                "folder, or free space and allow writing",
                str(folder),
            ) from error

    def _check(self, identity):
        keys = sorted(identity.keys() | self._identity.keys())
        differences = [
            f"{key}={identity.get(key)!r} in the file, {self._identity.get(key)!r} here"
            for key in keys
            if identity.get(key) != self._identity.get(key)
        ]
        if differences:
            raise ValueError(
                f"The checkpoint {str(self._path)!r} belongs to another training: "
                f"{'; '.join(differences)}. To resume from it, fit with the same "
                "parameters and data; otherwise remove the file, or name another folder."
            )


def check_form(name: str, value: Any, like: Any) -> None:
    """Raise a ValueError unless two values have the same structure.

    Parameters
    ----------
    name : str
        Name of the value, for the message.
    value, like : tensors, plain values, and lists, tuples and dicts of them
        Values to compare. Tensors must have the same shape and dtype, and containers the
        same entries. An int matches a float.
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
        raise ValueError(f"{name} does not have the expected form")
    for part, other in pairs:
        check_form(name, part, other)


def _state_for(name, part, state):
    """Return a state in the form that the part can load, or raise an error.

    Other versions of torch may store more or fewer entries for optimizers and schedulers.
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
                raise ValueError(f"{name} does not have the expected form")
    return {"state": state["state"], "param_groups": groups}


def _completed(name, state, like):
    state = {key: state.get(key, value) for key, value in like.items()}
    check_form(name, state, like)
    return state
