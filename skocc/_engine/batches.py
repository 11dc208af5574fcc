"""Batches of images that arrive on the device."""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from skocc._engine.device import sent_to
from skocc._samples.sources import ImageSource

# Share of the free GPU memory that the images may take; the rest is for activations.
_RESIDENT_SHARE = 0.4
# Images, and bytes, that are loaded at a time.
_LOAD_SIZE, _LOAD_BYTES = 256, 2**28


class ResidentMaps:
    """What a stream of maps gives, held on a device as a source.

    Parameters
    ----------
    maps : iterable of Tensor of shape (b, C, h, w)
        All of one shape but for b.
    n_samples : int
        Sum of the b.
    device : torch.device
        Where the maps are kept, as float32.
    """

    is_lazy, original_size = False, None

    def __init__(self, maps, n_samples: int, device: torch.device):
        start = 0
        for block in maps:
            block = block.permute(0, 2, 3, 1)
            if start == 0:
                shape = (n_samples, *block.shape[1:])
                self._values = torch.empty(shape, dtype=torch.float32, device=device)
            self._values[start : start + len(block)] = block
            start += len(block)
        self.shape, self.dtype = tuple(self._values.shape), np.dtype(np.float32)

    def __len__(self) -> int:
        return self.shape[0]

    def load(self, indices) -> torch.Tensor:
        """Return the samples at `indices` as a tensor (b, H, W, C) on the device."""
        return _taken(self._values, indices)


def _taken(values, indices):
    if isinstance(indices, slice):
        return values[indices]
    return values[sent_to(torch.as_tensor(indices), values.device)]


