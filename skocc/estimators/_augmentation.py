"""Random changes of training images that leave normal images normal.

torchvision is imported when a pipeline is asked for.
"""

import math
from collections.abc import Callable
from functools import partial

import torch

_TRANSLATION = 0.05
_SCALES = (0.95, 1.05)


def random_variants(
    image_size: tuple[int, int], rotations: bool = True
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Make the pipeline that changes each image of a batch in its own way.

    In this order: a horizontal flip, with probability 0.5; a translation by up to 5 % of a
    side with a scale of 0.95 to 1.05, with probability 0.75, which repeats the pixels at
    the border; a rotation by 90, 180 or 270 degrees, with probability 0.75; a Gaussian blur
    over 3 x 3 pixels with a deviation of 0.01 to 0.05 pixels (not of images of a single row
    or column).

    Parameters
    ----------
    image_size : tuple (H, W)
        In pixels.
    rotations : bool, default=True
        Whether images are rotated. Those that are not square are rotated by 180 degrees
        only.

    Returns
    -------
    function
        Maps a batch (b, C, H, W) to a batch of the same shape. It draws from torch's global
        generator, separately for each image.

    Raises
    ------
    ImportError
        torchvision cannot be imported.

    Notes
    -----
    The blur is that of the source. A kernel this narrow is numerically the identity.
    """
    try:
        from torchvision.transforms import v2
    # A torchvision that does not fit its torch fails with RuntimeError.
    except (ImportError, RuntimeError) as error:
        raise ImportError(
            f"augmentation=True needs torchvision, which cannot be imported: {error}. "
            "Install the torchvision that belongs to your torch, or set augmentation=False."
        ) from error
    steps = [
        v2.RandomHorizontalFlip(0.5),
        v2.RandomApply(_shift_and_scale(v2, image_size), p=0.75),
    ]
    if rotations:
        quarters = (1, 2, 3) if image_size[0] == image_size[1] else (2,)
        turns = [v2.Lambda(partial(torch.rot90, k=k, dims=(-2, -1))) for k in quarters]
        steps.append(v2.RandomApply([v2.RandomChoice(turns)], p=0.75))
    if min(image_size) > 1:  # the blur mirrors pixels at the border
        steps.append(v2.GaussianBlur(3, sigma=(0.01, 0.05)))
    pipeline = v2.Compose(steps)

    def vary(batch):
        # One by one: a pipeline of torchvision changes all images of a batch alike.
        images = torch.stack([pipeline(image) for image in batch])
        return images.contiguous(memory_format=torch.channels_last)

    return vary


def _shift_and_scale(v2, image_size):
    """Return the steps of a random translation and scale, which keep the size."""
    height, width = image_size
    # A shift and a smaller scale bring in this many pixels, which repeat those at the edge.
    margins = [
        math.ceil(n * (_TRANSLATION + (1 - _SCALES[0]) / 2) / _SCALES[0]) + 1
        for n in (height, width)
    ]
    padded = [n + 2 * margin for n, margin in zip(image_size, margins, strict=True)]
    affine = v2.RandomAffine(
        degrees=0,
        # torchvision takes x first, and as a fraction of what it is given.
        translate=(_TRANSLATION * width / padded[1], _TRANSLATION * height / padded[0]),
        scale=_SCALES,
        interpolation=v2.InterpolationMode.BILINEAR,
    )
    return [
        v2.Pad([margins[1], margins[0]], padding_mode="edge"),
        affine,
        v2.CenterCrop([height, width]),
    ]
