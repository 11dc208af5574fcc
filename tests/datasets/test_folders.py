from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skocc import ResNetKNN
from skocc.datasets import load_image_folder
from skocc.metrics import aupro
from tests.quick import quick

FILES = [
    "good/10.png",
    "good/9.jpg",
    "crack/1.png",
    "crack/2.png",
    "hole/1.bmp",
    "masks/crack/1.png",
    "masks/crack/2_mask.png",
    # None of these is an image of the data set.
    "good/notes.txt",
    "crack/._1.png",
    "reports/1.txt",
]


@pytest.fixture
def folder(tmp_path):
    """Empty files: the loader opens none."""
    for name in FILES:
        path = tmp_path / "parts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "parts"


def names(paths, folder):
    return [path and path.relative_to(folder).as_posix() for path in paths]


def test_paths_labels_defects_and_masks_belong_together(folder):
    images = load_image_folder(str(folder), normal="good", masks="masks")
    assert names(images.paths, folder) == [
        "good/9.jpg", "good/10.png", "crack/1.png", "crack/2.png", "hole/1.bmp"
    ]  # fmt: skip
    assert images.labels.tolist() == [1, 1, -1, -1, -1]
    assert images.labels.dtype == int
    assert images.defects.tolist() == ["good", "good", "crack", "crack", "hole"]
    assert images.defect_names == ["crack", "hole"]
    # No image of a hole has a mask.
    assert names(images.masks, folder) == [
        None, None, "masks/crack/1.png", "masks/crack/2_mask.png", None
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"anomalous": ("hole", "crack")}, ["hole/1.bmp", "crack/1.png", "crack/2.png"]),
        ({"anomalous": "h*"}, ["hole/1.bmp"]),
        ({"anomalous": "*/1.*"}, ["crack/1.png", "hole/1.bmp"]),
        ({"anomalous": ["crack/2.png", "crack"]}, ["crack/2.png", "crack/1.png"]),
        ({"anomalous": []}, []),
        ({"masks": "masks"}, ["crack/1.png", "crack/2.png", "hole/1.bmp"]),
    ],
)
def test_names_and_patterns(folder, options, expected):
    if "*/1.*" in options.get("anomalous", ""):
        (folder / "masks" / "crack").rename(folder / "masks" / "other")
    images = load_image_folder(folder, normal=["good/9.jpg", "good"], **options)
    assert names(images.paths, folder) == ["good/9.jpg", "good/10.png", *expected]
    assert images.labels.tolist() == [1, 1] + [-1] * len(expected)
    if options.get("anomalous") == "h*":
        assert images.defect_names == ["hole"]  # by the folder that was found
    if options.get("anomalous") == "*/1.*":
        assert images.defect_names == ["*/1.*"]


def test_masks_in_many_ways(folder):
    expected = [None, None, "masks/crack/1.png", "masks/crack/2_mask.png", None]
    root = folder / "masks" / "crack"
    by_name = {
        "crack/1.png": root / "1.png",
        folder / "crack" / "2.png": str(root / "2_mask.png"),
    }
    for masks in [
        folder / "masks",
        str(folder / "masks"),
        by_name,
        lambda path: by_name.get(path) or by_name.get(f"crack/{path.name}"),
    ]:
        images = load_image_folder(
            folder, normal="good", anomalous=["crack", "hole"], masks=masks
        )
        assert names(images.masks, folder) == expected
        assert all(mask is None or isinstance(mask, Path) for mask in images.masks)
    images = load_image_folder(folder, normal="good", anomalous="crack")
    assert images.masks == [None] * 4
    flat = folder.parent / "flat"
    flat.mkdir()
    (flat / "2.tif").touch()
    (flat / "1_mask.png").touch()
    images = load_image_folder(folder, normal="good", anomalous="crack", masks=flat)
    assert [mask and mask.name for mask in images.masks[2:]] == ["1_mask.png", "2.tif"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"normal": "ok"}, r"normal='ok'.*\['crack', 'good', 'hole', 'masks', 'reports'\]"),
        ({"normal": []}, r"Got normal=\[\]. Pass one of"),
        ({"normal": "reports"}, "No image is meant by normal='reports'"),
        ({"normal": "/etc"}, "normal"),
        ({"normal": ["good", 3]}, r"names of folders.*Got 3.*Pass for example"),
        ({"normal": "good", "anomalous": "dent"}, "anomalous='dent'"),
        ({"normal": "good", "anomalous": "*/9.*"}, r"9.jpg' is both normal and anomalous"),
        ({"normal": "crack"}, r"good.*both normal and anomalous.*rename it"),
        ({"normal": "good", "masks": "truth"}, r"masks='truth', and the folders.*'masks'"),
        ({"normal": "good", "masks": {"9.png": "x.png"}}, r"Got \['9.png'\], 1 in all"),
        ({"normal": "good", "masks": {"crack/1.png": "x.png"}}, r"mask of .*x.png"),
        ({"normal": "good", "masks": lambda path: "y.png"}, r"Got 'y.png', which is no"),
        ({"normal": "good", "masks": {3: "x.png"}}, "Got a int, 3. Pass str or Path"),
        ({"normal": "good", "masks": lambda path: 3}, "Got a int, 3. Pass str or Path"),
        ({"anomalous": "crack"}, "Pass normal, the folder of normal images"),
        ({"masks": "masks"}, "Pass normal, the folder of normal images"),
    ],
)
def test_what_is_refused(folder, options, message):
    with pytest.raises(ValueError, match=message):
        load_image_folder(folder, **options)


def test_masks_that_are_missing_or_shared(folder):
    (folder / "masks" / "crack" / "1.png").unlink()
    with pytest.raises(ValueError, match=r"crack/1.png' has no mask, unlike others"):
        load_image_folder(folder, normal="good", masks="masks")
    flat = folder.parent / "flat"
    flat.mkdir()
    for name in ["1.png", "2.png"]:
        (flat / name).touch()
    with pytest.raises(ValueError, match=r"flat/1.png' is that of two images"):
        load_image_folder(folder, normal="good", anomalous=["crack", "hole"], masks=flat)
    with pytest.raises(FileNotFoundError, match=r"not there, beside the folders .*'parts'"):
        load_image_folder(folder.parent / "part", normal="good")


def test_from_a_folder_to_the_overlap(tmp_path):
    """Photographs of two sizes, in one folder, told apart by their names."""
    rng = np.random.default_rng(0)
    for index in range(12):
        size = (40, 33) if index % 2 else (36, 48)
        image, mask = rng.normal(100, 3, size), np.zeros(size, dtype=np.uint8)
        if index >= 8:
            image[5:15, 8:20], mask[5:15, 8:20] = 250, 255
            Image.fromarray(mask).save(tmp_path / f"{index}_mask.png")
        name = f"{index}_{'bad' if index >= 8 else 'ok'}.png"
        Image.fromarray(image.astype(np.uint8)).save(tmp_path / name)
    images = load_image_folder(
        tmp_path,
        normal="*_ok.png",
        anomalous="*_bad.png",
        masks=lambda path: path.with_name(path.name.replace("bad", "mask")),
    )
    assert images.defect_names == ["*_bad.png"]
    detector = quick(ResNetKNN, image_size=32)
    detector.fit(
        [p for p, label in zip(images.paths, images.labels, strict=True) if label == 1]
    )
    # 0.995 with two kinds of kernels; chance is 0.15.
    assert aupro(images.masks, detector.anomaly_map(images.paths)) > 0.9