class ResidentImages:
    """An image source held on a device, so that an epoch copies nothing.

    Parameters
    ----------
    images : image source
        Read once, in blocks: at no time is more than a block in host memory.
    device : torch.device
        Where the pixels are kept, in the source's own dtype.
    """

    is_lazy = False

    def __init__(self, images: ImageSource, device: torch.device):
        self.shape, self.dtype = images.shape, images.dtype
        size = images.dtype.itemsize * math.prod(images.shape[1:])
        n_images = max(1, min(_LOAD_SIZE, _LOAD_BYTES // size))
        blocks = ImageBatches(images, n_images, device=device, convert=False)
        dtype = torch.uint8 if images.dtype == "uint8" else torch.float32
        self._values = torch.empty(self.shape, dtype=dtype, device=device)
        start = 0
        for block in blocks:
            self._values[start : start + len(block)] = block
            start += len(block)
        self.original_size = images.original_size

    def __len__(self) -> int:
        return self.shape[0]

    def load(self, indices) -> torch.Tensor:
        """Return the samples at `indices` as a tensor (b, ...) on the device."""
        return _taken(self._values, indices)


class Subset:
    """Some of the images of a source.

    Parameters
    ----------
    images : image source
    indices : ndarray of shape (n,), int
    """

    def __init__(self, images: ImageSource, indices: np.ndarray):
        self._images, self._indices = images, indices
        self.is_lazy, self.dtype = images.is_lazy, images.dtype
        self.shape = (len(indices), *images.shape[1:])

    @property
    def original_size(self):
        """That of the source."""
        return self._images.original_size

    def __len__(self) -> int:
        return len(self._indices)

    def load(self, indices):
        """Return the samples at `indices` of the subset, as the source gives them."""
        return self._images.load(self._indices[indices])


def keep_on_device(images: ImageSource, device: torch.device) -> ImageSource:
    """Return `images` as a source on `device` where it fits, else unchanged.

    On a GPU this saves decoding files, and copying arrays, once an epoch.
    """
    if len(images) > 0 and _fits(images.shape, images.dtype.itemsize, device):
        return ResidentImages(images, device)
    return images


def hold_maps(maps, shape: tuple[int, int, int, int], device: torch.device):
    """Return a source of what a stream of maps gives, on `device` or in host memory.

    Parameters
    ----------
    maps : iterable of Tensor of shape (b, C, h, w)
    shape : tuple (n, C, h, w)
        Of all of them together.
    device : torch.device
        Taken if it is a GPU with room for them.
    """
    place = device if _fits(shape, 4, device) else torch.device("cpu")
    return ResidentMaps(maps, shape[0], place)


def _fits(shape, itemsize, device):
    """Return whether an array leaves room for activations on a GPU."""
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return itemsize * math.prod(shape) < _RESIDENT_SHARE * free


class ImageBatches:
    """Re-iterable batches (b, C, H, W), (b, C, T, H, W) or (b, d), float32, on a device.

    Parameters
    ----------
    images : image source
        Integers are divided by their range; floats are left alone.
    batch_size : int
        Images per batch. The last batch is smaller.
    device : torch.device
        Where the batches arrive.
    generator : torch.Generator, default=None
        Each pass is a new permutation drawn from it, and a last batch of a single image
        is dropped, because BatchNorm cannot train on one. None: all images, in order.
    convert : bool, default=True
        False gives the samples as the source holds them, (b, H, W, C).
    n_passes : int, default=1
        How often an iteration goes over the images, each time in another order.
    n_drawn : int, default=None
        Images of a pass, drawn with replacement by the generator. None: every one once.
    targets : Tensor of shape (n,), default=None
        What comes with the images: batches are then pairs (images, targets). None: images
        alone.
    """

    def __init__(
        self,
        images: ImageSource,
        batch_size: int,
        *,
        device: torch.device,
        generator: torch.Generator | None = None,
        convert: bool = True,
        n_passes: int = 1,
        n_drawn: int | None = None,
        targets: torch.Tensor | None = None,
    ):
        self._images = images
        self._batch_size = int(batch_size)  # a NumPy integer may be unsigned
        self._device = device
        self._generator = generator
        self._convert = convert
        self._n_passes = n_passes
        self._n_drawn = n_drawn
        self._targets = targets

    def __len__(self) -> int:
        return self._n_passes * self._n_batches()

    def _n_batches(self):
        """Return the batches of one pass."""
        n, size = self._n_drawn or len(self._images), self._batch_size
        if self._generator is not None and n > 1 and n % size == 1:
            return n // size
        return -(-n // size)

    def __iter__(self):
        selections = [s for _ in range(self._n_passes) for s in self._selections()]
        if self._images.is_lazy:
            loads = self._load_ahead(selections)
        else:
            loads = map(self._images.load, selections)
        for selection, batch in zip(selections, loads, strict=True):
            tensor = self._to_tensor(batch)
            if self._targets is None:
                yield tensor
            else:
                yield tensor, sent_to(self._targets[selection], self._device)

    def _selections(self):
        """Return the indices of each batch of a pass, as a slice or an integer array."""
        n, size = len(self._images), self._batch_size
        starts = range(0, size * self._n_batches(), size)
        if self._generator is None:
            return [slice(start, min(start + size, n)) for start in starts]
        if self._n_drawn is None:
            order = torch.randperm(n, generator=self._generator).numpy()
        else:
            order = torch.randint(n, (self._n_drawn,), generator=self._generator).numpy()
        return [order[start : start + size] for start in starts]

    def _load_ahead(self, selections):
        """Decode the next batch in a thread while the present one is in use."""
        with ThreadPoolExecutor(max_workers=1) as pool:
            ahead = None
            for selection in selections:
                following = pool.submit(self._images.load, selection)
                if ahead is not None:
                    yield ahead.result()
                ahead = following
            if ahead is not None:
                yield ahead.result()

    def _to_tensor(self, batch) -> torch.Tensor:
        if isinstance(batch, np.ndarray):
            # One layout in memory, whatever the source's: rounding depends on it. NumPy
            # leaves any stride to an axis of length one, torch takes it at its word.
            flat = torch.from_numpy(np.ascontiguousarray(batch)).flatten()
            batch = flat.view(batch.shape)
        tensor = sent_to(batch, self._device)
        if not self._convert:
            return tensor
        is_integer = tensor.dtype == torch.uint8
        if tensor.dim() > 2:
            # (b, H, W, C) -> (b, C, H, W) without moving a pixel. The result is in torch's
            # channels_last layout, in which convolutions take two thirds of the time. Clips
            # (b, T, H, W, C) likewise.
            tensor = tensor.movedim(-1, 1)
        tensor = tensor.float()
        # By a tensor: on a GPU a number would be turned into its reciprocal, which rounds
        # otherwise, and an image would not be recognised on another device.
        return tensor.div_(tensor.new_full((), 255.0)) if is_integer else tensor


class InTurn:
    """Batches of several kinds in turn: one of the first, one of the second, and so on.

    An iteration goes once over the kind with the most batches. The others start again, in
    another order if they are shuffled, as often as it takes.

    Parameters
    ----------
    *kinds : re-iterables with a length
        Batches of each kind, at least one.

    Attributes
    ----------
    n_kinds : int
    """

    def __init__(self, *kinds):
        self._kinds = kinds
        self.n_kinds = len(kinds)

    def __len__(self) -> int:
        return self.n_kinds * max(map(len, self._kinds))

    def __iter__(self):
        """Yield pairs (number of the kind, batch)."""
        streams = [_repeat(batches) for batches in self._kinds]
        try:
            for _ in range(len(self) // len(streams)):
                for kind, stream in enumerate(streams):
                    yield kind, next(stream)
        finally:
            for stream in streams:
                stream.close()


def _repeat(batches):
    """Yield batches without end."""
    while True:
        yield from batches
