"""Declarations of fitted attributes, and the version check of pickles."""

from typing import NamedTuple

from sklearn.exceptions import InconsistentVersionWarning

from skocc._base import versions
from skocc._base.doc_links import DocLinkMixin
from skocc._samples.warnings import warn


class Fitted(NamedTuple):
    """Declaration of an attribute that `fit` sets.

    A model file may contain only attributes that its class declares. Read more in the
    :ref:`User Guide <own_method>`.

    Parameters
    ----------
    kind : str
        The type of the attribute: "network", a module that ``_empty_network`` builds;
        "float", a finite number; "bool"; "count", an int of at least 0; "integers", a tuple
        of int; "layers", a tuple of int and str; "losses", a list of floats; "loss lists",
        a list of such lists; "text", an array of text; "bank", a memory bank whose vectors
        have `axes`. For any other array, `kind` is the dtype.
    axes : tuple of str and int, default=()
        Sizes of the axes of an array, all at least 1. A name stands for the same size in
        all attributes; ``_check_loaded`` may determine that size.
    is_list : bool, default=False
        Whether the attribute is a list of such arrays.
    below : str, default=None
        Name of a size. The values of the array are at least 0 and less than this size.
    finite : bool, default=True
        Whether an array of floats must be finite.
    optional, nullable : bool, default=False
        Whether the attribute may be missing, or None.

    Examples
    --------
    A detector whose `_fit` sets ``mean_``, the mean of the training images:

    >>> from skocc.base import BaseDetector, Fitted
    >>> class MeanImage(BaseDetector):
    ...     _fitted_attributes = {
    ...         **BaseDetector._fitted_attributes,
    ...         "mean_": Fitted("float32", ("C", "H", "W")),
    ...     }
    >>> MeanImage._fitted_attributes["mean_"].axes
    ('C', 'H', 'W')
    """

    kind: str
    axes: tuple = ()
    is_list: bool = False
    below: str | None = None
    finite: bool = True
    optional: bool = False
    nullable: bool = False


# For every class that accepts images.
IMAGE_ATTRIBUTES = {
    "image_shape_": Fitted("integers"),
    "n_features_in_": Fitted("count", optional=True),
    "feature_names_in_": Fitted("text", optional=True),
}
# For every detector: the attributes that `fit` of the base class sets.
DETECTOR_ATTRIBUTES = {
    **IMAGE_ATTRIBUTES,
    "offset_": Fitted("float"),
    "train_scores_": Fitted("float64", ("n",), finite=False),
    "collapsed_": Fitted("bool"),
}
# For every detector with heat maps. Files of 0.1 do not have them.
MAP_ATTRIBUTES = {
    "train_map_maxima_": Fitted("float64", ("n",), optional=True),
    "pixel_threshold_": Fitted("float", optional=True),
}
# For every detector that trains a network. Files of 0.1 do not have the optional ones.
TRAINED_ATTRIBUTES = {
    **DETECTOR_ATTRIBUTES,
    "network_": Fitted("network"),
    "loss_curve_": Fitted("losses"),
    "validation_loss_curve_": Fitted("losses", optional=True),
    "best_epoch_": Fitted("count", optional=True, nullable=True),
}


class VersionWarning(InconsistentVersionWarning):
    """The estimator was saved by another version of skocc, and may behave differently."""

    def __str__(self):
        return (
            f"This {self.estimator_name} was written by skocc "
            f"{self.original_sklearn_version!r}, and this is skocc "
            f"{self.current_sklearn_version}: scores may differ, or methods fail. Install "
            "that version, or fit and save again."
        )


def warn_about_version(name, version):
    """Warn if an estimator was saved by another minor version of skocc.

    Versions that differ in their third number alone are meant to score alike.
    """
    if version is not None and _minor(version) != _minor(versions.__version__):
        warn(
            VersionWarning(
                estimator_name=name,
                current_sklearn_version=versions.__version__,
                original_sklearn_version=version,
            )
        )


def _minor(version):
    """Return the part of a version that says which scores to expect: 0.1 of 0.1.2."""
    return version.split(".")[:2]


class FittedMixin(DocLinkMixin):
    """Mixin for estimators that can be stored in model files and pickles.

    For model files, the estimator declares in ``_fitted_attributes`` every attribute that
    `fit` sets, and ``_empty_network(attribute)`` builds each declared network, before its
    weights are loaded. Pickles need neither.
    """

    _fitted_attributes = IMAGE_ATTRIBUTES

    def __getstate__(self):
        return {**super().__getstate__(), "_skocc_version": versions.__version__}

    def __setstate__(self, state):
        state = dict(state)
        version = state.pop("_skocc_version", None)  # None: 0.1 or a development version
        warn_about_version(type(self).__name__, version)
        super().__setstate__(state)

    def _check_loaded(self):
        """Return the sizes for which the names in ``_fitted_attributes`` stand.

        `load` calls this method before it loads the weights: the tensors of the networks
        are on the device "meta", and have a shape but no values. All attributes have been
        set, each with its declared kind. The method raises an error of any kind if the
        attributes do not match each other.
        """
        return {}
