"""Renamed parameters and attributes: an old name raises an error that names the new one.

This file is the only place that lists old names. A new pair is one entry of ``RENAMED``.
"""

import functools
import inspect

# Each entry maps old names to new ones: the parameters and attributes of a class, the
# parameters of a function, the names in a module, or the options of a command. An entry for
# a class also applies to its subclasses.
RENAMED = {
    "ConvAE": {
        "crop": "border",
        "error": "reconstruction_metric",
        "patience": "n_iter_no_change",
        "width": "base_channels",
    },
    "DataSplitOCC": {
        "code_size": "latent_dim",
        "code_size_": "latent_dim_",
        "latent_dim": "embedding_dim",
        "similarity": "reconstruction_metric",
        "similarity_": "reconstruction_similarity_",
        "widths": "channels",
    },
    "FeatureCAE": {"aggregation": "cell_aggregation", "patience": "n_iter_no_change"},
    "DeepSVDD": {"latent_dim": "embedding_dim", "widths": "channels"},
    "MOCCA": {
        "latent_dim": "embedding_dim",
        "widths": "channels",
    },
    "PatchSVDD": {"border": "padding_mode"},
    "ResNetKNN": {"aggregation": "neighbor_aggregation", "patch_dim": "embedding_dim"},
    "VideoMOCCA": {"latent_dim": "embedding_dim"},
    "python -m skocc fit": {"--false-alarm-rate": "--max-fpr"},
    "SyntheticSplit": {"share": "fraction"},
    "ThresholdTuner": {
        "detector": "estimator",
        "detector_": "estimator_",
        "false_alarm_rate": "max_fpr",
    },
    "find_threshold": {"false_alarm_rate": "max_fpr"},
    "skocc.model_selection": {
        "report_split": "two_protocol_split",
        "threshold": "find_threshold",
    },
}
# Parameters that are gone, because another says the same, and what to write instead.
MERGED = {
    "DataSplitOCC": {
        "freeze_bn": 'batch_norm="frozen" for True, batch_norm="train" for False',
        "spatial_code": 'latent_dim="map" for True',
    },
    "MOCCA": {
        "architecture": 'backbone="lenet" and so on, backbone=None for "auto"',
        "freeze_bn": 'batch_norm="frozen" for True, batch_norm="train" for False',
        "selectors": 'backbone="plain_residual" for False',
    },
}


class RenamedParametersMixin:
    """Raise an error that names the new parameter or attribute if an old one is used.

    The pairs are those of ``RENAMED`` and ``MERGED`` for the class and its bases, except
    old names that are parameters of the class. List this mixin before scikit-learn's
    ``BaseEstimator``. If a class has no ``set_params``, decorate its ``__init__`` with
    ``renamed_parameters`` instead.
    """

    _renamed: dict[str, str] = {}

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        parameters = inspect.signature(cls.__init__).parameters
        name = cls.__name__
        pairs = cls._renamed | RENAMED.get(name, {}) | MERGED.get(name, {})
        cls._renamed = {old: new for old, new in pairs.items() if old not in parameters}
        if "__init__" in vars(cls) and cls._renamed:
            checked = _check_names(cls.__init__, cls.__name__, cls._renamed)
            # Editors would take a plain assignment for the only signature there is.
            type.__setattr__(cls, "__init__", checked)

    def __getattr__(self, name):
        # Python calls this if an attribute is missing or a property raises AttributeError.
        if name in self._renamed:
            raise AttributeError(_message(type(self).__name__, name, self._renamed[name]))
        return super().__getattribute__(name)  # raises the usual error

    def set_params(self, **params):
        """Set the parameters of this estimator.

        This works on simple estimators and on nested ones such as a Pipeline, whose
        parameters are named ``<component>__<parameter>``.

        Parameters
        ----------
        **params : dict
            Estimator parameters.

        Returns
        -------
        self : estimator
            With the parameters set.

        Raises
        ------
        ValueError
            A parameter does not exist, or was renamed.
        """
        for name in params:
            old, separator, rest = name.partition("__")
            if old in self._renamed:
                new = f"{self._renamed[old]}{separator}{rest}"
                raise ValueError(_message(type(self).__name__, name, new))
        return super().set_params(**params)


def renamed_parameters(function):
    """Decorate a function to raise a TypeError that names the new parameter for an old one.

    Parameters
    ----------
    function : function
        ``RENAMED`` has an entry for its name, or, if it is an ``__init__``, for the name of
        its class.

    Returns
    -------
    function : function
        With the same signature.
    """
    owner = function.__qualname__.removesuffix(".__init__").split(".")[-1]
    return _check_names(function, owner, RENAMED[owner])


def current_names(owner, values):
    """Return a dictionary of parameters or attributes with renamed ones replaced.

    Parameters
    ----------
    owner : str
        Name of the class or function.
    values : dict
        Old or new names, and any values.

    Returns
    -------
    values : dict
        New names and the same values, in the same order.
    """
    renamed = RENAMED.get(owner, {})
    return {renamed.get(name, name): value for name, value in values.items()}


def missing_name(module, name):
    """Return the AttributeError of a module for a missing name.

    Parameters
    ----------
    module, name : str

    Returns
    -------
    error : AttributeError
        If `name` is an old name, the message gives the new one.
    """
    if new := RENAMED.get(module, {}).get(name):
        return AttributeError(_message(module, name, new))
    return AttributeError(f"module {module!r} has no attribute {name!r}")


def _check_names(function, owner, renamed):
    @functools.wraps(function)
    def checked(*args, **kwargs):
        for name in kwargs.keys() & renamed.keys():
            raise TypeError(_message(owner, name, renamed[name]))
        return function(*args, **kwargs)

    return checked


def _message(owner, old, new):
    if "=" in new:  # of MERGED
        return f"{old} of {owner} was removed. Got the old name. Write {new}."
    return f"{old} of {owner} was renamed to {new}. Got the old name. Write {new} instead."
