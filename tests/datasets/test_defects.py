import warnings

import numpy as np
import pytest
from scipy import ndimage

from skocc.datasets import (
    cut_defects,
    make_defects,
    make_objects,
    make_textures,
    scratch_defects,
    stain_defects,
    twist_defects,
)

FUNCTIONS = [twist_defects, cut_defects, scratch_defects, stain_defects]
every_kind = pytest.mark.parametrize("make", FUNCTIONS)


def random_images(dtype=np.uint8, shape=(3, 40, 56)):
    values = np.random.default_rng(0).random(shape)
    if dtype in (np.uint8, np.uint16):
        return np.rint(values * np.iinfo(dtype).max).astype(dtype)
    return values.astype(dtype)


@every_kind
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(3, 40, 56), (2, 56, 40, 3), (1, 30, 30, 1)])
def test_shape_and_type_stay_and_nothing_changes_outside_masks(make, dtype, shape):
    images = random_images(dtype, shape)
    before = images.copy()
    defective, masks = make(images, random_state=0)
    assert defective.shape == shape
    assert defective.dtype == dtype
    assert masks.shape == shape[:3]
    assert masks.dtype == bool
    assert defective[~masks].tobytes() == images[~masks].tobytes()
    assert images.tobytes() == before.tobytes()
    # Of noise nearly every pixel in a mask becomes another one; no mask is a bounding box.
    changed = (defective != images).reshape(*shape[:3], -1).any(axis=3)
    assert not changed[~masks].any()
    assert changed[masks].mean() > 0.8
    assert masks.any(axis=(1, 2)).all()


@every_kind
def test_random_state(make):
    images = random_images()
    first = make(images, random_state=3)
    for again in [3, np.random.RandomState(3)]:
        np.testing.assert_array_equal(make(images, random_state=again), first)
    assert not np.array_equal(make(images, random_state=4)[1], first[1])
    generator = np.random.default_rng(3)
    drawn = make(images, random_state=generator)
    np.testing.assert_array_equal(
        make(images, random_state=np.random.default_rng(3)), drawn
    )
    # It goes on where it stopped.
    assert not np.array_equal(make(images, random_state=generator)[1], drawn[1])


@every_kind
def test_types_agree(make):
    images = random_images()
    as_bytes, masks = make(images, random_state=0)
    as_floats, float_masks = make(images / 255, random_state=0)
    np.testing.assert_array_equal(masks, float_masks)
    assert np.abs(as_floats * 255 - as_bytes).max() <= 0.5 + 1e-9


@every_kind
def test_floats_can_be_changed_again(make):
    images = np.ones((4, 40, 40), np.float64)
    images[:, ::2] = 1 / 3
    for seed in range(5):
        images, _ = make(images, n_defects=3, random_state=seed)
        assert images.min() >= 0
        assert images.max() <= 1


def count_parts(mask):
    return ndimage.label(mask, np.ones((3, 3)))[1]


@pytest.mark.parametrize("make", [twist_defects, stain_defects])
def test_number_of_defects(make):
    images = random_images(shape=(40, 96, 96))
    _, masks = make(images, n_defects=1, radius=(0.04, 0.05), random_state=0)
    assert {count_parts(mask) for mask in masks} == {1}
    _, masks = make(images, n_defects=(1, 3), radius=(0.04, 0.05), random_state=0)
    counts = [count_parts(mask) for mask in masks]
    assert set(counts) == {1, 2, 3}  # fewer where discs overlap
    assert 1.5 < np.mean(counts) < 2.2


@every_kind
def test_plain_images_are_warned_of(make):
    images = np.full((3, 32, 32), 90, np.uint8)
    images[1] = random_images(shape=(32, 32))
    if make in (twist_defects, cut_defects):
        with pytest.warns(UserWarning, match="hardly be seen in 2 of 3 images"):
            defective, masks = make(images, random_state=0)
        np.testing.assert_array_equal(defective[[0, 2]], images[[0, 2]])
        assert masks.any(axis=(1, 2)).all()
    else:
        defective, masks = make(images, random_state=0)
    assert (defective[1] != images[1]).any()


@every_kind
def test_foreground(make):
    # A bright square on a plain ground: what lies outside of it cannot be twisted.
    images = np.full((30, 64, 64), 0.2)
    images[:, 24:40, 24:40] = 0.8 + 0.2 * random_images(float, (16, 16))
    _, masks = make(images, n_defects=1, foreground=True, random_state=0)
    i, j = np.indices((64, 64))
    for mask in masks:
        # The middle of a scratch or stain is that of its box only roughly.
        middle = np.array([i[mask].mean(), j[mask].mean()])
        assert np.all((middle > 19) & (middle < 44))
    with (
        pytest.warns(UserWarning, match="hardly be seen")
        if make
        in (
            twist_defects,
            cut_defects,
        )
        else warnings.catch_warnings()
    ):
        make(images[:, :20, :20], foreground=True, random_state=0)  # has no foreground


