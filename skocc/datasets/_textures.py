"""Synthetic normal images, for examples and tests without a download."""

from numbers import Integral

import numpy as np
from scipy import ndimage

from skocc._base.private_sklearn import validate_params
from skocc.datasets._defects import as_random_state


@validate_params(
    {
        "n_images": [Integral],
        "kind": [str],
        "size": [Integral],
        "random_state": ["random_state", np.random.Generator],
    },
    prefer_skip_nested_validation=True,
)
def make_textures(
    n_images: int,
    *,
    kind: str = "weave",
    size: int = 96,
    random_state: int | np.random.RandomState | np.random.Generator | None = None,
) -> np.ndarray:
    """Make synthetic gray images of a texture, with random shifts and lighting.

    Read more in the :ref:`User Guide <made_images>`.

    Parameters
    ----------
    n_images : int
        Number of images, at least 1.
    kind : {"weave", "grain", "tiles"}, default="weave"
        Kind of texture: a woven cloth, wood with a grain along the rows, or a wall of
        tiles.
    size : int, default=96
        Height and width in pixels, at least 8.
    random_state : int, RandomState, Generator or None, default=None
        Seed of the images. An int gives the same images in each call.

    Returns
    -------
    images : ndarray of shape (n_images, size, size), float32
        Values in [0, 1].

    Raises
    ------
    ValueError
        `kind` is unknown, or a number is too small.

    See Also
    --------
    make_objects : Make images of objects on a plain background.
    make_defects : Add defects to these images.

    Examples
    --------
    >>> from skocc.datasets import make_textures
    >>> make_textures(10, kind="tiles", random_state=0).shape
    (10, 96, 96)
    """
    return _make(_TEXTURES, n_images, kind, size, random_state)


@validate_params(
    {
        "n_images": [Integral],
        "kind": [str],
        "size": [Integral],
        "random_state": ["random_state", np.random.Generator],
    },
    prefer_skip_nested_validation=True,
)
def make_objects(
    n_images: int,
    *,
    kind: str = "nut",
    size: int = 96,
    random_state: int | np.random.RandomState | np.random.Generator | None = None,
) -> np.ndarray:
    """Make synthetic gray images of an object on a dark background, randomly rotated.

    Read more in the :ref:`User Guide <made_images>`.

    Parameters
    ----------
    n_images : int
        Number of images, at least 1.
    kind : {"nut", "washer"}, default="nut"
        Kind of object: a hexagon of brushed metal with a round hole, or a ring with notches
        at its rim.
    size : int, default=96
        Height and width in pixels, at least 8.
    random_state : int, RandomState, Generator or None, default=None
        Seed of the images. An int gives the same images in each call.

    Returns
    -------
    images : ndarray of shape (n_images, size, size), float32
        Values in [0, 1].

    Raises
    ------
    ValueError
        `kind` is unknown, or a number is too small.

    See Also
    --------
    make_textures : Make images of uniform textures.
    make_defects : Add defects to these images; ``foreground=True`` puts them on the object.

    Examples
    --------
    >>> from skocc.datasets import make_defects, make_objects
    >>> images = make_objects(10, random_state=0)
    >>> defective, masks = make_defects(
    ...     images, kind="scratch", foreground=True, random_state=0
    ... )
    """
    return _make(_OBJECTS, n_images, kind, size, random_state)


def _make(kinds, n_images, kind, size, random_state):
    """Return images of a kind with noise, made one after the other."""
    if kind not in kinds:
        raise ValueError(
            f"There is no such kind of image. Got kind={kind!r}. Pass one of {list(kinds)}."
        )
    if n_images < 1 or size < 8:
        raise ValueError(
            "n_images must be at least 1 and size at least 8. Got "
            f"n_images={n_images} and size={size}. Pass larger numbers."
        )
    try:
        images = np.empty((int(n_images), int(size), int(size)))
    except (MemoryError, OverflowError, ValueError) as error:
        raise ValueError(
            f"There is no room for so many pixels. Got n_images={n_images} and "
            f"size={size}. Pass smaller numbers."
        ) from error
    rng = as_random_state(random_state)
    rows, columns = np.mgrid[:size, :size]
    for image in images:
        image[:] = kinds[kind](rows, columns, rng)
    images += rng.normal(scale=0.03, size=images.shape)
    return images.clip(0, 1).astype(np.float32)


def _light(rows, rng):
    size = len(rows)
    return rng.uniform(-0.1, 0.1) + 0.1 * np.sin(rows / size + rng.uniform(0, 6))


def _weave(rows, columns, rng):
    i, j = rows + rng.uniform(0, 12), columns + rng.uniform(0, 12)
    threads = np.sin(2 * np.pi * i / 12) * np.sin(2 * np.pi * j / 8)
    return 0.5 + 0.2 * threads + _light(rows, rng)


def _grain(rows, columns, rng):
    # Wrapped around and divided by its spread, so that all images have the same contrast.
    noise = ndimage.gaussian_filter(rng.normal(size=rows.shape), (1, 16), mode="wrap")
    return 0.5 + 0.1 * noise / noise.std() + _light(rows, rng)


def _tiles(rows, columns, rng):
    i, j = rows + rng.uniform(0, 16), columns + rng.uniform(0, 32)
    # Every other row of tiles is shifted by half a tile.
    j = j + 16 * (i // 16 % 2)
    inside = (np.minimum(i % 16, 16 - i % 16) > 1) & (np.minimum(j % 32, 32 - j % 32) > 1)
    return (
        0.35 + 0.3 * ndimage.gaussian_filter(inside.astype(float), 0.7) + _light(rows, rng)
    )


def _turned(rows, columns, rng):
    """Return polar coordinates around a random center, the image having a side of 1."""
    size = len(rows)
    i, j = (size - 1) / 2 + rng.uniform(-0.03, 0.03, size=2) * size
    angle = np.arctan2(rows - i, columns - j) + rng.uniform(0, 2 * np.pi)
    return np.hypot(rows - i, columns - j) / size, angle


def _soften(inside):
    return ndimage.gaussian_filter(inside.astype(float), 0.7)


def _nut(rows, columns, rng):
    distance, angle = _turned(rows, columns, rng)
    sector = (angle + np.pi / 6) % (np.pi / 3) - np.pi / 6
    inside = (distance * np.cos(sector) < 0.34) & (distance > 0.17)
    brushed = np.sin(2 * np.pi * distance * 20)
    return 0.1 + _soften(inside) * (0.5 + 0.08 * brushed + 0.3 * _light(rows, rng))


def _washer(rows, columns, rng):
    distance, angle = _turned(rows, columns, rng)
    notches = (np.cos(4 * angle) > 0.9) & (distance > 0.34)
    inside = (distance < 0.4) & (distance > 0.2) & ~notches
    return 0.1 + _soften(inside) * (0.6 + 0.3 * _light(rows, rng))


_TEXTURES = {"weave": _weave, "grain": _grain, "tiles": _tiles}
_OBJECTS = {"nut": _nut, "washer": _washer}
