import errno
import os
import pickle

import joblib
import numpy as np
import pytest
import torch
from safetensors.numpy import load, save
from torch import nn

import skocc._engine.feature_cache
from skocc._engine.feature_cache import cached, fingerprint
from skocc._nets.backbones import FeatureMaps


class Counting(nn.Module):
    """Two outputs for each image; counts what goes through."""

    def __init__(self, bias=0.0):
        super().__init__()
        self.bias = nn.Parameter(torch.tensor(bias))
        self.batches = []

    @torch.no_grad()
    def forward(self, batch):
        self.batches.append(len(batch))
        return batch.mean(dim=(2, 3)) + self.bias, batch[:, :1] * 2


def batch_of(*seeds):
    images = [
        torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(s)) for s in seeds
    ]
    return torch.stack(images)


def results_of(compute, batch):
    return [result.numpy() for result in compute(batch)]


def assert_equal(left, right):
    for a, b in zip(left, right, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
        assert a.dtype == b.dtype


@pytest.mark.parametrize("kind", ["text", "path", "Memory", "memory map"])
def test_every_image_once(tmp_path, kind):
    network = Counting()
    memory = {
        "text": str(tmp_path),
        "path": tmp_path,
        "Memory": joblib.Memory(tmp_path, verbose=10),
        "memory map": joblib.Memory(tmp_path, mmap_mode="r", verbose=0),
    }[kind]
    compute = cached(network, memory)
    found = results_of(compute, batch_of(0, 1, 2))
    assert_equal(found, results_of(network, batch_of(0, 1, 2)))
    network.batches.clear()
    # The missing ones together, in one batch, whatever their places.
    found = results_of(compute, batch_of(3, 1, 4, 0))
    assert network.batches == [2]
    assert_equal(found, results_of(network, batch_of(3, 1, 4, 0)))
    network.batches.clear()
    again = results_of(cached(network, memory), batch_of(4, 3, 2))
    assert network.batches == []
    assert_equal(again, results_of(network, batch_of(4, 3, 2)))


def test_without_memory_the_network_is_itself():
    network = Counting()
    assert cached(network, None) is network
    compute = cached(network, joblib.Memory(None, verbose=0))
    assert_equal(results_of(compute, batch_of(0)), results_of(network, batch_of(0)))


def test_what_another_key_has(tmp_path):
    network = Counting()
    results_of(cached(network, tmp_path), batch_of(0))
    for other, batch in [
        (Counting(bias=1.0), batch_of(0)),
        (Counting(), batch_of(0).double()),
        (Counting(), batch_of(0).mT),
        (Counting(), batch_of(0) + 1e-6),
    ]:
        expected = results_of(other, batch)
        other.batches.clear()
        assert_equal(results_of(cached(other, tmp_path), batch), expected)
        assert other.batches == [1]


def entries(folder):
    return sorted(folder.rglob("*.safetensors"))


def flipped(content, index):
    changed = bytearray(content)
    changed[index] ^= 1
    return changed


class Bomb:
    """What runs code when it is unpickled."""

    def __reduce__(self):
        return pytest.fail, ("code was run",)


def with_other_numbers(content):
    return save({k: v + 1 for k, v in load(content).items()}, {"digest": "0" * 32})


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: b"cut short",
        lambda content: content[:-1],
        lambda content: content[:9],
        lambda content: content + b"0",
        lambda content: flipped(content, -1),
        lambda content: flipped(content, 30),
        lambda content: save(load(content)),
        with_other_numbers,
        lambda content: pickle.dumps(Bomb()),
    ],
)
def test_damaged_file_is_computed_again(tmp_path, damage):
    network = Counting()
    expected = results_of(cached(network, tmp_path), batch_of(0))
    (file,) = entries(tmp_path)
    file.write_bytes(damage(file.read_bytes()))
    with pytest.warns(UserWarning, match=r"1 file\(s\) in .* are damaged.*computed again"):
        assert_equal(results_of(cached(network, tmp_path), batch_of(0)), expected)
    assert_equal(results_of(cached(network, tmp_path), batch_of(0)), expected)
    assert network.batches == [1, 1]


def test_files_that_are_not_of_their_image(tmp_path):
    network = Counting()
    expected = results_of(cached(network, tmp_path), batch_of(0, 1))
    first, second = entries(tmp_path)
    contents = first.read_bytes(), second.read_bytes()
    first.write_bytes(contents[1])
    second.write_bytes(contents[0])
    with pytest.warns(UserWarning, match="2 file"):
        assert_equal(results_of(cached(network, tmp_path), batch_of(0, 1)), expected)
    assert [file.read_bytes() for file in entries(tmp_path)] == [*contents]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_pipes_and_folders_in_the_place_of_files(tmp_path):
    network = Counting()
    expected = results_of(cached(network, tmp_path), batch_of(0, 1))
    first, second = entries(tmp_path)
    first.unlink()
    second.unlink()
    os.mkfifo(first)
    second.mkdir()
    with (
        pytest.warns(UserWarning, match="2 file.*not a regular file"),
        pytest.warns(UserWarning, match="Features cannot be kept.*a device or a pipe"),
    ):
        assert_equal(results_of(cached(network, tmp_path), batch_of(0, 1)), expected)


def test_a_full_disk_is_a_warning(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path))

    monkeypatch.setattr(skocc._engine.feature_cache, "write_tensors", fail)
    network = Counting()
    with pytest.warns(UserWarning, match="cannot be kept.*No space left.*memory=None"):
        found = results_of(cached(network, tmp_path), batch_of(0))
    assert_equal(found, results_of(network, batch_of(0)))


def test_a_file_holds_one_image_and_no_code(tmp_path):
    network = Counting()
    results_of(cached(network, tmp_path), batch_of(*range(20)))
    sizes = [file.stat().st_size for file in entries(tmp_path)]
    assert len(sizes) == 20
    assert max(sizes) < 23 * 4 + 1000
    names = {file.name for file in tmp_path.rglob("*") if file.is_file()}
    assert names <= {"features.safetensors", ".gitignore"}


def test_joblib_empties_the_folder(tmp_path):
    memory = joblib.Memory(tmp_path, verbose=0)
    results_of(cached(Counting(), memory), batch_of(0, 1, 2))
    memory.reduce_size(items_limit=2)
    assert len(entries(tmp_path)) == 2
    memory.clear()
    assert entries(tmp_path) == []


def test_what_is_no_folder_is_refused():
    class Elsewhere:
        def cache(self, function):
            return function

    with pytest.raises(ValueError, match=r"must be a folder.*Got .*Elsewhere.*Pass the"):
        cached(Counting(), Elsewhere())


def test_fingerprint_is_that_of_the_weights_and_the_code():
    maps = FeatureMaps("resnet18", ["layer1"], weights=None)
    known = fingerprint(maps)
    assert fingerprint(pickle.loads(pickle.dumps(maps))) == known
    maps.get_submodule("body.layer1.0.bn1").eps = 0.1
    assert fingerprint(maps) != known

    class Scaled(nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.inner, self.factor = nn.Identity(), factor

        def forward(self, x):
            return self.inner(x * self.factor)

    first, second = (FeatureMaps(Scaled(factor), ["inner"]) for factor in (2, 3))
    assert fingerprint(first) != fingerprint(second)
