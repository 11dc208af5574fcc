"""Pairs of patches for training, their embeddings, and their loss.

Patch SVDD learns from pairs: patches that nearly coincide, and patches with one of their
eight neighbors. Cut out and encoded one by one (:class:`CutPatches`), as published, they
cost a pass each. From a crop that is encoded densely (:class:`DensePatches`), any number of
pairs is picked.

The place of a patch is a row and a column of cells. A cell is a pixel for patches that are
cut out, and two pixels, the stride of the encoder, for those of a dense map.
"""

from collections.abc import Callable

import torch
from torch.nn import functional

from skocc._engine.device import sent_to
from skocc._ops.losses import pairwise_distance_loss

# Row-major, without the center: classes of the position classifier.
_DIRECTIONS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))


def random_crops(
    batch: torch.Tensor, crop_size: tuple[int, int], generator: torch.Generator
) -> torch.Tensor:
    """Crop each image at a random place of its own.

    Parameters
    ----------
    batch : Tensor of shape (b, C, H, W)
    crop_size : tuple (height, width)
        No larger than the images.
    generator : torch.Generator
        On the CPU.

    Returns
    -------
    crops : Tensor of shape (b, C, height, width)
    """
    height, width = crop_size
    rows = _randint(batch.shape[2] - height + 1, (len(batch),), generator).tolist()
    columns = _randint(batch.shape[3] - width + 1, (len(batch),), generator).tolist()
    return torch.stack(
        [
            image[:, i : i + height, j : j + width]
            for image, i, j in zip(batch, rows, columns, strict=True)
        ]
    )


def photometric_noise(
    batch: torch.Tensor, scale: float, generator: torch.Generator
) -> torch.Tensor:
    """Shift the colors of each image, and add noise to each pixel.

    Without noise, color fringes and gradients of the light would tell the position of a
    patch.

    Parameters
    ----------
    batch : Tensor of shape (b, C, H, W)
    scale : float
        Standard deviation of both, in units of the pixels.
    generator : torch.Generator
        On the CPU.

    Returns
    -------
    noisy : Tensor of shape (b, C, H, W)
    """
    shift = torch.randn((*batch.shape[:2], 1, 1), generator=generator)
    noise = torch.randn(batch.shape, generator=generator)
    # On a GPU without a wait, see skocc._engine.device.sent_to.
    noise = (shift + noise).to(batch.device, non_blocking=batch.is_cuda)
    return batch + scale * noise


class DensePatches:
    """Embeddings of any patches of random crops, one crop an image, encoded once.

    Parameters
    ----------
    encoder : HierarchicalPatchEncoder
        Its `base_map` embeds two views of the crops, each with noise of its own.
    images : Tensor of shape (b, C, H, W)
    crop_size : tuple (height, width)
        No larger than the images, and no smaller than a patch.
    noise : float
        See :func:`photometric_noise`.
    generator : torch.Generator
        On the CPU.

    Attributes
    ----------
    cell : int
        Pixels from one place of a patch to the next: 2.
    """

    cell = 2

    def __init__(self, encoder, images, crop_size, noise, generator):
        crops = random_crops(images, crop_size, generator)
        views = [photometric_noise(crops, noise, generator) for _ in range(2)]
        views = torch.cat(views).contiguous(memory_format=torch.channels_last)
        self._maps = encoder.base_map(views).chunk(2)

    def map_size(self, encoder) -> tuple[int, int]:
        """Return how many rows and columns of places a patch of this encoder has."""
        return encoder.map_size(self._maps[0])

    def embed(self, encoder, image, cells, view=None) -> torch.Tensor:
        """Return the embeddings (n, D) of patches.

        Parameters
        ----------
        encoder : PatchEncoder or HierarchicalPatchEncoder
            Either scale.
        image : Tensor of shape (n,), int64
            Which image each patch is from.
        cells : Tensor of shape (n, 2), int64
            Row and column of each.
        view : {0, 1}, default=None
            Two patches with different views have noise of their own. None: patches that
            are compared with each other as they are.
        """
        rows, columns = cells.to(image.device, non_blocking=image.is_cuda).unbind(dim=1)
        return encoder.pick(self._maps[view or 0], image, rows, columns)


