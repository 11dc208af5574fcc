"""Synthetic defects in images, with masks outside of which no bit changes."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage
from sklearn.utils import check_random_state

from skocc._base.private_sklearn import validate_params
from skocc._samples.arrays import as_array
from skocc._samples.warnings import warn

# Mean change of the pixels in the mask that a defect must exceed, for pixels in [0, 1].
_VISIBLE = 2 / 255
_N_REDRAWS = 10
# Difference between the foreground and the border, for gray values in [0, 1].
_FOREGROUND = 0.1
_RANGES = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}


@validate_params(
    {
        "images": ["array-like"],
        "foreground": ["boolean"],
        "random_state": ["random_state", np.random.Generator],
    },
    prefer_skip_nested_validation=True,
)
def twist_defects(
    images: ArrayLike,
    *,
    n_defects: int | tuple[int, int] = (1, 3),
    radius: tuple[float, float] = (0.03, 0.1),
    angle: tuple[float, float] = (60, 180),
    foreground: bool = False,
    random_state: int | np.random.RandomState | np.random.Generator | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Twist small discs of images around their centers.

    The pixels in a disc are rotated, most at its center and not at all at its rim. A defect
    therefore differs in structure, but not in brightness or color. Read more in the
    :ref:`User Guide <made_images>`.

    Parameters
    ----------
    images : array of shape (n, H, W) or (n, H, W, C), uint8, uint16 or float in [0, 1]
        Normal images of at least 8 x 8 pixels, which are not changed.
    n_defects : int or tuple (low, high), default=(1, 3)
        Number of defects per image, or an inclusive range from which it is drawn.
    radius : tuple (low, high), default=(0.03, 0.1)
        Range of the radius of a disc, as a fraction of the shorter side of the image, at
        most 0.5. A radius is never less than a pixel.
    angle : tuple (low, high), default=(60, 180)
        Range of the angle at the center in degrees; both directions are equally likely.
    foreground : bool, default=False
        Whether centers are drawn only from the foreground: pixels whose mean over channels
        differs from the median of the image's border by more than a tenth of the range of
        the pixels. If there are no such pixels, centers are drawn from all pixels.
    random_state : int, RandomState, Generator or None, default=None
        Seed of the defects. An int gives the same defects in each call.

    Returns
    -------
    twisted : ndarray, like `images` in shape and type
        Images with defects. Outside the masks they equal `images`, bit by bit.
    masks : ndarray of shape (n, H, W), bool
        Masks of the pixels that may have changed: the union of the discs.

    Raises
    ------
    ValueError
        `images` has an invalid shape or type or values outside of [0, 1], or a range is
        empty or too large.

    Warns
    -----
    UserWarning
        In some images, the pixels in the mask change by no more than 2/255 on average,
        because the images are plain there. Each of these was drawn ten more times, and has
        the draw that changed it most.

    See Also
    --------
    make_defects : Make these and other kinds of defects by name.

    Notes
    -----
    A pixel at distance d < r from the center of a disc of radius r, at the angle t, gets
    the value at distance d and angle t + p (1 - d / r)^2, by bilinear interpolation, where
    p is the angle at the center. If discs overlap, a later disc twists the result of the
    earlier ones. Only the idea of twisting small parts is published; the radii, the angles
    and their decrease toward the rim are skocc's.

    Examples
    --------
    >>> import numpy as np
    >>> from skocc.datasets import make_textures, twist_defects
    >>> images = make_textures(4, random_state=0)
    >>> twisted, masks = twist_defects(images, random_state=0)
    >>> masks.shape
    (4, 96, 96)
    >>> np.array_equal(twisted[~masks], images[~masks])
    True
    """
    radius = _check_range("radius", radius, 0, 0.5)
    angle = _check_range("angle", angle, 0, math.inf)

    def draw(image, centers, rng):
        shape = image.shape[:2]
        r = max(1.0, min(rng.uniform(*radius) * min(shape), (min(shape) - 1) / 2))
        i, j = _place(shape, (r, r), centers, rng)
        turn = math.radians(rng.uniform(*angle)) * rng.choice([-1, 1])
        rows, columns = np.indices(shape, sparse=True)
        distance = np.hypot(rows - i, columns - j)
        mask = distance < r
        y, x = np.nonzero(mask)
        phi = turn * (1 - distance[mask] / r) ** 2
        # Computed as differences from the pixel, so that an angle of 0 changes nothing.
        di = (np.cos(phi) - 1) * (y - i) + np.sin(phi) * (x - j)
        dj = (np.cos(phi) - 1) * (x - j) - np.sin(phi) * (y - i)
        places = np.stack([y + di, x + dj])
        changed = image.copy()
        for channel in range(image.shape[2]):
            changed[mask, channel] = ndimage.map_coordinates(
                image[..., channel], places, order=1, mode="nearest"
            )
        return changed, mask

    return _apply(draw, images, n_defects, foreground, random_state)


