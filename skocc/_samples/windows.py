"""Start positions of windows along one side of an image, or in a video."""


def window_starts(size: int, patch_size: int, stride: int) -> list[int]:
    """Return the start positions of windows along one side of an image.

    A window starts every `stride` pixels, for as many windows as fit. If they leave pixels
    at the end uncovered, one more window is aligned with the end.

    Parameters
    ----------
    size : int
        Side of the image, at least `patch_size`.
    patch_size : int
        Side of a window.
    stride : int
        At most `patch_size`, so that windows leave no gaps.

    Returns
    -------
    starts : list of int
        Positions in ascending order, from 0 to ``size - patch_size``.

    Raises
    ------
    ValueError
        The image is smaller than a window, or the stride is larger.
    """
    if size < patch_size:
        raise ValueError(
            f"Patches of {patch_size} pixels do not fit into images with a side of {size} "
            "pixels. Use larger images, or smaller patches."
        )
    if not 1 <= stride <= patch_size:
        raise ValueError(
            f"stride must be between 1 and the patch size, or pixels are left out. Got "
            f"stride={stride} and patches of {patch_size} pixels. Set for example "
            f"stride={patch_size // 4}."
        )
    last = size - patch_size
    starts = list(range(0, last + 1, stride))
    if starts[-1] != last:
        starts.append(last)
    return starts