def test_twist_by_hand():
    """One disc against the formula, with the interpolation written out."""
    images = random_images(np.float64, (1, 41, 41))
    twisted, masks = twist_defects(
        images, n_defects=1, radius=(0.2, 0.2), angle=(90, 90), random_state=5
    )
    rng = np.random.RandomState(5)
    rng.randint(1, 2)
    r = max(1.0, rng.uniform(0.2, 0.2) * 41)
    ci, cj = rng.uniform([r, r], [40 - r, 40 - r])
    turn = np.deg2rad(rng.uniform(90, 90)) * rng.choice([-1, 1])
    image, expected = images[0], images[0].copy()
    for i in range(41):
        for j in range(41):
            d, theta = np.hypot(i - ci, j - cj), np.arctan2(i - ci, j - cj)
            assert masks[0, i, j] == (d < r)
            if d >= r:
                continue
            theta += turn * (1 - d / r) ** 2
            y, x = ci + d * np.sin(theta), cj + d * np.cos(theta)
            a, b = int(y), int(x)
            v, u = y - a, x - b
            expected[i, j] = (1 - v) * ((1 - u) * image[a, b] + u * image[a, b + 1]) + v * (
                (1 - u) * image[a + 1, b] + u * image[a + 1, b + 1]
            )
    np.testing.assert_allclose(twisted[0], expected, atol=1e-12)


def test_no_twist_is_the_identity():
    images = random_images(np.float64)
    with pytest.warns(UserWarning, match="3 of 3 images"):
        twisted, masks = twist_defects(images, angle=(0, 0), random_state=0)
    np.testing.assert_array_equal(twisted, images)
    assert masks.any(axis=(1, 2)).all()


def test_twist_leaves_what_is_the_same_all_round():
    # A radius of half the image leaves one center, (32, 32).
    rows, columns = np.indices((65, 65))
    distance = np.hypot(rows - 32, columns - 32)
    images = (0.5 + 0.5 * np.cos(distance / 6))[np.newaxis]
    with pytest.warns(UserWarning, match="hardly be seen"):
        twisted, masks = twist_defects(
            images, n_defects=1, radius=(0.5, 0.5), random_state=0
        )
    np.testing.assert_array_equal(masks[0], distance < 32)
    # Bilinear interpolation of this curvature is off by at most this.
    assert np.abs(twisted - images).max() < 1 / 8 * 2 * 0.5 / 6**2
    # The same disc, when the image is not the same all round.
    images = random_images(np.float64, (1, 65, 65))
    twisted, _ = twist_defects(images, n_defects=1, radius=(0.5, 0.5), random_state=0)
    assert np.abs(twisted - images).mean() > 0.1


@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_twists_are_redrawn_until_they_can_be_seen(dtype):
    # Only a band of the image has structure: most first draws miss it, few of eleven do.
    images = random_images(dtype, (60, 80, 80))
    images[:, :30] = images[:, 50:] = images.max() // 2
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        twisted, masks = twist_defects(images, n_defects=1, random_state=0)
    scale = 255 if dtype == np.uint8 else 1
    change = np.abs(twisted.astype(float) - images) / scale
    strength = np.array(
        [image[mask].mean() for image, mask in zip(change, masks, strict=True)]
    )
    n_invisible = int((strength <= 2 / 255).sum())
    assert n_invisible <= 3
    said = [str(warning.message) for warning in caught]
    assert len(said) == (n_invisible > 0)
    assert not said or f"in {n_invisible} of 60 images" in said[0]


def test_twist_turns_both_ways_within_its_ranges():
    _, masks = twist_defects(
        random_images(shape=(200, 100, 120)), n_defects=1, random_state=0
    )
    radii = np.sqrt(masks.sum(axis=(1, 2)) / np.pi)
    assert 2.8 < radii.min() < 3.5
    assert 9.5 < radii.max() < 10.2


def test_cut_is_a_piece_of_the_same_image():
    images = np.arange(48 * 64).reshape(1, 48, 64).astype(np.uint16)
    cut, masks = cut_defects(images, random_state=1)
    rows, columns = np.nonzero(masks[0])
    box = slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)
    assert masks[0][box].all()
    piece = cut[0][box].astype(int)
    # Neighbors in the piece are neighbors in the image.
    assert np.all(np.diff(piece, axis=1) == 1)
    assert np.all(np.diff(piece, axis=0) == 64)
    assert 0.02 * 0.8 < masks.mean() < 0.15 * 1.2
    assert not np.array_equal(piece, images[0][box])


def test_cut_areas():
    images = random_images(shape=(200, 100, 100))
    _, masks = cut_defects(images, random_state=0)
    areas = masks.mean(axis=(1, 2))
    assert 0.015 < areas.min() < 0.03
    assert 0.14 < areas.max() < 0.16


