"""Pairs of patches to learn from, drawn from maps that hold the embeddings of many.

Patch SVDD learns from pairs: patches that nearly coincide, and patches with one of their
eight neighbours. Cut out and encoded one by one, they cost a pass each. Here a few crops
are encoded densely, and any number of pairs is picked from the maps.
"""

import torch

# Row-major, without the center: classes of the position classifier.
_DIRECTIONS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))


def random_crops(
    batch: torch.Tensor, crop_size: tuple[int, int], generator: torch.Generator
) -> torch.Tensor:
    """Crop each image at a place of its own.

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
    """Shift the colours of each image, and add noise to each pixel.

    Without it the position of a patch could be told from colour fringes and from gradients
    of the light.

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
    return batch + scale * (shift + noise).to(batch.device)


def position_pairs(
    map_size: tuple[int, int], patch_size: int, n_pairs: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Draw patches, each with one of its eight neighbours.

    The neighbour lies 3/4 of the patch size, and up to a quarter more, in the direction of
    its class, so that the two overlap by a quarter at most.

    Parameters
    ----------
    map_size : tuple (rows, columns)
        Of the windows, which start every two pixels.
    patch_size : int
        In pixels.
    n_pairs : int
    generator : torch.Generator
        On the CPU.

    Returns
    -------
    anchors, neighbors : Tensor of shape (n_pairs, 2), int64
        Rows and columns in the map.
    positions : Tensor of shape (n_pairs,), int64
        Classes 0 to 7 of the neighbours, row by row from the top left.

    Notes
    -----
    Anchors are uniform over those whose neighbour lies within the map. Where there are
    none, in images of less than twice the patch size, the neighbour is clipped to the map,
    as the published sampler does with every pair. Offsets are even numbers of pixels.
    """
    positions = _randint(len(_DIRECTIONS), (n_pairs,), generator)
    direction = torch.tensor(_DIRECTIONS)[positions]
    # In cells of two pixels: 3K/4 and up to K/4 - 1 more.
    nearest, spread = 3 * patch_size // 8, max(1, patch_size // 8)
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
    map_size: tuple[int, int], n_pairs: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw patches with others that are shifted by two pixels.

    Parameters
    ----------
    map_size : tuple (rows, columns)
        Of the windows, which start every two pixels.
    n_pairs : int
    generator : torch.Generator
        On the CPU.

    Returns
    -------
    anchors, neighbors : Tensor of shape (n_pairs, 2), int64
        Rows and columns in the map. They differ by one in either or both, and may be the
        same only where the border leaves nothing else.
    """
    offset = torch.tensor(_DIRECTIONS)[_randint(len(_DIRECTIONS), (n_pairs,), generator)]
    last = torch.tensor(map_size) - 1
    uniform = torch.rand((n_pairs, 2), generator=generator)
    anchors = (uniform * (last + 1)).long()
    return anchors, torch.minimum((anchors + offset).clamp(min=0), last)


def _randint(n, shape, generator):
    return torch.randint(n, shape, generator=generator)
