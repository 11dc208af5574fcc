"""What every estimator declares of its fitted attributes, and what pickles of it say."""

import copy
import pickle
import warnings

import joblib
import numpy as np
import pytest
import torch
from numpydoc.docscrape import ClassDoc
from sklearn.base import clone
from sklearn.exceptions import InconsistentVersionWarning

import skocc
import skocc.feature_extraction
from skocc._base import versions
from skocc._base.fitted import FittedMixin
from skocc._ops.tensors import tensor_view
from tests.quick import ESTIMATORS, quick

TRANSFORMERS = [
    getattr(skocc.feature_extraction, name) for name in skocc.feature_extraction.__all__
]
CLASSES = pytest.mark.parametrize("estimator_class", [*ESTIMATORS, *TRANSFORMERS])


def make(estimator_class, **params):
    known = estimator_class().get_params()
    if "batch_size" in known:
        return quick(estimator_class, **params)
    pytest.importorskip(
        {"BackgroundRemoval": "cv2"}.get(estimator_class.__name__, "skimage")
    )
    return estimator_class(**params)


def results(estimator, images):
    if hasattr(estimator, "transform"):
        return estimator.transform(images)
    return estimator.score_samples(images)


@CLASSES
def test_all_that_fit_sets_is_declared_and_documented(estimator_class, digits):
    pandas = pytest.importorskip("pandas")
    assert issubclass(estimator_class, FittedMixin)
    declared = estimator_class._fitted_attributes
    for X, params in [
        (digits[0][:30], {}),
        (pandas.DataFrame(digits[0][:30].reshape(30, -1)).add_prefix("p"), {}),
    ]:
        shape = {"image_shape": (8, 8)} if X.ndim == 2 else {}
        estimator = make(estimator_class, **shape, **params).fit(X)
        estimator_results = results(estimator, X)  # what is made on first use
        assert len(estimator_results) == 30
        fitted = vars(estimator).keys() - estimator.get_params().keys()
        assert fitted <= declared.keys()
        assert {name for name, kind in declared.items() if not kind.optional} <= fitted
    documented = {attribute.name for attribute in ClassDoc(estimator_class)["Attributes"]}
    assert documented == {name for name in declared if not name.startswith("_")}


@CLASSES
def test_pickles_of_another_version_warn(estimator_class, digits, monkeypatch):
    estimator = make(estimator_class).fit(digits[0][:20])
    expected = results(estimator, digits[1][:5])
    with monkeypatch.context() as patch:
        patch.setattr(versions, "__version__", "0.0.9")
        old = pickle.dumps(estimator)
    name = estimator_class.__name__
    with pytest.warns(
        InconsistentVersionWarning,
        match=rf"{name} was written by skocc '0.0.9', and this is skocc .*Install that",
    ) as seen:
        loaded = pickle.loads(old)
    assert seen[0].filename == __file__
    np.testing.assert_array_equal(results(loaded, digits[1][:5]), expected)
    assert vars(loaded).keys() == vars(estimator).keys()
    # Warnings are errors here: nothing else says anything.
    for same in (
        pickle.loads(pickle.dumps(estimator)),
        copy.deepcopy(estimator),
        clone(estimator).fit(digits[0][:20]),
    ):
        assert vars(same).keys() == vars(estimator).keys()


@CLASSES
def test_pickles_without_a_version_are_read(estimator_class, digits, monkeypatch):
    estimator = make(estimator_class).fit(digits[0][:20])
    with monkeypatch.context() as patch:
        # As in 0.1.
        patch.setattr(FittedMixin, "__getstate__", lambda self: vars(self).copy())
        old = pickle.dumps(estimator)
    assert b"_skocc_version" not in old
    loaded = pickle.loads(old)
    np.testing.assert_array_equal(
        results(loaded, digits[1][:5]), results(estimator, digits[1][:5])
    )


@CLASSES
def test_memory_maps_are_scored_without_a_copy_or_a_warning(
    estimator_class, digits, tmp_path, monkeypatch
):
    estimator = make(estimator_class).fit(digits[0][:40])
    joblib.dump(estimator, tmp_path / "estimator.joblib")
    mapped = joblib.load(tmp_path / "estimator.joblib", mmap_mode="r")
    arrays = [value for value in vars(mapped).values() if isinstance(value, np.memmap)]
    assert not any(array.flags.writeable for array in arrays)
    warns_always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)  # torch warns of such an array once in a process
    try:
        np.testing.assert_array_equal(
            results(mapped, digits[1][:9]), results(estimator, digits[1][:9])
        )
    finally:
        torch.set_warn_always(warns_always)


def test_a_view_of_an_array_is_no_copy_and_keeps_it(tmp_path):
    array = np.arange(12, dtype=np.float32).reshape(3, 4)[:, ::2]
    array.flags.writeable = False
    address = array.ctypes.data
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tensor = tensor_view(array)
    assert tensor.data_ptr() == address
    assert tensor.stride() == (4, 2)
    del array
    assert tensor.tolist() == [[0, 2], [4, 6], [8, 10]]
    file = tmp_path / "a.npy"
    np.save(file, np.ones(5))
    assert tensor_view(np.load(file, mmap_mode="r")).sum() == 5
