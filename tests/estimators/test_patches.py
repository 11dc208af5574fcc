import pytest
import torch

from skocc.estimators._patches import PatchGrid, WholeSamples


def numbered(n, channels, height, width):
    """Images of which every value is another."""
    n_values = n * channels * height * width
    return torch.arange(n_values).float().view(n, channels, height, width)


def test_whole_samples_are_left_alone():
    pieces, batch = WholeSamples((4, 5, 2)), numbered(3, 2, 4, 5)
    assert pieces.shape == (4, 5, 2)
    assert pieces.n_train_patches == pieces.n_score_patches == 1
    assert pieces.sample(batch, torch.Generator()) is batch
    assert pieces.tile(batch) is batch


def test_a_texture_of_512_pixels_gives_64_patches():
    pieces = PatchGrid((512, 512, 3), 64, n_train_patches=1)
    assert pieces.n_score_patches == 64
    assert pieces.shape == (64, 64, 3)
    assert pieces.tile(torch.zeros(2, 3, 512, 512)).shape == (128, 3, 64, 64)


def test_the_grid_goes_row_by_row_and_ends_at_the_border():
    pieces, batch = PatchGrid((4, 7, 2), 2, n_train_patches=1), numbered(3, 2, 4, 7)
    assert pieces.starts == [[0, 2], [0, 2, 4, 5]]
    patches = pieces.tile(batch)
    assert patches.shape == (24, 2, 2, 2)
    for index, (image, row, column) in enumerate(
        (image, row, column)
        for image in range(3)
        for row in (0, 2)
        for column in (0, 2, 4, 5)
    ):
        expected = batch[image, :, row : row + 2, column : column + 2]
        assert torch.equal(patches[index], expected)


def test_draws_are_patches_of_their_images_at_changing_places():
    pieces, batch = PatchGrid((6, 6, 2), 3, n_train_patches=5), numbered(2, 2, 6, 6)
    generator = torch.Generator().manual_seed(0)
    patches = pieces.sample(batch, generator)
    assert patches.shape == (10, 2, 3, 3)
    corners = patches[:, 0, 0, 0].long()
    for patch, corner in zip(patches, corners, strict=True):
        image, rest = divmod(corner.item(), 72)
        row, column = divmod(rest, 6)
        expected = batch[image, :, row : row + 3, column : column + 3]
        assert torch.equal(patch, expected)
    assert (corners // 72).bincount().tolist() == [5, 5]
    assert len(set(corners.tolist())) > 2
    assert not torch.equal(pieces.sample(batch, generator), patches)


def test_patches_larger_than_the_image():
    with pytest.raises(
        ValueError, match=r"Patches of 8 pixels do not fit.*smaller patches"
    ):
        PatchGrid((20, 7, 1), 8, n_train_patches=1)
