"""Old names raise errors that name the new ones, and nothing else changes."""

import inspect
import pickle
from importlib import import_module

import pytest
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import GridSearchCV
from sklearn.svm import OneClassSVM

import skocc
from skocc.__main__ import main
from skocc._base.renamed import RENAMED, RenamedParametersMixin, current_names, missing_name
from skocc.model_selection import ThresholdTuner

PACKAGES = [skocc.datasets, skocc.feature_extraction, skocc.metrics, skocc.model_selection]


def public(name):
    """Return what the package exports under a name."""
    for package in [skocc, *PACKAGES]:
        if name in package.__all__:
            return getattr(package, name)
    raise LookupError(name)


@pytest.fixture
def detector_class(monkeypatch):
    """A class with one renamed parameter, and one renamed attribute."""
    monkeypatch.setitem(RENAMED, "Detector", {"width": "n_channels", "index_": "bank_"})

    class Detector(RenamedParametersMixin, BaseEstimator):
        def __init__(self, n_channels=8, *, nu=0.1):
            self.n_channels = n_channels
            self.nu = nu

        @property
        def n_features_in_(self):
            raise AttributeError("not fitted")

    return Detector


def test_old_parameters_name_the_new_ones(detector_class):
    message = "width of Detector was renamed to n_channels. Got the old name. Write n_ch"
    with pytest.raises(TypeError, match=message):
        detector_class(width=4)
    with pytest.raises(ValueError, match=message):
        detector_class().set_params(nu=0.2, width=4)
    with pytest.raises(AttributeError, match=message):
        detector_class().width  # noqa: B018
    with pytest.raises(AttributeError, match="index_ of Detector was renamed to bank_"):
        detector_class().index_  # noqa: B018


def test_a_failed_set_params_sets_nothing(detector_class):
    detector = detector_class()
    with pytest.raises(ValueError, match="renamed"):
        detector.set_params(nu=0.2, width=4)
    assert detector.nu == 0.1


def test_other_errors_are_as_before(detector_class):
    with pytest.raises(TypeError, match="unexpected keyword argument 'depth'"):
        detector_class(depth=3)
    with pytest.raises(ValueError, match="Invalid parameter 'depth'"):
        detector_class().set_params(depth=3)
    with pytest.raises(AttributeError, match="object has no attribute 'depth'"):
        detector_class().depth  # noqa: B018
    with pytest.raises(AttributeError, match=r"^not fitted$"):
        detector_class().n_features_in_  # noqa: B018


def test_new_parameters_work_as_without(detector_class):
    detector = detector_class(4, nu=0.3)
    assert str(inspect.signature(detector_class)) == "(n_channels=8, *, nu=0.1)"
    assert detector.get_params() == {"n_channels": 4, "nu": 0.3}
    assert clone(detector).get_params() == detector.get_params()
    assert repr(detector) == "Detector(n_channels=4, nu=0.3)"
    assert not {"width", "index_"} & {*dir(detector)}
    detector.set_params(n_channels=5)
    assert detector.n_channels == 5


def test_subclasses_keep_the_pairs_but_their_own_parameters(detector_class):
    class Wider(detector_class):
        def __init__(self, width=2, n_channels=8):
            super().__init__(n_channels)
            self.width = width

    assert Wider(width=3).set_params(width=4).width == 4
    with pytest.raises(AttributeError, match="renamed to bank_"):
        Wider().index_  # noqa: B018

    class Same(detector_class):
        pass

    with pytest.raises(TypeError, match="renamed to n_channels"):
        Same(width=3)


def test_nested_parameters_and_searches_name_the_new_ones():
    tuner = ThresholdTuner(OneClassSVM())
    with pytest.raises(ValueError, match=r"detector__nu of .* renamed to estimator__nu"):
        tuner.set_params(detector__nu=0.2)
    assert tuner.set_params(estimator__nu=0.2).estimator.nu == 0.2
    grid = {"detector": [OneClassSVM()]}
    search = GridSearchCV(tuner, grid, scoring="roc_auc", cv=2)
    with pytest.raises(ValueError, match="renamed to estimator"):
        search.fit([[float(i)] for i in range(60)], [1, -1] * 30)


def test_fitted_tuners_can_be_pickled():
    tuner = ThresholdTuner(OneClassSVM(), random_state=0)
    tuner.fit([[float(i)] for i in range(100)])
    again = pickle.loads(pickle.dumps(tuner))
    assert again.offset_ == tuner.offset_
    with pytest.raises(AttributeError, match="renamed to estimator_"):
        again.detector_  # noqa: B018


def test_values_under_old_names(monkeypatch):
    monkeypatch.setitem(RENAMED, "Detector", {"width": "n_channels"})
    values = {"width": 4, "nu": 0.1}
    assert [*current_names("Detector", values).items()] == [("n_channels", 4), ("nu", 0.1)]
    assert current_names("Other", values) == values


COMMANDS = [owner for owner in RENAMED if owner.startswith("python -m")]


@pytest.mark.parametrize("command", COMMANDS)
def test_old_options_name_the_new_ones(command, capsys):
    name = command.removeprefix("python -m skocc ")
    for old, new in RENAMED[command].items():
        with pytest.raises(SystemExit):
            main([name, ".", "--method", "DeepSVDD", "--output", "x", old, "0.1"])
        assert f"argument {old}: it was renamed to {new}\n" in capsys.readouterr().err
        with pytest.raises(SystemExit):
            main([name, "--help"])
        shown = capsys.readouterr().out
        assert new in shown
        assert old not in shown


@pytest.mark.parametrize("owner", [owner for owner in RENAMED if owner not in COMMANDS])
def test_the_table_is_true(owner):
    """New names are there, old ones are not, and each is refused in words."""
    pairs = RENAMED[owner]
    if owner.startswith("skocc."):
        module = import_module(owner)
        assert set(pairs.values()) <= set(module.__all__)
        assert not set(pairs) & {*module.__all__, *pairs.values()}
        for old, new in pairs.items():
            with pytest.raises(AttributeError, match=f"{old} of {owner} .* {new}\\."):
                getattr(module, old)
        return
    value = public(owner)
    parameters = inspect.signature(value).parameters
    for old, new in pairs.items():
        if old in parameters:  # an old name with a new meaning, which is new to another
            assert old in pairs.values()
            continue
        if new.endswith("_"):
            assert f"{new} :" in value.__doc__
            continue
        assert new.partition("=")[0] in parameters
        message = f"{old} of {owner} was renamed to {new}\\."
        if "=" in new:  # what to write in place of a name without a successor
            message = f"{old} of {owner} was removed.*Write {new}\\."
        with pytest.raises(TypeError, match=message):
            value(**{old: None})
        if hasattr(value, "set_params"):
            estimator = value(*[None for p in parameters.values() if p.default is p.empty])
            with pytest.raises(ValueError, match=message):
                estimator.set_params(**{old: None})
            with pytest.raises(AttributeError, match=message):
                getattr(estimator, old)


def test_an_unknown_name_of_a_module_is_no_old_one():
    error = missing_name("skocc.metrics", "auroc_")
    assert str(error) == "module 'skocc.metrics' has no attribute 'auroc_'"
