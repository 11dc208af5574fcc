"""The only inference loop."""

from collections.abc import Callable, Iterable

import numpy as np
import torch


@torch.no_grad()
def map_batches(
    module: torch.nn.Module,
    batches: Iterable,
    function: Callable | None = None,
) -> np.ndarray | tuple[np.ndarray, ...]:
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

    Returns
    -------
    result : ndarray or tuple of ndarray
        First axis n_samples.
    """
    module.eval()
    function = module if function is None else function
    results = [_to_numpy(function(batch)) for batch in batches]
    if isinstance(results[0], tuple):
        return tuple(np.concatenate(part) for part in zip(*results, strict=True))
    return np.concatenate(results)


def _to_numpy(result):
    if isinstance(result, tuple):
        return tuple(part.cpu().numpy() for part in result)
    return result.cpu().numpy()
