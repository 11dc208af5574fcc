import math

import numpy as np
import pytest
import torch
from scipy.ndimage import rotate

from skocc._ops.turns import turned


def smooth(*shape):
    """Return images without sharp edges, which any way to interpolate turns alike."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(shape, generator=generator)
    padded = torch.nn.functional.pad(noise, (4, 4, 4, 4), mode="reflect")
    return torch.nn.functional.avg_pool2d(padded, 9, stride=1)


@pytest.mark.parametrize("n_turns", [1, 2, 4, 8])
def test_quarter_turns_of_square_images_move_pixels(n_turns):
    batch = smooth(2, 3, 12, 12)
    turns = turned(batch, n_turns)
    assert len(turns) == n_turns
    assert turns[0] is batch
    for step, turn in enumerate(turns):
        quarters = 4 * step / n_turns
        if quarters == int(quarters):
            assert torch.equal(turn, torch.rot90(batch, int(quarters), (2, 3)))
        assert turn.shape == batch.shape
        assert step == 0 or turn.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("n_turns", "size"), [(8, (31, 31)), (3, (30, 41)), (4, (41, 30))])
def test_other_turns_are_bilinear_and_reflect_what_is_beyond(n_turns, size):
    batch = smooth(1, 2, *size)
    for step, turn in enumerate(turned(batch, n_turns)):
        expected = rotate(
            batch, 360 * step / n_turns, axes=(3, 2), reshape=False, order=1, mode="reflect"
        )
        np.testing.assert_allclose(turn, expected, atol=1e-5)


def test_half_a_turn_of_any_image_moves_pixels():
    batch = smooth(2, 1, 7, 10)
    assert torch.equal(turned(batch, 2)[1], batch.flip(2, 3))
    assert torch.equal(turned(batch, 4)[2], batch.flip(2, 3))


def test_all_turns_are_evenly_spaced():
    """A slope along the columns points to where it was turned."""
    rows = torch.arange(33.0)[:, None] - 16
    columns = torch.arange(33.0)[None] - 16
    slope = (columns / 16 + 0 * rows)[None, None]
    for step, turn in enumerate(turned(slope, 5)):
        angle = 2 * math.pi * step / 5
        expected = (columns * math.cos(angle) - rows * math.sin(angle)) / 16
        inside = rows.square() + columns.square() < 15**2
        torch.testing.assert_close(turn[0, 0][inside], expected[inside], atol=1e-5, rtol=0)
