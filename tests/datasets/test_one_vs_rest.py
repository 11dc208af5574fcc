import struct
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from skocc.datasets import fetch_one_vs_rest, load_image_folder, one_vs_rest

LABELS = np.repeat([0, 1, 2], [20, 10, 6])
IMAGES = np.repeat(np.arange(36, dtype=np.uint8), 64).reshape(36, 8, 8)


def numbers(images):
    """Return the numbers that the images were made from."""
    return [int(np.asarray(image).flat[0]) for image in images]


def test_split():
    problem = one_vs_rest(IMAGES, LABELS, 0, test_size=0.25, random_state=0)
    train, test = numbers(problem.train_images), numbers(problem.test_images)
    assert sorted(train + test) == list(range(36))
    assert len(train) == 15
    assert LABELS[train].tolist() == [0] * 15
    assert problem.test_classes.tolist() == LABELS[test].tolist()
    assert problem.test_labels.dtype.kind == "i"
    assert problem.test_labels.tolist() == [1] * 5 + [-1] * 16
    again = one_vs_rest(IMAGES, LABELS, 0, test_size=0.25, random_state=0)
    np.testing.assert_equal(again, problem)
    other = one_vs_rest(IMAGES, LABELS, 0, test_size=0.25, random_state=1)
    assert numbers(other.train_images) != train


def test_test_set_of_its_own():
    problem = one_vs_rest(
        IMAGES[:25], LABELS[:25], 0, test_images=IMAGES[15:], test_labels=LABELS[15:]
    )
    assert numbers(problem.train_images) == list(range(20))
    assert numbers(problem.test_images) == list(range(15, 36))
    assert problem.test_labels.tolist() == [1] * 5 + [-1] * 16


def test_several_normal_classes():
    problem = one_vs_rest(IMAGES, LABELS, [0, 2], random_state=0)
    assert set(LABELS[numbers(problem.train_images)]) == {0, 2}
    np.testing.assert_array_equal(problem.test_labels == -1, problem.test_classes == 1)


def test_paths_and_names(tmp_path):
    for name in ["nut/10.png", "nut/9.png", "bolt/1.JPG", "bolt/2.png", "bolt/._2.png"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    images = load_image_folder(str(tmp_path))
    assert [path.name for path in images.paths] == ["1.JPG", "2.png", "9.png", "10.png"]
    assert images.labels.tolist() == ["bolt", "bolt", "nut", "nut"]
    problem = one_vs_rest(images.paths, images.labels, "nut", test_size=0.5, random_state=0)
    assert len(problem.train_images) == 1
    assert isinstance(problem.train_images[0], Path)
    assert problem.test_labels.tolist() == [-1, -1, 1]
    one_class = load_image_folder(tmp_path / "nut")
    assert [path.name for path in one_class.paths] == ["9.png", "10.png"]
    assert one_class.labels is None


def test_unusable_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="not there"):
        load_image_folder(tmp_path / "missing")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match="Got 1 other entries"):
        load_image_folder(tmp_path)
    (tmp_path / "nut").mkdir()
    (tmp_path / "nut" / "1.png").touch()
    (tmp_path / "0.png").touch()
    with pytest.raises(
        ValueError, match=r"'0.png', 1 in all, beside the folders \['nut'\]"
    ):
        load_image_folder(tmp_path)


class Pairs:
    """What torchvision's data sets have in common."""

    def __init__(self, convert):
        self._convert = convert

    def __len__(self):
        return 36

    def __getitem__(self, index):
        if index >= 36:
            raise IndexError
        return self._convert(IMAGES[index]), int(LABELS[index])


@pytest.mark.parametrize("as_list", [False, True])
def test_pairs_of_image_and_label(as_list):
    for convert in [Image.fromarray, torch.from_numpy, np.copy]:
        data = [*Pairs(convert)] if as_list else Pairs(convert)
        problem = one_vs_rest(data, None, 1, random_state=0)
        assert len(problem.train_images) == 7
        assert set(LABELS[numbers(problem.train_images)]) == {1}
    assert isinstance(problem.train_images, np.ndarray)


