"""Checkpoints of whole fits: what is killed ends as if it had not been."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

import skocc
from skocc._engine import checkpoints
from tests.quick import ESTIMATORS, quick, trains

TRAINED = [cls for cls in ESTIMATORS if trains(cls)]
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


class PowerCut(Exception):
    pass


@pytest.fixture
def X(digits):
    """Images (24, 8, 8) of one digit."""
    return digits[0][:24]


@pytest.fixture
def fail_at(monkeypatch):
    """Function that makes the optimizer raise errors, by the number of the step."""
    step = torch.optim.Adam.step

    def set_up(errors):
        n_steps = 0

        def failing(self, *args, **kwargs):
            nonlocal n_steps
            n_steps += 1
            if n_steps in errors:
                raise errors[n_steps]
            return step(self, *args, **kwargs)

        monkeypatch.setattr(torch.optim.Adam, "step", failing)

    return set_up


def assert_same(first, second):
    for name in ("loss_curve_", "validation_loss_curve_", "offset_", "best_epoch_"):
        assert getattr(first, name) == getattr(second, name), name
    for key, value in first.network_.state_dict().items():
        assert torch.equal(second.network_.state_dict()[key], value), key
    np.testing.assert_array_equal(first.train_scores_, second.train_scores_)


# In the second epoch of the first stage, and in that of the main one.
@pytest.mark.parametrize(
    ("estimator_class", "in_main"),
    [(cls, True) for cls in TRAINED]
    + [(cls, False) for cls in TRAINED if hasattr(cls(), "pretrain_n_epochs")],
)
def test_a_resumed_fit_equals_an_unbroken_one(
    estimator_class, in_main, X, tmp_path, fail_at
):
    params = {"batch_size": 6, "validation_fraction": 0.25 if in_main else 0}
    whole = quick(estimator_class, **params).fit(X)
    assert os.listdir(tmp_path) == []  # nothing is written unless it is asked for
    resumable = quick(estimator_class, checkpoint_dir=tmp_path, **params)
    has_two = in_main and hasattr(estimator_class(), "pretrain_n_epochs")
    # Four steps an epoch; in the main stage three, of each kind of batch.
    n_main = 9 if estimator_class is skocc.DataSplitOCC else 3
    fail_at({(8 + n_main if has_two else 4) + 2: PowerCut()})
    with pytest.raises(PowerCut):
        resumable.fit(X)
    assert not hasattr(resumable, "offset_")
    assert len(os.listdir(tmp_path)) == 1 + has_two
    fail_at({})
    assert_same(resumable.fit(X), whole)


@pytest.mark.parametrize("estimator_class", [skocc.ConvAE, skocc.DeepSVDD])
def test_a_checkpoint_belongs_to_one_fit(estimator_class, X, tmp_path):
    params = {"checkpoint_dir": tmp_path, "contamination": 0.2}
    quick(estimator_class, **params).fit(X)
    for name, value in {"learning_rate": 0.007, "batch_size": 7, "random_state": 1}.items():
        with pytest.raises(ValueError, match=f"another training: .*{name}=.*here"):
            quick(estimator_class, **params | {name: value}).fit(X)
    with pytest.raises(ValueError, match=r"another training: images='.*here"):
        quick(estimator_class, **params).fit(X[::-1])
    # What does not change the training may differ.
    other = quick(estimator_class, **params | {"contamination": 0.3})
    assert other.fit(X).offset_ == np.quantile(other.train_scores_, 0.3)


@pytest.mark.parametrize("estimator_class", [skocc.ConvAE, skocc.MOCCA])
def test_what_cannot_be_resumed_is_an_error_before_training(estimator_class, X, tmp_path):
    params = {"checkpoint_dir": tmp_path / "folder", "validation_fraction": 0.2}
    for seed in (None, np.random.RandomState(0)):
        with pytest.raises(
            ValueError, match=r"drawn again.*random_state.*Set random_state"
        ):
            quick(estimator_class, **params | {"random_state": seed}).fit(X)
    assert os.listdir(tmp_path) == []
    warm = quick(estimator_class, warm_start=True, **params).fit(X)
    with pytest.raises(ValueError, match=r"Got both.*checkpoint_dir=None"):
        warm.fit(X)


def test_banks_grow_beside_checkpoints(X, tmp_path):
    detector = quick(skocc.PatchSVDD, checkpoint_dir=tmp_path).fit(X[:16])
    files = [(f.name, f.read_bytes()) for f in tmp_path.iterdir()]
    detector.partial_fit(X[16:])
    assert files == [(f.name, f.read_bytes()) for f in tmp_path.iterdir()]


def test_parameters_in_lists_and_paths_are_compared(X, tmp_path):
    params = {"checkpoint_dir": str(tmp_path), "channels": (4, 8)}
    quick(skocc.DeepSVDD, **params).fit(X)
    quick(skocc.DeepSVDD, **params | {"channels": [np.int64(4), 8]}).fit(X)
    with pytest.raises(
        ValueError, match=r"channels='\(4, 8\)' in the file, '\(4, 9\)' her"
    ):
        quick(skocc.DeepSVDD, **params | {"channels": (4, 9)}).fit(X)


def test_the_schedule_of_patch_svdd_has_a_length(X, tmp_path):
    quick(skocc.PatchSVDD, checkpoint_dir=tmp_path).fit(X)
    with pytest.raises(ValueError, match=r"n_epochs=2 in the file, 3 here"):
        quick(skocc.PatchSVDD, checkpoint_dir=tmp_path, n_epochs=3).fit(X)


def test_other_features_are_another_training(X, tmp_path):
    detector = quick(skocc.FeatureCAE, checkpoint_dir=tmp_path, backbone=small_backbone(0))
    detector.set_params(layers=["0"]).fit(X)
    detector.fit(X)
    with pytest.raises(ValueError, match=r"another training: backbone_="):
        detector.set_params(backbone=small_backbone(1)).fit(X)


def small_backbone(seed):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1))


@pytest.mark.parametrize(
    "estimator_class", [skocc.DeepSVDD, skocc.MOCCA, skocc.DataSplitOCC]
)
def test_what_follows_an_interrupted_autoencoder_is_kept(
    estimator_class, X, tmp_path, fail_at
):
    params = {"batch_size": 6}
    fail_at({6: KeyboardInterrupt()})
    with pytest.warns(UserWarning, match="autoencoder ends after 1 of 2"):
        whole = quick(estimator_class, **params).fit(X)
    params["checkpoint_dir"] = tmp_path
    # Then the main stage, in whose second epoch the power fails.
    n_steps = 12 if estimator_class is skocc.DataSplitOCC else 4
    fail_at({6: KeyboardInterrupt(), 6 + n_steps + 2: PowerCut()})
    with (
        pytest.warns(UserWarning, match="autoencoder ends after 1 of 2"),
        pytest.raises(PowerCut),
    ):
        quick(estimator_class, **params).fit(X)
    fail_at({})
    assert_same(quick(estimator_class, **params).fit(X), whole)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")
def test_a_full_disk_leaves_the_detector_as_it_was(X, tmp_path, monkeypatch):
    detector = quick(skocc.DeepSVDD, checkpoint_dir=tmp_path)
    params = dict(vars(detector))
    full = open  # of this module, before it is replaced in another
    monkeypatch.setattr(
        checkpoints, "open", lambda *args: full("/dev/full", "wb"), raising=False
    )
    with pytest.raises(OSError, match="No space left") as raised:
        detector.fit(X)
    assert os.path.dirname(raised.value.filename) == str(tmp_path)
    assert vars(detector) == params
    assert os.listdir(tmp_path) == []
    monkeypatch.undo()
    detector.fit(X)


def run(*args):
    command = [sys.executable, "-m", "tests.resuming", *args]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@needs_fork
def test_one_is_killed_and_one_is_interrupted():
    found = run("both", "2", "MOCCA", "Denoising")
    assert found.count("2 of 2 equal") == found.count("2 of 2 well") == 2


@needs_fork
@pytest.mark.slow
def test_all_are_killed():
    assert run("kill", "20").count("20 of 20 equal") == len(TRAINED) + 1


@needs_fork
@pytest.mark.slow
def test_ctrl_c_in_all():
    assert run("interrupt", "20").count("20 of 20 well") == len(TRAINED) + 1
