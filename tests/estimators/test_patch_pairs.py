import pytest
import torch

from skocc._nets.patch_encoder import HierarchicalPatchEncoder
from skocc.estimators._patch_pairs import (
    CutPatches,
    DensePatches,
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


@pytest.mark.parametrize("patch_size", [4, 16, 32])
def test_neighbors_lie_where_their_class_says(patch_size):
    # A map of patches in a crop of twice their size holds every neighbor of some patch.
    map_size = (patch_size + 1, patch_size + 5)
    anchors, neighbors, positions = position_pairs(map_size, patch_size, 4000, generator())
    offset = neighbors - anchors
    torch.testing.assert_close(offset.sign(), DIRECTIONS[positions])
    distance = offset.abs()[DIRECTIONS[positions] != 0]
    assert distance.min() == 3 * patch_size // 4
    assert distance.max() == patch_size - 1
    for cells in (anchors, neighbors):
        assert cells.min() == 0
        assert (cells.amax(dim=0) == torch.tensor(map_size) - 1).all()
    assert (positions.bincount(minlength=8) > 400).all()


def test_neighbors_that_do_not_fit_are_clipped():
    anchors, neighbors, positions = position_pairs((3, 40), 32, 500, generator())
    assert set(neighbors[:, 0].tolist()) <= {0, 1, 2}
    assert set(neighbors[positions == 6][:, 0].tolist()) == {2}
    # Sideways there is room, and nothing is clipped.
    offset = (neighbors - anchors)[positions == 4]
    assert offset[:, 0].eq(0).all()
    assert offset[:, 1].min() == 24
    single = position_pairs((1, 1), 32, 10, generator())
    assert not single[0].any()
    assert not single[1].any()


@pytest.mark.parametrize(("patch_size", "reach"), [(16, 1), (32, 1), (64, 2)])
def test_close_pairs_nearly_coincide(patch_size, reach):
    anchors, neighbors = close_pairs((50, 50), patch_size, 9000, generator())
    offset = neighbors - anchors
    inside = ((anchors >= reach) & (anchors <= 49 - reach)).all(dim=1)
    pairs, counts = offset[inside].unique(dim=0, return_counts=True)
    steps = range(-reach, reach + 1)
    assert {tuple(pair) for pair in pairs.tolist()} == {
        (i, j) for i in steps for j in steps if (i, j) != (0, 0)
    }
    assert counts.min() > 0.6 * counts.max()  # all alike
    assert (neighbors >= 0).all()
    assert (neighbors <= 49).all()
    assert close_pairs((1, 1), patch_size, 5, generator())[1].eq(0).all()


@pytest.mark.parametrize("big", [False, True])
def test_cut_and_dense_patches_have_the_same_embeddings(big):
    images = torch.rand((3, 3, 24, 26), generator=generator())
    encoder = HierarchicalPatchEncoder(patch_size=16)
    # A crop as large as the images leaves one place for it.
    dense = DensePatches(encoder, images, (24, 26), 0.0, generator())
    cut = CutPatches(images, 0.0, generator())
    net = encoder if big else encoder.enc
    rows, columns = dense.map_size(net)
    assert cut.map_size(net) == (2 * rows - 1, 2 * columns - 1)
    image, cells = torch.tensor([0, 2, 1]), torch.tensor([[0, 0], [1, 3], [4, 5]])
    for view in (None, 0, 1):
        torch.testing.assert_close(
            dense.embed(net, image, cells, view), cut.embed(net, image, 2 * cells, view)
        )


def test_views_have_noise_of_their_own():
    images = torch.zeros((2, 3, 16, 16))
    encoder = HierarchicalPatchEncoder(patch_size=16)
    image, cells = torch.arange(2), torch.zeros((2, 2), dtype=torch.int64)
    cut = CutPatches(images, 0.1, generator())
    dense = DensePatches(encoder, images, (16, 16), 0.1, generator())
    for patches in (cut, dense):
        first, second = (patches.embed(encoder, image, cells, view) for view in (0, 1))
        assert (first - second).norm(dim=1).min() > 1e-3
    # Patches to be drawn together are compared as they are.
    plain = [cut.embed(encoder, image, cells) for _ in range(2)]
    torch.testing.assert_close(*plain)
    torch.testing.assert_close(plain[0][0], plain[0][1])


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


def test_noise_shifts_colors_and_roughens_pixels():
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
        lambda g: close_pairs((20, 20), 16, 30, g)[0],
        lambda g: photometric_noise(torch.zeros(2, 1, 4, 4), 1.0, g),
    ):
        assert torch.equal(draw(generator(1)), draw(generator(1)))
        assert not torch.equal(draw(generator(1)), draw(generator(2)))
