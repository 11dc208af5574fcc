"""Validation of X in `fit` and in later calls, and the rollback of a failed fit."""

from contextlib import contextmanager

from sklearn.utils.validation import validate_data

from skocc._samples.sources import ReadImages
from skocc._samples.validation import check_like, read_images


def validate_images(
    estimator, X, *, reset, rows=False, mixed_sizes=False, min_samples=1
) -> ReadImages:
    """Read X as images, and store their shape or compare it with that of `fit`.

    Parameters
    ----------
    estimator : estimator
        Its parameters ``image_shape``, ``image_size`` and, if it exists,
        ``intensity_range`` determine how X is read. If the size is "weights", its method
        ``_size_of_weights`` returns it.
    X : array, tensor, list, Series, DataFrame or Dataset
        See "Images in" in the user guide.
    reset : bool
        Whether this is a fit, which stores the shape, or a later call, which compares it.
    rows, mixed_sizes, min_samples
        As in :func:`~skocc._samples.validation.read_images`. If the images differ in size,
        H and W of ``image_shape_`` are -1, later images may have any size, and
        ``n_features_in_`` is not set.

    Returns
    -------
    images : image source

    Raises
    ------
    ValueError
        X is invalid, or its shape differs from that in `fit`.
    """
    image_size = estimator.image_size
    if isinstance(image_size, str):
        image_size = estimator._size_of_weights() if reset else estimator.image_shape_[:2]
    images = read_images(
        X,
        image_shape=estimator.image_shape,
        image_size=image_size,
        intensity_range=getattr(estimator, "intensity_range", None),
        like=None if reset else estimator.image_shape_,
        rows=rows,
        mixed_sizes=mixed_sizes,
        min_samples=min_samples,
        name=type(estimator).__name__,
    )
    (remember if reset else compare)(estimator, X, images)
    return images


def remember(estimator, X, images: ReadImages) -> None:
    """Set ``image_shape_``, ``n_features_in_`` and ``feature_names_in_``.

    Parameters
    ----------
    estimator : estimator
    X : array, tensor, list, Series, DataFrame or Dataset
        The input.
    images : image source
        The images read from X.
    """
    # Attributes of an earlier fit on a table do not describe these images.
    for name in ("n_features_in_", "feature_names_in_"):
        if hasattr(estimator, name):
            delattr(estimator, name)
    if images.is_table:
        validate_data(estimator, X, reset=True, skip_check_array=True)
    elif images.n_features is not None:
        estimator.n_features_in_ = images.n_features
    estimator.image_shape_ = images.shape[1:]


def compare(estimator, X, images: ReadImages) -> None:
    """Raise a ValueError unless X has the shape and the column names stored by `fit`.

    Parameters
    ----------
    estimator, X, images
        As in :func:`remember`.
    """
    if images.is_table:
        validate_data(estimator, X, reset=False, skip_check_array=True)
    check_like(images, estimator.image_shape_, type(estimator).__name__)


@contextmanager
def unchanged_on_error(estimator):
    """Restore all attributes if the block fails, so that a failed fit changes nothing.

    Parameters
    ----------
    estimator : estimator
        The block may replace its attributes, but must not change them in place.
    """
    attributes = dict(vars(estimator))
    try:
        yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(attributes)
        raise
