"""Where windows start along a side of an image, or in a video."""


def window_starts(size: int, patch_size: int, stride: int) -> list[int]:
    """Return where windows start along one side of an image.

    Every `stride` pixels, as many as fit; and one more, flush with the end, where they
    leave pixels there uncovered.

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
        Ascending, from 0 to ``size - patch_size``.

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
            f"stride={stride} does not suit patches of {patch_size} pixels: it must be at "
            "least 1, and with more than the patch size pixels would be left out. Use for "
            f"example stride={patch_size // 4}."
        )
    last = size - patch_size
    starts = list(range(0, last + 1, stride))
    if starts[-1] != last:
        starts.append(last)
    return starts
