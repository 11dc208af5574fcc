"""The memory bank: embeddings of training images, in which nearest neighbors are searched.

A bank is built from a stream of vectors that may be larger than memory, within a limit in
bytes. The indices of the vectors to keep are drawn before any vector is computed, so that
memory holds only the bank and one block of the stream.
"""

import hashlib
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from skocc._ops.coreset import greedy_coreset, random_subset
from skocc._ops.neighbors import ApproximateIndex, PreparedBank, bank_bytes
from skocc._ops.refined_search import Cells
from skocc._ops.tensors import relative_spread, tensor_view

# A coreset is chosen from a random pool, which may exceed the bank by this many bytes.
_POOL_BYTES = 2**28
# Bytes that the vectors of all training images may take to be held for their scores, and
# those of the tiles of photographs, for which memory must not grow with their number.
_HELD_BYTES, _HELD_BYTES_OF_GROUPS = 2**29, 2**27
# Number of vectors from which on NumPy has no hypergeometric numbers.
_N_HYPERGEOMETRIC = 10**9
# Number of vectors from which the spread of the features is estimated.
_N_SHOWN = 10_000


class Bank(NamedTuple):
    """Vectors and their positions in the stream.

    Attributes
    ----------
    vectors : Tensor of shape (m, d), float32
        Vectors on the CPU.
    rows : Tensor of shape (m,), int64
        Positions in the stream: ascending for a random subset, in the order of choice for a
        coreset.
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
    track: Callable[[Iterable], Iterable] = iter,
) -> list[Bank]:
    """Build one bank from each of several parallel streams of vectors.

    Parameters
    ----------
    blocks : iterable
        Blocks of the streams. A block contains, for every stream, its next vectors, a
        Tensor (m, d) on any device.
    n_vectors : sequence of int
        Total number of vectors in each stream.
    n_kept : sequence of int
        Number of vectors to keep from each stream.
    n_features : int
        Size d of a vector.
    subsampling : {"random", "coreset"}
        How to choose the vectors: at random, or as a greedy coreset.
    generator : torch.Generator
        Generator on the CPU.
    track : callable, default=iter
        Function that yields the steps of a coreset and shows how many are done.

    Returns
    -------
    banks : list of Bank
        One bank for each stream.

    Notes
    -----
    The coreset is chosen from the whole stream if the stream exceeds the bank by at most
    256 MiB, else from a random subset of that size.
    """
    sizes = list(n_kept)
    if subsampling == "coreset":
        sizes = _pool_sizes(n_vectors, n_kept, n_features)
    banks = []
    for total, size in zip(n_vectors, sizes, strict=True):
        rows = _subset(total, size, generator)
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
        _coreset_of(bank, kept, generator, track)
        for bank, kept in zip(banks, n_kept, strict=True)
    ]


def _subset(n_vectors, size, generator):
    """Return rows at random, of which there may be none."""
    return random_subset(n_vectors, size, generator) if size else torch.arange(0)


def _pool_sizes(n_vectors, n_kept, n_features):
    """Return how many vectors of each stream a coreset is chosen from."""
    spare = _POOL_BYTES // bank_bytes(1, n_features) // len(n_kept)
    return [min(total, kept + spare) for total, kept in zip(n_vectors, n_kept, strict=True)]


def _coreset_of(bank, size, generator, track):
    if size == len(bank.rows):
        return bank
    chosen = greedy_coreset(bank.vectors, size, generator, track=track)
    return Bank(bank.vectors[chosen], bank.rows[chosen])


def image_digests(batch: torch.Tensor) -> list[bytes]:
    """Return a digest of each image, by which a training image is recognized.

    A training image would find its own vectors at distance 0. It is recognized so that it
    can be scored against the other images.

    Parameters
    ----------
    batch : Tensor of shape (b, ...)
        Images. Equal values have the same digest, on any device.

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


