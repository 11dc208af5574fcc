"""The state of a training in a file, from which it goes on after an interruption."""

import os
from pathlib import Path
from typing import Any

import torch

from skocc.engine.seeding import random_states, set_random_states


class Checkpoint:
    """A file that :func:`~skocc.engine.training.train` writes to, and goes on from.

    Parameters
    ----------
    path : str or Path
        The file. Its folder is made if there is none.
    identity : dict of str to None, bool, int, float or str
        What makes it this training and no other: parameters, and a digest of the data.
    n_epochs_between : int, default=1
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
        n_epochs_between: int = 1,
        generator: torch.Generator | None = None,
    ):
        self._path = Path(path)
        self._identity = identity
        self.n_epochs_between = n_epochs_between
        self._generator = generator

    def load(self, parts: dict[str, Any], device: torch.device) -> Any:
        """Give the parts and the random states back the state they had.

        Parameters
        ----------
        parts : dict of str to object or None
            Module, optimizer and the like: what has `state_dict` and `load_state_dict`.
        device : torch.device
            Whose random state is set.

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
        try:
            content = torch.load(self._path, map_location="cpu", weights_only=True)
            identity, states = content["identity"], content["states"]
            history, streams = content["history"], content["random_states"]
        except Exception as error:
            raise ValueError(
                f"The checkpoint {str(self._path)!r} cannot be read: {str(error)[:200]}. "
                "Remove the file to start from the beginning, or name another folder."
            ) from error
        self._check(identity)
        for name, part in parts.items():
            if part is not None:
                part.load_state_dict(states[name])
        set_random_states(streams, device)
        if self._generator is not None:
            self._generator.set_state(streams["generator"])
        return history

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
