"""scikit-learn's callbacks, where it has them."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import skocc
from tests.quick import ESTIMATORS, quick, trains

callback = pytest.importorskip("sklearn.callback", reason="of scikit-learn 1.9")
ON_ALL = pytest.mark.parametrize("estimator_class", ESTIMATORS)


class Notes:
    """Notes what it is told, and ends a stage after `n_epochs` epochs."""

    def __init__(self, n_epochs=None):
        self.tasks, self.losses, self.n_epochs = [], [], n_epochs

    def setup(self, estimator, context):
        self.tasks.append("setup")

    def teardown(self, estimator, context):
        self.tasks.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        self.tasks.append(f"begin {context.task_name}")

    def on_fit_task_end(self, estimator, context):
        self.tasks.append(f"end {context.task_name}")
        if context.task_name != "epoch":
            return False
        name = "loss_curve_"
        if context.parent.task_name.endswith("autoencoder"):
            name = "pretrain_loss_curve_"
        self.losses.append(getattr(estimator, name)[-1])
        return context.task_id + 1 == self.n_epochs


def mean_score(estimator, X, y):
    return estimator.decision_function(X).mean()


@ON_ALL
def test_callbacks_are_told_of_stages_and_change_nothing(estimator_class, digits):
    plain = quick(estimator_class).fit(digits[0])
    notes, monitor = Notes(), callback.ScoringMonitor(scoring={"mean": mean_score})
    estimator = quick(estimator_class).set_callbacks(notes, monitor)
    estimator.fit(digits[0], np.ones(60))
    np.testing.assert_array_equal(estimator.train_scores_, plain.train_scores_)
    np.testing.assert_array_equal(
        estimator.score_samples(digits[1]), plain.score_samples(digits[1])
    )
    name, losses, stages = estimator_class.__name__, [], []
    if hasattr(estimator, "pretrain_loss_curve_"):
        stages.append(f"{name}: autoencoder")
        losses += estimator.pretrain_loss_curve_
    if trains(estimator_class):
        stages.append(name)
        losses += estimator.loss_curve_
    inner = []
    for stage in stages:
        epochs = ["begin epoch", "end epoch"] * 2
        inner += [f"begin {stage}", *epochs, f"end {stage}"]
    assert notes.tasks == ["setup", "begin fit", *inner, "end fit", "teardown"]
    assert notes.losses == losses
    scores = [row["mean"] for row in monitor.get_logs().data]
    assert len(scores) == (3 if trains(estimator_class) else 1)
    # The tree begins with the fit, whose score is that of the fitted estimator.
    assert scores[0] == pytest.approx(mean_score(estimator, digits[0], None))


@ON_ALL
def test_after_each_epoch_the_detector_is_as_if_fit_had_ended(estimator_class, digits):
    if not trains(estimator_class):
        pytest.skip("has no epochs")
    if estimator_class in (skocc.PatchSVDD, skocc.ConvAE):
        pytest.skip("its step size follows from n_epochs, or it ends with its best epoch")
    seen = []

    def note(estimator, X, y):
        seen.append((estimator.train_scores_, estimator.offset_, estimator.predict(X)))
        return 0.0

    params = {"validation_fraction": 0.0}
    monitor = callback.ScoringMonitor(scoring={"note": note})
    estimator = quick(estimator_class, n_epochs=3, **params).set_callbacks(monitor)
    estimator.fit(digits[0], np.ones(60))
    for n_epochs in (1, 2, 3):
        shorter = quick(estimator_class, n_epochs=n_epochs, **params).fit(digits[0])
        scores, offset, labels = seen[n_epochs - 1]
        np.testing.assert_array_equal(scores, shorter.train_scores_)
        assert offset == shorter.offset_
        np.testing.assert_array_equal(labels, shorter.predict(digits[0]))


def test_a_callback_ends_the_stage(digits):
    estimator = quick(skocc.DeepSVDD, n_epochs=9, pretrain_n_epochs=5)
    estimator.set_callbacks(Notes(n_epochs=3)).fit(digits[0])
    assert len(estimator.loss_curve_) == len(estimator.pretrain_loss_curve_) == 3


def test_callbacks_are_ended_after_an_error(digits):
    notes = Notes()
    estimator = quick(skocc.DeepSVDD).set_callbacks(notes)
    with pytest.raises(ValueError, match="NaN"):
        estimator.fit(np.full((20, 8, 8), np.nan))
    assert notes.tasks == ["setup", "begin fit", "teardown"]
    assert not hasattr(estimator, "_callback_fit_ctx")


def test_what_a_callback_draws_does_not_change_the_fit(digits):
    class Draws(Notes):
        def on_fit_task_end(self, estimator, context):
            torch.randn(10)

    params = {"channels": None, "dropout": 0.5, "n_epochs": 3}
    rows = digits[0].reshape(60, -1)
    plain = quick(skocc.DataSplitOCC, **params).fit(rows)
    estimator = quick(skocc.DataSplitOCC, **params).set_callbacks(Draws()).fit(rows)
    np.testing.assert_array_equal(estimator.train_scores_, plain.train_scores_)


def test_in_pipelines_and_searches(digits):
    monitor = callback.ScoringMonitor(scoring={"mean": mean_score})
    detector = quick(skocc.DeepSVDD).set_callbacks(monitor)
    make_pipeline(FunctionTransformer(), detector).fit(digits[0], np.ones(60))
    assert len(monitor.get_logs().data) == 3
    GridSearchCV(detector, {"batch_size": [20, 30]}, cv=2, scoring=mean_score).fit(
        digits[0], np.ones(60)
    )
    assert len(monitor.get_logs().data) == 5 * 3  # four fits, and that of the best


def test_callbacks_belong_to_the_program(digits, tmp_path):
    detector = quick(skocc.DeepSVDD).set_callbacks(Notes()).fit(digits[0])
    assert clone(detector)._skl_callbacks == detector._skl_callbacks
    assert pickle.loads(pickle.dumps(detector)).offset_ == detector.offset_
    skocc.save(detector, tmp_path / "model.safetensors")
    assert not hasattr(skocc.load(tmp_path / "model.safetensors"), "_skl_callbacks")


def test_progress_bar(digits, capsys):
    pytest.importorskip("rich")
    quick(skocc.DeepSVDD).set_callbacks(callback.ProgressBar()).fit(digits[0])
    assert "DeepSVDD: autoencoder" in capsys.readouterr().out
