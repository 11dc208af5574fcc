"""Batches of images on the device, and sources that keep their samples there."""

import math
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from skocc._engine.device import sent_to
from skocc._samples.progress import track
from skocc._samples.sources import ImageSource

# Fraction of the free GPU memory that images may take; the rest is for activations.
_RESIDENT_FRACTION = 0.4
# Maximum number of images, and of bytes, that are loaded at a time. Files are loaded two
# blocks ahead.
_LOAD_SIZE, _LOAD_BYTES = 256, 2**27


class ResidentMaps:
    """Source that keeps the maps of a stream on a device.

    Parameters
    ----------
    maps : iterable of Tensor of shape (b, C, h, w)
        Blocks of maps that have the same shape except for b.
    n_samples : int
        Total number of maps.
    device : torch.device
        Device on which the maps are kept, as float32.
    """

    n_ahead = 0

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
        return _select(self._values, indices)


def _select(values, indices):
    if isinstance(indices, slice):
        return values[indices]
    return values[sent_to(torch.as_tensor(indices), values.device)]


class ResidentImages:
    """Image source that is kept on a device, so that an epoch copies nothing.

    Parameters
    ----------
    images : image source
        Source that is read once, in blocks, so that host memory holds only a few blocks.
    device : torch.device
        Device on which the pixels are kept, in the dtype of the source.
    """

    n_ahead = 0

    def __init__(self, images: ImageSource, device: torch.device):
        self.shape, self.dtype = images.shape, images.dtype
        size = images.dtype.itemsize * math.prod(images.shape[1:])
        n_images = max(1, min(_LOAD_SIZE, _LOAD_BYTES // size))
        blocks = ImageBatches(images, n_images, device=device, convert=False)
        dtype = torch.uint8 if images.dtype == "uint8" else torch.float32
        self._values = torch.empty(self.shape, dtype=dtype, device=device)
        start = 0
        for block in track(blocks, "images to the device"):
            self._values[start : start + len(block)] = block
            start += len(block)

    def __len__(self) -> int:
        return self.shape[0]

    def load(self, indices) -> torch.Tensor:
        """Return the samples at `indices` as a tensor (b, ...) on the device."""
        return _select(self._values, indices)


class Subset:
    """Source of some of the images of another source.

    Parameters
    ----------
    images : image source
    indices : ndarray of shape (n,), int
    """

    def __init__(self, images: ImageSource, indices: np.ndarray):
        self._images, self._indices = images, indices
        self.n_ahead, self.dtype = images.n_ahead, images.dtype
        self.shape = (len(indices), *images.shape[1:])

    def __len__(self) -> int:
        return len(self._indices)

    def load(self, indices):
        """Return the samples at `indices` of the subset, as the source returns them."""
        return self._images.load(self._indices[indices])


def keep_on_device(images: ImageSource, device: torch.device) -> ImageSource:
    """Return `images` as a source on `device` if they fit there, else unchanged.

    On a GPU, this avoids decoding files and copying arrays in every epoch.
    """
    if len(images) > 0 and _fits(images.shape, images.dtype.itemsize, device):
        return ResidentImages(images, device)
    return images


def hold_maps(maps, shape: tuple[int, int, int, int], device: torch.device):
    """Return a source of the maps of a stream, on `device` or in host memory.

    Parameters
    ----------
    maps : iterable of Tensor of shape (b, C, h, w)
    shape : tuple (n, C, h, w)
        Shape of all maps together.
    device : torch.device
        Device that is used if it is a GPU with enough free memory.
    """
    place = device if _fits(shape, 4, device) else torch.device("cpu")
    return ResidentMaps(maps, shape[0], place)


def _fits(shape, itemsize, device):
    """Return whether an array leaves room for activations on a GPU."""
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return itemsize * math.prod(shape) < _RESIDENT_FRACTION * free


class ImageBatches:
    """Re-iterable batches (b, C, H, W), (b, C, T, H, W) or (b, d), float32, on a device.

    Read more in the :ref:`User Guide <own_method>`.

    Parameters
    ----------
    images : image source
        Images to batch. Integers are divided by their range; floats are not scaled.
    batch_size : int
        Number of images per batch. The last batch may be smaller.
    device : torch.device
        Device of the batches.
    generator : torch.Generator, default=None
        Generator from which each pass draws a new permutation. A last batch of a single
        image is then dropped, because BatchNorm cannot train on one image. None means all
        images, in order.
    convert : bool, default=True
        Whether to convert the samples. If False, batches have the layout and dtype of the
        source, (b, H, W, C).
    n_passes : int, default=1
        Number of passes over the images in one iteration, each in another order.
    n_drawn : int, default=None
        Number of images that a pass draws with replacement. None means every image once.
    targets : Tensor of shape (n,), default=None
        Targets of the images: batches are then pairs (images, targets). None means that
        batches contain only images.

    Examples
    --------
    A detector whose score is the brightness of an image:

    >>> import numpy as np
    >>> from skocc.base import BaseDetector, ImageBatches, Scores
    >>> class Brightness(BaseDetector):
    ...     def _fit(self, images, run):
    ...         pass
    ...
    ...     def _score(self, images, device):
    ...         batches = ImageBatches(images, self.batch_size, device=device)
    ...         means = [batch.mean(dim=(1, 2, 3)).cpu() for batch in batches]
    ...         return Scores(np.concatenate(means))
    >>> images = np.linspace(0.5, 1, 20).reshape(20, 1, 1) * np.ones((8, 8))
    >>> Brightness().fit(images).predict([np.zeros((8, 8)), images[10]])
    array([-1,  1])
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
        """Return the number of batches in one pass."""
        n, size = self._n_drawn or len(self._images), self._batch_size
        if self._generator is not None and n > 1 and n % size == 1:
            return n // size
        return -(-n // size)

    def __iter__(self):
        selections = [s for _ in range(self._n_passes) for s in self._selections()]
        if self._images.n_ahead:
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
        """Return the indices of each batch of a pass, as slices or integer arrays."""
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
        """Decode the next batches in threads while the current one is in use."""
        ahead = deque()
        with ThreadPoolExecutor(self._images.n_ahead) as pool:
            try:
                for selection in selections:
                    ahead.append(pool.submit(self._images.load, selection))
                    if len(ahead) > self._images.n_ahead:
                        yield ahead.popleft().result()
                while ahead:
                    yield ahead.popleft().result()
            finally:
                # Of an iteration that ends early, or in an error.
                for load in ahead:
                    load.cancel()

    def _to_tensor(self, batch) -> torch.Tensor:
        if isinstance(batch, np.ndarray):
            # Always the same memory layout, because rounding depends on it. NumPy may give
            # an axis of length one any stride, and torch uses that stride.
            flat = torch.from_numpy(np.ascontiguousarray(batch)).flatten()
            batch = flat.view(batch.shape)
        tensor = sent_to(batch, self._device)
        if not self._convert:
            return tensor
        is_integer = tensor.dtype == torch.uint8
        if tensor.dim() > 2:
            # (b, H, W, C) -> (b, C, H, W) without a copy, and likewise for clips
            # (b, T, H, W, C). The result has torch's channels_last layout, in which
            # convolutions take two thirds of the time.
            tensor = tensor.movedim(-1, 1)
        tensor = tensor.float()
        # The divisor is a tensor: on a GPU, torch multiplies by the reciprocal of a number,
        # which rounds differently, so that an image would not be recognized on another
        # device.
        return tensor.div_(tensor.new_full((), 255.0)) if is_integer else tensor


class InTurn:
    """Batches of several kinds that alternate: one of the first, one of the second, ...

    An iteration makes one pass over the kind with the most batches. The other kinds start
    again when they end, in a new order if they are shuffled.

    Parameters
    ----------
    *kinds : re-iterables with a length
        Batches of each kind, at least one batch per kind.

    Attributes
    ----------
    n_kinds : int
        Number of kinds.
    """

    def __init__(self, *kinds):
        self._kinds = kinds
        self.n_kinds = len(kinds)

    def __len__(self) -> int:
        return self.n_kinds * max(map(len, self._kinds))

    def __iter__(self):
        """Yield pairs (index of the kind, batch)."""
        streams = [_repeat(batches) for batches in self._kinds]
        try:
            for _ in range(len(self) // len(streams)):
                for kind, stream in enumerate(streams):
                    yield kind, next(stream)
        finally:
            for stream in streams:
                stream.close()


def _repeat(batches):
    """Yield batches forever."""
    while True:
        yield from batches
