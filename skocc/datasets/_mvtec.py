import os
from pathlib import Path

import numpy as np
from sklearn.utils import Bunch

from skocc._base.private_sklearn import validate_params
from skocc._samples.files import IMAGE_SUFFIXES, list_images
from skocc.datasets._folders import subfolders

_PAGE = "https://www.mvtec.com/company/research/datasets/mvtec-ad"
# Images of MVTec AD by class: train, test without a defect, test with one. Every image
# with a defect has a mask.
_COUNTS = {
    "bottle": (209, 20, 63),
    "cable": (224, 58, 92),
    "capsule": (219, 23, 109),
    "carpet": (280, 28, 89),
    "grid": (264, 21, 57),
    "hazelnut": (391, 40, 70),
    "leather": (245, 32, 92),
    "metal_nut": (220, 22, 93),
    "pill": (267, 26, 141),
    "screw": (320, 41, 119),
    "tile": (230, 33, 84),
    "toothbrush": (60, 12, 30),
    "transistor": (213, 60, 40),
    "wood": (247, 19, 60),
    "zipper": (240, 32, 119),
}


@validate_params(
    {
        "root": [str, os.PathLike],
        "category": [str, None],
    },
    prefer_skip_nested_validation=True,
)
def load_mvtec_layout(root: str | os.PathLike, category: str | None = None) -> Bunch:
    """List the images of a folder that is laid out like MVTec AD.

    The layout, for each category::

        <category>/train/good/<image>
        <category>/test/good/<image>
        <category>/test/<defect>/<image>
        <category>/ground_truth/<defect>/<image>_mask.png

    Parameters
    ----------
    root : str or Path
        Folder that holds the categories, or without `category` the folder of one.
    category : str, default=None
        Name of a folder in `root`. None: `root` is the category itself.

    Returns
    -------
    images : Bunch
        Images without a defect come first, then the defects in order of their names;
        within each the files in order of theirs.

        train_paths : list of Path
            Normal images, to fit on.
        test_paths : list of Path of length n_test
            Images to score.
        test_labels : ndarray of shape (n_test,), int
            +1 for normal, -1 for defective images.
        test_defects : ndarray of shape (n_test,), str
            Name of the defect, "good" for normal images.
        test_masks : list of Path or None, of length n_test
            File that marks the defect; None for normal images, and for a defect without
            a folder in ``ground_truth``.
        defect_names : list of str
            The defects, without "good".

    Raises
    ------
    FileNotFoundError
        The folder does not exist.
    ValueError
        The folder is not laid out as above: ``train/good``, ``test`` or images are
        missing, ``train`` holds anything but ``good``, or masks and defective images do
        not match one to one.

    See Also
    --------
    fetch_mvtec : The same for MVTec AD itself, with its counts checked.

    Notes
    -----
    Images end in png, jpg, jpeg, bmp, tif, tiff or webp, in upper or lower case. Other
    files and names that start with a dot are passed over. A mask is called like its image,
    with or without ``_mask`` before the suffix. No file is opened.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from PIL import Image
    >>> from skocc.datasets import load_mvtec_layout
    >>> folder = tempfile.TemporaryDirectory()
    >>> for name in [
    ...     "train/good/0.png",
    ...     "test/good/0.png",
    ...     "test/crack/0.png",
    ...     "ground_truth/crack/0_mask.png",
    ... ]:
    ...     path = pathlib.Path(folder.name) / "tile" / name
    ...     path.parent.mkdir(parents=True)
    ...     Image.new("L", (8, 8)).save(path)
    >>> tiles = load_mvtec_layout(folder.name, "tile")
    >>> tiles.test_labels
    array([ 1, -1])
    >>> tiles.test_defects
    array(['good', 'crack'], dtype='<U5')
    >>> [mask and mask.name for mask in tiles.test_masks]
    [None, '0_mask.png']
    >>> folder.cleanup()
    """
    root = Path(root)
    folder = root if category is None else root / category
    _check_layout(folder, root, category)

    defect_names = [name for name in subfolders(folder / "test") if name != "good"]
    names = [*(["good"] if (folder / "test" / "good").is_dir() else []), *defect_names]
    test_paths, test_defects, test_masks = [], [], []
    for name in names:
        paths = _images_in(folder / "test" / name)
        test_paths += paths
        test_defects += [name] * len(paths)
        test_masks += _masks_of(paths, folder / "ground_truth" / name)
    return Bunch(
        train_paths=_images_in(folder / "train" / "good"),
        test_paths=test_paths,
        test_labels=np.array([1 if name == "good" else -1 for name in test_defects]),
        test_defects=np.array(test_defects),
        test_masks=test_masks,
        defect_names=defect_names,
    )


