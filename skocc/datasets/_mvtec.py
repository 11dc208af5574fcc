"""Loaders of MVTec AD and of other folders with its layout."""

import os
from pathlib import Path

import numpy as np
from sklearn.utils import Bunch

from skocc._base.private_sklearn import validate_params
from skocc._samples.files import IMAGE_SUFFIXES, list_images
from skocc.datasets._folders import subfolders
from skocc.datasets._masks import by_stem

_PAGE = "https://www.mvtec.com/company/research/datasets/mvtec-ad"
# Number of images of each class of MVTec AD: train, good test, defective test. Every
# defective image has a mask.
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
    """List the images of a folder with the layout of MVTec AD.

    Each category has this layout::

        <category>/train/good/<image>
        <category>/test/good/<image>
        <category>/test/<defect>/<image>
        <category>/ground_truth/<defect>/<image>_mask.png

    Read more in the :ref:`User Guide <mvtec_layout>`.

    Parameters
    ----------
    root : str or Path
        Folder that contains the categories. Without `category`, the folder of a category.
    category : str, default=None
        Name of a folder in `root`. None means that `root` is the folder of a category.

    Returns
    -------
    images : Bunch
        Normal images come first, then the defects, sorted by name. Within each of them, the
        files are sorted by name.

        train_paths : list of Path
            Normal images, to fit on.
        test_paths : list of Path of length n_test
            Images to score.
        test_labels : ndarray of shape (n_test,), int
            +1 for normal, -1 for defective images.
        test_defects : ndarray of shape (n_test,), str
            Name of the defect, "good" for normal images.
        test_masks : list of Path or None, of length n_test
            Mask of the defect; None for normal images, and for defects without a folder in
            ``ground_truth``.
        defect_names : list of str
            The defects, without "good".

    Raises
    ------
    FileNotFoundError
        The folder does not exist.
    ValueError
        The folder has another layout: ``train/good``, ``test`` or images are missing,
        ``train`` contains other folders than ``good``, or masks and defective images do not
        match one to one.

    See Also
    --------
    fetch_mvtec : List the images of MVTec AD itself, and check their numbers.

    Notes
    -----
    Images end in png, jpg, jpeg, bmp, tif, tiff or webp, in upper or lower case. Other
    files, and names that start with a dot, are skipped. A mask has the name of its image,
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
    """List the images of one class of MVTec AD, and check that the class is complete.

    This function downloads nothing. The authors of MVTec AD distribute it under CC BY-NC-SA
    4.0 at https://www.mvtec.com/company/research/datasets/mvtec-ad. Download it there,
    accept the license, and unpack it in `root`. Read more in the :ref:`User Guide
    <mvtec_layout>`.

    Parameters
    ----------
    root : str or Path
        Folder that contains the classes. Without `category`, the folder of a class.
    category : str, default=None
        One of the 15 classes, such as "bottle". None means that `root` is the folder of a
        class, and has its name.

    Returns
    -------
    images : Bunch
        As in :func:`load_mvtec_layout`.

    Raises
    ------
    FileNotFoundError
        The folder does not exist. The message says where to download the data.
    ValueError
        The class does not exist, or has missing or additional images or masks.

    See Also
    --------
    load_mvtec_layout : List the images of any folder with this layout.

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
            f"{name!r} is not a class of MVTec AD. Got root={str(root)!r} and "
            f"category={category!r}. Pass one of {list(_COUNTS)} as category, or use "
            "load_mvtec_layout for other images in this layout."
        )
    if not folder.is_dir():
        raise FileNotFoundError(
            "MVTec AD is not downloaded for you, because you must accept its license, CC "
            f"BY-NC-SA 4.0. There is no folder '{folder}'. Download the data from "
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
            f"The class {name!r} of MVTec AD has missing or additional files. Got "
            f"{_describe(found)} in '{folder}', expected {_describe(expected)}. Unpack it "
            "again, or use load_mvtec_layout if this is what you want."
        )
    return images


def _describe(counts):
    n_train, n_good, n_defects, n_masks = counts
    return f"{n_train} train, {n_good} good test, {n_defects} defective, {n_masks} masks"


def _check_layout(folder, root, category):
    """Raise an error unless the folders of a category have the layout of MVTec AD."""
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
            "All images in train are normal, so it may contain only the folder good. Got "
            f"{others} in '{folder / 'train'}'. Move them to test."
        )
    # Some tools write the masks of good images, which are empty.
    expected = {"good", *subfolders(folder / "test")}
    others = [n for n in subfolders(folder / "ground_truth") if n not in expected]
    if others:
        raise ValueError(
            f"There are masks of defects without images. Got {others} in "
            f"'{folder / 'ground_truth'}', but not in test. Add the images, or remove the "
            "masks."
        )


def _images_in(folder):
    """Return the image files in a folder, or raise a ValueError if there are none."""
    images = list_images(folder)
    if not images:
        raise ValueError(
            f"There are no images in '{folder}'. Got {len(list(folder.iterdir()))} other "
            f"entries, none of which ends in one of {sorted(IMAGE_SUFFIXES)}. Put images "
            "there, or remove the folder."
        )
    return images


def _masks_of(images, folder):
    """Return the mask in `folder` of each image of one defect."""
    if folder.name == "good" or not folder.is_dir():
        return [None] * len(images)
    images = by_stem(images)
    masks = by_stem(_images_in(folder), "_mask")
    for stem, image in images.items():
        if stem not in masks:
            raise ValueError(
                f"The image '{image}' has no mask. Got no '{stem}_mask.png' or "
                f"'{stem}.png' in '{folder}'. Add it, or remove that folder if the defect "
                "should have no masks."
            )
    for stem, mask in masks.items():
        if stem not in images:
            raise ValueError(
                f"The mask '{mask}' has no image. Got no '{stem}.*' in test/{folder.name}. "
                "Add the image, or remove the mask."
            )
    return [masks[stem] for stem in images]
