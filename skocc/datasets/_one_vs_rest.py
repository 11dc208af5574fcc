"""One-class problems from labeled data sets: one class is normal, all others are not."""

import os
from collections.abc import Hashable
from contextlib import suppress
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.model_selection import train_test_split
from sklearn.utils import Bunch

from skocc._base.private_sklearn import (
    Interval,
    num_samples,
    safe_indexing,
    validate_params,
)
from skocc._samples.arrays import as_array

_TORCHVISION = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "cifar10": "CIFAR10"}


@validate_params(
    {
        "labels": ["array-like", None],
        "test_labels": ["array-like", None],
        "test_size": [Interval(Real, 0, 1, closed="neither")],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def one_vs_rest(
    images,
    labels: ArrayLike | None,
    normal,
    *,
    test_images=None,
    test_labels: ArrayLike | None = None,
    test_size: float = 0.3,
    random_state: int | np.random.RandomState | None = None,
) -> Bunch:
    """Make a one-class problem from a labeled data set: all classes but one are anomalies.

    Read more in the :ref:`User Guide <one_vs_rest>`.

    Parameters
    ----------
    images : array, sequence of paths or PIL images, or data set
        The images. With ``labels=None``, a data set like those of torchvision, which has
        ``data`` and ``targets``, or returns pairs of image and label by index.
    labels : array-like of shape (n,), or None
        Class of each image. None means that `images` is a data set that contains the
        labels.
    normal : label, or list of labels
        The normal class, or classes.
    test_images : like `images`, default=None
        Test images, all of which are used. None means that `images` is split.
    test_labels : like `labels`, default=None
        Class of each of `test_images`. None means that `test_images` is a data set.
    test_size : float, default=0.3
        Fraction of the normal images, in (0, 1), that is held out for the test if there are
        no `test_images`. All images of the other classes are test images.
    random_state : int, RandomState or None, default=None
        Seed of the split; not used with `test_images`.

    Returns
    -------
    problem : Bunch
        The images, as arrays where arrays came in, and their labels:

        train_images : array or list
            Normal images, to fit on.
        test_images : array or list, of length n_test
            Images to score.
        test_labels : ndarray of shape (n_test,), int
            +1 for the normal class, -1 for all others.
        test_classes : ndarray of shape (n_test,)
            The original labels of the test images.

    Raises
    ------
    ValueError
        `normal` is not among the labels of the training images or has too few images to
        split, the numbers of images and labels differ, or one of `test_images` and
        `test_labels` is missing.

    See Also
    --------
    fetch_one_vs_rest : Do the same for MNIST, Fashion-MNIST and CIFAR-10.
    load_image_folder : List images and labels from one folder per class.

    Notes
    -----
    With `test_images`, this is the protocol of Ruff et al. [1]_. If a data set has ``data``
    and ``targets``, the stored images are used without its transforms. Any other data set
    is read completely into memory.

    References
    ----------
    .. [1] L. Ruff et al.: Deep one-class classification. ICML 2018.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skocc.datasets import one_vs_rest
    >>> digits = load_digits()
    >>> problem = one_vs_rest(digits.images / 16, digits.target, 3, random_state=0)
    >>> problem.train_images.shape
    (128, 8, 8)
    >>> problem.test_labels.tolist().count(1), problem.test_labels.tolist().count(-1)
    (55, 1614)
    """
    images, labels = _check_images_and_labels("images", images, "labels", labels)
    wanted = _check_normal(normal, labels)
    is_normal = _are_in(labels, wanted)
    if test_images is not None:
        test_images, test_labels = _check_images_and_labels(
            "test_images", test_images, "test_labels", test_labels
        )
        train = np.flatnonzero(is_normal)
    elif test_labels is not None:
        raise ValueError(
            "test_labels belong to test_images. Got test_images=None. Pass both, or "
            "neither to have images split."
        )
    else:
        train, test = _hold_out(is_normal, normal, test_size, random_state)
        test_images, test_labels = safe_indexing(images, test), labels[test]
    return Bunch(
        train_images=safe_indexing(images, train),
        test_images=test_images,
        test_labels=np.where(_are_in(test_labels, wanted), 1, -1),
        test_classes=test_labels,
    )


@validate_params(
    {
        "name": [str],
        "root": [str, os.PathLike],
        "download_if_missing": ["boolean"],
    },
    prefer_skip_nested_validation=True,
)
def fetch_one_vs_rest(
    name: str,
    normal: int | list[int],
    root: str | os.PathLike,
    *,
    download_if_missing: bool = True,
) -> Bunch:
    """Make a one-class problem from MNIST, Fashion-MNIST or CIFAR-10.

    The training set consists of all training images of one class, and the test set of all
    test images of all classes. torchvision reads the files, and downloads missing ones.
    Read more in the :ref:`User Guide <one_vs_rest>`.

    Parameters
    ----------
    name : {"mnist", "fashion_mnist", "cifar10"}
        The data set.
    normal : int, or list of int
        The normal class, or classes, 0 to 9.
    root : str or Path
        Folder in which torchvision keeps the data set.
    download_if_missing : bool, default=True
        Whether files may be downloaded.

    Returns
    -------
    problem : Bunch
        As in :func:`one_vs_rest`. The images are arrays (n, H, W) or (n, H, W, C) of uint8.

    Raises
    ------
    ImportError
        torchvision cannot be imported.
    ValueError
        The data set or the class does not exist.
    RuntimeError
        torchvision cannot find or download the files.

    See Also
    --------
    one_vs_rest : Do the same for any labeled images.

    Examples
    --------
    >>> from skocc.datasets import fetch_one_vs_rest
    >>> digits = fetch_one_vs_rest("mnist", 3, "data")  # doctest: +SKIP
    >>> digits.train_images.shape  # doctest: +SKIP
    (6131, 28, 28)
    """
    if name not in _TORCHVISION:
        raise ValueError(
            f"There is no such data set here. Got name={name!r}. Pass one of "
            f"{list(_TORCHVISION)}, or use one_vs_rest for other data sets of torchvision."
        )
    # Imported here, since torchvision brings torch, and may be missing or broken.
    try:
        from torchvision import datasets
    except (ImportError, RuntimeError) as error:
        raise ImportError(
            f"torchvision, which reads {name!r}, cannot be imported: {error}. Install the "
            "torchvision that belongs to your torch, or pass arrays to one_vs_rest."
        ) from error
    load = getattr(datasets, _TORCHVISION[name])
    train, test = (
        load(root, train=part, download=download_if_missing) for part in (True, False)
    )
    return one_vs_rest(train, None, normal, test_images=test)


def _check_normal(normal, labels):
    """Return the normal labels as an array, once all of them are among `labels`."""
    wanted = as_array("normal", normal).ravel()
    if not (len(wanted) and all(_are_in(labels, [label]).any() for label in wanted)):
        held = list(dict.fromkeys(labels.tolist()))
        raise ValueError(
            f"normal must be a label, or a list of labels, of images to train on. Got "
            f"normal={normal!r} and labels {held[:20]}. Pass one of these, of the "
            "same type."
        )
    return wanted


def _hold_out(is_normal, normal, test_size, random_state):
    """Return what to train on, and what to test on: normal ones held out and all others."""
    if is_normal.sum() < 2:
        raise ValueError(
            "At least two normal images are needed to hold one out. Got one of "
            f"normal={normal!r}. Pass more, or test_images."
        )
    train, held_out = train_test_split(
        np.flatnonzero(is_normal), test_size=test_size, random_state=random_state
    )
    test = np.concatenate([held_out, np.flatnonzero(~is_normal)])
    return np.sort(train), np.sort(test)


def _are_in(labels, normal):
    # Not np.isin: to that, 0 is the same as "0".
    with suppress(OverflowError):  # an integer beyond all that labels can be
        return np.any([labels == label for label in normal], axis=0)
    return np.zeros(len(labels), dtype=bool)


def _check_images_and_labels(
    images_name, images, labels_name, labels
) -> tuple[Any, np.ndarray]:
    """Return images and an array of labels, from the arguments or from a data set."""
    if labels is None:
        if hasattr(images, "data") and hasattr(images, "targets"):
            images, labels = np.asarray(images.data), images.targets
        else:
            images, labels = _read_pairs(images_name, images, labels_name)
    labels = as_array(labels_name, labels)
    if labels.dtype.kind == "O" and not all(isinstance(x, Hashable) for x in labels.flat):
        raise ValueError(
            f"{labels_name} must hold numbers or names, one for each image. Got "
            f"{[type(label).__name__ for label in labels.flat][:5]}. Pass for example "
            f"list(map(str, {labels_name}))."
        )
    if not hasattr(images, "__len__"):
        raise ValueError(
            f"{images_name} must be an array, a list or a data set. Got "
            f"{type(images).__name__}. Pass images that can be counted."
        )
    n_images = num_samples(images)
    if labels.ndim != 1 or len(labels) != n_images:
        raise ValueError(
            f"There must be one label for each image. Got {n_images} {images_name} and "
            f"{labels_name} of shape {labels.shape}. Pass them in the same order, one each."
        )
    return images, labels


def _read_pairs(images_name, images, labels_name):
    """Return the images and labels of a data set that returns pairs by index."""
    try:
        pairs = [images[index] for index in range(len(images))]
        images, labels = zip(*pairs, strict=True)
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise ValueError(
            f"Without {labels_name}, {images_name} must be a data set of pairs of image "
            f"and label. Got {type(images).__name__}, whose items are not such pairs. Pass "
            f"{labels_name}."
        ) from error
    if all(hasattr(image, "shape") for image in images):
        return np.stack([np.asarray(image) for image in images]), labels
    return list(images), labels