class CutPatches:
    """Embeddings of patches that are cut out of whole images, one pass for each.

    Parameters
    ----------
    images : Tensor of shape (b, C, H, W)
    noise : float
        See :func:`photometric_noise`.
    generator : torch.Generator
        On the CPU.

    Attributes
    ----------
    cell : int
        Pixels from one place of a patch to the next: 1.
    """

    cell = 1

    def __init__(self, images, noise, generator):
        self._images, self._noise, self._generator = images, noise, generator

    def map_size(self, encoder) -> tuple[int, int]:
        """Return how many rows and columns of places a patch of this encoder has."""
        height, width = self._images.shape[2:]
        return height - encoder.patch_size + 1, width - encoder.patch_size + 1

    def embed(self, encoder, image, cells, view=None) -> torch.Tensor:
        """Return the embeddings (n, D) of patches, see :class:`DensePatches`."""
        side = encoder.patch_size
        rows, columns = cells.to(image.device, non_blocking=image.is_cuda).unbind(dim=1)
        windows = self._images.unfold(2, side, 1).unfold(3, side, 1)
        patches = windows[image, :, rows, columns]  # (n, C, side, side)
        if view is not None:
            patches = photometric_noise(patches, self._noise, self._generator)
        return encoder(patches.contiguous(memory_format=torch.channels_last))


