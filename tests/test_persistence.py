import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline

import skocc
from tests.quick import quick


@pytest.fixture
def fitted(digits):
    return quick(skocc.DeepSVDD, image_shape=(8, 8)).fit(digits[0].reshape(-1, 64))


def test_the_file_holds_versions_and_no_code(fitted, tmp_path):
    path = tmp_path / "a.safetensors"
    skocc.save(fitted, path)
    with safe_open(path, framework="np") as file:
        header = json.loads(file.metadata()["skocc"])
    assert header["estimator"] == "DeepSVDD"
    assert header["versions"]["torch"] == torch.__version__.split("+")[0]
    assert header["versions"]["skocc"] == skocc.__version__


def test_names_of_columns_and_tuples_survive(digits, tmp_path):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(digits[0].reshape(-1, 64)).add_prefix("p")
    fitted = quick(skocc.DeepSVDD, widths=(9, 8), image_size=None).fit(table)
    skocc.save(fitted, tmp_path / "a.safetensors")
    loaded = skocc.load(tmp_path / "a.safetensors")
    assert list(loaded.feature_names_in_) == list(table.columns)
    assert loaded.widths == (9, 8)
    assert loaded.image_shape_ == (64,)
    np.testing.assert_array_equal(loaded.predict(table), fitted.predict(table))


def test_refitting_a_loaded_estimator_equals_the_original(fitted, digits, tmp_path):
    skocc.save(fitted, tmp_path / "a.safetensors")
    rows = digits[1][:60].reshape(-1, 64)
    again = skocc.load(tmp_path / "a.safetensors").fit(rows)
    np.testing.assert_array_equal(again.train_scores_, fitted.fit(rows).train_scores_)


def test_unfitted_and_foreign_estimators_are_refused(fitted, tmp_path):
    with pytest.raises(NotFittedError):
        skocc.save(skocc.DeepSVDD(), tmp_path / "a.safetensors")
    pipeline = make_pipeline(fitted)
    with pytest.raises(ValueError, match=r"Got a Pipeline\. Use joblib\.dump"):
        skocc.save(pipeline, tmp_path / "a.safetensors")
    fitted.set_params(random_state=np.random.RandomState(0))
    with pytest.raises(ValueError, match=r"random_state=.*cannot be saved.*set_params"):
        skocc.save(fitted, tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_not_ours_are_refused(fitted, tmp_path):
    path = tmp_path / "a.safetensors"
    with pytest.raises(ValueError, match=r"cannot be read as a safetensors file"):
        skocc.load(path)
    path.write_bytes(b"a pickle, say")
    with pytest.raises(
        ValueError, match=r"cannot be read as a safetensors file.*joblib\.load"
    ):
        skocc.load(path)
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="holds tensors but no estimator"):
        skocc.load(path)
    header = {"format": "99", "estimator": "DeepSVDD", "versions": {"skocc": "9.0"}}
    save_file({"weight": torch.zeros(2)}, path, metadata={"skocc": json.dumps(header)})
    with pytest.raises(ValueError, match=r"written by skocc 9\.0 as DeepSVDD.*cannot read"):
        skocc.load(path)
