"""What the detectors of a comparison have in common: samples, labels, masks, splits."""

from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
from sklearn.utils import check_consistent_length, check_random_state

from skocc._base.private_sklearn import num_samples
from skocc._samples.labels import anomaly_kinds
from skocc.datasets import make_defects
from skocc.model_selection._indexing import take
from skocc.model_selection._split import (
    OneClassSplit,
    add_synthetic_anomalies,
    as_images,
    encode_groups,
)

_DEFECTS = ("twist", "cut", "scratch", "stain")
# Samples drawn uniformly around rows, and the most columns in which some are near them.
_N_UNIFORM, _MAX_COLUMNS = 10_000, 8


@dataclass
class Problem:
    """Samples, and how they are divided into parts to train on and to score.

    Attributes
    ----------
    X : array, list, table or Dataset, of length n
    labels : ndarray of shape (n,)
        As they were given; +1 and -1 for synthetic anomalies.
    is_anomaly : ndarray of shape (n,), bool
    masks : list of length n, or None
    has_mask : ndarray of shape (n,), bool
    units : ndarray of shape (n,), int
        Samples of one number are not independent: those of a group, and a synthetic
        anomaly and its image.
    folds : list of tuple (train, test) of ndarray of int
    criterion : {"anomalies", "synthetic anomalies", "uniform samples"}
        What the normal samples are compared with.
    uniform : ndarray of shape (n_uniform, n_columns) or None
    n_examples : int
    """

    X: Any
    labels: np.ndarray
    is_anomaly: np.ndarray
    masks: list | None
    units: np.ndarray
    folds: list
    criterion: str = "anomalies"
    uniform: np.ndarray | None = None
    n_examples: int = 0

    @property
    def has_mask(self):
        """Which samples have a mask."""
        return np.array([mask is not None for mask in self.masks])


def make_problem(X, y, masks, groups, cv, make_anomalies, n_examples, random_state):
    """Check the arguments of `compare`, and return the problem.

    Raises
    ------
    ValueError
        They do not suit each other, or a split trains on an anomaly or tests on samples of
        one kind only.
    """
    n_samples = num_samples(X)
    kinds = np.zeros(n_samples, int) if y is None else anomaly_kinds(y)
    check_consistent_length(kinds, np.empty(n_samples), masks, groups)
    cv = OneClassSplit(random_state=random_state) if cv is None else cv
    units = np.arange(n_samples) if groups is None else encode_groups(groups)
    labels = np.ones(n_samples, int) if y is None else np.asarray(y).ravel()
    masks = None if masks is None else list(masks)
    folds = _read_folds(cv, X, None if y is None else labels, groups, kinds > 0)
    problem = Problem(X, labels, kinds > 0, masks, units, folds, n_examples=n_examples)
    if kinds.any():
        if masks is not None and not (problem.has_mask & problem.is_anomaly).any():
            raise ValueError(
                "masks must have those of some anomalies at least. Got None for each of "
                f"{np.sum(kinds > 0)}. Pass a mask for each anomaly, or masks=None."
            )
        if make_anomalies is not None:
            raise ValueError(
                "make_anomalies is for normal samples alone, and y has anomalies. Got "
                f"{np.sum(kinds > 0)} of them. Pass make_anomalies=None, or normal samples."
            )
        return problem
    if masks is not None:
        raise ValueError(
            f"masks are those of anomalies. Got {len(masks)} masks, and no anomaly in y. "
            "Pass y with -1, or the name of the defect, for images that are anomalous."
        )
    shape = getattr(X, "shape", ())
    if len(shape) == 2 and make_anomalies is None:
        return _with_uniform_samples(problem, random_state)
    return _with_synthetic_anomalies(problem, make_anomalies, random_state)


