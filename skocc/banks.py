"""Banks of vectors under a budget of bytes, made of a stream that is larger than memory.

Which vectors are kept is decided by their numbers before any of them is computed, so that
at no time more than the bank and a block of the stream are held.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch

from skocc.neighbors import (
    ApproximateIndex,
    bank_bytes,
    greedy_coreset,
    nearest,
    random_subset,
)

# Numbers of a block of the bank while it is searched, 64 MiB in float64.
_BLOCK_NUMBERS = 2**23
# A coreset is chosen from a random pool of at most this many bytes beyond the bank's own.
_POOL_BYTES = 2**28


class Bank(NamedTuple):
    """Vectors, and where in the stream they were.

    Attributes
    ----------
    vectors : Tensor of shape (m, d), float32
        On the CPU.
    rows : Tensor of shape (m,), int64
        Ascending for a random choice, in the order they were chosen for a coreset.
    """

    vectors: torch.Tensor
    rows: torch.Tensor


def build_banks(
    blocks: Iterable[Sequence[torch.Tensor]],
    n_vectors: Sequence[int],
    n_kept: Sequence[int],
    n_features: int,
    *,
    subsampling: str,
    generator: torch.Generator,
) -> list[Bank]:
    """Keep some of the vectors of several streams that come side by side.

    Parameters
    ----------
    blocks : iterable
        Each block has, for every stream, its next vectors, a Tensor (m, d) on any device.
    n_vectors : sequence of int
        How many vectors each stream holds in all.
    n_kept : sequence of int
        How many of them to keep.
    n_features : int
        Size d of a vector.
    subsampling : {"random", "coreset"}
        Which to keep: any, or those that leave no other far from all of them.
    generator : torch.Generator
        On the CPU.

    Returns
    -------
    banks : list of Bank

    Notes
    -----
    A coreset is that of the whole stream if this takes up to 256 MiB more than the bank
    does, else of a random part of it as large as that.
    """
    sizes = list(n_kept)
    if subsampling == "coreset":
        spare = _POOL_BYTES // bank_bytes(1, n_features) // len(sizes)
        sizes = [
            min(total, kept + spare) for total, kept in zip(n_vectors, sizes, strict=True)
        ]
    banks = []
    for total, size in zip(n_vectors, sizes, strict=True):
        rows = random_subset(total, size, generator)
        banks.append(Bank(torch.empty(size, n_features), rows))
    starts, filled = [0] * len(banks), [0] * len(banks)
    for block in blocks:
        for index, vectors in enumerate(block):
            bank, start = banks[index], starts[index]
            ends = torch.tensor([start, start + len(vectors)])
            first, last = torch.searchsorted(bank.rows, ends).tolist()
            chosen = (bank.rows[first:last] - start).to(vectors.device)
            bank.vectors[first:last] = vectors[chosen].float().cpu()
            starts[index] += len(vectors)
            filled[index] = last
    if starts != list(n_vectors) or filled != sizes:
        raise RuntimeError(f"the streams held {starts} vectors, not {list(n_vectors)}")
    if subsampling == "random":
        return banks
    return [
        _coreset_of(bank, kept, generator) for bank, kept in zip(banks, n_kept, strict=True)
    ]


def _coreset_of(bank, size, generator):
    if size == len(bank.rows):
        return bank
    chosen = greedy_coreset(bank.vectors, size, generator)
    return Bank(bank.vectors[chosen], bank.rows[chosen])


def image_digests(batch: torch.Tensor) -> list[bytes]:
    """Return a short text for each image by which it is recognised.

    An image of the bank finds itself at distance 0, which says nothing about how normal it
    is. It has to be known to be judged by the others.

    Parameters
    ----------
    batch : Tensor of shape (b, ...)
        Equal values give the same text, on whatever device.

    Returns
    -------
    digests : list of bytes
        16 bytes each.
    """
    values = (batch + 0.0).cpu().contiguous()  # -0.0 becomes 0.0
    return [
        hashlib.blake2b(image.numpy().tobytes(), digest_size=16).digest()
        for image in values
    ]


def recognizer(digests: Sequence[bytes]) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function that tells which image of the bank an image is.

    Parameters
    ----------
    digests : sequence of bytes
        Of the images that the bank is made of, as :func:`image_digests` gives them.

    Returns
    -------
    recognize : callable
        From a batch (b, ...) to the number of each image among the digests, a Tensor (b,),
        int32. Of equal images it is the first, so that the others still find a copy of
        themselves; -1 for a new image.
    """
    numbers = {digest: number for number, digest in reversed([*enumerate(digests)])}

    def recognize(batch):
        found = [numbers.get(digest, -1) for digest in image_digests(batch)]
        return torch.tensor(found, dtype=torch.int32, device=batch.device)

    return recognize


def bank_search(
    vectors: torch.Tensor,
    images: torch.Tensor,
    index: ApproximateIndex | None = None,
) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    """Return a function that searches a bank for neighbours from other images.

    Parameters
    ----------
    vectors : Tensor of shape (m, d)
    images : Tensor of shape (m,)
        Number of the image that each vector is from.
    index : ApproximateIndex, default=None
        Searched in place of the vectors.

    Returns
    -------
    search : callable
        ``search(queries, query_images, n_neighbors)`` gives distances and rows of the bank
        as :func:`~skocc.neighbors.nearest` does; `query_images` are those of a
        :func:`recognizer`.
    """
    # Blocks of long vectors would take more memory than the bank may.
    bank_block = min(16384, max(1024, _BLOCK_NUMBERS // vectors.shape[1]))

    def search(queries, query_images, n_neighbors):
        # Groups that nothing belongs to would only cost time.
        groups = (query_images, images) if (query_images >= 0).any() else (None, None)
        if index is not None:
            return index.nearest(queries, n_neighbors, query_groups=groups[0])
        return nearest(
            queries,
            vectors,
            n_neighbors,
            query_groups=groups[0],
            bank_groups=groups[1],
            bank_block=bank_block,
        )

    return search


def to_rows(maps: torch.Tensor) -> torch.Tensor:
    """Return features (b, d, rows, columns) as vectors (b * rows * columns, d)."""
    return maps.permute(0, 2, 3, 1).flatten(0, 2)


def kept_under_budget(
    n_vectors: Sequence[int], n_features: int, max_bytes: int | None
) -> list[int]:
    """Share a budget of bytes among banks, in proportion to their sizes.

    Parameters
    ----------
    n_vectors : sequence of int
        Vectors of each bank, if there were no budget.
    n_features : int
    max_bytes : int or None
        Of all banks together. None: no limit.

    Returns
    -------
    n_kept : list of int
        At least one of each.

    Raises
    ------
    ValueError
        The budget does not hold one vector of each.
    """
    full = bank_bytes(sum(n_vectors), n_features)
    max_bytes = full if max_bytes is None else int(max_bytes)  # of NumPy it may overflow
    if full <= max_bytes:
        return list(n_vectors)
    smallest = bank_bytes(len(n_vectors), n_features)
    if max_bytes < smallest:
        raise ValueError(
            f"The banks must hold a vector each. Got a budget of {max_bytes} bytes for "
            f"{len(n_vectors)} bank(s) of vectors of {4 * n_features} bytes. Allow at "
            f"least {smallest} bytes; all vectors take {full}."
        )
    spare = max_bytes - smallest
    return [1 + int((n - 1) * spare // (full - smallest)) for n in n_vectors]