def test_scratches_are_long_and_thin():
    images = np.full((30, 100, 100), 200, np.uint8)
    scratched, masks = scratch_defects(images, random_state=0)
    assert scratched[masks].max() < 200 - 0.2 * 255 * 0.8  # on bright images darker
    for mask in masks:
        rows, columns = np.nonzero(mask)
        length = np.hypot(np.ptp(rows), np.ptp(columns))
        assert 15 < length < 60
        assert mask.sum() < 5 * length
    dark = np.full((2, 100, 100), 20, np.uint8)
    scratched, masks = scratch_defects(dark, random_state=0)
    assert scratched[masks].min() > 20


def test_stains_let_the_image_through():
    images = random_images(np.float64, (20, 60, 60)) * 0.2 + 0.7
    stained, masks = stain_defects(images, contrast=(0.3, 0.3), random_state=0)
    for image, stain, mask in zip(images, stained, masks, strict=True):
        np.testing.assert_allclose(np.std(stain[mask]), 0.3 * np.std(image[mask]))
        np.testing.assert_allclose(np.mean(image[mask] - stain[mask]), 0.7 * 0.3)


@pytest.mark.parametrize(
    ("kind", "make"),
    [*zip(["twist", "cut", "scratch", "stain"], FUNCTIONS, strict=True)],
)
def test_make_defects_by_name(kind, make):
    images = random_images()
    expected = make(images, n_defects=2, random_state=0)
    made = make_defects(images, kind=kind, n_defects=2, random_state=0)
    np.testing.assert_array_equal(made, expected)


def test_unknown_kind():
    with pytest.raises(ValueError, match="Got kind='dent'"):
        make_defects(random_images(), kind="dent")


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((8, 8)), r"Got shape \(8, 8\)"),
        (np.zeros((2, 7, 8)), "at least 8"),
        (np.zeros((2, 8, 8), int), "of int64"),
        (np.zeros((2, 3, 32, 32)), "channels last"),
        (np.full((2, 8, 8), 1.5), r"Got values from 1.5 to 1.5"),
        (np.full((2, 8, 8), np.nan), "Got values from nan"),
    ],
)
@every_kind
def test_unusable_images(make, images, message):
    with pytest.raises(ValueError, match=message):
        make(images)


@pytest.mark.parametrize("n_defects", [0, (2, 1), 1.5, (1, 2, 3), "one", None])
def test_unusable_counts(n_defects):
    with pytest.raises(ValueError, match="n_defects must be"):
        twist_defects(random_images(), n_defects=n_defects)


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (twist_defects, {"radius": (0.1, 0.6)}),
        (twist_defects, {"angle": (60, np.inf)}),
        (cut_defects, {"area": (0.2, 0.1)}),
        (cut_defects, {"aspect_ratio": (0, 1)}),
        (scratch_defects, {"length": 0.3}),
        (stain_defects, {"contrast": (-0.1, 0.2)}),
    ],
)
def test_unusable_ranges(make, options):
    with pytest.raises(ValueError, match=rf"{next(iter(options))} must be a range"):
        make(random_images(), **options)


def test_no_images_no_defects():
    defective, masks = twist_defects(np.zeros((0, 16, 16), np.uint8))
    assert defective.shape == masks.shape == (0, 16, 16)


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (make_textures, "weave"),
        (make_textures, "grain"),
        (make_textures, "tiles"),
        (make_objects, "nut"),
        (make_objects, "washer"),
    ],
)
def test_images_made_on_the_spot(make, kind):
    images = make(12, kind=kind, size=48, random_state=0)
    assert images.shape == (12, 48, 48)
    assert images.dtype == np.float32
    assert images.min() >= 0
    assert images.max() <= 1
    np.testing.assert_array_equal(images, make(12, kind=kind, size=48, random_state=0))
    assert not np.array_equal(images, make(12, kind=kind, size=48, random_state=1))
    # Structure well above the noise, and no two images alike.
    assert images.std(axis=(1, 2)).min() > 0.06
    assert np.abs(images[1:] - images[:-1]).mean(axis=(1, 2)).min() > 0.03
    # None of the kinds of defects fails on them, or cannot be seen.
    for name in ["twist", "cut", "scratch", "stain"]:
        make_defects(images, kind=name, foreground=make is make_objects, random_state=0)


@pytest.mark.parametrize("make", [make_textures, make_objects])
def test_unusable_kinds_and_numbers(make):
    with pytest.raises(ValueError, match="Got kind='felt'"):
        make(3, kind="felt")
    with pytest.raises(ValueError, match="Got n_images=0 and size=96"):
        make(0)
    with pytest.raises(ValueError, match="Got n_images=3 and size=7"):
        make(3, size=7)
    for n in (10**13, 10**30):
        with pytest.raises(ValueError, match=f"no room.*n_images={n} and size=96"):
            make(n)


@pytest.mark.parametrize("foreground", ["x", None, np.eye(3), 2])
def test_foreground_is_a_truth_value(foreground):
    with pytest.raises(ValueError, match="foreground says whether"):
        make_defects(np.zeros((1, 24, 24)), foreground=foreground)
