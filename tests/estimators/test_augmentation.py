import math
from functools import partial

import pytest
import torch

from skocc.estimators._augmentation import random_rotations, random_variants


def variants(images, rotations=True, n=200):
    """Many variants of one image (C, H, W)."""
    torch.manual_seed(0)
    batch = images.expand(n, *images.shape)
    return random_variants(images.shape[1:], rotations)(batch)


def is_near(batch, image):
    return (batch - image).abs().amax(dim=(1, 2, 3)) < 1e-6


@pytest.fixture
def image():
    return torch.rand(2, 12, 12, generator=torch.Generator().manual_seed(1))


def test_probabilities_of_the_steps(image):
    batch = variants(image, n=600)
    # Neither shifted nor scaled: 25 %. One of eight positions each, by flips and turns.
    positions = [
        turned
        for start in (image, image.flip(2))
        for turned in [start.rot90(k, (1, 2)) for k in range(4)]
    ]
    shares = torch.tensor([is_near(batch, p).float().mean() for p in positions])
    assert shares.sum() == pytest.approx(0.25, abs=0.06)
    # A flip half of the time; no turn a quarter of the time.
    assert shares[4:].sum() / shares.sum() == pytest.approx(0.5, abs=0.15)
    assert (shares[0] + shares[4]) / shares.sum() == pytest.approx(0.25, abs=0.15)
    assert (shares > 0).all()
    assert len({tuple(variant.flatten().tolist()) for variant in batch}) > 300


@pytest.mark.parametrize("size", [(12, 12), (16, 11)])
def test_variants_equal_those_of_a_pipeline_of_torchvision(size):
    from torchvision.transforms import v2

    height, width = size
    rows, columns = (math.ceil(n * 0.075 / 0.95) + 1 for n in size)
    quarters = (1, 2, 3) if height == width else (2,)
    shift = (0.05 * width / (width + 2 * columns), 0.05 * height / (height + 2 * rows))
    affine = v2.RandomAffine(
        0, translate=shift, scale=(0.95, 1.05), interpolation=v2.InterpolationMode.BILINEAR
    )
    padded = [v2.Pad([columns, rows], padding_mode="edge"), affine, v2.CenterCrop(size)]
    turns = [v2.Lambda(partial(torch.rot90, k=k, dims=(-2, -1))) for k in quarters]
    steps = [
        v2.RandomHorizontalFlip(),
        v2.RandomApply(padded, p=0.75),
        v2.RandomApply([v2.RandomChoice(turns)], p=0.75),
        v2.GaussianBlur(3, sigma=(0.01, 0.05)),
    ]
    batch = torch.rand(40, 3, *size, generator=torch.Generator().manual_seed(2))
    batch = batch.contiguous(memory_format=torch.channels_last)
    torch.manual_seed(3)
    expected = torch.stack([v2.Compose(steps)(image) for image in batch])
    torch.manual_seed(3)
    assert torch.equal(random_variants(size)(batch), expected)


def test_without_rotations_the_orientation_stays(image):
    ramp = torch.arange(24.0).view(1, 24, 1).expand(1, 24, 24) / 24
    batch = variants(ramp, rotations=False)
    assert (batch.diff(dim=2) >= -1e-6).all()
    assert (variants(ramp).diff(dim=2) < -1e-3).any()


def test_shift_and_scale_are_slight_and_the_edge_is_repeated():
    # A dot shows the shift, a frame of ones whether anything else comes in.
    image = torch.ones(1, 40, 60)
    image[:, 8:32, 8:52] = 0.5
    image[:, 19:21, 29:31] = 0
    batch = variants(image, rotations=False)
    assert batch.max() <= 1 + 1e-6
    edges = torch.cat([batch[..., 0], batch[..., -1], batch[:, :, 0], batch[:, :, -1]], -1)
    assert edges.min() > 0.99
    darkest = batch.flatten(1).argmin(dim=1)
    rows, columns = darkest // 60, darkest % 60
    assert (rows - 19.5).abs().max() <= 0.05 * 40 + 1.5
    assert (columns - 29.5).abs().max() <= 0.05 * 60 + 1.5
    assert rows.unique().numel() > 2
    assert columns.unique().numel() > 4


@pytest.mark.parametrize("size", [(1, 7), (5, 9), (8, 8), (33, 20)])
@pytest.mark.parametrize("n_channels", [1, 2, 3])
def test_any_size_keeps_its_size(size, n_channels):
    batch = variants(torch.rand(n_channels, *size), n=20)
    assert batch.shape == (20, n_channels, *size)
    assert torch.isfinite(batch).all()


def test_images_that_are_not_square_are_turned_by_half(image):
    image = torch.rand(1, 4, 9)
    batch = variants(image)
    assert is_near(batch, image.rot90(2, (1, 2))).any()


def test_rotations_about_the_center():
    image = torch.arange(12.0).view(1, 1, 3, 4)
    batch = image.repeat(2, 1, 1, 1)
    generator = torch.Generator().manual_seed(0)
    turned = random_rotations(batch, 180, 180, generator)
    torch.testing.assert_close(turned, batch.rot90(2, (2, 3)), atol=1e-4, rtol=1e-4)
    square = torch.rand(1, 2, 5, 5)
    turned = random_rotations(square, 90, 90, generator)  # counterclockwise
    torch.testing.assert_close(turned, square.rot90(1, (2, 3)), atol=1e-4, rtol=1e-4)
    # What comes in from outside is mirrored: no value is new.
    turned = random_rotations(torch.full((8, 1, 9, 16), 0.7), -45, 45, generator)
    torch.testing.assert_close(turned, torch.full_like(turned, 0.7))


def test_rotations_of_rectangles_keep_lengths_and_differ():
    rows, columns = torch.meshgrid(torch.arange(31.0), torch.arange(61.0), indexing="ij")
    disc = ((rows - 15) ** 2 + (columns - 30) ** 2).sqrt()
    batch = disc.expand(6, 1, 31, 61)
    generator = torch.Generator().manual_seed(0)
    inner = (disc < 12) & (disc > 1)
    turned = random_rotations(batch, 0, 360, generator)
    # A disc is itself whatever the angle, if the sides are told apart.
    assert (turned - batch)[:, 0, inner].abs().max() < 0.1
    ramp = columns.expand(6, 1, 31, 61)
    turned = random_rotations(ramp, -45, 45, generator)
    assert len({round(float(image[0, 13, 36]), 3) for image in turned}) == 6
