from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skocc import DeepSVDD
from skocc.datasets import _mvtec, fetch_mvtec, load_mvtec_layout
from tests.quick import quick

FILES = [
    "train/good/1.png",
    "train/good/0.PNG",
    "train/good/2.jpeg",
    "test/scratch/0.tif",
    "test/good/0.png",
    "test/good/1.webp",
    "test/crack/0.bmp",
    "test/crack/1.png",
    "ground_truth/crack/0_mask.png",
    "ground_truth/crack/1.png",
    # None of these is an image of the data set.
    "license.txt",
    "train/good/Thumbs.db",
    "train/good/._1.png",
    "train/readme.txt",
    "ground_truth/good/0_mask.png",
]


def touch(root, names):
    """Make empty files: the loader opens none."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


@pytest.fixture
def tile(tmp_path):
    return touch(tmp_path / "tile", FILES)


def test_paths_labels_and_masks_belong_together(tile):
    images = load_mvtec_layout(str(tile.parent), "tile")
    assert images.train_paths == [
        tile / "train" / "good" / name for name in ["0.PNG", "1.png", "2.jpeg"]
    ]
    assert images.test_paths == [
        tile / "test" / name
        for name in [
            "good/0.png",
            "good/1.webp",
            "crack/0.bmp",
            "crack/1.png",
            "scratch/0.tif",
        ]
    ]
    assert images.test_labels.dtype == int
    assert images.test_labels.tolist() == [1, 1, -1, -1, -1]
    assert images.test_defects.dtype.kind == "U"
    assert images.test_defects.tolist() == ["good", "good", "crack", "crack", "scratch"]
    masks = tile / "ground_truth" / "crack"
    assert images.test_masks == [None, None, masks / "0_mask.png", masks / "1.png", None]
    assert images.defect_names == ["crack", "scratch"]


def test_root_may_be_the_category(tile):
    np.testing.assert_equal(load_mvtec_layout(tile), load_mvtec_layout(tile.parent, "tile"))


def test_ground_truth_and_good_test_images_are_optional(tmp_path):
    images = load_mvtec_layout(touch(tmp_path, ["train/good/0.png", "test/crack/0.png"]))
    assert images.test_labels.tolist() == [-1]
    assert images.test_masks == [None]


def test_unknown_category_lists_the_others(tile):
    touch(tile.parent, ["wood/train/good/0.png", "notes/0.png"])
    with pytest.raises(FileNotFoundError, match=r"No folder .*'til'.*\['tile', 'wood'\]"):
        load_mvtec_layout(tile.parent, "til")
    with pytest.raises(ValueError, match=r"no folder train/good.*\['tile', 'wood'\]"):
        load_mvtec_layout(tile.parent)
    with pytest.raises(FileNotFoundError, match="the folder that holds the categories"):
        load_mvtec_layout(tile.parent / "missing", "tile")


@pytest.mark.parametrize(
    ("added", "removed", "message"),
    [
        ([], FILES[:3], "no images in .*good'. Got 2 other entries"),
        (["test/dent/notes.txt"], [], "no images in .*dent'"),
        (["train/crack/0.png"], [], r"in train are normal.*\['crack'\].*Move them to test"),
        (["train/0.png"], [], "directly in train.*'.*0.png', 1 in all"),
        (["test/0.png"], [], "directly in test.*test/<defect>"),
        (["test/crack/2.png"], [], "image '.*2.png' has no mask.*'2_mask.png'"),
        ([], ["test/crack/1.png"], "mask '.*1.png' has no image"),
        (["ground_truth/dent/0_mask.png"], [], r"defects without images.*\['dent'\]"),
        (["ground_truth/crack/0.png"], [], "matched by the names.*'.*0.png' and '.*0_mask"),
        (["test/crack/0.png"], [], "matched by the names.*'.*0.bmp' and '.*0.png'"),
    ],
)
def test_faults_of_the_layout_are_named(tile, added, removed, message):
    touch(tile, added)
    for name in removed:
        (tile / name).unlink()
    with pytest.raises(ValueError, match=message):
        load_mvtec_layout(tile)


def test_nothing_to_test_on(tmp_path):
    touch(tmp_path, ["train/good/0.png"])
    with pytest.raises(ValueError, match="nothing to test on"):
        load_mvtec_layout(tmp_path)


def test_paths_go_into_a_detector(tmp_path):
    rng = np.random.default_rng(0)
    names = [f"train/good/{index}.png" for index in range(8)]
    for name in [*names, "test/good/0.png", "test/crack/0.png"]:
        path = touch(tmp_path, [name]) / name
        Image.fromarray(rng.integers(0, 256, (40, 36, 3), dtype=np.uint8)).save(path)
    images = load_mvtec_layout(tmp_path)
    detector = quick(DeepSVDD).set_params(image_size=32).fit(images.train_paths)
    assert detector.score_samples(images.test_paths).shape == images.test_labels.shape


def toothbrushes(root, n_train=60, n_good=12, n_defects=30, n_masks=30):
    folder = root / "toothbrush"
    touch(folder / "train" / "good", [f"{i:03d}.png" for i in range(n_train)])
    touch(folder / "test" / "good", [f"{i:03d}.png" for i in range(n_good)])
    touch(folder / "test" / "defective", [f"{i:03d}.png" for i in range(n_defects)])
    masks = folder / "ground_truth" / "defective"
    touch(masks, [f"{i:03d}_mask.png" for i in range(n_masks)])
    return folder


def test_fetch_checks_the_counts(tmp_path):
    folder = toothbrushes(tmp_path)
    images = fetch_mvtec(tmp_path, "toothbrush")
    np.testing.assert_equal(images, fetch_mvtec(folder))
    np.testing.assert_equal(images, load_mvtec_layout(folder))
    assert images.test_masks.count(None) == 12


@pytest.mark.parametrize(
    ("counts", "found"),
    [
        ({"n_train": 59}, "59 train, 12 good test, 30 defective, 30 masks"),
        ({"n_good": 13}, "60 train, 13 good test, 30 defective, 30 masks"),
        (
            {"n_defects": 29, "n_masks": 29},
            "60 train, 12 good test, 29 defective, 29 masks",
        ),
        ({"n_masks": 0}, "60 train, 12 good test, 30 defective, 0 masks"),
    ],
)
def test_fetch_names_wrong_counts(tmp_path, counts, found):
    toothbrushes(tmp_path, **counts)
    expected = "60 train, 12 good test, 30 defective, 30 masks"
    message = f"class 'toothbrush' .* Got {found} in .*, expected {expected}"
    with pytest.raises(ValueError, match=message):
        fetch_mvtec(tmp_path, "toothbrush")


def test_fetch_says_where_the_data_are(tmp_path):
    for args in [(tmp_path, "bottle"), (tmp_path / "missing",)]:
        with pytest.raises(OSError, match=r"CC BY-NC-SA 4.0.*mvtec\.com.*train.good"):
            fetch_mvtec(*args)


def test_fetch_knows_the_classes(tmp_path):
    for args in [(tmp_path, "botle"), (tmp_path,)]:
        with pytest.raises(ValueError, match=r"not a class of MVTec AD.*'bottle', 'cable'"):
            fetch_mvtec(*args)


def test_counts_add_up_to_those_of_the_paper():
    assert len(_mvtec._COUNTS) == 15
    assert np.sum(list(_mvtec._COUNTS.values()), axis=0).tolist() == [3629, 467, 1258]


@pytest.mark.data
def test_magnetic_tiles(data_dir):
    images = load_mvtec_layout(data_dir, "magnetic_tile")
    assert len(images.train_paths) == 400
    names, counts = np.unique(images.test_defects, return_counts=True)
    expected = {"good": 242, "blowhole": 115, "crack": 57}
    assert dict(zip(names.tolist(), counts.tolist(), strict=True)) == expected
    np.testing.assert_array_equal(images.test_labels == 1, images.test_defects == "good")
    for path, label, mask in zip(
        images.test_paths, images.test_labels, images.test_masks, strict=True
    ):
        assert (mask is None) == (label == 1)
        if mask is not None:
            assert isinstance(mask, Path)
            with Image.open(path) as image, Image.open(mask) as marked:
                assert image.size == marked.size
