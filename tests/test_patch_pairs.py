import pytest
import torch

from skocc.patch_pairs import (
    close_pairs,
    photometric_noise,
    position_pairs,
    random_crops,
)

# Classes 0 to 7 as (row, column) directions.
DIRECTIONS = torch.tensor(
    [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("patch_size", [8, 32, 64])
def test_neighbors_lie_where_their_class_says(patch_size):
    # A crop of twice the patch size holds every neighbour of some patch.
    map_size = (patch_size // 2 + 1, patch_size // 2 + 5)
    anchors, neighbors, positions = position_pairs(map_size, patch_size, 4000, generator())
    offset = 2 * (neighbors - anchors)  # in pixels
    torch.testing.assert_close(offset.sign(), DIRECTIONS[positions])
    distance = offset.abs()[DIRECTIONS[positions] != 0]
    assert distance.min() == 3 * patch_size // 4
    assert distance.max() == max(patch_size - 2, 3 * patch_size // 4)
    for cells in (anchors, neighbors):
        assert cells.min() == 0
        assert (cells.amax(dim=0) == torch.tensor(map_size) - 1).all()
    assert (positions.bincount(minlength=8) > 400).all()


def test_neighbors_that_do_not_fit_are_clipped():
    anchors, neighbors, positions = position_pairs((3, 40), 64, 500, generator())
    assert set(neighbors[:, 0].tolist()) <= {0, 1, 2}
    assert set(neighbors[positions == 6][:, 0].tolist()) == {2}
    # Sideways there is room, and nothing is clipped.
    offset = (neighbors - anchors)[positions == 4]
    assert offset[:, 0].eq(0).all()
    assert offset[:, 1].min() == 24
    single = position_pairs((1, 1), 64, 10, generator())
    assert not single[0].any()
    assert not single[1].any()


def test_close_pairs_are_one_cell_apart():
    anchors, neighbors = close_pairs((50, 50), 3000, generator())
    offset = neighbors - anchors
    inside = ((anchors > 0) & (anchors < 49)).all(dim=1)
    distinct = {tuple(pair) for pair in offset[inside].tolist()}
    assert distinct == {tuple(pair) for pair in DIRECTIONS.tolist()}
    assert (neighbors >= 0).all()
    assert (neighbors <= 49).all()
    assert close_pairs((1, 1), 5, generator())[1].eq(0).all()


def test_crops_are_parts_of_their_images():
    batch = torch.arange(2 * 3 * 6 * 7).view(2, 3, 6, 7).float()
    crops = random_crops(batch.repeat(50, 1, 1, 1), (4, 5), generator())
    starts = set()
    for index, crop in enumerate(crops):
        i, j = divmod(int(crop[0, 0, 0] - batch[index % 2, 0, 0, 0]), 7)
        torch.testing.assert_close(crop, batch[index % 2, :, i : i + 4, j : j + 5])
        starts.add((i, j))
    assert starts == {(i, j) for i in range(3) for j in range(3)}
    torch.testing.assert_close(random_crops(batch, (6, 7), generator()), batch)


def test_noise_shifts_colours_and_roughens_pixels():
    noisy = photometric_noise(torch.full((200, 3, 16, 16), 0.5), 0.02, generator())
    shift = noisy.mean(dim=(2, 3)) - 0.5
    assert shift.std() == pytest.approx(0.02, rel=0.1)
    rest = noisy - noisy.mean(dim=(2, 3), keepdim=True)
    assert rest.std() == pytest.approx(0.02, rel=0.05)
    # Each channel has a shift of its own.
    assert abs(torch.corrcoef(shift.T)[0, 1]) < 0.3


def test_pairs_are_those_of_the_generator():
    for draw in (
        lambda g: position_pairs((20, 20), 16, 30, g)[0],
        lambda g: close_pairs((20, 20), 30, g)[0],
        lambda g: photometric_noise(torch.zeros(2, 1, 4, 4), 1.0, g),
    ):
        assert torch.equal(draw(generator(1)), draw(generator(1)))
        assert not torch.equal(draw(generator(1)), draw(generator(2)))
