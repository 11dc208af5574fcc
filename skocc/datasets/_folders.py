"""Loader of images in a folder or in one folder per class."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from sklearn.utils import Bunch

from skocc._base.private_sklearn import validate_params
from skocc._samples.files import IMAGE_SUFFIXES, list_images
from skocc.datasets._masks import find_masks, mask_folder


@validate_params(
    {
        "folder": [str, os.PathLike],
        "normal": [str, list, tuple, None],
        "anomalous": [str, list, tuple, None],
        "masks": [str, os.PathLike, Mapping, callable, None],
    },
    prefer_skip_nested_validation=True,
)
def load_image_folder(
    folder: str | os.PathLike,
    *,
    normal: str | list[str] | tuple[str, ...] | None = None,
    anomalous: str | list[str] | tuple[str, ...] | None = None,
    masks: str | os.PathLike | Mapping | Callable | None = None,
) -> Bunch:
    """List the images of a folder, with the names of its subfolders or with labels.

    Read more in the :ref:`User Guide <image_folders>`.

    Parameters
    ----------
    folder : str or Path
        Folder that contains either images or one folder of images per class. Deeper
        folders are skipped.
    normal : str or list of str, default=None
        Where the normal images are: names of folders in `folder`, such as "good" or
        "train/good", or patterns, such as "*_ok.png" or "lot_*/good". None means that
        nothing is known to be normal, and the names of the folders are the labels.
    anomalous : str or list of str, default=None
        Where the anomalies are, named in the same way. None means all other folders of
        images in `folder`.
    masks : str, Path, dict or callable, default=None
        Masks of the anomalies, in image files. A folder, in `folder` or by a path of its
        own: the mask of ``crack/7.jpg`` is ``crack/7.png`` or ``crack/7_mask.png`` in it,
        or without ``crack``. A dict from the path of an image, also one within `folder`, to
        that of its mask. A function that is given the path of an anomaly, and returns the
        path of its mask or None.

    Returns
    -------
    images : Bunch
        Without `normal`:

        paths : list of Path of length n
            Images in natural order, 9 before 10, and class by class in order of the names.
        labels : ndarray of shape (n,), str, or None
            Name of the folder that contains each image; None without subfolders.

        With `normal`, under the names of :func:`load_mvtec_layout` without ``test_``:

        paths : list of Path of length n
            Normal images first, then the anomalies, in the order in which they are named.
        labels : ndarray of shape (n,), int
            +1 for normal images, -1 for anomalies.
        defects : ndarray of shape (n,), str
            "good" for normal images; for an anomaly the name of its folder, or the pattern
            by which the file was found.
        masks : list of Path or None, of length n
            None for normal images and where there is no mask.
        defect_names : list of str
            The defects, without "good".

    Raises
    ------
    FileNotFoundError
        The folder does not exist.
    ValueError
        There are no images, or both images and folders of images; no image is where
        `normal` or `anomalous` says, or one is both; some images of a defect have masks and
        others none, or masks do not exist; or `anomalous` or `masks` is set without
        `normal`.

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

    If nuts are normal, and all else is an anomaly:

    >>> images = load_image_folder(folder.name, normal="nut")
    >>> images.labels, images.defects
    (array([ 1,  1, -1]), array(['good', 'good', 'bolt'], dtype='<U4'))
    >>> folder.cleanup()
    """
    folder = Path(folder)
    _check_folder(folder)
    if normal is not None:
        return _labeled(folder, normal, anomalous, masks)
    if anomalous is not None or masks is not None:
        raise ValueError(
            "anomalous and masks say what there is beside the normal images. Got "
            f"normal=None, anomalous={anomalous!r} and masks={masks!r:.100}. Pass normal, "
            "the folder of normal images, for example normal='good'."
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


def _check_folder(folder):
    if not folder.is_dir():
        there = subfolders(folder.parent)
        raise FileNotFoundError(
            f"There is no folder of images. Got folder={str(folder)!r}, which is "
            f"{'a file' if folder.exists() else 'not there'}, beside the folders "
            f"{there[:20]}. Pass the folder that holds the images, or one folder for each "
            "class."
        )


def _labeled(folder, normal, anomalous, masks):
    """Return normal and anomalous images with their labels, defects and masks."""
    if not normal:
        raise ValueError(
            f"normal must say where the normal images are. Got normal={normal!r}. Pass "
            f"one of the folders {subfolders(folder)[:20]} in '{folder}', or a pattern."
        )
    found = {path: "good" for path, _ in _matches(folder, "normal", normal)}
    if anomalous is None:
        anomalous = _other_folders(folder, found, masks)
    n_normal = len(found)
    for path, defect in _matches(folder, "anomalous", anomalous):
        if found.get(path) == "good" or defect == "good":
            raise ValueError(
                f"The image '{path}' is both normal and anomalous. Got normal={normal!r} "
                f"and the anomalies {anomalous!r}, where 'good' means normal. Name each "
                "folder once, or rename it."
            )
        found.setdefault(path, defect)
    paths, defects = list(found), list(found.values())
    return Bunch(
        paths=paths,
        labels=np.repeat([1, -1], [n_normal, len(found) - n_normal]),
        defects=np.array(defects),
        masks=find_masks(paths, defects, folder, masks),
        defect_names=list(dict.fromkeys(defects[n_normal:])),
    )


def _other_folders(folder, normal_paths, masks):
    """Return the folders of images in a folder, but for those of normal ones and masks."""
    left_out = {path.parent.resolve() for path in normal_paths}
    if isinstance(masks, str | os.PathLike):
        left_out.add(mask_folder(folder, masks).resolve())
    return [
        name
        for name in subfolders(folder)
        if (folder / name).resolve() not in left_out and list_images(folder / name)
    ]


def _matches(folder, argument, patterns):
    """Yield (path, folder or pattern) of the images that names or patterns mean."""
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        try:
            # A name may hold what would be a wild card in a pattern.
            is_name = (folder / pattern).exists()
            places = [folder / pattern] if is_name else sorted(folder.glob(pattern))
        except (NotImplementedError, TypeError, ValueError) as error:
            raise ValueError(
                f"{argument} must hold names of folders, or patterns such as '*_ok.png', "
                f"within '{folder}'. Got {pattern!r}: {error}. Pass for example "
                f"{argument}={subfolders(folder)[:1] or 'good'!r}."
            ) from error
        images = [
            (path, place.relative_to(folder).as_posix() if place.is_dir() else pattern)
            for place in places
            for path in _images_at(place)
        ]
        if not images:
            raise ValueError(
                f"No image is meant by {argument}={pattern!r}. Got the folders "
                f"{subfolders(folder)[:20]} and {len(list_images(folder))} images in "
                f"'{folder}'. Pass the name of a folder of images, or a pattern."
            )
        yield from images


def _images_at(place):
    if place.is_dir():
        return list_images(place, natural=True)
    is_image = place.suffix.lower() in IMAGE_SUFFIXES and not place.name.startswith(".")
    return [place] if is_image else []


def subfolders(folder: Path) -> list[str]:
    """Return the sorted names of the folders in a folder, which need not exist."""
    if not folder.is_dir():
        return []
    paths = (path for path in folder.iterdir() if path.is_dir())
    return sorted(path.name for path in paths if not path.name.startswith("."))
