import threading
import tracemalloc

import numpy as np
import pytest
import torch
from PIL import Image

from skocc._engine.batches import (
    ImageBatches,
    InTurn,
    ResidentImages,
    ResidentMaps,
    Subset,
    keep_on_device,
)
from skocc._samples.sources import ArrayImages, FileImages

CPU = torch.device("cpu")
RNG = np.random.default_rng(0)


def numbered(n, shape=(2, 2, 1), dtype=np.float32):
    """Images of which each holds its own index."""
    return ArrayImages(
        np.broadcast_to(np.arange(n).reshape(-1, 1, 1, 1), (n, *shape)).astype(dtype)
    )


def contents(batches):
    return [batch[:, 0, 0, 0].int().tolist() for batch in batches]


def test_in_order_with_a_smaller_last_batch():
    batches = ImageBatches(numbered(7), 3, device=CPU)
    assert contents(batches) == contents(batches) == [[0, 1, 2], [3, 4, 5], [6]]
    assert len(batches) == 3


def test_shuffled_anew_each_pass_but_reproducibly():
    def passes():
        generator = torch.Generator().manual_seed(0)
        batches = ImageBatches(numbered(8), 3, device=CPU, generator=generator)
        return [contents(batches) for _ in range(2)]

    first, second = passes()
    assert first != second
    assert sorted(index for batch in first for index in batch) == list(range(8))
    assert passes() == [first, second]


def test_several_passes_in_one_iteration():
    generator = torch.Generator().manual_seed(0)
    batches = ImageBatches(numbered(7), 3, device=CPU, generator=generator, n_passes=3)
    assert len(batches) == 6
    first, second, third = np.reshape(contents(batches), (3, 6)).tolist()
    for order in (first, second, third):
        assert len(set(order)) == 6
    assert first != second != third


def test_a_last_batch_of_one_is_left_out_of_training():
    generator = torch.Generator().manual_seed(0)
    batches = ImageBatches(numbered(7), 3, device=CPU, generator=generator)
    assert [len(batch) for batch in batches] == [3, 3]
    assert len(batches) == 2
    alone = ImageBatches(numbered(1), 3, device=CPU, generator=generator)
    assert [len(batch) for batch in alone] == [1]


def test_pixels_arrive_as_float_channels_first():
    array = RNG.integers(0, 256, (5, 4, 3, 2), dtype=np.uint8)
    (batch,) = ImageBatches(ArrayImages(array), 9, device=CPU)
    assert batch.dtype == torch.float32
    expected = np.moveaxis(array, -1, 1) / np.float32(255)
    np.testing.assert_array_equal(batch.numpy(), expected)


def test_floats_are_left_alone():
    array = RNG.normal(size=(5, 4, 3, 1)).astype(np.float32) * 100
    (batch,) = ImageBatches(ArrayImages(array), 9, device=CPU)
    np.testing.assert_array_equal(batch[:, 0].numpy(), array[..., 0])


def test_rows_stay_rows():
    array = RNG.normal(size=(5, 4)).astype(np.float32)
    (batch,) = ImageBatches(ArrayImages(array), 9, device=CPU)
    np.testing.assert_array_equal(batch.numpy(), array)


@pytest.mark.parametrize("n_channels", [1, 3])
def test_one_memory_layout_whatever_the_source(n_channels):
    array = RNG.random((4, 6, 5, n_channels)).astype(np.float32)
    channels_first = np.moveaxis(np.ascontiguousarray(np.moveaxis(array, -1, 1)), 1, -1)
    (a,) = ImageBatches(ArrayImages(array), 9, device=CPU)
    (b,) = ImageBatches(ArrayImages(channels_first), 9, device=CPU)
    assert a.stride() == b.stride()
    assert torch.equal(a, b)


def test_files_are_loaded_ahead_in_the_same_order(image_files):
    images, paths = image_files
    source = FileImages(paths)
    for generator in [None, 0]:
        batches = [
            ImageBatches(
                images_,
                5,
                device=CPU,
                generator=None if generator is None else torch.Generator().manual_seed(0),
            )
            for images_ in (source, ArrayImages(images[..., None]))
        ]
        for _ in range(2):
            for from_files, from_array in zip(*batches, strict=True):
                assert torch.equal(from_files, from_array)


class Slow:
    """A source of numbers whose loads wait until `n_ahead` of them run at once."""

    shape, dtype = (12, 1), np.dtype(np.float32)

    def __init__(self, n_ahead):
        self.n_ahead, self.started = n_ahead, []
        self.meeting = threading.Barrier(n_ahead)

    def __len__(self):
        return 12

    def load(self, indices):
        self.started.append(indices.start)
        self.meeting.wait(timeout=60)
        return np.arange(12, dtype=np.float32)[indices, np.newaxis]


@pytest.mark.parametrize("n_ahead", [1, 2, 3])
def test_batches_are_loaded_ahead_at_the_same_time(n_ahead):
    source = Slow(n_ahead)
    batches = iter(ImageBatches(source, 2, device=CPU))
    seen = [next(batches)[0].item()]
    # Of six, that in use and no more than those ahead of it.
    assert len(source.started) <= 1 + n_ahead
    seen += [batch[0].item() for batch in batches]
    assert seen == [0, 2, 4, 6, 8, 10]


