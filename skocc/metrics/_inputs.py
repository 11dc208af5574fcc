"""Masks and heat maps for the metrics of pixels, read one image at a time."""

import os
from collections.abc import Iterator
from itertools import zip_longest

import numpy as np

from skocc._samples.arrays import as_array

_MISSING = object()


def read_masks_and_maps(masks, maps) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield each mask as a Boolean array (H, W), with its map as float32.

    Parameters
    ----------
    masks : iterable of arrays (H, W), paths or None
        Masks that are True, or other than 0, at the pixels of a defect: arrays of Booleans
        or integers; image files, as paths or as their bytes; or None for an image without
        a defect. A file is decoded when its map has been taken.
    maps : iterable of arrays (H, W)
        Heat maps, which may differ in size. NaN becomes +inf, an anomaly.

    Yields
    ------
    mask : ndarray of shape (H, W), bool
    heat : ndarray of shape (H, W), float32

    Raises
    ------
    ValueError
        The numbers of masks and maps differ, a mask differs in size from its map, contains
        floats or cannot be read, or a map is not an array (H, W).
    """
    if _is_file(masks):
        raise ValueError(
            "masks must hold one mask for each map. Got a single "
            f"{type(masks).__name__}. Pass a list, for a folder "
            "sorted(folder.glob('*.png'))."
        )
    for i, (mask, heat) in enumerate(zip_longest(masks, maps, fillvalue=_MISSING)):
        if mask is _MISSING or heat is _MISSING:
            fewer = "masks" if mask is _MISSING else "maps"
            raise ValueError(
                f"There must be one mask for each map. Got only {i} {fewer}. Pass None as "
                "the mask of an image without a defect."
            )
        heat = _checked_map(heat, i)
        yield _checked_mask(mask, heat.shape, i), heat


def check_both_kinds(n_defect: int, n_normal: int) -> None:
    """Raise a ValueError unless there are pixels of defects and normal pixels."""
    if not (n_defect and n_normal):
        missing = "normal" if n_defect else "defect"
        raise ValueError(
            "Pixels of defects and normal pixels are both needed, because otherwise "
            f"nothing can be ranked. Got no {missing} pixel. Pass the maps of images with "
            "and without defects."
        )


def _checked_map(heat, index):
    with np.errstate(over="ignore"):  # overflow becomes infinite
        heat = as_array("maps", heat, np.float32)
    if heat.ndim != 2:
        raise ValueError(
            f"A map must have the shape (H, W). Got {heat.shape} for map {index}. Pass "
            "maps of shape (n, H, W), or one array (H, W) for each image."
        )
    return np.where(np.isnan(heat), np.float32(np.inf), heat)


def _checked_mask(mask, shape, index):
    """Return a mask as a Boolean array of the shape of its map."""
    if mask is None:
        return np.zeros(shape, bool)
    is_file = _is_file(mask)
    name = f"mask {index}"
    if is_file and isinstance(mask, str | os.PathLike):
        name += f", the file {os.fspath(mask)!r},"
    array = read_mask(mask, index) if is_file else as_array("masks", mask)
    if array.shape != shape:
        raise ValueError(
            f"A mask must have the shape of its map. Got {array.shape} for {name} and "
            f"{shape} for its map. Pass maps of that size, such as "
            "anomaly_map(X, size='input') of the photographs, or resize the mask without "
            "interpolation."
        )
    if not is_file and array.dtype.kind not in "bui":
        raise ValueError(
            f"A mask must hold Booleans or integers. Got {array.dtype} for {name}. "
            "Pass for example mask > 0.5."
        )
    return array != 0


# Metrics of scores read no files, and do without PIL.
def _is_file(item):
    from skocc._samples.sources import ImageFile

    return isinstance(item, ImageFile)


def read_mask(item, index):
    """Return the gray levels (H, W) of a mask in a file."""
    from skocc._samples.sources import read_image

    try:
        return read_image(item, index, n_channels=1)[:, :, 0]
    except ValueError as error:
        raise ValueError(f"mask {index} cannot be used: {error}") from error
