"""Checkpoints of a whole fit: one file for each of its stages, which belong to it alone."""

import hashlib
import os
import re
from numbers import Integral
from pathlib import Path

import numpy as np
import torch

from skocc._engine.batches import ImageBatches
from skocc._engine.checkpoints import Checkpoint
from skocc._samples.progress import track

# Parameters that may change between two fits of which the second goes on from the first.
_FREE_PARAMETERS = {
    "n_epochs", "n_iter_no_change", "checkpoint_dir", "checkpoint_every", "contamination",
    "image_shape", "image_size", "intensity_range", "device", "verbose", "warm_start",
    "memory",
}  # fmt: skip


def check_resumable(estimator, is_warm: bool) -> None:
    """Raise a ValueError if a fit that was killed could not be resumed from checkpoints.

    Parameters
    ----------
    estimator : estimator
        With `checkpoint_dir`, which is not None.
    is_warm : bool
        Whether the fit goes on from fitted weights.
    """
    if is_warm:
        raise ValueError(
            "warm_start=True continues from the fitted weights, checkpoint_dir from "
            f"those in the folder. Got both, checkpoint_dir={estimator.checkpoint_dir!r}. "
            "Set warm_start=False, or checkpoint_dir=None."
        )
    is_known = isinstance(estimator.random_state, Integral)
    if not is_known and estimator._draws_before_training():
        raise ValueError(
            "checkpoint_dir needs what is drawn before the training to be drawn again, "
            "such as first weights and the images to be held out again. Got random_state="
            f"{estimator.random_state!r}. Set random_state to an int."
        )


def stage_checkpoint(estimator, run, stage: str | None = None) -> Checkpoint | None:
    """Return the checkpoint of a stage of a fit, None where no folder is named.

    Parameters
    ----------
    estimator : estimator
        With `checkpoint_dir`.
    run : Run
    stage : str, default=None
        Name of a stage before the main one. None: the main stage.
    """
    if estimator.checkpoint_dir is None:
        return None
    if run.identity is None:
        run.identity = fit_identity(estimator, run.source)
    # DeepSVDD: deep_svdd.pt, and deep_svdd_autoencoder.pt.
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(estimator).__name__).lower()
    path = Path(estimator.checkpoint_dir, f"{name}{f'_{stage}' if stage else ''}.pt")
    return Checkpoint(
        path,
        run.identity,
        getattr(estimator, "checkpoint_every", 1),
        run.generator,
        # The main stage has begun from what an interrupt of the one before has left.
        keeps_interrupts=stage is not None,
    )


def fit_identity(estimator, images) -> dict:
    """Return what a fit that is resumed must have in common with the one that was killed.

    Parameters
    ----------
    estimator : estimator
    images : image source
        The images as they were read.
    """
    free = _FREE_PARAMETERS - {*estimator._fixed_parameters}
    params = estimator.get_params(deep=False)
    identity = {name: _plain(params[name]) for name in params if name not in free}
    digest = hashlib.blake2b(digest_size=16)
    batches = ImageBatches(images, estimator.batch_size, device=torch.device("cpu"))
    for batch in track(batches, "digests of the images"):
        digest.update((batch + 0.0).contiguous().numpy())  # -0.0 becomes 0.0
    identity["image_shape_"] = str(estimator.image_shape_)
    identity["images"] = digest.hexdigest()
    return identity | estimator._identity_of_frozen()


def _plain(value):
    """Return a parameter as what a file of plain values holds."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, tuple | list):
        return str(tuple(map(_plain, value)))
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, int | float | str | None):
        return value
    # A class or function by its name, and a module or RandomState by that of its class.
    return getattr(value, "__qualname__", type(value).__qualname__)
