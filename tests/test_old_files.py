"""Model files that skocc 0.1 wrote still load, and give the scores they gave.

Made by ``tests/golden.py``. On another processor scores differ in their last digits.
"""

import lzma
from pathlib import Path

import numpy as np
import pytest

import skocc
from skocc._base.old_files import current_form
from tests import golden

FOLDER = Path(__file__).parent / "models_0_1"
CASES = [name for name in golden.CASES if (FOLDER / f"{name}.xz").exists()]


def test_there_is_a_file_of_each_class():
    classes = {name.partition("-")[0] for name in CASES}
    assert classes == {name.partition("-")[0] for name in golden.CASES}
    assert len(CASES) == len(list(FOLDER.glob("*.xz")))


@pytest.mark.parametrize("name", CASES)
def test_a_file_of_0_1_gives_the_scores_it_gave(name, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(lzma.decompress((FOLDER / f"{name}.xz").read_bytes()))
    estimator = skocc.load(path)
    _, X = golden.images_of(name, tmp_path)
    method = "transform" if hasattr(estimator, "transform") else "score_samples"
    scores, expected = getattr(estimator, method)(X), np.load(FOLDER / "scores.npz")[name]
    scale = np.abs(expected).max()
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5 * scale)
    if hasattr(estimator, "anomaly_map"):  # 0.1 had no threshold of maps
        assert len(estimator.anomaly_mask(X, threshold=0)) == len(X)
        with pytest.raises(AttributeError, match=r"no pixel_threshold_.*Got .*Fit again"):
            estimator.anomaly_mask(X)
    if hasattr(estimator, "partial_fit"):  # 0.1 had none
        assert estimator.n_samples_seen_ == len(estimator.train_scores_)
    if "-" in name:
        return
    # What was loaded can be saved, and is the same again: once for each class.
    skocc.save(estimator, path)
    again = skocc.load(path)
    assert again.get_params() == estimator.get_params()
    np.testing.assert_array_equal(getattr(again, method)(X), scores)


@pytest.mark.parametrize(
    ("shape", "params", "backbone"),
    [
        ([8, 8, 1], {"selectors": False}, None),
        ([64, 80, 1], {"selectors": False}, "plain_residual"),
        ([64, 80, 1], {"selectors": True}, None),
        ([63, 80, 1], {"selectors": False}, None),
        ([80, 80, 1], {"selectors": False, "patch_size": 32}, None),
        ([8, 8, 1], {"selectors": False, "architecture": "residual"}, "plain_residual"),
        ([64, 80, 1], {"selectors": False, "architecture": "lenet"}, "lenet"),
        ([100], {"selectors": False}, None),
    ],
)
def test_selectors_and_architecture_of_mocca_are_its_backbone(shape, params, backbone):
    params = {"architecture": "auto", "patch_size": None, "freeze_bn": True} | params
    header = {
        "estimator": "MOCCA",
        "params": {"widths": None, "latent_dim": 4, **params},
        "values": {"image_shape_": {"tuple": shape}},
    }
    found, _ = current_form(header, {})
    assert found["params"] == {
        "channels": None, "embedding_dim": 4, "batch_norm": "frozen",
        "backbone": backbone, "patch_size": params["patch_size"],
    }  # fmt: skip


def test_neighbors_that_the_minimum_did_not_use_are_one():
    for aggregation, n_neighbors in [("min", 1), ("mean", 5)]:
        header = {
            "estimator": "ResNetKNN",
            "params": {"aggregation": aggregation, "n_neighbors": 5, "patch_dim": 8},
            "values": {},
        }
        found, arrays = current_form(header, {"network_/a/b": 0, "bank_": 1})
        assert found["params"] == {
            "neighbor_aggregation": aggregation, "n_neighbors": n_neighbors,
            "embedding_dim": 8,
        }  # fmt: skip
        assert arrays == {"network_/a/b": 0, "bank_": 1}
