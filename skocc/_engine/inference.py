"""The only inference loop of the package."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch

from skocc._samples.log import logger
from skocc._samples.progress import track


@torch.no_grad()
def stream_batches(
    module: torch.nn.Module,
    batches: Iterable,
    function: Callable | None = None,
    *,
    stage: str = "scores",
) -> Iterator:
    """Apply a function to every batch and yield the results one by one.

    Use this function if all results together do not fit into memory.

    Parameters
    ----------
    module : torch.nn.Module
        Network, which is put in eval mode.
    batches : iterable with a length
        Batches in the order of the results.
    function : callable, default=None
        Function of a batch. None applies `module`.
    stage : str, default="scores"
        Name of the stage in the progress bar.

    Yields
    ------
    result : object
        Result of `function` for one batch.
    """
    module.eval()
    function = module if function is None else function
    started = time.monotonic()
    logger.debug("%s: starts", stage)
    for batch in track(batches, stage):
        yield function(batch)
    logger.debug("%s: ended in %.1f s", stage, time.monotonic() - started)


def map_batches(
    module: torch.nn.Module,
    batches: Iterable,
    function: Callable | None = None,
    *,
    stage: str = "scores",
) -> np.ndarray | Any:  # Any: a tuple. A union would make every caller check.
    """Apply a function to every batch and join the results in order.

    Parameters
    ----------
    module : torch.nn.Module
        Network, which is put in eval mode.
    batches : iterable
        Batches in the order of the results.
    function : callable, default=None
        Function of a batch that returns a tensor, or a tuple of tensors, whose first axis
        is the batch. None applies `module`.
    stage : str, default="scores"
        As in :func:`stream_batches`.

    Returns
    -------
    result : ndarray or tuple of ndarray
        Joined results, whose first axis has length n_samples.
    """
    results = stream_batches(module, batches, function, stage=stage)
    arrays = [_to_numpy(result) for result in results]
    if isinstance(arrays[0], tuple):
        return tuple(np.concatenate(part) for part in zip(*arrays, strict=True))
    return np.concatenate(arrays)


def _to_numpy(result):
    if isinstance(result, tuple):
        return tuple(part.cpu().numpy() for part in result)
    return result.cpu().numpy()
