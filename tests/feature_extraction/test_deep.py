import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from numpydoc.docscrape import ClassDoc
from PIL import Image
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM
from sklearn.utils.estimator_checks import check_estimator
from torch import nn

import skocc
from skocc._nets.backbones import FeatureMaps
from skocc._nets.normalization import ImageNetNormalization
from skocc.feature_extraction import DeepFeatures


def make(**params):
    small = {"backbone": "shufflenet_v2_x0_5", "weights": None, "layers": ("stage2",)}
    return DeepFeatures(**(small | {"image_size": 32, "random_state": 0} | params))


@pytest.fixture(scope="module")
def tiny():
    """A network of two layers, with 4 and 6 channels."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 6, 3, 2, padding=1)
        )


@pytest.mark.filterwarnings("ignore")
def test_sklearn_suite():
    # Not with a module: joblib gives copies other hashes, as if fit had changed it.
    transformer = make(layers=("conv1",), image_shape=(1, -1), image_size=None)
    results = check_estimator(transformer, on_fail=None, on_skip=None)
    assert len(results) > 40
    failed = [result for result in results if result["status"] == "failed"]
    assert not failed


@pytest.mark.parametrize("normalization", [None, "imagenet"])
def test_features_are_means_of_the_layers(tiny, digits, normalization):
    transformer = DeepFeatures(
        backbone=tiny,
        layers=("1", "2"),
        normalization=normalization,
        image_size=None,
        batch_size=7,
    )
    table = transformer.fit_transform(digits[0][:20])
    assert table.shape == (20, 10)
    assert table.dtype == np.float32
    batch = torch.from_numpy(digits[0][:20])[:, None].expand(-1, 3, -1, -1)
    batch = ImageNetNormalization()(batch) if normalization else batch
    with torch.no_grad():
        first = tiny[1](tiny[0](batch))
        means = [first.mean((2, 3)), tiny[2](first).mean((2, 3))]
    np.testing.assert_allclose(table, torch.cat(means, dim=1), rtol=1e-5, atol=1e-6)
    # No row depends on the others.
    rows = transformer.transform(digits[0][5:6])
    np.testing.assert_allclose(rows, table[5:6], rtol=1e-6)


@pytest.mark.parametrize(
    ("layers", "n_columns"), [(None, 2048), (("layer2", "layer3"), 512 + 1024)]
)
def test_columns_of_the_report(layers, n_columns):
    images = np.random.default_rng(0).random((2, 32, 32), dtype=np.float32)
    transformer = DeepFeatures(weights=None, layers=layers, image_size=None)
    table = transformer.fit_transform(images)
    assert table.shape == (2, n_columns)
    names = transformer.get_feature_names_out()
    assert len(set(names)) == n_columns
    ends = ("layer4_0", "layer4_2047") if layers is None else ("layer2_0", "layer3_1023")
    assert (names[0], names[-1]) == ends


def test_layers_that_give_a_vector(digits):
    table = make(layers=("stage2", "fc")).fit_transform(digits[0][:3])
    assert table.shape == (3, 48 + 1000)


def test_kinds_of_images_agree(tiny, image_files):
    images, paths = image_files
    transformer = DeepFeatures(backbone=tiny, layers=("2",), image_size=(10, 8))
    table = transformer.fit(images).transform(images)
    flat = clone(transformer).set_params(image_shape=(16, 12))
    for X, other in [
        (paths, transformer),
        (pd.Series(paths), transformer),
        ([Image.fromarray(image) for image in images], transformer),
        (torch.from_numpy(images)[:, None], transformer),
        (torch.utils.data.TensorDataset(torch.from_numpy(images)), transformer),
        (images.reshape(12, -1), flat),
    ]:
        np.testing.assert_array_equal(clone(other).fit(X).transform(X), table)
    np.testing.assert_array_equal(transformer.transform(paths), table)


def test_table_of_pandas(digits):
    transformer = make().set_output(transform="pandas")
    table = transformer.fit_transform(digits[0][:4])
    assert list(table.columns) == [f"stage2_{i}" for i in range(48)]
    assert list(table.columns) == list(transformer.get_feature_names_out())


def test_copies_and_files_give_the_same(digits, tmp_path):
    images = digits[0][:6]
    transformer = make().fit(images)
    table = transformer.transform(images)
    np.testing.assert_array_equal(make().fit_transform(images), table)
    other = make(random_state=1).fit_transform(images)
    assert not np.allclose(other, table)
    skocc.save(transformer, tmp_path / "features.safetensors")
    for copied in [
        pickle.loads(pickle.dumps(transformer)),
        skocc.load(tmp_path / "features.safetensors"),
    ]:
        np.testing.assert_array_equal(copied.transform(images), table)
        assert copied.get_params() == transformer.get_params()


def test_pipeline_of_the_report_in_a_search(tmp_path, monkeypatch, image_files):
    images, paths = image_files
    counts = []
    forward = FeatureMaps.forward

    def counting(self, batch):
        if batch.device.type != "meta":
            counts.append(len(batch))
        return forward(self, batch)

    monkeypatch.setattr(FeatureMaps, "forward", counting)
    y = np.r_[np.ones(8, dtype=int), np.full(4, -1)]
    split = [(np.arange(6), np.arange(6, 12)), (np.arange(2, 8), np.r_[0:2, 8:12])]
    pipeline = make_pipeline(
        make(memory=tmp_path), StandardScaler(), PCA(0.95), OneClassSVM()
    )
    for X in (paths, images):
        search = GridSearchCV(
            pipeline,
            {
                "oneclasssvm__nu": [0.1, 0.5],
                "oneclasssvm__kernel": ["rbf", "linear"],
                "pca__n_components": [0.9, 0.95],
            },
            cv=split,
            scoring="roc_auc",
            refit=False,
        ).fit(X, y)
        assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    # Files and arrays of the same pixels are the same images.
    assert sum(counts) == len(images)


def test_good_for_other_detectors(image_files):
    images, _ = image_files
    pipeline = make_pipeline(make(), IsolationForest(n_estimators=5, random_state=0))
    assert set(pipeline.fit(images).predict(images)) <= {-1, 1}
    assert "DeepFeatures" in pipeline._repr_html_()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"layers": ("stage9",)}, "'stage9', which this ShuffleNetV2 does not"),
        ({"layers": "stage2"}, "'layers' parameter"),
        ({"weights": "missing.pt"}, "missing.pt' is not a file"),
        ({"device": "abacus"}, "not the name of a device"),
        ({"image_shape": (4, 4, 4)}, r"1 or 3 channels.*Got samples .*\(32, 32, 4\)"),
    ],
)
def test_what_cannot_be_used(digits, params, message):
    transformer = make(**params)
    with pytest.raises(ValueError, match=message):
        transformer.fit(digits[0].reshape(-1, 64) if "image_shape" in params else digits[0])
    assert not hasattr(transformer, "image_shape_")
    with pytest.raises(NotFittedError):
        transformer.transform(digits[0])


def test_global_random_state_is_untouched(digits):
    before = torch.get_rng_state()
    make(random_state=None).fit_transform(digits[0][:3])
    assert torch.equal(torch.get_rng_state(), before)


def test_progress_bar_only_when_verbose(digits, progress_labels):
    make().fit_transform(digits[0][:3])
    assert not progress_labels
    make(verbose=1).fit_transform(digits[0][:3])
    assert progress_labels == {"DeepFeatures: features"}


def test_documentation(digits):
    doc = ClassDoc(DeepFeatures)
    names = [parameter.name for parameter in doc["Parameters"]]
    code = DeepFeatures.__init__.__code__
    assert names == list(code.co_varnames[1 : 1 + code.co_kwonlyargcount])
    for parameter in doc["Parameters"]:
        default = repr(DeepFeatures().get_params()[parameter.name]).replace("'", '"')
        assert parameter.type.endswith(f"default={default}")
    fitted = {name for name in vars(make().fit(digits[0])) if name.endswith("_")}
    documented = {attribute.name for attribute in doc["Attributes"]}
    assert documented - fitted == {"feature_names_in_"}
    assert fitted <= documented