def pair_loss(
    network,
    generator,
    *,
    crop_size,
    sampling,
    noise,
    n_pairs,
    svdd_weight,
    objective="patch",
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the loss of a batch of images: that of both scales.

    Parameters
    ----------
    network : torch.nn.ModuleDict
        With "normalize", "encoder", "classify_small" and "classify_big", and "centers" of
        small and of big patches for ``objective="svdd"``.
    generator : torch.Generator
        On the CPU.
    crop_size : tuple (height, width)
        Size of a crop for ``sampling="dense"``.
    sampling, noise, n_pairs, svdd_weight, objective
        Parameters of :class:`skocc.PatchSVDD`.
    """
    encoder = network.encoder
    centers = network["centers"] if objective == "svdd" else (None, None)
    scales = (
        (encoder.enc, network.classify_small, centers[0]),
        (encoder, network.classify_big, centers[1]),
    )

    def loss_fn(batch):
        images = network.normalize(batch)
        if sampling == "dense":
            patches = DensePatches(encoder, images, crop_size, noise, generator)
        else:
            patches = CutPatches(images, noise, generator)
        image = torch.arange(len(batch), device=batch.device)
        image = image.repeat_interleave(int(n_pairs))
        return sum(
            scale_loss(patches, *scale, image, svdd_weight, objective, generator)
            for scale in scales
        )

    return loss_fn


def scale_loss(
    patches: DensePatches | CutPatches,
    encoder,
    classifier,
    center: torch.Tensor | None,
    image: torch.Tensor,
    svdd_weight: float,
    objective: str,
    generator: torch.Generator,
) -> torch.Tensor:
    """Return the loss of Patch SVDD at one scale.

    Parameters
    ----------
    patches : DensePatches or CutPatches
    encoder : PatchEncoder or HierarchicalPatchEncoder
        That of the scale.
    classifier : PositionClassifier
        That of the scale.
    center : Tensor of shape (D,) or None
        That of the scale, for ``objective="svdd"``.
    image : Tensor of shape (n_pairs,), int64
        Which image each pair is from.
    svdd_weight : float
        Weight of the distance of patches that nearly coincide.
    objective : {"patch", "pairs", "svdd"}
        As of :class:`skocc.PatchSVDD`.
    generator : torch.Generator
        On the CPU.

    Returns
    -------
    loss : scalar Tensor
    """
    patch_size = encoder.patch_size // patches.cell
    places = (patches.map_size(encoder), patch_size, len(image), generator)

    def classification():
        anchors, neighbors, positions = position_pairs(*places)
        # Each patch has noise of its own, or its colors would give the position away.
        logits = classifier(
            patches.embed(encoder, image, anchors, view=0),
            patches.embed(encoder, image, neighbors, view=1),
        )
        return functional.cross_entropy(logits, sent_to(positions, logits.device))

    def distance():
        anchors, neighbors = close_pairs(*places)
        z = patches.embed(encoder, image, anchors)
        if objective == "svdd":
            return pairwise_distance_loss(z, center.expand_as(z))
        return pairwise_distance_loss(z, patches.embed(encoder, image, neighbors))

    if objective != "patch":
        return distance()
    loss = classification()
    return loss if svdd_weight == 0 else loss + svdd_weight * distance()


def position_pairs(
    map_size: tuple[int, int], patch_size: int, n_pairs: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Draw patches, each with one of its eight neighbors.

    The neighbor lies 3/4 of the patch size, and up to a quarter more, in the direction of
    its class, so that the two overlap by a quarter at most.

    Parameters
    ----------
    map_size : tuple (rows, columns)
        Of the places a patch may have.
    patch_size : int
        In cells.
    n_pairs : int
    generator : torch.Generator
        On the CPU.

    Returns
    -------
    anchors, neighbors : Tensor of shape (n_pairs, 2), int64
        Rows and columns, in cells.
    positions : Tensor of shape (n_pairs,), int64
        Classes 0 to 7 of the neighbors, row by row from the top left.

    Notes
    -----
    Anchors are uniform over those whose neighbor lies within the map. Where there are
    none, in images of less than twice the patch size, the neighbor is clipped to the map,
    as the published sampler does with every pair.
    """
    positions = _randint(len(_DIRECTIONS), (n_pairs,), generator)
    direction = torch.tensor(_DIRECTIONS)[positions]
    nearest, spread = 3 * patch_size // 4, max(1, patch_size // 4)
    offset = direction * (nearest + _randint(spread, (n_pairs, 2), generator))
    last = torch.tensor(map_size) - 1
    low, high = (-offset).clamp(min=0), torch.minimum(last, last - offset)
    fits = low <= high
    low, high = low.where(fits, torch.tensor(0)), high.where(fits, last)
    uniform = torch.rand((n_pairs, 2), generator=generator)
    anchors = low + (uniform * (high - low + 1)).long()
    neighbors = torch.minimum((anchors + offset).clamp(min=0), last)
    return anchors, neighbors, positions


def close_pairs(
    map_size: tuple[int, int], patch_size: int, n_pairs: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw patches with others that nearly coincide with them.

    The shift is up to 1/32 of the patch size, at least a cell, in rows or columns or both.

    Parameters
    ----------
    map_size : tuple (rows, columns)
        Of the places a patch may have.
    patch_size : int
        In cells.
    n_pairs : int
    generator : torch.Generator
        On the CPU.

    Returns
    -------
    anchors, neighbors : Tensor of shape (n_pairs, 2), int64
        Rows and columns, in cells.

    Notes
    -----
    A neighbor beyond the map is clipped to it, as in the published sampler, so that a few
    pairs at the border are a patch and itself, at distance 0: some hundredths of the pairs
    of small maps, fewer of large ones.
    """
    reach = max(1, patch_size // 32)
    # Numbers of all shifts but (0, 0), which is the middle one.
    side = 2 * reach + 1
    number = _randint(side**2 - 1, (n_pairs,), generator)
    number += number >= side**2 // 2
    offset = torch.stack([number // side, number % side], dim=1) - reach
    last = torch.tensor(map_size) - 1
    uniform = torch.rand((n_pairs, 2), generator=generator)
    anchors = (uniform * (last + 1)).long()
    return anchors, torch.minimum((anchors + offset).clamp(min=0), last)


def _randint(n, shape, generator):
    return torch.randint(n, shape, generator=generator)
