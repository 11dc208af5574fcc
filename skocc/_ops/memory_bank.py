"""The memory bank: embeddings of training images, searched for the nearest ones.

A bank is made of a stream that may be larger than memory, under a budget of bytes.

Which vectors are kept is decided by their numbers before any of them is computed, so that
at no time more than the bank and a block of the stream are held.
"""

import hashlib
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from skocc._ops.coreset import greedy_coreset, random_subset
from skocc._ops.neighbors import (
    ApproximateIndex,
    bank_bytes,
    nearest,
)
from skocc._ops.tensors import tensor_view

# Numbers of a block of the bank while it is searched, 64 MiB in float64.
_BLOCK_NUMBERS = 2**23
# A coreset is chosen from a random pool of at most this many bytes beyond the bank's own.
_POOL_BYTES = 2**28
# Vectors that show whether features differ.
_N_SHOWN = 10_000


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


class MemoryBank:
    """Embeddings of training images, and which image each of them is from.

    An image of the bank would find itself at distance 0. So images are recognized by a
    digest, and are compared with the vectors of the other images only.

    Parameters
    ----------
    vectors : ndarray of shape (m, d), float32
        The embeddings.
    images : ndarray of shape (m,), int32
        Number of the image that each vector is from.
    digests : ndarray of shape (n, 16), uint8
        Of the images, by number, as :func:`image_digests` gives them.
    """

    def __init__(self, vectors: np.ndarray, images: np.ndarray, digests: np.ndarray):
        self.vectors, self.images, self.digests = vectors, images, digests
        self._numbers: dict[bytes, int] | None = None
        self._index: ApproximateIndex | None = None
        self._lock = threading.Lock()

    @classmethod
    def of_streams(
        cls,
        blocks: Iterable[Sequence[torch.Tensor]],
        digests: list[bytes],
        n_images: int,
        n_vectors: Sequence[int],
        n_kept: Sequence[int],
        n_features: int,
        *,
        subsampling: str,
        generator: torch.Generator,
    ) -> list["MemoryBank"]:
        """Make banks of streams of vectors that come side by side.

        Parameters
        ----------
        blocks, n_vectors, n_kept, n_features, subsampling, generator
            As in :func:`build_banks`. Each image has equally many vectors in a stream.
        digests : list of bytes
            Of the images, filled while the blocks are made.
        n_images : int

        Returns
        -------
        banks : list of MemoryBank
            One for each stream.
        """
        banks = build_banks(
            blocks,
            n_vectors,
            n_kept,
            n_features,
            subsampling=subsampling,
            generator=generator,
        )
        table = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 16)
        return [
            cls(bank.vectors.numpy(), (bank.rows // (n // n_images)).int().numpy(), table)
            for bank, n in zip(banks, n_vectors, strict=True)
        ]

    def __len__(self) -> int:
        return len(self.vectors)

    def __getstate__(self):
        # The graph of neighbors is made again.
        return {"vectors": self.vectors, "images": self.images, "digests": self.digests}

    def __setstate__(self, state):
        self.__init__(**state)

    def n_others(self) -> int:
        """Return how many vectors every training image can be compared with."""
        return len(self) - int(np.bincount(self.images).max())

    def spread(self) -> float:
        """Return the mean standard deviation of the features, relative to their size."""
        shown = self.vectors[:: max(1, len(self) // _N_SHOWN)]
        return float(shown.std(axis=0).mean() / max(np.abs(shown).mean(), 1e-30))

    def numbers_of(self, batch: torch.Tensor) -> torch.Tensor:
        """Return which training image each image of a batch is.

        Parameters
        ----------
        batch : Tensor of shape (b, ...)

        Returns
        -------
        numbers : Tensor of shape (b,), int32
            On the device of the batch; -1 for a new image. Of equal images it is the first,
            so that the others still find a copy of themselves.
        """
        known = self._numbers_of_digests()
        found = [known.get(digest, -1) for digest in image_digests(batch)]
        return torch.tensor(found, dtype=torch.int32, device=batch.device)

    def on(self, device: torch.device, search: str, verbose: int = 0) -> "BankSearch":
        """Return the bank where it can be searched.

        Parameters
        ----------
        device : torch.device
            Where an exact search computes; an approximate one does on the CPU.
        search : {"exact", "approximate"}
        verbose : int, default=0
            Whether to say that a graph of neighbors is made, which happens once.
        """
        vectors, images = tensor_view(self.vectors), tensor_view(self.images)
        if search == "exact":
            return BankSearch(vectors.to(device), images.to(device))
        with self._lock:  # of several threads, one makes it
            if self._index is None:
                self._index = ApproximateIndex(vectors, images, verbose=verbose)
        return BankSearch(vectors, images, self._index)

    def _numbers_of_digests(self):
        if self._numbers is None:
            digests = [digest.tobytes() for digest in self.digests]
            self._numbers = {d: number for number, d in reversed([*enumerate(digests)])}
        return self._numbers


@dataclass(frozen=True)
class BankSearch:
    """A memory bank on a device.

    Attributes
    ----------
    vectors : Tensor of shape (m, d)
    images : Tensor of shape (m,)
        Number of the image that each vector is from.
    index : ApproximateIndex or None
        Searched in place of the vectors.
    """

    vectors: torch.Tensor
    images: torch.Tensor
    index: ApproximateIndex | None = None

    def nearest(
        self, queries: torch.Tensor, image_of_query: torch.Tensor, n_neighbors: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Search for the nearest vectors that are from other images.

        Parameters
        ----------
        queries : Tensor of shape (n, d)
        image_of_query : Tensor of shape (n,)
            As :meth:`MemoryBank.numbers_of` gives them.
        n_neighbors : int

        Returns
        -------
        distances, indices : Tensor of shape (n, n_neighbors)
            As :func:`~skocc._ops.neighbors.nearest` gives them.
        """
        # Groups that nothing belongs to would only cost time.
        is_known = bool((image_of_query >= 0).any())
        query_groups = image_of_query if is_known else None
        if self.index is not None:
            return self.index.nearest(queries, n_neighbors, query_groups=query_groups)
        return nearest(
            queries,
            self.vectors,
            n_neighbors,
            query_groups=query_groups,
            bank_groups=self.images if is_known else None,
            # Blocks of long vectors would take more memory than the bank may.
            bank_block=min(16384, max(1024, _BLOCK_NUMBERS // self.vectors.shape[1])),
        )


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
