"""Held-out images, optimizers and losses of all detectors that train a network."""

import numpy as np
import pytest
import torch

import skocc
from skocc._base.trained import split_indices
from skocc._engine import training
from skocc.estimators._spheres import SoftBoundary
from tests.quick import ESTIMATORS, quick, trains

of_trained = pytest.mark.parametrize(
    "estimator_class", [cls for cls in ESTIMATORS if trains(cls)]
)


def samples_of(batch):
    """Return the samples of whatever a loss is computed from, as bytes."""
    while isinstance(batch, tuple):  # (kind, batch) or (kind, (samples, targets))
        batch = batch[1] if isinstance(batch[0], int) else batch[0]
    return {sample.numpy().tobytes() for sample in batch}


@of_trained
def test_held_out_images_are_not_trained_on(estimator_class, digits):
    seen = {True: set(), False: set()}

    class Watched(estimator_class):
        def adjust_loss(self, loss, network, batch):
            seen[network.training] |= samples_of(batch)
            return loss

    Watched.__name__ = estimator_class.__name__
    estimator = quick(Watched, validation_fraction=0.25, batch_size=7).fit(digits[0])
    assert not seen[True] & seen[False]
    assert len(seen[True] | seen[False]) == 60
    # Of six atypical images 1.5 are held out, and of 54 others 13.5.
    assert len(seen[False]) == (16 if estimator_class is skocc.DataSplitOCC else 15)
    n_epochs = len(estimator.loss_curve_)
    assert len(estimator.validation_loss_curve_) == n_epochs == 2
    assert estimator.best_epoch_ == np.argmin(estimator.validation_loss_curve_)
    assert len(estimator.train_scores_) == 60


@of_trained
def test_without_held_out_images_there_is_no_curve(estimator_class, digits):
    estimator = quick(estimator_class, validation_fraction=0).fit(digits[0])
    if estimator_class is skocc.ConvAE:  # which validates on what it is trained on
        assert len(estimator.validation_loss_curve_) == 2
    else:
        assert estimator.validation_loss_curve_ == []
        assert estimator.best_epoch_ is None
    if estimator_class in (skocc.ConvAE, skocc.DataSplitOCC):  # which have other rules
        return
    other = quick(estimator_class, validation_fraction=0, n_iter_no_change=3)
    with pytest.raises(ValueError, match=r"n_iter_no_change has no effect: no images are"):
        other.fit(digits[0])


@of_trained
def test_training_stops_early_and_keeps_the_best_epoch(
    estimator_class, digits, monkeypatch
):
    def fit(n_epochs, **params):
        losses = iter([3.0, 1.0, 2.0, 2.0, 0.0])
        monkeypatch.setattr(training, "_mean_loss", lambda *args: next(losses))
        params = {"validation_fraction": 0.2, "tol": None, **params}
        known = estimator_class().get_params()
        params = {name: value for name, value in params.items() if name in known}
        return quick(estimator_class, n_epochs=n_epochs, **params).fit(digits[0])

    early = fit(20, n_iter_no_change=2)
    assert early.validation_loss_curve_ == [3, 1, 2, 2]
    assert early.best_epoch_ == 1
    if estimator_class is skocc.PatchSVDD:
        return  # its step size follows from the number of epochs
    shorter = fit(2, n_iter_no_change=None).network_.state_dict()
    for name, weight in early.network_.state_dict().items():
        assert torch.equal(weight, shorter[name]), name


@of_trained
def test_a_warm_start_adds_to_both_curves(estimator_class, digits):
    estimator = quick(estimator_class, validation_fraction=0.2, warm_start=True)
    first = estimator.fit(digits[0]).validation_loss_curve_
    estimator.fit(digits[0])
    assert len(estimator.validation_loss_curve_) == len(estimator.loss_curve_) == 4
    assert estimator.validation_loss_curve_[:2] == first


@of_trained
def test_too_few_samples_to_hold_any_out(estimator_class):
    n = estimator_class._min_samples
    images = np.random.default_rng(0).random((n, 8, 8))
    with pytest.raises(ValueError, match=rf"Got {n}.*n_samples={n}"):
        quick(estimator_class, validation_fraction=0.1).fit(images)
    quick(estimator_class, validation_fraction=0).fit(images)


@of_trained
@pytest.mark.parametrize("fraction", [-0.1, 1.0, "0.1"])
def test_fractions_out_of_range(estimator_class, fraction, digits):
    with pytest.raises(ValueError, match="'validation_fraction' parameter"):
        quick(estimator_class, validation_fraction=fraction).fit(digits[0])


@of_trained
def test_a_subclass_has_another_optimizer_and_another_loss(estimator_class, digits):
    made = []

    class Own(estimator_class):
        def make_optimizer(self, parameters, learning_rate, weight_decay):
            made.append((learning_rate, weight_decay))
            return torch.optim.SGD(parameters, lr=0.0)

        def adjust_loss(self, loss, network, batch):
            assert isinstance(network, torch.nn.Module)
            return loss + 1

    class Still(estimator_class):
        make_optimizer = Own.make_optimizer

    Own.__name__ = Still.__name__ = estimator_class.__name__
    own = quick(Own, validation_fraction=0.2).fit(digits[0])
    stages = [(own.learning_rate, own.weight_decay)]
    if hasattr(own, "pretrain_n_epochs"):
        stages.insert(0, (own.pretrain_learning_rate, own.pretrain_weight_decay))
    assert made == stages
    still = quick(Still, validation_fraction=0.2).fit(digits[0])
    for name in ("loss_curve_", "validation_loss_curve_"):
        expected = np.add(getattr(still, name), 1)
        np.testing.assert_allclose(getattr(own, name), expected, rtol=1e-5)


