"""The logger "skocc": what a fit tells, and that it prints nothing by itself."""

import logging
import subprocess
import sys

import pytest

import skocc
from skocc._engine import training
from tests.quick import ESTIMATORS, quick, trains


@pytest.mark.parametrize("estimator_class", ESTIMATORS)
def test_stages_are_told(estimator_class, digits, caplog):
    caplog.set_level(logging.INFO, "skocc")
    estimator = quick(estimator_class).fit(digits[0])
    assert {record.name for record in caplog.records} == {"skocc"}
    name, lines = estimator_class.__name__, caplog.messages
    assert any(line.startswith(f"{name}: fits 60 samples") for line in lines)
    assert lines[-1] == f"{name}: is fitted, with offset_={estimator.offset_:.6g}"
    if trains(estimator_class):
        assert any(f"{name}: starts on cpu, at most 2 epochs" in line for line in lines)
        last = f"loss {estimator.loss_curve_[-1]:.6g}"
        assert any(f"{name}: ended after 2 epochs" in x and last in x for x in lines)
    if hasattr(estimator, "pretrain_n_epochs"):
        assert any(f"{name}: autoencoder: ended after 2 epochs" in x for x in lines)
    if "max_bank_bytes" in estimator.get_params():
        assert any("memory bank keeps" in line for line in lines)
    assert not any("epoch 1 of" in line for line in lines)


def test_each_epoch_at_the_level_debug(digits, caplog, monkeypatch):
    caplog.set_level(logging.DEBUG, "skocc")
    losses = iter([2.0, 1.0, 3.0])
    monkeypatch.setattr(training, "_mean_loss", lambda *args: next(losses))
    estimator = quick(
        skocc.DeepSVDD, n_epochs=9, validation_fraction=0.1, n_iter_no_change=1
    ).fit(digits[0])
    loss = estimator.loss_curve_[1]
    assert f"DeepSVDD: epoch 2 of 9, loss {loss:.6g}, held-out loss 1" in caplog.messages
    (end,) = [line for line in caplog.messages if "DeepSVDD: ended" in line]
    assert "ended early after 3 epochs" in end
    assert end.endswith("weights of epoch 2")


def test_warnings_go_to_both(digits, caplog):
    estimator = quick(skocc.DeepSVDD).fit(digits[0]).set_params(device="cuda:99")
    with pytest.warns(UserWarning, match="scoring on the CPU instead"):
        estimator.score_samples(digits[0])
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "scoring on the CPU instead" in record.message


def test_resumed_trainings_are_told(digits, caplog, tmp_path):
    caplog.set_level(logging.INFO, "skocc")
    for n_epochs in (2, 3):
        quick(skocc.ConvAE, checkpoint_dir=tmp_path, n_epochs=n_epochs).fit(digits[0])
    assert caplog.messages.count("ConvAE: resumes after 2 epochs") == 1


def test_nothing_is_printed_unless_asked_for():
    code = (
        "import numpy as np, skocc, warnings; warnings.simplefilter('ignore')\n"
        "X = np.zeros((20, 8, 8)); X[:, 0] = np.arange(8)\n"
        "skocc.DeepSVDD(n_epochs=1, pretrain_n_epochs=0, device='cpu',"
        " filter_init='random').fit(X)\n"
        "import logging\n"
        "assert not logging.getLogger().handlers\n"
        "print(logging.getLogger('skocc').level)"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert shown.stdout + shown.stderr == f"{logging.NOTSET}\n"
