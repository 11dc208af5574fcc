"""The only inference loop."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from tqdm import tqdm


@torch.no_grad()
def stream_batches(
    module: torch.nn.Module,
    batches: Iterable,
    function: Callable | None = None,
    *,
    verbose: int = 0,
    stage: str = "inference",
) -> Iterator:
    """Apply a function to every batch and yield the results one by one.

    For results that are too large to be kept all together.

    Parameters
    ----------
    module : torch.nn.Module
        Put in eval mode.
    batches : iterable with a length
        In the order the results are wanted in.
    function : callable, default=None
        From a batch to whatever is wanted of it. None applies `module`.
    verbose : int, default=0
        Whether a progress bar is shown.
    stage : str, default="inference"
        What the progress bar calls it.

    Yields
    ------
    result : object
        What `function` returns.
    """
    module.eval()
    function = module if function is None else function
    for batch in tqdm(batches, desc=stage, unit="batch", disable=not verbose):
        yield function(batch)


def map_batches(
    module: torch.nn.Module,
    batches: Iterable,
    function: Callable | None = None,
    *,
    verbose: int = 0,
    stage: str = "inference",
) -> np.ndarray | Any:  # Any is a tuple: of a union, every caller would have to check which
    """Apply a function to every batch and join the results in order.

    Parameters
    ----------
    module : torch.nn.Module
        Put in eval mode.
    batches : iterable
        In the order the results are wanted in.
    function : callable, default=None
        From a batch to a tensor, or a tuple of tensors, whose first axis is the batch.
        None applies `module`.
    verbose, stage
        As in :func:`stream_batches`.

    Returns
    -------
    result : ndarray or tuple of ndarray
        First axis n_samples.
    """
    results = stream_batches(module, batches, function, verbose=verbose, stage=stage)
    arrays = [_to_numpy(result) for result in results]
    if isinstance(arrays[0], tuple):
        return tuple(np.concatenate(part) for part in zip(*arrays, strict=True))
    return np.concatenate(arrays)


def _to_numpy(result):
    if isinstance(result, tuple):
        return tuple(part.cpu().numpy() for part in result)
    return result.cpu().numpy()
