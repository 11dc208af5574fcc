"""Filters of the first layer, learned from the images before any training."""

import warnings
from collections.abc import Callable, Iterable
from itertools import islice

import numpy as np
import torch
from sklearn.decomposition import MiniBatchDictionaryLearning
from sklearn.exceptions import ConvergenceWarning
from torch.nn import functional

from skocc._engine.seeding import numpy_state_kept

# As the reference code: 500 images, 1000 steps of mini-batches of 10 patches.
N_IMAGES = 500
_N_PATCHES = 10_000
_BATCH_SIZE = 10


def dictionary_filters(
    batches: Iterable[torch.Tensor],
    normalize: Callable[[torch.Tensor], torch.Tensor],
    n_filters: int,
    filter_size: int,
    generator: torch.Generator,
) -> torch.Tensor | None:
    """Learn filters whose sparse combinations describe the patches of the images.

    Parameters
    ----------
    batches : iterable of Tensor of shape (b, C, H, W)
        In random order; the first 500 images or so are used.
    normalize : callable
        Applied to each batch, as before the layer that the filters are for.
    n_filters : int
        Atoms of the dictionary.
    filter_size : int
        Side of a filter in pixels.
    generator : torch.Generator
        Chooses the patches, and seeds the dictionary.

    Returns
    -------
    filters : Tensor of shape (n_filters, C, filter_size, filter_size), or None
        Atoms of length one. None where the patches are all alike, so that there is
        nothing to learn.

    Notes
    -----
    Sparse coding with an L1 penalty of 1, on patches of which each pixel has mean 0 and
    deviation 1 over all patches (Ruff et al. 2018, their code). The patches are drawn at
    random positions, 20 an image, where the reference code cuts out all of them and then
    uses as many.
    """
    drawn, n_images = [], 0
    for batch in islice(batches, N_IMAGES):
        drawn.append(_random_patches(normalize(batch), filter_size, generator))
        n_images += len(batch)
        if n_images >= N_IMAGES:
            break
    maps = torch.cat(drawn)
    shape = maps.shape[1:]
    patches = maps.flatten(1).double().cpu().numpy()
    deviation = patches.std(axis=0)
    # A spread of rounding errors says nothing about the images.
    if not np.any(deviation > 1e-6):
        return None
    patches = (patches - patches.mean(axis=0)) / np.where(deviation > 1e-6, deviation, 1)
    seed = int(torch.randint(2**31 - 1, (), generator=generator))
    patches = np.random.default_rng(seed).permutation(patches)[:_N_PATCHES]
    learner = MiniBatchDictionaryLearning(
        n_filters,
        alpha=1,
        fit_algorithm="cd",
        batch_size=_BATCH_SIZE,
        max_iter=1,  # passes over the patches
        tol=0,
        max_no_improvement=None,
        random_state=seed,
    )
    with numpy_state_kept(), warnings.catch_warnings():
        # Approximate codes suffice for a starting point.
        warnings.simplefilter("ignore", ConvergenceWarning)
        atoms = learner.fit(patches).components_
    return torch.from_numpy(atoms).float().unflatten(1, shape)


def _random_patches(batch, size, generator):
    """Return patches (n, C, size, size), 20 at random positions of each image."""
    # An image smaller than a filter is padded, as it is by the convolution.
    padding = [size // 2 if n < size else 0 for n in batch.shape[2:]]
    batch = functional.pad(batch, (padding[1], padding[1], padding[0], padding[0]))
    windows = batch.unfold(2, size, 1).unfold(3, size, 1)  # (b, C, rows, columns, ...)
    n_rows, n_columns = windows.shape[2:4]
    n_patches = min(_N_PATCHES // N_IMAGES, n_rows * n_columns)
    shape = (len(batch), n_patches)
    rows = torch.randint(n_rows, shape, generator=generator)
    columns = torch.randint(n_columns, shape, generator=generator)
    image = torch.arange(len(batch))[:, None]
    return windows.movedim(1, 3)[image, rows, columns].flatten(0, 1)
