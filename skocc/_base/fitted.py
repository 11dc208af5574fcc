"""What `fit` sets on an estimator, declared, and the version that a pickle is from."""

from typing import NamedTuple

from sklearn.exceptions import InconsistentVersionWarning

from skocc._base import versions
from skocc._samples.warnings import warn


class Fitted(NamedTuple):
    """What an attribute that `fit` sets is like: a model file may hold nothing else.

    Attributes
    ----------
    kind : str
        "network", a module that ``_empty_network`` builds; "float", which is finite;
        "bool"; "count", an int of at least 0; "integers", a tuple; "losses", a list of
        floats, and "loss lists", a list of these; "text", an array; "bank", a memory bank
        whose vectors have `axes`. Or, with `axes`, the dtype of an array.
    axes : tuple of str and int, default=()
        Sizes of the axes of an array, all at least 1. A name stands for the same size in
        all attributes; ``_check_loaded`` may say which.
    is_list : bool, default=False
        Whether it is a list of such arrays.
    below : str, default=None
        Name of a size; values of the array go from 0 to less than this.
    finite : bool, default=True
        Whether an array of floats must be finite.
    optional, nullable : bool, default=False
        Whether it may be missing, or None.
    """

    kind: str
    axes: tuple = ()
    is_list: bool = False
    below: str | None = None
    finite: bool = True
    optional: bool = False
    nullable: bool = False


# Of everything that takes images.
IMAGE_ATTRIBUTES = {
    "image_shape_": Fitted("integers"),
    "n_features_in_": Fitted("count", optional=True),
    "feature_names_in_": Fitted("text", optional=True),
}
# Of detectors: what `fit` of the base class sets.
DETECTOR_ATTRIBUTES = {
    **IMAGE_ATTRIBUTES,
    "offset_": Fitted("float"),
    "train_scores_": Fitted("float64", ("n",), finite=False),
    "collapsed_": Fitted("bool"),
}


class VersionWarning(InconsistentVersionWarning):
    """An estimator comes from another version of skocc, and may not work as it did."""

    def __str__(self):
        return (
            f"This {self.estimator_name} was written by skocc "
            f"{self.original_sklearn_version!r}, and this is skocc "
            f"{self.current_sklearn_version}: scores may differ, or methods fail. Install "
            "that version, or fit and save again."
        )


def warn_about_version(name, version):
    """Warn where an estimator is from another version of skocc than this."""
    if version not in (None, versions.__version__):
        warn(
            VersionWarning(
                estimator_name=name,
                current_sklearn_version=versions.__version__,
                original_sklearn_version=version,
            )
        )


class FittedMixin:
    """Estimators that model files and pickles can hold.

    For model files the estimator declares in ``_fitted_attributes`` all that `fit` sets,
    and ``_empty_network(attribute)`` builds what is declared a network, before its weights
    are loaded. Pickles need neither.
    """

    _fitted_attributes = IMAGE_ATTRIBUTES

    def __getstate__(self):
        return {**super().__getstate__(), "_skocc_version": versions.__version__}

    def __setstate__(self, state):
        state = dict(state)
        version = state.pop("_skocc_version", None)  # None: of 0.1 or a development version
        warn_about_version(type(self).__name__, version)
        super().__setstate__(state)

    def _check_loaded(self):
        """Return the sizes that names in ``_fitted_attributes`` stand for.

        Called before the networks are given their weights: their tensors are on the device
        "meta", and have a shape and no values. All attributes have been set by then, each
        of the kind that is declared. Raises any error for what does not go together.
        """
        return {}
