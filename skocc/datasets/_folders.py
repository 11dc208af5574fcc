"""Loader of images in a folder or in one folder per class."""

import os
from pathlib import Path

import numpy as np
from sklearn.utils import Bunch

from skocc._base.private_sklearn import validate_params
from skocc._samples.files import IMAGE_SUFFIXES, list_images


@validate_params(
    {
        "folder": [str, os.PathLike],
    },
    prefer_skip_nested_validation=True,
)
def load_image_folder(folder: str | os.PathLike) -> Bunch:
    """List the images of a folder, or of its subfolders, whose names are the labels.

    Parameters
    ----------
    folder : str or Path
        Folder that contains either images or one folder of images per class. Deeper
        folders are skipped.

    Returns
    -------
    images : Bunch
        paths : list of Path of length n
            Images in natural order, 9 before 10, and class by class in order of the names.
        labels : ndarray of shape (n,), str, or None
            Name of the folder that contains each image; None without subfolders.

    Raises
    ------
    FileNotFoundError
        The folder does not exist.
    ValueError
        There are no images, or both images and folders of images.

    See Also
    --------
    one_vs_rest : Make a one-class problem from these labels.
    load_mvtec_layout : List folders with training images, test images and masks.

    Notes
    -----
    Images end in png, jpg, jpeg, bmp, tif, tiff or webp, in upper or lower case. Other
    files, and names that start with a dot, are skipped. No file is opened.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from PIL import Image
    >>> from skocc.datasets import load_image_folder
    >>> folder = tempfile.TemporaryDirectory()
    >>> for name in ["nut/10.png", "nut/9.png", "bolt/1.png"]:
    ...     path = pathlib.Path(folder.name) / name
    ...     path.parent.mkdir(exist_ok=True)
    ...     Image.new("L", (8, 8)).save(path)
    >>> images = load_image_folder(folder.name)
    >>> [path.name for path in images.paths]
    ['1.png', '9.png', '10.png']
    >>> images.labels
    array(['bolt', 'nut', 'nut'], dtype='<U4')
    >>> folder.cleanup()
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"There is no folder of images. Got folder={str(folder)!r}, which is "
            f"{'a file' if folder.exists() else 'not there'}. Pass the folder that holds "
            "the images, or one folder for each class."
        )
    loose = list_images(folder, natural=True)
    classes = {
        name: list_images(folder / name, natural=True) for name in subfolders(folder)
    }
    classes = {name: paths for name, paths in classes.items() if paths}
    if loose and classes:
        raise ValueError(
            f"The class of the images directly in '{folder}' is unknown. Got "
            f"'{loose[0].name}', {len(loose)} in all, beside the folders {list(classes)}. "
            "Move the images into folders, or move the folders elsewhere."
        )
    if not loose and not classes:
        raise ValueError(
            f"There are no images in '{folder}'. Got {len(list(folder.iterdir()))} other "
            f"entries, none of which ends in one of {sorted(IMAGE_SUFFIXES)}. Put images "
            "there, or into one folder for each class."
        )
    if loose:
        return Bunch(paths=loose, labels=None)
    return Bunch(
        paths=[path for paths in classes.values() for path in paths],
        labels=np.repeat(list(classes), [len(paths) for paths in classes.values()]),
    )


def subfolders(folder: Path) -> list[str]:
    """Return the sorted names of the folders in a folder, which need not exist."""
    if not folder.is_dir():
        return []
    paths = (path for path in folder.iterdir() if path.is_dir())
    return sorted(path.name for path in paths if not path.name.startswith("."))
