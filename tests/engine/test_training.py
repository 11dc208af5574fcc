import numpy as np
import pytest
import torch

from skocc._engine.batches import InTurn
from skocc._engine.training import (
    Convergence,
    EarlyStopping,
    StoppingRule,
    adam,
    train,
    train_by_milestones,
)
from skocc._samples import progress


class Line(torch.nn.Module):
    """Two parameters: y = w x + b."""

    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(()))
        self.b = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return self.w * x + self.b


X = torch.linspace(-1, 1, 20)
BATCHES = [(x, 2 * x + 1) for x in X.split(5)]


def fit(line, n_epochs=50, batches=BATCHES, **params):
    def loss_fn(batch):
        x, y = batch
        return (line(x) - y).square().mean()

    optimizer = torch.optim.Adam(line.parameters(), lr=0.1)
    return train(line, loss_fn, batches, optimizer=optimizer, n_epochs=n_epochs, **params)


def test_minimizes_and_reports_the_mean_loss():
    line = Line()
    history = fit(line)
    assert line.w.item() == pytest.approx(2, abs=0.05)
    assert line.b.item() == pytest.approx(1, abs=0.05)
    assert len(history.loss_curve) == 50
    assert history.loss_curve[-1] < 1e-2 < history.loss_curve[0]
    assert history.validation_loss_curve == []
    assert history.best_epoch is None


def test_no_epochs_changes_nothing():
    line = Line()
    assert fit(line, n_epochs=0).loss_curve == []
    assert line.w == 0


def test_validation_stops_early_and_restores_the_best_epoch():
    # Training pulls to one line, validation wants another that is passed on the way.
    line = Line()
    validation = [(x, 0.5 * x) for x in X.split(5)]
    history = fit(line, n_epochs=100, stopping=EarlyStopping(validation, 3))
    curve = history.validation_loss_curve
    assert history.best_epoch == int(np.argmin(curve))
    assert len(curve) == history.best_epoch + 1 + 3 < 100
    restored = np.mean([(line(x) - y).square().mean().item() for x, y in validation])
    assert restored == pytest.approx(min(curve))


def test_without_a_limit_all_epochs_run_and_the_best_is_restored():
    validation = [(x, 0.5 * x) for x in X.split(5)]
    history = fit(Line(), n_epochs=30, stopping=EarlyStopping(validation, None))
    assert len(history.loss_curve) == len(history.validation_loss_curve) == 30
    assert history.best_epoch < 29


def test_modes_while_training_and_validating():
    line, modes = Line(), []
    line.register_forward_hook(lambda module, *_: modes.append(module.training))
    fit(line, n_epochs=2, batches=BATCHES[:1], stopping=EarlyStopping(BATCHES[1:2], None))
    assert modes == [True, False, True, False]


def test_scheduler_steps_after_each_epoch():
    line = Line()
    optimizer = torch.optim.SGD(line.parameters(), lr=1.0)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3])
    rates = []

    def loss_fn(batch):
        rates.append(optimizer.param_groups[0]["lr"])
        return line(X).square().mean()

    train(line, loss_fn, [0], optimizer=optimizer, n_epochs=6, scheduler=scheduler)
    # Epochs from the milestone on, counted from zero, have the lower rate.
    assert rates == pytest.approx([1, 1, 1, 0.1, 0.1, 0.1])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_loss_that_is_not_finite_stops_with_advice(value):
    line = Line()
    with pytest.raises(FloatingPointError, match=r"wobbling.*epoch 1.*Lower the learning"):
        train(
            line,
            lambda batch: line.w * 0 + value,
            [0],
            optimizer=torch.optim.SGD(line.parameters(), lr=1.0),
            n_epochs=3,
            stage="wobbling",
        )