def test_what_an_adjusted_loss_draws_is_reproducible(digits):
    class Noisy(skocc.DeepSVDD):
        def adjust_loss(self, loss, network, batch):
            return loss + network(batch + 0.1 * torch.randn_like(batch)).square().mean()

    Noisy.__name__ = "DeepSVDD"
    before = torch.get_rng_state()
    scores = [quick(Noisy).fit(digits[0]).train_scores_ for _ in range(2)]
    np.testing.assert_array_equal(*scores)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("estimator_class", ESTIMATORS)
def test_a_subclass_that_scores_in_another_way_does_so_in_fit(estimator_class, digits):
    class Doubled(estimator_class):
        def _score(self, images, device):
            result = super()._score(images, device)
            return result._replace(scores=2 * result.scores)

    Doubled.__name__ = estimator_class.__name__
    scores = quick(estimator_class).fit(digits[0]).train_scores_
    doubled = quick(Doubled).fit(digits[0])
    np.testing.assert_allclose(doubled.train_scores_, 2 * scores, rtol=1e-6)
    np.testing.assert_allclose(doubled.score_samples(digits[0]), 2 * scores, rtol=1e-5)


@pytest.mark.parametrize(
    ("n", "fraction", "n_least", "n_held_out"),
    [(60, 0.2, 2, 12), (3, 0.01, 2, 1), (10, 0.99, 2, 8), (2, 0.5, 2, 0), (1, 0.5, 2, 0)],
)
def test_sizes_of_the_parts(n, fraction, n_least, n_held_out):
    generator = torch.Generator().manual_seed(0)
    trained, held_out = split_indices(n, fraction, n_least, generator)
    assert len(held_out) == n_held_out
    assert sorted([*trained, *held_out]) == [*range(n)]


def test_each_validation_draws_the_same_numbers():
    generator = torch.Generator().manual_seed(1)
    drawn, before = [], generator.get_state()

    def loss_fn(batch):
        drawn.append(torch.rand((), generator=generator))
        return drawn[-1]

    rule = training.EarlyStopping([torch.zeros(3), torch.zeros(3)], None, generator)
    for _ in range(2):
        rule.measure(torch.nn.Linear(1, 1), loss_fn)
    assert drawn[0] != drawn[1]
    assert drawn[:2] == drawn[2:]
    assert torch.equal(generator.get_state(), before)


def test_videos_are_held_out_whole():
    videos = list(np.random.default_rng(0).random((4, 5, 8, 8)).astype(np.float32))
    seen = {True: set(), False: set()}

    class Watched(skocc.VideoMOCCA):
        def adjust_loss(self, loss, network, batch):
            frames = batch[:, 0].flatten(0, 1)  # of gray clips (b, C, T, H, W)
            seen[network.training] |= samples_of(frames)
            return loss

    Watched.__name__ = "VideoMOCCA"
    params = {"clip_length": 2, "batch_size": 3, "n_epochs": 1}
    quick(Watched, validation_fraction=0.25, **params).fit(videos)
    assert not seen[True] & seen[False]
    assert (len(seen[True]), len(seen[False])) == (15, 5)
    with pytest.raises(ValueError, match=r"whole videos. Got 1 video. Cut it"):
        quick(skocc.VideoMOCCA, validation_fraction=0.25, **params).fit(videos[:1])


def test_what_does_not_go_with_held_out_images(digits, tmp_path):
    held_out = {"validation_fraction": 0.2}
    with pytest.raises(ValueError, match=r"averaged .* best epoch. Got weight_average=0.9"):
        quick(skocc.DataSplitOCC, weight_average=0.9, **held_out).fit(digits[0])
    with pytest.raises(ValueError, match="tol has no effect: held-out images"):
        quick(skocc.DataSplitOCC, tol=0.1, **held_out).fit(digits[0])
    params = {"checkpoint_dir": tmp_path, "random_state": None, **held_out}
    with pytest.raises(ValueError, match=r"held out again. Got random_state=None. Set"):
        quick(skocc.ConvAE, **params).fit(digits[0])


def test_a_held_out_batch_moves_no_radius():
    boundary = SoftBoundary(0.5, 1, 0, "batch", radius=3.0)
    with torch.no_grad():
        loss = boundary(torch.tensor([1.0, 4.0, 9.0]))
    # Its own radius is 2, the median of the distances, and one of three is 5 beyond.
    assert loss.item() == pytest.approx(4 + 5 / 3 / 0.5)
    assert boundary.radius == 3
    boundary(torch.tensor([1.0, 4.0, 9.0]))
    assert boundary.radius == 2