@validate_params(
    {
        "images": ["array-like"],
        "foreground": ["boolean"],
        "random_state": ["random_state", np.random.Generator],
    },
    prefer_skip_nested_validation=True,
)
def cut_defects(
    images: ArrayLike,
    *,
    n_defects: int | tuple[int, int] = 1,
    area: tuple[float, float] = (0.02, 0.15),
    aspect_ratio: tuple[float, float] = (0.3, 1 / 0.3),
    foreground: bool = False,
    random_state: int | np.random.RandomState | np.random.Generator | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Cut a rectangle out of images and paste it elsewhere in the same image.

    Read more in the :ref:`User Guide <made_images>`.

    Parameters
    ----------
    images : array of shape (n, H, W) or (n, H, W, C), uint8, uint16 or float in [0, 1]
        Normal images of at least 8 x 8 pixels, which are not changed.
    n_defects : int or tuple (low, high), default=1
        Number of defects per image, or an inclusive range from which it is drawn.
    area : tuple (low, high), default=(0.02, 0.15)
        Range of the area of the rectangle, as a fraction of that of the image, at most
        0.5.
    aspect_ratio : tuple (low, high), default=(0.3, 3.33)
        Range of the height of the rectangle divided by its width, at most 10. The ratio is
        drawn uniformly on a logarithmic scale.
    foreground : bool, default=False
        As in :func:`twist_defects`, for the position to which the rectangle is pasted.
    random_state : int, RandomState, Generator or None, default=None
        Seed of the defects. An int gives the same defects in each call.

    Returns
    -------
    cut : ndarray, like `images` in shape and type
        Images with defects. Outside the masks they equal `images`, bit by bit.
    masks : ndarray of shape (n, H, W), bool
        Masks of the pixels that may have changed: the pasted rectangles.

    Raises
    ------
    ValueError
        As in :func:`twist_defects`.

    Warns
    -----
    UserWarning
        As in :func:`twist_defects`.

    See Also
    --------
    make_defects : Make these and other kinds of defects by name.

    Notes
    -----
    Areas and aspect ratios are those of CutPaste [1]_. The rectangle is not rotated, and
    its colors are not changed.

    References
    ----------
    .. [1] C.-L. Li, K. Sohn, J. Yoon, T. Pfister: CutPaste, self-supervised learning for
       anomaly detection and localization. CVPR 2021, arXiv:2104.04015.

    Examples
    --------
    >>> from skocc.datasets import cut_defects, make_textures
    >>> images = make_textures(4, random_state=0)
    >>> cut, masks = cut_defects(images, random_state=0)
    >>> masks.mean(axis=(1, 2)).round(2)
    array([...])
    """
    area = _check_range("area", area, 0, 0.5)
    aspect_ratio = _check_range("aspect_ratio", aspect_ratio, 0.1, 10)

    def draw(image, centers, rng):
        shape = np.array(image.shape[:2])
        pixels = rng.uniform(*area) * shape.prod()
        ratio = math.exp(rng.uniform(*np.log(aspect_ratio)))
        sides = np.sqrt([pixels * ratio, pixels / ratio])
        h, w = np.rint(sides).astype(int).clip(1, shape - 1)
        i, j = _place(shape, ((h - 1) / 2, (w - 1) / 2), centers, rng)
        top, left = round(i - (h - 1) / 2), round(j - (w - 1) / 2)
        from_top, from_left = rng.randint(shape - (h, w) + 1)
        changed = image.copy()
        changed[top : top + h, left : left + w] = image[
            from_top : from_top + h, from_left : from_left + w
        ]
        mask = np.zeros(shape, dtype=bool)
        mask[top : top + h, left : left + w] = True
        return changed, mask

    return _apply(draw, images, n_defects, foreground, random_state)


@validate_params(
    {
        "images": ["array-like"],
        "foreground": ["boolean"],
        "random_state": ["random_state", np.random.Generator],
    },
    prefer_skip_nested_validation=True,
)
def scratch_defects(
    images: ArrayLike,
    *,
    n_defects: int | tuple[int, int] = 1,
    length: tuple[float, float] = (0.2, 0.5),
    width: tuple[float, float] = (0.01, 0.03),
    contrast: tuple[float, float] = (0.2, 0.5),
    foreground: bool = False,
    random_state: int | np.random.RandomState | np.random.Generator | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Add scratches along thin, slightly bent lines to images.

    Read more in the :ref:`User Guide <made_images>`.

    Parameters
    ----------
    images : array of shape (n, H, W) or (n, H, W, C), uint8, uint16 or float in [0, 1]
        Normal images of at least 8 x 8 pixels, which are not changed.
    n_defects : int or tuple (low, high), default=1
        Number of defects per image, or an inclusive range from which it is drawn.
    length, width : tuple (low, high), default=(0.2, 0.5) and (0.01, 0.03)
        Ranges of length and width, as a fraction of the shorter side of the image, at most
        0.9 and 0.5. A scratch is never thinner than a pixel.
    contrast : tuple (low, high), default=(0.2, 0.5)
        Range of the difference between a scratch and the mean of the pixels that it covers,
        as a fraction of the range of the pixels. A scratch is brighter than dark pixels and
        darker than bright ones.
    foreground : bool, default=False
        As in :func:`twist_defects`, for the middle of a scratch.
    random_state : int, RandomState, Generator or None, default=None
        Seed of the defects. An int gives the same defects in each call.

    Returns
    -------
    scratched : ndarray, like `images` in shape and type
        Images with defects. Outside the masks they equal `images`, bit by bit.
    masks : ndarray of shape (n, H, W), bool
        Masks of the pixels that may have changed: the scratches.

    Raises
    ------
    ValueError
        As in :func:`twist_defects`.

    Warns
    -----
    UserWarning
        As in :func:`twist_defects`.

    See Also
    --------
    make_defects : Make these and other kinds of defects by name.

    Examples
    --------
    >>> from skocc.datasets import make_textures, scratch_defects
    >>> images = make_textures(4, random_state=0)
    >>> scratched, masks = scratch_defects(images, random_state=0)
    >>> bool(masks.any(axis=(1, 2)).all())
    True
    """
    length = _check_range("length", length, 0, 0.9)
    width = _check_range("width", width, 0, 0.5)
    contrast = _check_range("contrast", contrast, 0, 1)

    def draw(image, centers, rng):
        shape = image.shape[:2]
        half = rng.uniform(*length) * min(shape) / 2
        half_width = max(0.5, rng.uniform(*width) * min(shape) / 2)
        turn, bend = rng.uniform(0, 2 * np.pi), rng.uniform(-0.3, 0.3) * half
        along = np.linspace(-1, 1, 2 * math.ceil(2 * half) + 1)
        # A rotated parabola.
        x, y = along * half, bend * (along**2 - 1 / 3)
        line_i = y * np.cos(turn) + x * np.sin(turn)
        line_j = x * np.cos(turn) - y * np.sin(turn)
        reach = np.abs(line_i).max() + half_width, np.abs(line_j).max() + half_width
        i, j = _place(shape, reach, centers, rng)
        off_line = np.ones(shape, dtype=bool)
        rows = np.rint(line_i + i).astype(int).clip(0, shape[0] - 1)
        columns = np.rint(line_j + j).astype(int).clip(0, shape[1] - 1)
        off_line[rows, columns] = False
        mask = ndimage.distance_transform_edt(off_line) < half_width + 0.5
        return _tint(image, mask, rng.uniform(*contrast), opacity=0.9), mask

    return _apply(draw, images, n_defects, foreground, random_state)


@validate_params(
    {
        "images": ["array-like"],
        "foreground": ["boolean"],
        "random_state": ["random_state", np.random.Generator],
    },
    prefer_skip_nested_validation=True,
)
def stain_defects(
    images: ArrayLike,
    *,
    n_defects: int | tuple[int, int] = 1,
    radius: tuple[float, float] = (0.05, 0.1),
    contrast: tuple[float, float] = (0.2, 0.4),
    foreground: bool = False,
    random_state: int | np.random.RandomState | np.random.Generator | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Add ragged, slightly transparent spots to images.

    Read more in the :ref:`User Guide <made_images>`.

    Parameters
    ----------
    images : array of shape (n, H, W) or (n, H, W, C), uint8, uint16 or float in [0, 1]
        Normal images of at least 8 x 8 pixels, which are not changed.
    n_defects : int or tuple (low, high), default=1
        Number of defects per image, or an inclusive range from which it is drawn.
    radius : tuple (low, high), default=(0.05, 0.1)
        Range of the mean radius of a spot, as a fraction of the shorter side of the image,
        at most 0.3. A radius is never less than 1.5 pixels.
    contrast : tuple (low, high), default=(0.2, 0.4)
        Range of the difference between a spot and the mean of the pixels that it covers, as
        a fraction of the range of the pixels. A spot is brighter than dark pixels and
        darker than bright ones.
    foreground : bool, default=False
        As in :func:`twist_defects`, for the middle of a spot.
    random_state : int, RandomState, Generator or None, default=None
        Seed of the defects. An int gives the same defects in each call.

    Returns
    -------
    stained : ndarray, like `images` in shape and type
        Images with defects. Outside the masks they equal `images`, bit by bit.
    masks : ndarray of shape (n, H, W), bool
        Masks of the pixels that may have changed: the spots.

    Raises
    ------
    ValueError
        As in :func:`twist_defects`.

    Warns
    -----
    UserWarning
        As in :func:`twist_defects`.

    See Also
    --------
    make_defects : Make these and other kinds of defects by name.

    Examples
    --------
    >>> import numpy as np
    >>> from skocc.datasets import make_textures, stain_defects
    >>> images = make_textures(4, random_state=0)
    >>> stained, masks = stain_defects(images, random_state=0)
    >>> np.array_equal(stained[~masks], images[~masks])
    True
    """
    radius = _check_range("radius", radius, 0, 0.3)
    contrast = _check_range("contrast", contrast, 0, 1)

    def draw(image, centers, rng):
        shape = image.shape[:2]
        r = max(1.5, rng.uniform(*radius) * min(shape))
        i, j = _place(shape, (1.5 * r, 1.5 * r), centers, rng)
        rows, columns = np.indices(shape, sparse=True)
        turn = np.arctan2(rows - i, columns - j)
        waves = [
            rng.uniform(0, 0.5 / n) * np.sin(n * turn + rng.uniform(0, 2 * np.pi))
            for n in (2, 3, 5)
        ]
        mask = np.hypot(rows - i, columns - j) < r * (1 + sum(waves)).clip(0.7, 1.5)
        return _tint(image, mask, rng.uniform(*contrast), opacity=0.7), mask

    return _apply(draw, images, n_defects, foreground, random_state)


_KINDS: dict[str, Callable] = {
    "twist": twist_defects,
    "cut": cut_defects,
    "scratch": scratch_defects,
    "stain": stain_defects,
}


@validate_params(
    {
        "images": ["array-like"],
        "kind": [str],
        "random_state": ["random_state", np.random.Generator],
    },
    prefer_skip_nested_validation=True,
)
def make_defects(
    images: ArrayLike,
    *,
    kind: str = "twist",
    random_state: int | np.random.RandomState | np.random.Generator | None = None,
    **options,
) -> tuple[np.ndarray, np.ndarray]:
    """Add defects of one kind to images.

    Read more in the :ref:`User Guide <made_images>`.

    Parameters
    ----------
    images : array of shape (n, H, W) or (n, H, W, C), uint8, uint16 or float in [0, 1]
        Normal images of at least 8 x 8 pixels, which are not changed.
    kind : {"twist", "cut", "scratch", "stain"}, default="twist"
        Kind of defect: that of :func:`twist_defects`, :func:`cut_defects`,
        :func:`scratch_defects` or :func:`stain_defects`.
    random_state : int, RandomState, Generator or None, default=None
        Seed of the defects. An int gives the same defects in each call.
    **options
        Other parameters of the function for this kind, such as ``n_defects``.

    Returns
    -------
    defective : ndarray, like `images` in shape and type
        Images with defects. Outside the masks they equal `images`, bit by bit.
    masks : ndarray of shape (n, H, W), bool
        Masks of the pixels that may have changed.

    Raises
    ------
    ValueError
        `kind` is unknown, or as in the function of this kind.

    See Also
    --------
    make_textures : Make images of textures.
    make_objects : Make images of objects on a plain background.

    Examples
    --------
    >>> from skocc.datasets import make_defects, make_textures
    >>> images = make_textures(4, random_state=0)
    >>> defective, masks = make_defects(images, kind="stain", n_defects=2, random_state=0)
    >>> defective.shape, defective.dtype
    ((4, 96, 96), dtype('float32'))
    """
    if kind not in _KINDS:
        raise ValueError(
            f"There is no such kind of defect. Got kind={kind!r}. Pass one of "
            f"{list(_KINDS)}."
        )
    return _KINDS[kind](images, random_state=random_state, **options)


def as_random_state(random_state):
    """Return a RandomState; for a Generator, it shares the generator's stream."""
    if isinstance(random_state, np.random.Generator):
        return np.random.RandomState(random_state.bit_generator)
    return check_random_state(random_state)


def _apply(draw, images, n_defects, foreground, random_state):
    """Return images with defects, drawn by `draw(image, centers, rng)`, and masks.

    `draw` gets a float image (H, W, C) in [0, 1], and returns a changed one and the mask.
    """
    images = _check_images(images)
    if not isinstance(foreground, bool | np.bool_):
        raise ValueError(
            "foreground says whether defects lie on the foreground only, True or False. "
            f"Got a {type(foreground).__name__}. Pass foreground=True."
        )
    low, high = _check_counts(n_defects)
    rng = as_random_state(random_state)
    scale = _RANGES.get(images.dtype, 1)
    defective = images.copy()
    masks = np.zeros(images.shape[:3], dtype=bool)
    n_invisible = 0
    for index, image in enumerate(images):
        image = image.reshape(*image.shape[:2], -1).astype(np.float64) / scale
        centers = _find_foreground(image) if foreground else None
        strongest = -1.0
        for _ in range(1 + _N_REDRAWS):
            changed, mask = image, np.zeros(image.shape[:2], dtype=bool)
            for _ in range(rng.randint(low, high + 1)):
                changed, drawn = draw(changed, centers, rng)
                mask |= drawn
            # Interpolation may exceed 1 by rounding.
            pixels = changed[mask].clip(0, 1)
            if scale > 1:
                pixels = np.rint(pixels * scale) / scale
            strength = np.abs(pixels - image[mask]).mean()
            if strength > strongest:
                strongest, kept, masks[index] = strength, pixels, mask
            if strength > _VISIBLE:
                break
        n_invisible += strongest <= _VISIBLE
        kept = kept.reshape(-1, *images.shape[3:]) * scale
        defective[index][masks[index]] = np.rint(kept) if scale > 1 else kept
    if n_invisible:
        warn(
            f"Defects can hardly be seen in {n_invisible} of {len(images)} images: the "
            "pixels in the mask change by no more than 2/255 on average, because the "
            "images are plain there. Pass foreground=True for objects on a plain "
            "background, or another kind of defect.",
        )
    return defective, masks


def _place(shape, reach, centers, rng):
    """Return a random center whose reach, in rows and columns, is inside the image."""
    last = np.array(shape) - 1
    reach = np.minimum(reach, last / 2)
    if centers is not None:
        inside = np.all((centers >= reach) & (centers <= last - reach), axis=1)
        if inside.any():
            return centers[inside][rng.randint(inside.sum())].astype(float)
    return rng.uniform(reach, last - reach)


def _find_foreground(image):
    """Return the pixels (n, 2) whose gray differs from the median of the border."""
    gray = image.mean(axis=2)
    border = np.concatenate([gray[0], gray[-1], gray[1:-1, 0], gray[1:-1, -1]])
    return np.argwhere(np.abs(gray - np.median(border)) > _FOREGROUND)


def _tint(image, mask, contrast, opacity):
    """Return the image with a uniform shade laid over the mask."""
    mean = image[mask].mean(axis=0)
    shade = (mean + (contrast if mean.mean() < 0.5 else -contrast)).clip(0, 1)
    changed = image.copy()
    changed[mask] += opacity * (shade - changed[mask])
    return changed


def _check_images(images):
    """Return images as an array, or raise a ValueError."""
    images = as_array("images", images)
    if images.ndim == 4 and images.shape[3] not in (1, 2, 3, 4):
        raise ValueError(
            "images must have their channels last, at most 4. Got shape "
            f"{images.shape}. Pass np.moveaxis(images, 1, -1) if they are first."
        )
    is_known = images.dtype in _RANGES or images.dtype.kind == "f"
    if images.ndim not in (3, 4) or min(images.shape[1:3]) < 8 or not is_known:
        raise ValueError(
            "images must be an array (n, H, W) or (n, H, W, C) of uint8, uint16 or floats "
            f"in [0, 1], H and W at least 8. Got shape {images.shape} of {images.dtype}. "
            "Read files into one array first; for a single image pass image[np.newaxis]."
        )
    # This form of the condition also rejects NaN.
    if images.dtype.kind == "f" and images.size:
        low, high = images.min(), images.max()
        if not (low >= 0 and high <= 1):
            raise ValueError(
                f"Images of floats must be in [0, 1]. Got values from {low:.3g} to "
                f"{high:.3g}. Divide them by their range, for example by 255."
            )
    return images


def _check_counts(n_defects):
    """Return the minimum and the maximum number of defects of an image."""
    counts = np.broadcast_to(n_defects, 2) if np.size(n_defects) in (1, 2) else np.array([])
    if counts.dtype.kind not in "iu" or not 1 <= counts[0] <= counts[1]:
        raise ValueError(
            "n_defects must be a whole number of at least 1, or a range of such numbers. "
            f"Got {n_defects!r}. Pass for example 1 or (1, 3)."
        )
    return int(counts[0]), int(counts[1])


def _check_range(name, values, low, high):
    """Return a range (low, high) as two floats."""
    try:
        pair = np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        pair = np.empty(0)
    if pair.shape != (2,) or not low <= pair[0] <= pair[1] <= high or np.isinf(pair[1]):
        raise ValueError(
            f"{name} must be a range (low, high) in [{low}, {high}]. Got {values!r}. For "
            "one value, pass it twice."
        )
    return tuple(pair)
