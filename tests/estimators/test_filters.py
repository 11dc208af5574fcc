import torch

from skocc.estimators._filters import _random_patches, dictionary_filters


def learn(batches, n_filters=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return dictionary_filters(batches, lambda batch: batch, n_filters, 5, generator)


def test_atoms_describe_the_patches():
    """Images of two gratings: the atoms must be gratings, not noise."""
    x = torch.arange(24) * (2 * torch.pi / 5)
    waves = torch.stack([torch.sin(x).expand(24, 24), torch.sin(x)[:, None].expand(24, 24)])
    batch = waves[:, None].repeat(30, 1, 1, 1)
    filters = learn([batch])
    assert filters.shape == (4, 1, 5, 5)
    norms = filters.flatten(1).norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(4), rtol=1e-4, atol=1e-4)
    # A grating of five pixels is constant along one axis, a random filter is not.
    ratios = filters.std(dim=2).mean(2) / filters.std(dim=3).mean(2)
    ratios = torch.maximum(ratios, 1 / ratios)
    assert ratios.median() > 3


def test_same_generator_same_filters():
    batch = torch.rand(40, 3, 12, 12)
    assert torch.equal(learn([batch]), learn([batch]))
    assert not torch.equal(learn([batch]), learn([batch], seed=1))


def test_nothing_to_learn_from():
    assert learn([torch.full((10, 1, 9, 9), 0.3)]) is None


def test_patches_are_cut_from_the_images():
    batch = torch.arange(2 * 3 * 6 * 7, dtype=torch.float32).view(2, 3, 6, 7)
    patches = _random_patches(batch, 5, torch.Generator().manual_seed(0))
    windows = batch.unfold(2, 5, 1).unfold(3, 5, 1).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
    assert patches.shape == (2 * 6, 3, 5, 5)
    assert all((windows == patch).flatten(1).all(1).any() for patch in patches)


def test_images_smaller_than_a_filter():
    assert learn([torch.rand(50, 1, 1, 9)]).shape == (4, 1, 5, 5)
    assert torch.isfinite(learn([torch.rand(2, 1, 3, 3)])).all()


def test_only_as_many_images_as_needed_are_read():
    def endless():
        while True:
            read.append(1)
            yield torch.rand(100, 1, 8, 8)

    read = []
    learn(endless())
    assert len(read) == 5
