"""The only inference loop of the package."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch

from skocc._samples.log import logger
from skocc._samples.progress import track
from skocc._samples.warnings import warn


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
        Result of `function` for one batch, or for each part of one.

    Warns
    -----
    UserWarning
        The memory of the GPU does not suffice for a batch. It is halved, until it does, and
        so are the batches that follow. A function with side effects must have none before
        it fails.
    """
    module.eval()
    function = module if function is None else function
    started, sizes = time.monotonic(), _Sizes(stage)
    logger.debug("%s: starts", stage)
    for batch in track(batches, stage):
        yield from sizes.results(function, batch)
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


class _Sizes:
    """Applies a function to batches, in parts once the memory of the GPU does not suffice.

    A training has no such remedy: the loss of a batch is not the sum of the losses of its
    parts, because of BatchNorm, quantiles of distances and pairs of images.
    """

    def __init__(self, stage):
        self._stage, self._largest = stage, None

    def results(self, function, batch):
        """Yield the result of a batch, or those of its parts in order."""
        parts = deque([batch])
        while parts:
            part = parts.popleft()
            can_be_cut = isinstance(part, torch.Tensor) and len(part) > 1
            if can_be_cut and self._largest is not None and len(part) > self._largest:
                parts.extendleft(reversed(part.split(self._largest)))
                continue
            try:
                result = function(part)
            except torch.cuda.OutOfMemoryError:
                if not can_be_cut:
                    raise
                self._halve(len(part))
                parts.appendleft(part)
                continue  # outside of the error, whose traceback holds memory
            yield result

    def _halve(self, size):
        self._largest = (size + 1) // 2
        warn(
            f"The memory of the GPU does not suffice for a batch. Got {size} images in "
            f"{self._stage}; batches are halved to {self._largest}, and results are the "
            "same to within rounding. Set a smaller batch_size to avoid failed tries."
        )


def _to_numpy(result):
    if isinstance(result, tuple):
        return tuple(part.cpu().numpy() for part in result)
    return result.cpu().numpy()
