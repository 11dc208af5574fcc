"""Splitters that never train on an anomaly, and synthetic anomalies to validate on."""

import warnings
from collections.abc import Callable, Iterator
from numbers import Integral, Real

import numpy as np
from numpy.typing import ArrayLike
from sklearn.model_selection import (
    GroupKFold,
    GroupShuffleSplit,
    ShuffleSplit,
    StratifiedGroupKFold,
    StratifiedKFold,
)
from sklearn.utils import (
    Bunch,
    check_consistent_length,
    check_random_state,
    column_or_1d,
)

from skocc._base.private_sklearn import num_samples, validate_params
from skocc._base.renamed import renamed_parameters
from skocc._samples.arrays import as_array
from skocc._samples.labels import anomaly_kinds
from skocc._samples.sources import ImageItem, is_data_set, read_image, to_pil


class OneClassKFold(StratifiedGroupKFold):
    """Folds that train on normal samples only and validate on normal ones and anomalies.

    Normal samples and anomalies are each divided into `n_splits` parts. A fold is validated
    on one part of both, and trained on the normal samples of the other parts. Every sample,
    normal or not, is thus validated once, and anomalies are never trained on. Read more in
    the :ref:`User Guide <model_selection>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    n_splits : int, default=5
        Number of folds, at least 2.
    shuffle : bool, default=True
        Whether samples are shuffled before they are divided. Without, the parts are runs of
        neighboring samples of each kind, unless there are groups.
    random_state : int, RandomState or None, default=None
        Of the shuffling. An int gives the same folds at each call of `split`;
        ``HalvingGridSearchCV`` asks for one.

    See Also
    --------
    OneClassSplit : One split, or a few at random, with all anomalies in each.
    SyntheticSplit : Without labeled anomalies.
    NormalOnly : What a search needs to fit its winner on normal samples, and to be nested.

    Notes
    -----
    The labels `y` are +1 for normal samples and negative for anomalies. Where anomalies
    have labels that differ, -1, -2 and so on, each is a kind, such as one type of defect.
    Names may be given instead, of which "good" is the normal one. The folds have as many of
    each kind as can be: within one of each other, unless there are `groups`.

    scikit-learn's scorers, "roc_auc" among them, know two labels only. To have folds that
    are stratified by kind, make them beforehand, and pass labels of +1 and -1 to the
    search: ``cv=list(OneClassKFold(random_state=0).split(X, kinds))``.

    Without `y` all samples are normal, and folds are validated on normal samples only,
    which is what a criterion without labels needs.

    Samples with one value in `groups`, such as the photographs of one object, are in one
    part, also where some of them are normal and some are not.

    Examples
    --------
    >>> import numpy as np
    >>> from skocc.model_selection import OneClassKFold
    >>> y = np.array([1, 1, 1, 1, 1, 1, -1, -1, -2, -2])
    >>> for train, validation in OneClassKFold(2, shuffle=False).split(y, y):
    ...     print(train, validation)
    [3 4 5] [0 1 2 6 8]
    [0 1 2] [3 4 5 7 9]

    In a search, on the digits zero as normal images:

    >>> from sklearn.datasets import load_digits
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sklearn.svm import OneClassSVM
    >>> X, digits = load_digits(return_X_y=True)
    >>> y = np.where(digits == 0, 1, -1)
    >>> folds = OneClassKFold(3, random_state=0)
    >>> search = GridSearchCV(
    ...     OneClassSVM(), {"nu": [0.1, 0.5]}, cv=folds, scoring="roc_auc", refit=False
    ... )
    >>> bool(search.fit(X, y).best_score_ > 0.9)
    True
    >>> detector = OneClassSVM(**search.best_params_).fit(X[y == 1])
    """

    def __init__(
        self,
        n_splits: int = 5,
        *,
        shuffle: bool = True,
        random_state: int | np.random.RandomState | None = None,
    ):
        super().__init__(n_splits=n_splits, shuffle=shuffle, random_state=random_state)

    def split(
        self, X, y: ArrayLike | None = None, groups: ArrayLike | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the indices of each fold.

        Parameters
        ----------
        X : array, list of paths or other sequence of length n_samples
            Only its length is read.
        y : array-like of shape (n_samples,), default=None
            +1 or "good" for normal samples, negative numbers or other names for anomalies.
            None: all are normal.
        groups : array-like of shape (n_samples,), default=None
            Samples of one group are validated in one fold.

        Yields
        ------
        train : ndarray of shape (n_train,), int
            Normal samples, in ascending order.
        validation : ndarray of shape (n_validation,), int
            Normal samples and anomalies, in ascending order.

        Raises
        ------
        ValueError
            Labels have no such reading, or a fold would have no normal samples or, though
            there are anomalies, none of them.
        """
        kinds, groups = _encode_labels(X, y, groups)
        parts = _stratified_parts(
            kinds, groups, self.n_splits, self.shuffle, self.random_state
        )
        _check_parts(parts, kinds)
        for part in parts:
            held_out = np.zeros(len(kinds), dtype=bool)
            held_out[part] = True
            yield np.flatnonzero(~held_out & (kinds == 0)), part


class OneClassSplit(GroupShuffleSplit):
    """Random splits that train on normal samples and validate on others and all anomalies.

    A random fraction of the normal samples is held out. All samples that are not trained on
    are validated: those held out, and every anomaly. One split is enough for detectors that
    take long to train. Read more in the :ref:`User Guide <model_selection>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    n_splits : int, default=1
        Number of splits, each drawn anew.
    test_size : float or int, default=0.25
        Normal samples that are held out: a fraction in (0, 1), or their number. With
        groups, the fraction or number of the groups that hold no anomaly.
    random_state : int, RandomState or None, default=None
        Of the draw. An int gives the same splits at each call of `split`.

    See Also
    --------
    OneClassKFold : Every anomaly is validated once, so that folds are independent.

    Notes
    -----
    Labels and groups are read as by :class:`OneClassKFold`. As all anomalies are validated
    in every split, so are all their kinds. Several splits differ in the normal samples
    alone: the scatter of their scores says nothing of the choice of anomalies.

    A normal sample in a group with an anomaly is always validated, for anomalies are.

    Examples
    --------
    >>> import numpy as np
    >>> from skocc.model_selection import OneClassSplit
    >>> y = np.array([1, 1, 1, 1, 1, 1, -1, -1])
    >>> for train, validation in OneClassSplit(random_state=0).split(y, y):
    ...     print(train, validation)
    [0 1 3 4] [2 5 6 7]
    """

    def __init__(
        self,
        n_splits: int = 1,
        *,
        test_size: float = 0.25,
        random_state: int | np.random.RandomState | None = None,
    ):
        super().__init__(n_splits=n_splits, test_size=test_size, random_state=random_state)
        _check_count("n_splits", n_splits, 1)
        if isinstance(test_size, bool | np.bool_) or not (
            isinstance(test_size, Real) and test_size > 0
        ):
            raise ValueError(
                "test_size is a fraction of the normal samples in (0, 1), or their number. "
                f"Got {test_size!r}. Set for example test_size=0.25."
            )

    def split(
        self, X, y: ArrayLike | None = None, groups: ArrayLike | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the indices of each split.

        Parameters
        ----------
        X : array, list of paths or other sequence of length n_samples
            Only its length is read.
        y : array-like of shape (n_samples,), default=None
            +1 or "good" for normal samples, negative numbers or other names for anomalies.
            None: all are normal.
        groups : array-like of shape (n_samples,), default=None
            Samples of one group are not trained on and validated in the same split.

        Yields
        ------
        train : ndarray of shape (n_train,), int
            Normal samples, in ascending order.
        validation : ndarray of shape (n_validation,), int
            All other samples, in ascending order.

        Raises
        ------
        ValueError
            Labels have no such reading, there is no normal sample to train on, or
            `test_size` leaves none.
        """
        kinds, codes = _encode_labels(X, y, groups)
        trainable = kinds == 0
        if codes is not None:
            trainable &= ~np.isin(codes, codes[kinds != 0])
        trainable = np.flatnonzero(trainable)
        if len(trainable) < 2:
            raise ValueError(
                "At least two normal samples are needed, to train on and to hold out, that "
                f"are in no group with an anomaly. Got {len(trainable)}, and "
                f"{_describe(kinds)}. Pass more normal samples, or groups=None."
            )
        if codes is None:
            params = {"test_size": self.test_size, "random_state": self.random_state}
            splits = ShuffleSplit(self.n_splits, **params).split(trainable)
        else:
            splits = super().split(trainable, groups=codes[trainable])
        for train, _ in splits:
            train = np.sort(trainable[train])
            yield train, np.setdiff1d(np.arange(len(kinds)), train)


class SyntheticSplit(GroupKFold):
    """Folds over normal images and synthetic anomalies that were made from them.

    For data as :func:`add_synthetic_anomalies` returns them: no image has to be labeled.
    The normal images are divided into `n_splits` parts. A fold is trained on the normal
    images of the other parts and validated on those of its own and on the anomalies made
    from these. Read more in the :ref:`User Guide <model_selection>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    n_splits : int, default=5
        Number of folds, at least 2.
    fraction : float in (0, 1), default=0.5
        Fraction of anomalies among the samples that a fold is validated on. With 0.5, every
        held-out image is validated, as it is and as an anomaly. With other values, normal
        images or anomalies are left out at random, to come as close to the fraction as
        possible with at least one of each.
    random_state : int, RandomState or None, default=None
        Of the division. An int gives the same folds at each call of `split`.

    See Also
    --------
    add_synthetic_anomalies : Makes the anomalies.
    OneClassKFold : For anomalies that are real.
    two_protocol_split : The same with one fixed training part and 75 % of anomalies.

    Notes
    -----
    The `groups` say which image an anomaly was made from, and must be passed to the search.
    An anomaly equals its image except where it was changed. A detector that was trained on
    the image scores the unchanged parts as normal, and so ranks the anomaly better or worse
    than one in an unseen image. An anomaly is therefore only validated in the fold in which
    its image is held out.

    The expected area under the ROC curve does not depend on the fraction. Its standard
    deviation does, and is smallest with the most samples.

    Examples
    --------
    >>> import numpy as np
    >>> from skocc.model_selection import SyntheticSplit, add_synthetic_anomalies
    >>> def paint_squares(images, random_state):
    ...     masks = np.zeros(images.shape[:3], dtype=bool)
    ...     masks[:, 2:4, 2:4] = True
    ...     return np.where(masks, 0, images), masks
    >>> images = np.random.default_rng(0).random((4, 8, 8))
    >>> X, y, groups = add_synthetic_anomalies(images, paint_squares, random_state=0)
    >>> y, groups
    (array([ 1,  1,  1,  1, -1, -1, -1, -1]), array([0, 1, 2, 3, 0, 1, 2, 3]))
    >>> for train, validation in SyntheticSplit(2, random_state=0).split(X, y, groups):
    ...     print(train, validation)
    [0 1] [2 3 6 7]
    [2 3] [0 1 4 5]
    """

    @renamed_parameters
    def __init__(
        self,
        n_splits: int = 5,
        *,
        fraction: float = 0.5,
        random_state: int | np.random.RandomState | None = None,
    ):
        super().__init__(n_splits=n_splits, shuffle=True, random_state=random_state)
        if not (isinstance(fraction, Real) and 0 < fraction < 1):
            raise ValueError(
                "fraction is the fraction of anomalies in validation, more than 0 and less "
                f"than 1. Got {fraction!r}. Set for example fraction=0.5."
            )
        self.fraction = fraction

    def split(
        self, X, y: ArrayLike | None = None, groups: ArrayLike | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the indices of each fold.

        Parameters
        ----------
        X : array, list of paths or other sequence of length n_samples
            Only its length is read.
        y : array-like of shape (n_samples,)
            +1 for normal samples, -1 for the anomalies made from them.
        groups : array-like of shape (n_samples,)
            The same value for an image and what was made from it.

        Yields
        ------
        train : ndarray of shape (n_train,), int
            Normal samples, in ascending order.
        validation : ndarray of shape (n_validation,), int
            Normal samples and anomalies, in ascending order.

        Raises
        ------
        ValueError
            `y` or `groups` is missing, or an anomaly has no image that it was made from.
        """
        if y is None or groups is None:
            raise ValueError(
                "SyntheticSplit has to know which samples are synthetic, and what they "
                f"were made from. Got y={_shown(y)}, groups={_shown(groups)}. Pass all "
                "that add_synthetic_anomalies returns, to a search as "
                "fit(X, y, groups=groups)."
            )
        kinds, codes = _encode_labels(X, y, groups)
        normal = kinds == 0
        orphans = np.flatnonzero(~normal & ~np.isin(codes, codes[normal]))
        if len(orphans) or normal.all():
            raise ValueError(
                "Every group needs a normal image for the anomalies in it, and there must "
                f"be anomalies. Got {_describe(kinds)}, of which {len(orphans)} without "
                "their image. Pass what add_synthetic_anomalies returns; in a nested "
                "search, keep groups together in the outer folds, and train on both."
            )
        random_state = check_random_state(self.random_state)
        for _, part in super().split(codes, groups=codes):
            train = np.setdiff1d(np.flatnonzero(normal), part)
            kept = self._thin(part[normal[part]], part[~normal[part]], random_state)
            yield train, np.sort(np.concatenate(kept))

    def _thin(self, normal, anomalies, random_state):
        """Drop normal samples or anomalies at random until `fraction` is met."""
        odds = self.fraction / (1 - self.fraction)
        n_anomalies = min(len(anomalies), max(1, round(len(normal) * odds)))
        n_normal = min(len(normal), max(1, round(len(anomalies) / odds)))
        return (
            random_state.permutation(normal)[:n_normal],
            random_state.permutation(anomalies)[:n_anomalies],
        )


@validate_params(
    {
        "X": ["array-like"],
        "groups": ["array-like", None],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def add_synthetic_anomalies(
    X,
    make_anomalies: Callable,
    *,
    groups: ArrayLike | None = None,
    random_state: int | np.random.RandomState | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Add to normal images one anomaly made from each.

    A splitter of scikit-learn selects samples and cannot change them. The anomalies are
    therefore made once, beforehand. :class:`SyntheticSplit` ensures that none is trained
    on, and that none is validated by a detector that was trained on its image. Read more in
    the :ref:`User Guide <model_selection>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    X : array of shape (n, H, W) or (n, H, W, C), or list of paths or PIL images
        Normal images. Paths may also be an array or a Series.
    make_anomalies : callable
        Called as ``make_anomalies(images, random_state=seed)`` with an array of shape
        (1, H, W) or (1, H, W, C) and an int. Returns a pair: images of the same shape and
        dtype, and masks of the changed pixels, which are not used here.
    groups : array-like of shape (n,), default=None
        Images with the same value, such as those of one object, are kept together. None:
        each image is a group of its own.
    random_state : int, RandomState or None, default=None
        Of the seeds that `make_anomalies` is called with, one for each image.

    Returns
    -------
    X : ndarray of shape (2 * n, H, W[, C]), or (2 * n,) of objects
        The images as they were, then their anomalies in the same order. Where paths or PIL
        images came in, those and then PIL images.
    y : ndarray of shape (2 * n,), int
        +1 for images, -1 for anomalies.
    groups : ndarray of shape (2 * n,)
        Of the images, and once more for their anomalies.

    Raises
    ------
    ValueError
        X is not as above, a file cannot be read, or `make_anomalies` returns another shape
        or dtype or leaves an image as it was.

    See Also
    --------
    SyntheticSplit : The folds for what is returned.

    Notes
    -----
    Files are read one at a time; their anomalies are kept in memory, as large as the files
    are in pixels. The same images give the same anomalies as arrays of uint8 and as files.
    For detectors that take tables, compute the features of what is returned.

    Examples
    --------
    >>> from skocc.datasets import make_defects, make_textures
    >>> from skocc.model_selection import add_synthetic_anomalies
    >>> images = make_textures(3, size=32, random_state=0)
    >>> X, y, groups = add_synthetic_anomalies(images, make_defects, random_state=0)
    >>> X.shape, y, groups
    ((6, 32, 32), array([ 1,  1,  1, -1, -1, -1]), array([0, 1, 2, 0, 1, 2]))
    """
    X = as_images(X)
    groups = np.arange(len(X)) if groups is None else as_array("groups", groups)
    check_consistent_length(X, groups)
    anomalies = _anomalies_of(X, make_anomalies, random_state)
    y = np.repeat([1, -1], len(X))
    return np.concatenate([X, anomalies]), y, np.concatenate([groups, groups])


@validate_params(
    {
        "X_train": ["array-like"],
        "X_test": ["array-like"],
        "y_test": ["array-like"],
        "protocol": [str],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def two_protocol_split(
    X_train,
    X_test,
    y_test: ArrayLike,
    *,
    protocol: str = "original",
    make_anomalies: Callable | None = None,
    random_state: int | np.random.RandomState | None = None,
) -> Bunch:
    """Divide an official training and test part by one of two published protocols.

    Both protocols train on images of the official training part only, choose parameters on
    three folds that share one training part, and keep a test part that is not used for the
    choice. In the "original" protocol, the defects for validation come from the official
    test part. In the "synthetic" one they are made from training images, and the official
    test part remains whole. Read more in the :ref:`User Guide <model_selection>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    X_train : array or list of paths, of length n_train
        The official training part, all normal: images or a table, or paths.
    X_test : array or list of paths, of length n_test
        The official test part.
    y_test : array-like of shape (n_test,)
        Names of defects with "good" for normal images, or labels of +1 and -1; see Notes of
        :class:`OneClassKFold`.
    protocol : {"original", "synthetic"}, default="original"
        See Notes.
    make_anomalies : callable, default=None
        As in :func:`add_synthetic_anomalies`; needed by "synthetic" only, and X must be
        images.
    random_state : int, RandomState or None, default=None
        Of all draws.

    Returns
    -------
    parts : Bunch
        X : ndarray
            All samples, the official training part first; synthetic anomalies replace the
            images they were made from. An array of objects if X holds paths.
        y : ndarray of shape (n_train + n_test,), int
            +1 for normal, -1 for anomalous.
        train, validation, test : ndarray of int
            Indices into X, in ascending order. In "original" they are all of X, in
            "synthetic" too.
        cv : list of 3 tuples (train, validation)
            For a search over X and y; each has the same `train` and a third of
            `validation`.

    Raises
    ------
    ValueError
        `protocol` is neither of the two, `make_anomalies` is missing, labels cannot be
        read, or there are too few samples for a normal and an anomalous one in each fold.

    See Also
    --------
    OneClassKFold : Folds that train on different images, which needs no official parts.
    SyntheticSplit : Such folds with synthetic anomalies.

    Notes
    -----
    ===========  ======================  ==========================  ====================
    protocol     train                   validation, three folds     test
    ===========  ======================  ==========================  ====================
    original     official train          60 % of the official test   40 % of the official
                                                                     test
    synthetic    60 % of the official    40 % of the official        official test
                 train                   train, of which 75 % are
                                         turned into anomalies
    ===========  ======================  ==========================  ====================

    The protocols are those of a report that compares classical and deep detectors on MVTec
    AD. It does not say how images are drawn. Here the official test part is shuffled and
    divided into five parts, stratified by defect; three of these are the folds, two are the
    test part. In the synthetic protocol the training part is shuffled and divided, and the
    last fold takes the remainder of the division by three. The 75 % of each fold are
    rounded, and at least one image stays normal.

    A search must not refit, because X holds the test part. It trains once for each fold,
    three times on the same images: with an int as random_state of the detector, it trains
    the same detector three times.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.metrics import roc_auc_score
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sklearn.svm import OneClassSVM
    >>> from skocc.model_selection import two_protocol_split
    >>> X, digits = load_digits(return_X_y=True)
    >>> zeros = np.flatnonzero(digits == 0)
    >>> names = np.array(["good", "one", "two", "three"])
    >>> test = np.r_[zeros[100:], np.flatnonzero((digits > 0) & (digits < 4))[::9]]
    >>> train, kinds = zeros[:100], names[digits[test]]
    >>> parts = two_protocol_split(X[train], X[test], kinds, random_state=0)
    >>> len(parts.train), len(parts.validation), len(parts.test)
    (100, 84, 55)
    >>> search = GridSearchCV(
    ...     OneClassSVM(), {"nu": [0.1, 0.5]}, cv=parts.cv, scoring="roc_auc", refit=False
    ... )
    >>> search = search.fit(parts.X, parts.y)
    >>> detector = OneClassSVM(**search.best_params_).fit(parts.X[parts.train])
    >>> scores = detector.decision_function(parts.X[parts.test])
    >>> bool(roc_auc_score(parts.y[parts.test], scores) > 0.9)
    True
    """
    if protocol not in ("original", "synthetic"):
        raise ValueError(
            f"protocol must be 'original' or 'synthetic'. Got {protocol!r}. Set one of "
            "them, or use OneClassKFold or SyntheticSplit for folds of your own."
        )
    X_train, X_test = as_images(X_train), as_images(X_test)
    test_kinds, _ = _encode_labels(X_test, y_test, None)
    _check_one_kind(X_train, X_test)
    n_train, n = len(X_train), len(X_train) + len(X_test)
    X = np.concatenate([X_train, X_test])
    kinds = np.concatenate([np.zeros(n_train, dtype=int), test_kinds])
    if not test_kinds.any():
        raise ValueError(
            f"There are no anomalies to test on. Got {_describe(kinds)}. Pass as y_test -1 "
            "or the name of the defect for images that are not normal."
        )
    rng = check_random_state(random_state)
    if protocol == "original":
        train = np.arange(n_train)
        folds, test = _divided_test_part(test_kinds, n_train, rng)
    else:
        train, folds = _divided_training_part(n_train, rng)
        test = np.arange(n_train, n)
        turned = np.concatenate([f[: min(round(0.75 * len(f)), len(f) - 1)] for f in folds])
        X[turned] = _anomalies_of(X[turned], make_anomalies, rng)
        kinds[turned] = 1
    return Bunch(
        X=X,
        y=np.where(kinds == 0, 1, -1),
        train=train,
        validation=np.sort(np.concatenate(folds)),
        test=test,
        cv=[(train, np.sort(fold)) for fold in folds],
    )


def _check_one_kind(X_train, X_test):
    """Raise an error unless both hold files, or arrays of one shape."""
    are_files = [X.dtype == object for X in (X_train, X_test)]
    if X_train.shape[1:] != X_test.shape[1:] or are_files[0] != are_files[1]:
        raise ValueError(
            "X_train and X_test must hold samples of one kind and shape. Got "
            f"{X_train.shape} of {X_train.dtype} and {X_test.shape} of {X_test.dtype}. "
            "Resize the images of one, or pass both as paths."
        )


def _divided_test_part(test_kinds, n_train, rng):
    """Return three folds and the test part of the original protocol, as indices of X."""
    parts = _stratified_parts(test_kinds, None, 5, True, rng)
    _check_parts(parts, test_kinds)
    parts = [n_train + part for part in parts]
    return parts[:3], np.sort(np.concatenate(parts[3:]))


def _divided_training_part(n_train, rng):
    """Return what to train on and three folds of the synthetic protocol, as indices."""
    order = rng.permutation(n_train)
    train, held_out = np.sort(order[: 6 * n_train // 10]), order[6 * n_train // 10 :]
    third = len(held_out) // 3
    if third < 2:
        raise ValueError(
            "Each of three folds needs a normal image and one to make an anomaly from. "
            f"Got {n_train} training images, of which {len(held_out)} are for "
            "validation. Pass at least 13."
        )
    return train, np.split(held_out, [third, 2 * third])


def _encode_labels(X, y, groups):
    """Return the kind of each sample, 0 for normal ones, and groups as codes or None."""
    check_consistent_length(X, y, groups)
    n_samples = num_samples(X)
    kinds = np.zeros(n_samples, dtype=int) if y is None else anomaly_kinds(y)
    if n_samples == 0:
        raise ValueError(
            "There are no samples to split. Got an empty X (n_samples=0). Pass normal "
            "ones, and anomalies beside them."
        )
    return kinds, None if groups is None else encode_groups(groups)


def encode_groups(groups):
    """Return groups of samples as codes 0, 1, ...

    Parameters
    ----------
    groups : array-like of shape (n_samples,)
        Numbers or names.

    Returns
    -------
    codes : ndarray of shape (n_samples,), int
    """
    groups = as_array("groups", groups, read=column_or_1d)
    try:
        return np.unique(groups, return_inverse=True)[1]
    except TypeError as error:  # values that have no order
        raise ValueError(
            "groups must hold numbers, or names, of one type. Got values that cannot be "
            f"put in order, the first a {type(groups[0]).__name__}. Pass for example "
            "list(map(str, groups))."
        ) from error


def _stratified_parts(kinds, groups, n_splits, shuffle, random_state):
    """Return the indices of `n_splits` parts with about equally many samples of a kind."""
    # With kinds in order, anomalies of few of a kind are spread over the parts as well.
    order = np.argsort(kinds, kind="stable")
    params = {"shuffle": shuffle, "random_state": random_state}
    with warnings.catch_warnings():
        # A kind with fewer samples than there are parts is missing in some.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        if groups is None:
            splits = StratifiedKFold(n_splits, **params).split(order, kinds[order])
        else:
            # Shuffled here: the shuffling of early versions undoes the stratification.
            if shuffle:
                n_groups = groups.max() + 1
                groups = check_random_state(random_state).permutation(n_groups)[groups]
            splits = StratifiedGroupKFold(n_splits).split(
                order, kinds[order], groups[order]
            )
        return [np.sort(order[part]) for _, part in splits]


def _check_parts(parts, kinds):
    """Raise an error for parts without normal samples, or without any of the anomalies."""
    for part in parts:
        normal = kinds[part] == 0
        if not normal.any() or (normal.all() and kinds.any()):
            raise ValueError(
                f"With {len(parts)} parts, one would have no "
                f"{'anomalies' if normal.any() else 'normal samples'} to validate on. Got "
                f"{_describe(kinds)}. Have fewer parts (n_splits) or more samples or "
                "groups; OneClassSplit validates all anomalies in each split."
            )


def _check_count(name, value, fewest):
    if not isinstance(value, Integral) or isinstance(value, bool) or value < fewest:
        raise ValueError(
            f"{name} must be a whole number of at least {fewest}. Got {value!r}. Set for "
            f"example {name}=5."
        )


def _describe(kinds):
    n_anomalies = int(np.count_nonzero(kinds))
    return f"{len(kinds) - n_anomalies} normal samples and {n_anomalies} anomalies"


def _shown(values):
    return "None" if values is None else f"a {type(values).__name__}"


def as_images(X):
    """Return X as an array, for paths and PIL images one of objects."""
    if isinstance(X, np.ndarray) and X.ndim > 1 and X.dtype != object:
        return X
    if is_data_set(X):
        raise ValueError(
            "Anomalies are added to images in files or in memory. Got a "
            f"{type(X).__name__}. Pass the paths of its files, or its images as one array."
        )
    try:
        items = list(X)
    except TypeError:  # a single number, say
        items = []
    if items and all(isinstance(x, ImageItem) for x in items):
        X = np.empty(len(items), dtype=object)
        for index, item in enumerate(items):  # NumPy would take a PIL image apart
            X[index] = item
        return X
    X = as_array("X", X)
    if X.ndim < 2 or X.dtype == object:
        raise ValueError(
            "X must be an array of samples, or a list of paths or PIL images. Got an array "
            f"of shape {X.shape}. For one image pass image[np.newaxis]."
        )
    return X


def _anomalies_of(X, make_anomalies, random_state):
    """Return an anomalous copy of each image, as PIL images where X holds files."""
    if not callable(make_anomalies):
        raise ValueError(
            "A function is needed to make anomalies from images. Got "
            f"make_anomalies={make_anomalies!r}. Pass one that returns images and masks."
        )
    in_files = X.dtype == object
    if not in_files and (X.ndim not in (3, 4) or (X.ndim == 4 and X.shape[3] > 4)):
        raise ValueError(
            "Anomalies are made from images (n, H, W) or (n, H, W, C), or from files. Got "
            f"an array of shape {X.shape}. For a table, make them before features are "
            "computed; for a tensor pass X.permute(0, 2, 3, 1).numpy()."
        )
    random_state = check_random_state(random_state)
    anomalies = np.empty_like(X)
    for index in range(len(X)):
        # One by one: files may differ in size and in type of pixels.
        image = read_image(X[index], index)[np.newaxis] if in_files else X[[index]]
        if in_files and image.shape[3] == 1:
            image = image[:, :, :, 0]
        anomaly = _anomaly_of(image, make_anomalies, random_state.randint(2**31 - 1))
        anomalies[index] = to_pil(anomaly[0], X[index]) if in_files else anomaly[0]
    return anomalies


def _anomaly_of(image, make_anomalies, seed):
    # A copy, in case that it is changed in place.
    result = make_anomalies(image.copy(), random_state=seed)
    if not (isinstance(result, tuple | list) and len(result) == 2):
        raise ValueError(
            "make_anomalies must return a pair, images and masks. Got a "
            f"{type(result).__name__}. Return (images, None) where there are no masks."
        )
    anomaly = as_array("The images of make_anomalies", result[0])
    if anomaly.shape != image.shape or anomaly.dtype != image.dtype:
        raise ValueError(
            "make_anomalies must return images like those it is given, of shape "
            f"{image.shape} and dtype {image.dtype}. Got shape {anomaly.shape} and dtype "
            f"{anomaly.dtype}. Convert them in it."
        )
    if np.array_equal(anomaly, image):
        raise ValueError(
            "make_anomalies must change the image. Got one back as it was, which would be "
            "labeled an anomaly. Make changes larger or more, or leave out images in "
            "which nothing can be changed."
        )
    return anomaly