def test_threads_end_where_an_iteration_ends_early(image_files):
    _, paths = image_files
    before = set(threading.enumerate())

    def stop_early(paths, n_batches):
        batches = iter(ImageBatches(FileImages(paths), 2, device=CPU))
        for _ in range(n_batches):
            next(batches)
        return set(threading.enumerate()) - before

    threads = stop_early(paths, 1)
    cut = [*paths[:4], paths[4].with_name("cut.png"), *paths[5:]]
    cut[4].write_bytes(paths[4].read_bytes()[:60])
    with pytest.raises(ValueError, match=r"cut\.png"):
        stop_early(cut, 3)
    for thread in threads | (set(threading.enumerate()) - before):
        thread.join(timeout=60)
    assert set(threading.enumerate()) <= before


def test_memory_does_not_grow_with_the_number_of_files(tmp_path):
    path, side = tmp_path / "one.png", 128
    Image.fromarray(RNG.integers(0, 256, (side, side), dtype=np.uint8)).save(path)

    def peak(n_files):
        tracemalloc.start()
        for _ in ImageBatches(FileImages([path] * n_files), 10, device=CPU):
            pass
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak_bytes

    peak(40)  # what is allocated once
    # A tenth of the added pixels leaves room for the paths and their headers.
    assert peak(440) - peak(40) < 400 * side * side / 10


def test_an_error_of_a_file_reaches_the_caller(image_files):
    _, paths = image_files
    source = FileImages(paths)
    paths[7].write_bytes(paths[7].read_bytes()[:60])
    with pytest.raises(ValueError, match=r"07\.png"):
        list(ImageBatches(source, 5, device=CPU))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_resident_images_give_the_same_batches(dtype, device):
    source = numbered(600, dtype=dtype)
    resident = ResidentImages(source, device)
    assert (len(resident), resident.shape) == (600, source.shape)
    for a, b in zip(
        ImageBatches(
            resident, 64, device=device, generator=torch.Generator().manual_seed(0)
        ),
        ImageBatches(source, 64, device=device, generator=torch.Generator().manual_seed(0)),
        strict=True,
    ):
        assert torch.equal(a, b)


def test_images_are_kept_on_a_gpu_only(device):
    source = numbered(6)
    kept = keep_on_device(source, device)
    assert (kept is source) == (device.type == "cpu")


@pytest.mark.gpu
def test_images_that_do_not_fit_stay_where_they_are(device, monkeypatch):
    if device.type == "cpu":
        pytest.skip("needs a GPU that could be full")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 1000))
    source = numbered(600)
    assert keep_on_device(source, device) is source


def test_subset_of_any_source(image_files):
    images, paths = image_files
    indices = np.array([7, 2, 11, 0])
    held = ResidentImages(ArrayImages(images[..., None]), CPU)
    for source in (ArrayImages(images[..., None]), FileImages(paths), held):
        subset = Subset(source, indices)
        assert len(subset) == 4
        assert subset.shape == (4, 16, 12, 1)
        batches = torch.cat([*ImageBatches(subset, 3, device=CPU)])
        expected = images[indices][:, None] / np.float32(255)
        np.testing.assert_array_equal(batches.numpy(), expected)
        generator = torch.Generator().manual_seed(0)
        shuffled = torch.cat([*ImageBatches(subset, 2, device=CPU, generator=generator)])
        assert not torch.equal(shuffled, batches)
        assert sorted(shuffled.sum((1, 2, 3)).tolist()) == sorted(
            batches.sum((1, 2, 3)).tolist()
        )


def test_maps_of_a_stream_come_back_in_order():
    maps = torch.rand(7, 5, 3, 4)
    source = ResidentMaps(iter(maps.split(3)), 7, CPU)
    assert source.shape == (7, 3, 4, 5)
    batches = [*ImageBatches(source, 2, device=CPU)]
    assert torch.equal(torch.cat(batches), maps)
    assert torch.equal(source.load(np.array([4, 1])), maps[[4, 1]].permute(0, 2, 3, 1))


@pytest.mark.parametrize("shuffled", [False, True])
def test_targets_stay_with_their_images(shuffled):
    generator = torch.Generator().manual_seed(0) if shuffled else None
    targets = torch.arange(7) * 10
    batches = ImageBatches(numbered(7), 3, device=CPU, generator=generator, targets=targets)
    pairs = [(batch[:, 0, 0, 0], target) for batch, target in batches]
    assert all(torch.equal(10 * images, target.float()) for images, target in pairs)
    n_images = [len(target) for _, target in pairs]
    assert n_images == [len(batch) for batch in contents(images for images, _ in batches)]
    # A last batch of one is dropped when shuffled.
    assert n_images == ([3, 3] if shuffled else [3, 3, 1])


def test_kinds_in_turn_until_the_longest_ends():
    generator = torch.Generator().manual_seed(0)
    few = ImageBatches(numbered(3), 2, device=CPU)
    shuffled = ImageBatches(numbered(4), 2, device=CPU, generator=generator)
    turns = InTurn(numbers := ["a", "b", "c", "d", "e"], few, shuffled)
    assert len(turns) == 15
    assert turns.n_kinds == 3
    passes = [list(turns), list(turns)]
    assert [kind for kind, _ in passes[0]] == [0, 1, 2] * 5
    assert [batch for kind, batch in passes[0] if kind == 0] == numbers
    few_batches = contents(batch for kind, batch in passes[0] if kind == 1)
    assert few_batches == [[0, 1], [2], [0, 1], [2], [0, 1]]
    # The shorter kind is gone over in another order each time.
    others = [contents(b for kind, b in turns if kind == 2) for turns in passes]
    assert all(sorted(a + b) == [0, 1, 2, 3] for a, b in [others[0][:2], others[0][2:4]])
    assert others[0] != others[1]