class TrainingVectors:
    """Vectors of the training images, for their own scores, where memory has room.

    Parameters
    ----------
    n_vectors : sequence of int
        Number of vectors of all images that are added, in each stream.
    are_in_banks : bool
        Whether the banks hold all vectors of all their images, in order. Otherwise vectors
        are held unless they take more than 512 MiB, or 128 MiB with groups.
    n_features : int
    n_turns : int, default=1
        In how many turns an image is in each stream. Scores are those of the first.
    has_groups : bool, default=False
        Whether the images are in groups, such as tiles of photographs.

    Attributes
    ----------
    digests : list of bytes
        Digests of all images that were added.
    """

    def __init__(
        self,
        n_vectors: Sequence[int],
        are_in_banks: bool,
        n_features: int,
        n_turns: int = 1,
        has_groups: bool = False,
    ):
        self.digests: list[bytes] = []
        self._n_images: list[int] = []
        self._held: list[Sequence[torch.Tensor]] = []
        self._are_in_banks, self._n_turns = are_in_banks, n_turns
        limit = _HELD_BYTES_OF_GROUPS if has_groups else _HELD_BYTES
        fit = bank_bytes(sum(n_vectors) // n_turns, n_features) <= limit
        self._are_held = fit and not are_in_banks

    def add(self, batch: torch.Tensor, vectors: list[torch.Tensor]) -> list[torch.Tensor]:
        """Add a batch of images, and its vectors in each stream, which are returned."""
        digests, n = image_digests(batch), len(batch)
        # First, because a GPU may lack the memory, and the batch is then added in parts.
        held = [self._unturned(part, n).cpu() for part in vectors] if self._are_held else []
        self.digests += digests
        self._n_images.append(n)
        if self._are_held:
            self._held.append(held)
        return vectors

    def _unturned(self, vectors, n_images):
        """Return the vectors of images as they are, of those in all turns."""
        return vectors.unflatten(0, (n_images, self._n_turns, -1))[:, 0].flatten(0, 1)

    def batches(self, banks: Sequence["MemoryBank"], batch_size: int) -> list[tuple] | None:
        """Return batches of images, or None if they are not in memory.

        Parameters
        ----------
        banks : sequence of MemoryBank
            The banks of all streams.
        batch_size : int
            Images per batch. It is that of the batches that were added.

        Returns
        -------
        batches : list of (numbers, vectors), or None
            `numbers`, of shape (b,), are those of :meth:`MemoryBank.numbers_of`; `vectors`
            is a list of Tensor (m, d), one for each stream, on the CPU. They are those of
            all images of the banks where these hold all vectors, and else of the images
            that were added.
        """
        if self._are_in_banks:
            digests = [digest.tobytes() for digest in banks[0].digests]
            numbers = banks[0].numbers_of_digests(digests).split(batch_size)
            streams = []
            for bank in banks:
                vectors = self._unturned(tensor_view(bank.vectors), len(digests))
                n_each = len(vectors) // len(digests)
                streams.append(vectors.split(batch_size * n_each))
            return [*zip(numbers, zip(*streams, strict=True), strict=True)]
        if not self._are_held:
            return None
        numbers = banks[0].numbers_of_digests(self.digests).split(self._n_images)
        return [*zip(numbers, self._held, strict=True)]


class MemoryBank:
    """Embeddings of training images, and the image that contains each embedding.

    A training image would find its own vectors at distance 0. Therefore training images are
    recognized by a digest, and are compared only with the vectors of other images, or of
    other groups of images.

    Parameters
    ----------
    vectors : ndarray of shape (m, d), float32
        Embeddings.
    images : ndarray of shape (m,), int32
        Index of the image that contains each vector.
    digests : ndarray of shape (n, 16), uint8
        Digests of the images, from :func:`image_digests`.
    groups : ndarray of shape (n,), int32, default=None
        Group of each image, less than n: images of one group, such as overlapping tiles of
        a photograph, are not compared with each other. None: each is a group.
    """

    def __init__(
        self,
        vectors: np.ndarray,
        images: np.ndarray,
        digests: np.ndarray,
        groups: np.ndarray | None = None,
    ):
        self.vectors, self.images, self.digests = vectors, images, digests
        self.groups = groups
        self._numbers: dict[bytes, int] | None = None
        self._index: ApproximateIndex | None = None
        self._prepared: PreparedBank | None = None
        self._lock = threading.Lock()

    @classmethod
    def of_streams(
        cls,
        blocks: Iterable[Sequence[torch.Tensor]],
        digests: list[bytes],
        n_vectors: Sequence[int],
        n_kept: Sequence[int],
        n_features: int,
        *,
        subsampling: str,
        generator: torch.Generator,
        track: Callable[[Iterable], Iterable] = iter,
        groups: np.ndarray | None = None,
    ) -> list["MemoryBank"]:
        """Build one bank from each of several parallel streams of vectors.

        Parameters
        ----------
        blocks, n_vectors, n_kept, n_features, subsampling, generator, track
            As in :func:`build_banks`. Each image has the same number of vectors in a
            stream.
        digests : list of bytes
            Digests of all images; the iteration over `blocks` may fill this list.
        groups : ndarray of shape (n,), int, default=None
            Group of each image, as in the class.

        Returns
        -------
        banks : list of MemoryBank
            One bank for each stream.
        """
        banks = build_banks(
            blocks,
            n_vectors,
            n_kept,
            n_features,
            subsampling=subsampling,
            generator=generator,
            track=track,
        )
        n_images = len(digests)
        table = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 16)
        if groups is not None:
            groups = groups.astype(np.int32)
        return [
            cls(
                bank.vectors.numpy(),
                (bank.rows // (n // n_images)).int().numpy(),
                table,
                groups,
            )
            for bank, n in zip(banks, n_vectors, strict=True)
        ]

    @classmethod
    def grown(
        cls,
        banks: Sequence["MemoryBank"],
        n_before: Sequence[int],
        blocks: Iterable[Sequence[torch.Tensor]],
        digests: list[bytes],
        n_vectors: Sequence[int],
        n_kept: Sequence[int],
        *,
        fraction: float,
        subsampling: str,
        generator: torch.Generator,
        track: Callable[[Iterable], Iterable] = iter,
        groups: np.ndarray | None = None,
    ) -> list["MemoryBank"]:
        """Add further images to banks, which are not changed themselves.

        Parameters
        ----------
        banks : sequence of MemoryBank
            The banks so far.
        n_before : sequence of int
            Number of vectors that each of them was chosen from.
        blocks, digests, n_vectors, subsampling, generator, track, groups
            As in :meth:`of_streams`, for the further images.
        n_kept : sequence of int
            Number of vectors that each bank is to have, if there are as many.
        fraction : float
            Fraction of all vectors that `n_kept` is, unless a limit makes it less.

        Returns
        -------
        banks : list of MemoryBank
            New banks. The further images have the numbers after those of the banks.

        Notes
        -----
        A random subset of all vectors, old and new, has a number of old ones that is
        hypergeometric, and they are a random subset of those in the bank. That is what is
        kept where a limit lets the bank grow less than the images. Where the bank is a
        fraction, it grows with them: then all of it stays, and the same fraction of the new
        vectors is added. Each vector has the same chance either way.

        A coreset is chosen from the bank and the new vectors (merge and reduce). A vector
        that is left out is no farther from the bank than the sum of the farthest distances
        of all such choices since it came.
        """
        n_features, zipped = banks[0].vectors.shape[1], partial(zip, strict=True)
        sizes = [
            min(n, len(bank) + new) for n, bank, new in zipped(n_kept, banks, n_vectors)
        ]
        staying = [len(bank) for bank in banks]
        if subsampling == "random":
            staying = [
                _n_staying(n_bank, n_old, n_new, size, fraction, generator)
                for n_bank, n_old, n_new, size in zipped(
                    staying, n_before, n_vectors, sizes
                )
            ]
            n_added = [size - n for size, n in zipped(sizes, staying)]
        else:
            n_added = _pool_sizes(n_vectors, sizes, n_features)
        added = cls.of_streams(
            blocks, digests, n_vectors, n_added, n_features,
            subsampling="random", generator=generator, groups=groups,
        )  # fmt: skip
        grown = []
        for bank, n, new, size in zipped(banks, staying, added, sizes):
            joined = bank._only(_subset(len(bank), n, generator))._joined(new)
            if size < len(joined):
                vectors = tensor_view(joined.vectors)
                joined = joined._only(greedy_coreset(vectors, size, generator, track=track))
            grown.append(joined)
        return grown

    def _only(self, rows):
        """Return the bank with some of its vectors, and all of its images."""
        if len(rows) == len(self):
            return self
        vectors = tensor_view(self.vectors)[rows].numpy()
        return MemoryBank(vectors, self.images[rows.numpy()], self.digests, self.groups)

    def _joined(self, other):
        """Return one bank of two, the images of the other one being the later ones."""
        vectors = torch.cat([tensor_view(self.vectors), tensor_view(other.vectors)])
        images = np.concatenate([self.images, other.images + np.int32(len(self.digests))])
        digests, groups = np.concatenate([self.digests, other.digests]), None
        if self.groups is not None or other.groups is not None:
            first = np.int32(len(self.digests))
            groups = np.concatenate([self._groups(), other._groups() + first])
        return MemoryBank(vectors.numpy(), images, digests, groups)

    def __len__(self) -> int:
        return len(self.vectors)

    def __getstate__(self):
        # What a search needs beside these is made again when it is needed.
        names = ("vectors", "images", "digests", "groups")
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state):
        self.__init__(**state)

    def n_others(self) -> int:
        """Return the minimum number of vectors from other groups, for any image."""
        return len(self) - int(np.bincount(self._groups_of_vectors()).max())

    def spread(self) -> float:
        """Return the mean standard deviation of features, relative to their magnitude."""
        return relative_spread(self.vectors[:: max(1, len(self) // _N_SHOWN)])

    def numbers_of(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the group of each image of a batch among the training images.

        Parameters
        ----------
        batch : Tensor of shape (b, ...)

        Returns
        -------
        numbers : Tensor of shape (b,), int32
            Groups on the device of the batch; -1 for an image that is not a training
            image. Without `groups` they are the indices of the images. Equal images have
            that of the first, so that the others still find a copy of themselves.
        """
        return self.numbers_of_digests(image_digests(batch)).to(batch.device)

    def numbers_of_digests(self, digests: list[bytes]) -> torch.Tensor:
        """Return the group (b,) of each image of which a digest is given, on the CPU."""
        if self._numbers is None:
            known = [digest.tobytes() for digest in self.digests]
            numbers = range(len(known)) if self.groups is None else self.groups.tolist()
            pairs = [*zip(known, numbers, strict=True)]
            self._numbers = dict(reversed(pairs))
        found = [self._numbers.get(digest, -1) for digest in digests]
        return torch.tensor(found, dtype=torch.int32)

    def on(
        self,
        device: torch.device,
        search: str,
        waiting: Callable[[str], AbstractContextManager] = nullcontext,
    ) -> "BankSearch":
        """Return a searchable copy of the bank.

        Parameters
        ----------
        device : torch.device
            Device of an exact search. An approximate search runs on the CPU, and so does an
            exact one for MPS, which does not support float64.
        search : {"exact", "approximate"}
            Search algorithm.
        waiting : callable, default=nullcontext
            As in :class:`~skocc._ops.neighbors.ApproximateIndex`, whose graph is built
            once. The bank is prepared once for exact searches on the CPU, which takes as
            much memory as the bank, and at each call for those on another device.
        """
        vectors = tensor_view(self.vectors)
        images = tensor_view(self._groups_of_vectors())
        if search == "exact" and device.type not in ("cpu", "mps"):
            return BankSearch(PreparedBank(vectors.to(device), images.to(device)))
        with self._lock:  # only one of several threads prepares the bank
            if search == "exact":
                if self._prepared is None:
                    with waiting("memory bank"):
                        self._prepared = PreparedBank(vectors, images)
                return BankSearch(self._prepared)
            if self._index is None:
                self._index = ApproximateIndex(vectors, images, waiting=waiting)
            return BankSearch(self._index)

    def _groups(self):
        n_images = len(self.digests)
        return np.arange(n_images, dtype=np.int32) if self.groups is None else self.groups

    def _groups_of_vectors(self):
        return self.images if self.groups is None else self.groups[self.images]


@dataclass(frozen=True)
class BankSearch:
    """A memory bank on a device.

    Attributes
    ----------
    index : PreparedBank or ApproximateIndex
        What is searched, exactly or approximately.
    """

    index: PreparedBank | ApproximateIndex

    def nearest(
        self, queries: torch.Tensor, image_of_query: torch.Tensor, n_neighbors: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Search for the nearest vectors of other images.

        Parameters
        ----------
        queries : Tensor of shape (n, d)
        image_of_query : Tensor of shape (n,)
            Group of the training image that contains each query, or -1, as
            :meth:`MemoryBank.numbers_of` returns it.
        n_neighbors : int

        Returns
        -------
        distances, indices : Tensor of shape (n, n_neighbors)
            As :func:`~skocc._ops.neighbors.nearest` returns them.
        """
        queries, groups = _where_float64_is(queries), _groups_of(image_of_query)
        return self.index.nearest(queries, n_neighbors, query_groups=groups)

    def cells(
        self, queries: torch.Tensor, image_of_query: torch.Tensor, n_neighbors: int
    ) -> Cells:
        """Return all cells of images, of which none is searched yet.

        Parameters
        ----------
        queries : Tensor of shape (b, c, d)
            Vectors of the c cells of b images.
        image_of_query : Tensor of shape (b,)
            Group of each image, as in :meth:`nearest`.
        n_neighbors : int
        """
        if isinstance(self.index, ApproximateIndex):
            queries, image_of_query = queries.cpu(), image_of_query.cpu()
        queries, groups = _where_float64_is(queries), _groups_of(image_of_query)
        return Cells(queries, self.index, n_neighbors, query_groups=groups)


def _n_staying(n_bank, n_before, n_new, size, fraction, generator):
    """Return how many vectors of a random bank stay if others are added, see `grown`."""
    n_all = n_before + n_new
    is_in_proportion = n_bank <= round(fraction * n_before)
    if size == n_bank + n_new or (is_in_proportion and size >= round(fraction * n_all)):
        return min(n_bank, size)
    rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
    if n_all < _N_HYPERGEOMETRIC:
        n_old = int(rng.hypergeometric(n_before, n_new, size))
    else:  # of so many vectors, it matters little whether one can be drawn twice
        n_old = int(rng.binomial(size, n_before / n_all))
    return max(size - n_new, min(n_old, n_bank))


def _groups_of(image_of_query):
    """Return groups of queries, or None if no query is from a training image."""
    image_of_query = _where_float64_is(image_of_query)
    return image_of_query if bool((image_of_query >= 0).any()) else None


def _where_float64_is(values):
    return values.cpu() if values.device.type == "mps" else values


def to_rows(maps: torch.Tensor) -> torch.Tensor:
    """Return features (b, d, rows, columns) as vectors (b * rows * columns, d)."""
    return maps.permute(0, 2, 3, 1).flatten(0, 2)


def kept_under_budget(
    n_vectors: Sequence[int], n_features: int, max_bytes: int | None
) -> list[int]:
    """Divide a limit in bytes among banks, in proportion to their sizes.

    Parameters
    ----------
    n_vectors : sequence of int
        Number of vectors of each bank without a limit.
    n_features : int
        Size of a vector.
    max_bytes : int or None
        Maximum size of all banks together. None means no limit.

    Returns
    -------
    n_kept : list of int
        Number of vectors to keep in each bank, at least one.

    Raises
    ------
    ValueError
        The limit is too small for one vector per bank.
    """
    full = bank_bytes(sum(n_vectors), n_features)
    max_bytes = full if max_bytes is None else int(max_bytes)  # NumPy integers may overflow
    if full <= max_bytes:
        return list(n_vectors)
    smallest = bank_bytes(len(n_vectors), n_features)
    if max_bytes < smallest:
        raise ValueError(
            f"Each memory bank must hold at least one vector. Got a limit of {max_bytes} "
            f"bytes for {len(n_vectors)} bank(s) of vectors of {4 * n_features} bytes. "
            f"Allow at least {smallest} bytes; all vectors take {full}."
        )
    spare = max_bytes - smallest
    return [1 + int((n - 1) * spare // (full - smallest)) for n in n_vectors]
