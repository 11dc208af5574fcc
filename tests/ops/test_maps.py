import numpy as np
import pytest

from skocc._ops.maps import patch_scores_to_map
from skocc._samples.windows import window_starts


def test_values_by_hand():
    scores = np.array([[[0.0, 1.0], [2.0, 3.0]]])
    rows = [[0, 0, 0.5, 0.5, 1, 1], [1, 1, 1.5, 1.5, 2, 2], [2, 2, 2.5, 2.5, 3, 3]]
    maps = patch_scores_to_map(scores, [0, 2], [0, 2], 4, (6, 6))
    np.testing.assert_allclose(maps, [np.repeat(rows, 2, axis=0)])


@pytest.mark.parametrize(
    ("image_size", "patch_size", "stride"),
    [((256, 256), 64, 16), ((256, 256), 32, 4), ((70, 91), 32, 7), ((32, 33), 32, 32)],
)
def test_every_pixel_has_the_mean_of_the_patches_that_cover_it(
    image_size, patch_size, stride
):
    rows, columns = (window_starts(size, patch_size, stride) for size in image_size)
    scores = np.random.default_rng(0).random((2, len(rows), len(columns)))
    total, count = np.zeros((2, *image_size)), np.zeros(image_size)
    for i, top in enumerate(rows):
        for j, left in enumerate(columns):
            window = np.s_[..., top : top + patch_size, left : left + patch_size]
            total[window] += scores[:, i, j, None, None]
            count[window] += 1
    assert count.min() > 0
    maps = patch_scores_to_map(scores, rows, columns, patch_size, image_size)
    np.testing.assert_allclose(maps, total / count, rtol=1e-12)
    constant = patch_scores_to_map(
        np.full_like(scores, 3), rows, columns, patch_size, image_size
    )
    np.testing.assert_allclose(constant, 3, rtol=1e-12)


def test_reflection_by_hand():
    scores = np.array([[[0.0, 1.0, 5.0]]])
    # Columns start at 0, 2, 4, and mirrored at -2 and 6: two patches cover each pixel.
    maps = patch_scores_to_map(scores, [0], [0, 2, 4], 4, (4, 8), padding_mode="reflect")
    np.testing.assert_allclose(maps[0], [[0, 0, 0.5, 0.5, 3, 3, 5, 5]] * 4)


@pytest.mark.parametrize(("size", "patch_size", "stride"), [(61, 16, 4), (33, 32, 8)])
def test_reflection_averages_equally_many_patches(size, patch_size, stride):
    starts = window_starts(size, patch_size, stride)
    scores = np.random.default_rng(0).standard_normal((2000, len(starts), len(starts)))
    args = (scores, starts, starts, patch_size, (size, size))
    plain, reflected = (patch_scores_to_map(*args, mode) for mode in ("mean", "reflect"))
    constant = patch_scores_to_map(np.ones_like(scores[:1]), *args[1:], "reflect")
    np.testing.assert_allclose(constant, 1)
    assert reflected[:, 0, 0].std() < 0.8 * plain[:, 0, 0].std()
    inside = slice(patch_size - 1, starts[-1] + 1)
    if len(starts) > 8:
        np.testing.assert_allclose(reflected[:, inside, inside], plain[:, inside, inside])


def test_dtype_is_kept():
    scores = np.ones((1, 1, 1), dtype=np.float32)
    assert patch_scores_to_map(scores, [0], [0], 4, (4, 4)).dtype == np.float32