def test_interrupt_ends_the_stage_and_restores_the_best():
    line = Line()
    calls = []

    def loss_fn(batch):
        calls.append(1)
        if len(calls) == 10:
            raise KeyboardInterrupt
        return (line(X) - 1).square().mean()

    optimizer = torch.optim.Adam(line.parameters(), lr=0.1)
    with pytest.warns(UserWarning, match="ends after 4 of 99 epochs and keeps"):
        history = train(line, loss_fn, [0, 0], optimizer=optimizer, n_epochs=99)
    assert len(history.loss_curve) == 4
    assert line.b != 0


def test_mixed_precision_computes_in_bfloat16():
    network, seen = torch.nn.Linear(3, 1), []

    def loss_fn(batch):
        output = network(batch)
        seen.append(output.dtype)
        return output.float().square().mean()

    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    train(network, loss_fn, [torch.ones(4, 3)], optimizer=optimizer, n_epochs=1,
          mixed_precision=True)  # fmt: skip
    assert seen == [torch.bfloat16]
    assert network.weight.dtype == network.weight.grad.dtype == torch.float32


class Counter(torch.nn.Module):
    """A weight and a buffer, which a step sets, and how often that was."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.register_buffer("statistic", torch.zeros(1))
        self.register_buffer("n_steps", torch.tensor(0))


def count(n_epochs, interrupted_at=None, **params):
    """Train so that the weight is 1, 2, 3, and so on, and the statistic its square."""
    module = Counter()

    def loss_fn(batch):
        module.n_steps += 1
        module.statistic.fill_(module.n_steps**2)
        if module.n_steps == interrupted_at:
            raise KeyboardInterrupt
        return -module.weight.sum()  # so that a step of size 1 adds 1

    optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
    train(module, loss_fn, [0] * 5, optimizer=optimizer, n_epochs=n_epochs, **params)
    return module


def averages(n_steps, decay):
    """Return the exponential averages of 1, 2, ... and of 1, 4, ... by their definition."""
    weight, statistic = 1.0, 1.0
    for step in range(2, n_steps + 1):
        kept = min(decay, step / (step + 9))
        weight = kept * weight + (1 - kept) * step
        statistic = kept * statistic + (1 - kept) * step**2
    return weight, statistic


@pytest.mark.parametrize(("n_epochs", "decay"), [(1, 0.9), (20, 0.9), (20, 0.5)])
def test_average_of_weights_and_statistics_by_hand(n_epochs, decay):
    module, n_steps = count(n_epochs, weight_average=decay), 5 * n_epochs
    weight, statistic = averages(n_steps, decay)
    assert module.weight.item() == pytest.approx(weight)
    assert module.statistic.item() == pytest.approx(statistic)
    # What is counted has no average.
    assert module.n_steps == n_steps
    # In the long run an average lags behind by decay / (1 - decay) steps.
    if n_epochs == 20:
        assert n_steps - weight == pytest.approx(decay / (1 - decay), abs=0.2)


def test_average_after_an_interrupt_and_of_no_steps():
    with pytest.warns(UserWarning, match="keeps what was learned"):
        module = count(9, interrupted_at=13, weight_average=0.9)
    assert module.weight.item() == pytest.approx(averages(12, 0.9)[0])
    assert count(0, weight_average=0.9).weight == 0


def test_average_does_not_change_the_steps():
    first, second = Line(), Line()
    assert fit(first).loss_curve == fit(second, weight_average=0.9).loss_curve
    assert first.w != second.w
    mixed, plain = Line(), Line()
    fit(mixed, weight_average=0.9, mixed_precision=True)
    fit(plain, weight_average=0.9)
    assert mixed.w.dtype == torch.float32
    assert mixed.w.item() == pytest.approx(plain.w.item(), abs=0.1)


def test_average_and_the_best_epoch_exclude_each_other():
    with pytest.raises(ValueError, match=r"best epoch. Got weight_average=0.9.*Remove"):
        fit(Line(), stopping=EarlyStopping(BATCHES, None), weight_average=0.9)


def test_gradients_reach_every_parameter():
    line = Line()
    fit(line, n_epochs=1)
    assert line.w != 0
    assert line.b != 0


def test_progress_bar(monkeypatch):
    told = []
    monkeypatch.setattr(progress.Bar, "tell", lambda bar, **values: told.append(values))
    with progress.shown("Line", 1):
        history = fit(Line(), n_epochs=2)
    first, last = history.loss_curve
    assert told == [
        {"epochs": "0/2"},
        {"epochs": "1/2", "loss": f"{first:.4g}"},
        {"epochs": "2/2", "loss": f"{last:.4g}"},
    ]


def test_progress_bars_of_a_stage_and_of_its_held_out_images(monkeypatch):
    made = []

    class Noted(progress.Silent):
        def __init__(self, *args):
            made.append(args)

    monkeypatch.setattr(progress, "Bar", Noted)
    validation = EarlyStopping(BATCHES[:2], None)
    with progress.shown("Line", 1):
        fit(Line(), n_epochs=3, label="autoencoder", stopping=validation)
    n = len(BATCHES)
    assert made[0] == ("Line: autoencoder", 3 * n, "batch", 0)
    assert made[1:] == [("Line: held-out images", 2, "batch", 0)] * 3


def test_step_size_falls_to_a_tenth_at_each_milestone():
    line, values = Line(), []

    def loss_fn(batch):
        values.append(line.b.item())
        return -line.b  # a constant gradient: Adam's steps have the size of its rate

    curve = train_by_milestones(
        line, loss_fn, [None], n_epochs=6, learning_rate=1.0, weight_decay=0.0,
        milestones=(5, 2),
    )  # fmt: skip
    assert len(curve) == 6
    steps = np.diff([*values, line.b.item()])
    np.testing.assert_allclose(steps, [1, 1, 0.1, 0.1, 0.1, 0.01], rtol=1e-4)


def test_kinds_of_batches_have_curves_of_their_own():
    line = Line()
    losses = InTurn([1.0, 3.0], [1.0, 3.0])

    def loss_fn(batch):
        kind, value = batch
        return 0 * line.b + (value if kind == 0 else 10 * value)

    optimizer = torch.optim.Adam(line.parameters())
    history = train(line, loss_fn, losses, optimizer=optimizer, n_epochs=2)
    assert history.kind_loss_curves == [[2.0, 2.0], [20.0, 20.0]]
    assert history.loss_curve == [11.0, 11.0]
    assert fit(Line(), n_epochs=2).kind_loss_curves[0] == fit(Line(), n_epochs=2).loss_curve


@pytest.mark.parametrize(
    ("second", "n_epochs"),
    [
        # The second kind still changes in epochs 4 and 6.
        ([5, 5, 5, 5, 6, 6, 7, 7, 7, 7, 7, 7], 10),
        ([5] * 12, 6),
        ([*range(12)], 12),
        # Slow, but without end: two epochs in a row are compared.
        ([0.09 * i for i in range(12)], 6),
    ],
)
def test_training_ends_when_no_loss_changes(second, n_epochs):
    line = Line()
    first = iter([9, 8, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7])
    losses = [first, iter(second)]

    def loss_fn(batch):
        kind, _ = batch
        return 0 * line.b + next(losses[kind])

    optimizer = torch.optim.Adam(line.parameters())
    history = train(line, loss_fn, InTurn([0], [0]), optimizer=optimizer, n_epochs=12,
                    stopping=Convergence(0.1, 3))  # fmt: skip
    assert len(history.loss_curve) == n_epochs


def test_milestones_in_mixed_precision():
    network, seen = torch.nn.Linear(3, 1), []

    def loss_fn(batch):
        output = network(batch)
        seen.append(output.dtype)
        return output.float().square().mean()

    train_by_milestones(
        network, loss_fn, [torch.ones(4, 3)], n_epochs=1, learning_rate=0.1,
        weight_decay=0.0, milestones=(), mixed_precision=True,
    )  # fmt: skip
    assert seen == [torch.bfloat16]


def test_validation_loss_is_the_mean_over_images():
    """Whatever the batches they come in; the last is smaller."""
    values = torch.tensor([[1.0], [2.0], [3.0], [10.0]])
    module = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.ones_(module.weight)
    losses = []
    for size in (1, 2, 3, 4):
        history = train(
            module,
            lambda batch: module(batch).mean(),
            [values],
            optimizer=torch.optim.SGD(module.parameters(), lr=0.0),
            n_epochs=1,
            stopping=EarlyStopping(values.split(size), None),
        )
        losses += history.validation_loss_curve
    assert losses == pytest.approx([4.0] * 4)


@pytest.mark.parametrize("n_iter_no_change", [None, 1, 2])
def test_early_stopping_by_hand(n_iter_no_change):
    line = Line()
    rule = EarlyStopping([torch.zeros(3)], n_iter_no_change)

    def validated(value):
        """Set the loss, which is b; return whether training ends."""
        torch.nn.init.constant_(line.b, value)
        rule.measure(line, lambda batch: line(batch).mean())
        return rule.is_met([])

    assert not rule.is_met([])
    # An equal loss is no lower one.
    for value, n_epochs_ago in [(3, 0), (2, 0), (2, 1), (5, 2), (1, 0), (4, 1)]:
        is_over = n_iter_no_change is not None and n_epochs_ago >= n_iter_no_change
        assert validated(value) == is_over
    assert rule.validation_loss_curve == [3, 2, 2, 5, 1, 4]
    assert rule.best_epoch == 4
    assert line.b == 4
    rule.restore_best(line)
    assert line.b == 1


def test_early_stopping_keeps_its_state_and_starts_anew():
    rule, other = EarlyStopping(BATCHES, 2), EarlyStopping(BATCHES, 2)
    first = fit(Line(), stopping=rule)
    other.restore(*rule.state())
    assert other.state() == rule.state()
    assert other.is_met([]) == rule.is_met([])
    # A rule that has served one training knows nothing of it in the next.
    assert fit(Line(), stopping=rule) == first


@pytest.mark.parametrize(
    ("tol", "n_iter_no_change", "curves", "is_met"),
    [
        (0.5, 2, [[9, 1, 1, 1]], True),
        (0.5, 3, [[9, 1, 1, 1]], False),
        (0.5, 3, [[1, 1, 1]], False),  # two changes are no three
        (0.5, 2, [[1, 1.5, 1.5]], False),  # a change of `tol` is one
        (0.5, 2, [[1, 1.4, 1.8]], True),  # from one epoch to the next, not in all
        (0.5, 2, [[1.8, 1.4, 1]], True),
        (0.5, 2, [[1, 1, 1], [1, 1, 2]], False),
        (0.5, 2, [[1, 1, 1], [2, 2, 2]], True),
        (0.0, 2, [[1, 1, 1]], False),
        (None, 2, [[1, 1, 1]], False),
        (0.5, 1, [[]], False),
        (0.5, 1, [[float("nan")] * 3], False),
    ],
)
def test_convergence_by_hand(tol, n_iter_no_change, curves, is_met):
    assert Convergence(tol, n_iter_no_change).is_met(curves) is is_met


def test_rules_that_measure_nothing():
    line = Line()
    for rule in (StoppingRule(), Convergence(1.0, 1)):
        history = fit(line, n_epochs=1, stopping=rule)
        b = line.b.item()
        rule.restore_best(line)
        assert line.b == b
        assert rule.state() == ([], None, None)
        assert (history.validation_loss_curve, history.best_epoch) == ([], None)
    assert not StoppingRule().is_met([[1.0] * 9])


def test_adam_takes_a_bool_and_groups():
    line = Line()
    (group,) = adam(line.parameters(), 0.1, True).param_groups
    assert group["lr"] == 0.1
    assert type(group["weight_decay"]) is float
    assert group["weight_decay"] == 1
    groups = [{"params": [line.w]}, {"params": [line.b], "weight_decay": 0.0}]
    decays = [group["weight_decay"] for group in adam(groups, 0.1, 0.5).param_groups]
    assert decays == [0.5, 0.0]