@validate_params(
    {
        "root": [str, os.PathLike],
        "category": [str, None],
    },
    prefer_skip_nested_validation=True,
)
def fetch_mvtec(root: str | os.PathLike, category: str | None = None) -> Bunch:
    """List the images of one class of MVTec AD, and check that all are there.

    Nothing is downloaded: MVTec AD is given out by its makers, under CC BY-NC-SA 4.0, on
    https://www.mvtec.com/company/research/datasets/mvtec-ad. Download it there, accept the
    licence, and unpack it in `root`.

    Parameters
    ----------
    root : str or Path
        Folder that holds the classes, or without `category` the folder of one.
    category : str, default=None
        One of the 15 classes, such as "bottle". None: `root` is the class itself, and is
        named like it.

    Returns
    -------
    images : Bunch
        As of :func:`load_mvtec_layout`.

    Raises
    ------
    FileNotFoundError
        The folder does not exist. The message says where the data are to be had.
    ValueError
        No class of this name; or images or masks are missing or too many.

    See Also
    --------
    load_mvtec_layout : Any folder of the same layout, whatever its counts.

    References
    ----------
    P. Bergmann, M. Fauser, D. Sattlegger, C. Steger: MVTec AD, a comprehensive real-world
    dataset for unsupervised anomaly detection. CVPR 2019.

    Examples
    --------
    >>> from skocc.datasets import fetch_mvtec
    >>> fetch_mvtec("not_unpacked", "bottle")
    Traceback (most recent call last):
        ...
    FileNotFoundError: MVTec AD is not downloaded for you, ...
    """
    folder = Path(root) if category is None else Path(root) / category
    name = folder.resolve().name if category is None else category
    if name not in _COUNTS and (category is not None or folder.is_dir()):
        raise ValueError(
            f"{name!r} is no class of MVTec AD. Got root={str(root)!r} and "
            f"category={category!r}. Pass one of {list(_COUNTS)} as category, or use "
            "load_mvtec_layout for other images in this layout."
        )
    if not folder.is_dir():
        raise FileNotFoundError(
            "MVTec AD is not downloaded for you, because its licence, CC BY-NC-SA 4.0, is "
            f"yours to accept. There is no folder '{folder}'. Download the data from "
            f"{_PAGE} and unpack them so that '{folder / 'train' / 'good'}' exists."
        )
    images = load_mvtec_layout(root, category)
    found = (
        len(images.train_paths),
        int(np.sum(images.test_labels == 1)),
        int(np.sum(images.test_labels == -1)),
        sum(mask is not None for mask in images.test_masks),
    )
    expected = (*_COUNTS[name], _COUNTS[name][2])
    if found != expected:
        raise ValueError(
            f"The class {name!r} of MVTec AD is not complete or has been added to. Got "
            f"{_describe(found)} in '{folder}', expected {_describe(expected)}. Unpack it "
            "again, or use load_mvtec_layout if this is what you want."
        )
    return images


def _describe(counts):
    n_train, n_good, n_defects, n_masks = counts
    return f"{n_train} train, {n_good} good test, {n_defects} defective, {n_masks} masks"


def _check_layout(folder, root, category):
    """Check the folders of one category, down to those of the defects."""
    if not (folder / "train" / "good").is_dir():
        categories = [
            name for name in subfolders(root) if (root / name / "train" / "good").is_dir()
        ]
        exists = folder.is_dir()
        what = f"'{folder}' has no folder train/good" if exists else f"No folder '{folder}'"
        to_do = (
            f"Pass category as one of those in root: {categories}."
            if categories
            else "Pass as root the folder that holds the categories, or without category "
            "the one that holds train and test."
        )
        raise (ValueError if exists else FileNotFoundError)(
            f"{what}. Got root={str(root)!r} and category={category!r}. {to_do}"
        )
    if not subfolders(folder / "test"):
        raise ValueError(
            f"There is nothing to test on. Got '{folder}' with no folder in test. Put the "
            "images to score into test/good and test/<defect>; to fit only, pass "
            "sorted(folder.glob('*.png')) to fit."
        )
    for part in ["train", "test"]:
        if loose := list_images(folder / part):
            raise ValueError(
                f"It is not said what the images directly in {part} are. Got "
                f"'{loose[0]}', {len(loose)} in all. Move them to {part}/good"
                + (" or test/<defect>." if part == "test" else ".")
            )
    others = [name for name in subfolders(folder / "train") if name != "good"]
    if others:
        raise ValueError(
            "Whatever is in train is learned as normal, so that it may only hold good. Got "
            f"{others} in '{folder / 'train'}'. Move them to test."
        )
    # Masks of good images are empty, and some tools write them.
    expected = {"good", *subfolders(folder / "test")}
    others = [n for n in subfolders(folder / "ground_truth") if n not in expected]
    if others:
        raise ValueError(
            f"There are masks of defects without images. Got {others} in "
            f"'{folder / 'ground_truth'}', but not in test. Add the images, or remove the "
            "masks."
        )


def _images_in(folder):
    """Return the image files in a folder that must hold some."""
    images = list_images(folder)
    if not images:
        raise ValueError(
            f"There are no images in '{folder}'. Got {len(list(folder.iterdir()))} other "
            f"entries; files that end in {sorted(IMAGE_SUFFIXES)} are images. Put images "
            "there, or remove the folder."
        )
    return images


def _masks_of(images, folder):
    """Return the mask in `folder` of each image of one defect."""
    if folder.name == "good" or not folder.is_dir():
        return [None] * len(images)
    images = _by_stem(images)
    masks = _by_stem(_images_in(folder), "_mask")
    for stem, image in images.items():
        if stem not in masks:
            raise ValueError(
                f"The image '{image}' has no mask. Got no '{stem}_mask.png' or "
                f"'{stem}.png' in '{folder}'. Add it, or remove that folder if its defect "
                "is to have no masks."
            )
    for stem, mask in masks.items():
        if stem not in images:
            raise ValueError(
                f"The mask '{mask}' has no image. Got no '{stem}.*' in test/{folder.name}. "
                "Add the image, or remove the mask."
            )
    return [masks[stem] for stem in images]


def _by_stem(paths, ending=""):
    """Return paths by their name without `ending` and suffix, in the same order."""
    by_stem = {}
    for path in paths:
        stem = path.stem.removesuffix(ending)
        if stem in by_stem:
            raise ValueError(
                "Masks are told by the names of their images, so that these must differ "
                f"in more than the suffix. Got '{by_stem[stem]}' and '{path}'. Rename or "
                "remove one."
            )
        by_stem[stem] = path
    return by_stem