def _read_folds(cv, X, y, groups, is_anomaly):
    """Return the splits as a list of pairs of arrays, and check each."""
    try:
        splits = cv.split(X, y, groups) if hasattr(cv, "split") else cv
        folds = [tuple(np.asarray(part) for part in fold) for fold in splits]
        parts = list(chain.from_iterable(folds))
        is_readable = {len(fold) for fold in folds} == {2}
        is_readable &= all(part.ndim == 1 and len(part) for part in parts)
        # Indices from the end, and masks, become plain indices.
        folds = [tuple(np.arange(len(is_anomaly))[part] for part in fold) for fold in folds]
    except (TypeError, IndexError):
        is_readable = False
    if not is_readable:
        raise ValueError(
            "cv must be a splitter, or a list of pairs of indices (train, test). Got "
            f"{cv!r:.200}. Pass for example cv=OneClassSplit(random_state=0)."
        )
    for train, test in folds:
        if is_anomaly[train].any():
            raise ValueError(
                "No detector must be trained on an anomaly. Got a split that trains on "
                f"{np.sum(is_anomaly[train])} of {np.sum(is_anomaly)}. Pass as cv a "
                "OneClassSplit or OneClassKFold."
            )
        n_test = int(np.sum(is_anomaly[test]))
        if n_test == len(test) or (n_test == 0 and is_anomaly.any()):
            raise ValueError(
                "Each split must train on normal samples and test on others, and on "
                f"anomalies where there are some. Got one with {len(train)} to train on, "
                f"and {len(test) - n_test} normal and {n_test} anomalous ones to test on. "
                "Have fewer splits, or pass as cv a OneClassSplit."
            )
    return folds


def _with_uniform_samples(problem, random_state):
    """Return the problem of rows without anomalies, with samples all around them."""
    table = np.asarray(problem.X, dtype=np.float64)
    if table.shape[1] > _MAX_COLUMNS:
        raise ValueError(
            "Without anomalies, detectors are compared on images, in which some can be "
            f"made, or on rows of at most {_MAX_COLUMNS} columns. Got rows of "
            f"{table.shape[1]} columns. Pass images (n, H, W[, C]) or paths, labels with "
            "anomalies as y, or fewer columns, such as those of a PCA."
        )
    size = (_N_UNIFORM, table.shape[1])
    rng = check_random_state(random_state)
    uniform = rng.uniform(table.min(axis=0), table.max(axis=0), size)
    return replace(problem, criterion="uniform samples", uniform=uniform)


def _with_synthetic_anomalies(problem, make_anomalies, random_state):
    """Return the problem with an anomaly made from each image that is held out."""
    make, masks = make_anomalies or make_some_defect, []

    def note_mask(images, random_state):
        made = make(images, random_state=random_state)
        # What is no pair of images and masks is refused where it is used.
        mask = made[1] if isinstance(made, tuple | list) and len(made) == 2 else None
        masks.append(None if mask is None else np.asarray(mask)[0])
        return made

    X = as_images(problem.X)
    held_out = np.unique(np.concatenate([test for _, test in problem.folds]))
    both, _, _ = add_synthetic_anomalies(
        take(X, held_out), note_mask, random_state=random_state
    )
    n_images, n_made = len(X), len(held_out)
    place = np.full(n_images, -1)
    place[held_out] = n_images + np.arange(n_made)
    has_masks = all(mask is not None for mask in masks)
    return replace(
        problem,
        X=np.concatenate([X, both[n_made:]]),
        labels=np.repeat([1, -1], [n_images, n_made]),
        is_anomaly=np.repeat([False, True], [n_images, n_made]),
        masks=[None] * n_images + masks if has_masks else None,
        units=np.concatenate([problem.units, problem.units[held_out]]),
        # An anomaly is scored by a detector that has not seen its image.
        folds=[
            (train, np.concatenate([test, place[test]])) for train, test in problem.folds
        ],
        criterion="synthetic anomalies",
    )


def make_some_defect(images, random_state):
    """Return images with a defect of one of the four kinds, drawn at random, and masks."""
    rng = check_random_state(random_state)
    for kind in rng.permutation(_DEFECTS):
        made = make_defects(images, kind=kind, random_state=random_state)
        if not np.array_equal(made[0], images):
            break
    return made