def test_data_and_targets():
    data = types.SimpleNamespace(data=torch.from_numpy(IMAGES), targets=LABELS.tolist())
    problem = one_vs_rest(data, None, 2, test_images=data)
    assert isinstance(problem.train_images, np.ndarray)
    assert numbers(problem.train_images) == list(range(30, 36))
    assert len(problem.test_images) == 36


def test_unusable_input():
    with pytest.raises(ValueError, match=r"Got normal=7 and labels \[0, 1, 2\]"):
        one_vs_rest(IMAGES, LABELS, 7)
    with pytest.raises(ValueError, match="Got normal='0'"):
        one_vs_rest(IMAGES, LABELS, "0")
    with pytest.raises(ValueError, match=r"Got 36 images and labels of shape \(35,\)"):
        one_vs_rest(IMAGES, LABELS[:-1], 0)
    with pytest.raises(ValueError, match=r"Got 36 test_images and test_labels of shape"):
        one_vs_rest(IMAGES, LABELS, 0, test_images=IMAGES, test_labels=[1])
    with pytest.raises(ValueError, match="test_labels belong to test_images"):
        one_vs_rest(IMAGES, LABELS, 0, test_labels=LABELS)
    with pytest.raises(ValueError, match="Got ndarray, whose items are not such pairs"):
        one_vs_rest(IMAGES, None, 0)
    with pytest.raises(ValueError, match="needed to hold one out"):
        one_vs_rest(IMAGES, np.arange(36), 0)


def write_idx(path, array):
    """Write a file as MNIST has them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


@pytest.mark.parametrize(
    ("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")]
)
def test_files_as_torchvision_keeps_them(tmp_path, name, folder):
    raw = tmp_path / folder / "raw"
    for part, chosen in [("train", slice(0, 36, 2)), ("t10k", slice(1, 36, 2))]:
        write_idx(raw / f"{part}-images-idx3-ubyte", IMAGES[chosen])
        write_idx(raw / f"{part}-labels-idx1-ubyte", LABELS[chosen])
    problem = fetch_one_vs_rest(name, 1, tmp_path, download_if_missing=False)
    assert numbers(problem.train_images) == [20, 22, 24, 26, 28]
    assert numbers(problem.test_images) == list(range(1, 36, 2))
    assert problem.train_images.dtype == np.uint8
    np.testing.assert_array_equal(problem.test_labels == 1, LABELS[1::2] == 1)


def test_missing_files(tmp_path):
    with pytest.raises(RuntimeError, match="not found"):
        fetch_one_vs_rest("mnist", 1, tmp_path, download_if_missing=False)


def test_cifar10_of_a_stand_in(monkeypatch):
    asked = []

    def load(root, train, download):
        asked.append((root, train, download))
        colors = np.repeat(IMAGES[..., np.newaxis], 3, axis=3)
        return types.SimpleNamespace(data=colors, targets=LABELS.tolist())

    stand_in = types.ModuleType("torchvision")
    stand_in.datasets = types.SimpleNamespace(CIFAR10=load)
    monkeypatch.setitem(sys.modules, "torchvision", stand_in)
    problem = fetch_one_vs_rest("cifar10", [0, 1], "data")
    assert problem.train_images.shape == (30, 8, 8, 3)
    assert problem.test_images.shape == (36, 8, 8, 3)
    assert asked == [("data", True, True), ("data", False, True)]


def test_fetch_without_torchvision(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ImportError, match="Install the torchvision that belongs"):
        fetch_one_vs_rest("mnist", 1, "data")


def test_fetch_unknown_name():
    with pytest.raises(ValueError, match="Got name='svhn'"):
        fetch_one_vs_rest("svhn", 1, "data")


@pytest.mark.parametrize(
    ("labels", "normal", "message"),
    [
        ([[1], 2, 3], 2, "labels must hold numbers or names"),
        ([1, [2, 3], 3], 2, "labels must be an array of equally shaped samples"),
        ([1, 2, 3], [1, [2]], "normal must be an array"),
        ([1, 2, 3], [], "normal must be a label"),
        ([1.0, 2.5, 3.0], 10**400, "normal must be a label"),
    ],
)
def test_labels_that_are_none(labels, normal, message):
    if message.startswith("labels must hold"):
        labels = np.array(labels, dtype=object)
    with pytest.raises(ValueError, match=message):
        one_vs_rest(np.zeros((3, 8, 8)), labels, normal)
