"""Random changes of training images that leave normal images normal.

torchvision is imported when a pipeline is asked for.
"""

import math
from collections.abc import Callable
from numbers import Real
from typing import NamedTuple

import torch
from torch.nn import functional as nn_functional

from skocc._engine.ambient import without_modes

_TRANSLATION = 0.05
_SCALES = (0.95, 1.05)


class _Variant(NamedTuple):
    """What is done to an image.

    `translation` is (x, y) in pixels, and None where the image is neither shifted nor
    scaled. `sigma` is None where the image is too small for a blur.
    """

    is_flipped: bool
    translation: tuple[int, int] | None
    scale: float
    n_quarters: int
    sigma: float | None


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
    functional = _load_functional()
    quarters: tuple[int, ...] = ()
    if rotations:
        quarters = (1, 2, 3) if image_size[0] == image_size[1] else (2,)

    def vary(batch):
        drawn = [_draw(image_size, quarters) for _ in batch]
        # Nothing is drawn here, and a mode that intercepts the many small operations, and
        # each look at a shape, takes nearly as long as these.
        with without_modes():
            images = [
                _changed(functional, image, variant)
                for image, variant in zip(batch, drawn, strict=True)
            ]
            return torch.stack(images).contiguous(memory_format=torch.channels_last)

    return vary


def _load_functional():
    """Return torchvision's functions of images."""
    try:
        from torchvision.transforms.v2 import functional
    # A torchvision that does not fit its torch fails with RuntimeError.
    except (ImportError, RuntimeError) as error:
        raise ImportError(
            f"augmentation=True needs torchvision, which cannot be imported: {error}. "
            "Install the torchvision that belongs to your torch, or set augmentation=False."
        ) from error
    return functional


def _draw(image_size, quarters):
    """Draw what is done to an image, in the order of torchvision's own pipelines."""
    height, width = image_size
    is_flipped = _happens(0.5)
    translation, scale = None, 1.0
    if _happens(0.75):
        _uniform(0, 0)  # the angle of torchvision's RandomAffine, which is always 0
        x, y = (_uniform(-_TRANSLATION * n, _TRANSLATION * n) for n in (width, height))
        translation, scale = (round(x), round(y)), _uniform(*_SCALES)
    n_quarters = 0
    if quarters and _happens(0.75):
        weights = torch.full((len(quarters),), 1 / len(quarters))
        n_quarters = quarters[int(torch.multinomial(weights, 1))]
    # The blur mirrors pixels at the border.
    sigma = _uniform(0.01, 0.05) if min(image_size) > 1 else None
    return _Variant(is_flipped, translation, scale, n_quarters, sigma)


def check_rotations(rotation_range, sample_shape: tuple[int, ...]) -> None:
    """Raise a ValueError for angles that are no range, or for samples without a shape."""
    if len(sample_shape) != 3:
        raise ValueError(
            f"rotation_range={rotation_range!r} is for images. Got rows of "
            f"{sample_shape[0]} values. Set image_shape=(H, W) if they are images, or "
            "rotation_range=None."
        )
    values = [*rotation_range]
    is_range = len(values) == 2 and all(isinstance(n, Real) for n in values)
    if not is_range or not -math.inf < values[0] <= values[1] < math.inf:
        raise ValueError(
            "rotation_range must be two numbers of degrees, the lower one first. Got "
            f"{rotation_range!r}. Set for example rotation_range=(-45, 45)."
        )


def random_rotations(
    batch: torch.Tensor, low: float, high: float, generator: torch.Generator
) -> torch.Tensor:
    """Rotate each image about its center by a random angle, mirrored beyond the border.

    Parameters
    ----------
    batch : Tensor of shape (b, C, H, W)
    low, high : float
        Degrees, counterclockwise.
    generator : torch.Generator
        On the CPU.

    Returns
    -------
    rotated : Tensor of shape (b, C, H, W)
    """
    uniform = torch.rand(len(batch), generator=generator)
    angle = torch.deg2rad(low + (high - low) * uniform)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros(len(batch))
    # Places are in units of half a side, which has its own length in either direction.
    ratio = batch.shape[2] / batch.shape[3]
    parts = [cos, -sin * ratio, zero, sin / ratio, cos, zero]
    theta = torch.stack(parts, dim=1).view(-1, 2, 3).to(batch.device, batch.dtype)
    grid = nn_functional.affine_grid(theta, list(batch.shape), align_corners=False)
    return nn_functional.grid_sample(
        batch, grid, padding_mode="reflection", align_corners=False
    )


def _happens(probability):
    return torch.rand(1).item() < probability


def _uniform(low, high):
    return torch.empty(1).uniform_(low, high).item()


def _changed(functional, image, variant):
    """Return a variant of an image (C, H, W)."""
    if variant.is_flipped:
        image = functional.horizontal_flip(image)
    if variant.translation is not None:
        image = _shifted_and_scaled(functional, image, variant)
    if variant.n_quarters:
        image = torch.rot90(image, variant.n_quarters, dims=(-2, -1))
    if variant.sigma is not None:
        image = functional.gaussian_blur(image, [3, 3], [variant.sigma] * 2)
    return image


def _shifted_and_scaled(functional, image, variant):
    """Return an image shifted and scaled, of the same size."""
    size = list(image.shape[1:])
    # A shift and a smaller scale bring in this many pixels, which repeat those at the edge.
    rows, columns = (
        math.ceil(n * (_TRANSLATION + (1 - _SCALES[0]) / 2) / _SCALES[0]) + 1 for n in size
    )
    padded = functional.pad(image, [columns, rows], padding_mode="edge")
    moved = functional.affine(
        padded,
        angle=0.0,
        translate=list(variant.translation),
        scale=variant.scale,
        shear=[0.0, 0.0],
        interpolation=functional.InterpolationMode.BILINEAR,
        fill=0,
    )
    return functional.center_crop(moved, size)
