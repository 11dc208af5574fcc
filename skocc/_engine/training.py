"""The only training loop of the package, and the rules that end it early."""

import copy
import math
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import contextmanager, nullcontext
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch.optim.swa_utils import AveragedModel

from skocc._engine.ambient import WholeInterrupts, without_modes
from skocc._engine.checkpoints import Checkpoint, check_form
from skocc._engine.seeding import may_draw
from skocc._samples.log import logger
from skocc._samples.progress import progress_bar, track
from skocc._samples.warnings import warn


class TrainingHistory(NamedTuple):
    """Result of one call of :func:`train`.

    Attributes
    ----------
    loss_curve : list of float
        Mean loss of the batches in each finished epoch.
    validation_loss_curve : list of float
        Mean loss of the held-out images after each epoch, in eval mode; empty without
        validation.
    best_epoch : int or None
        Index of the epoch whose weights the module has now; None without validation.
    kind_loss_curves : list of list of float
        For each kind of batch, the mean loss in each finished epoch of this call.
    """

    loss_curve: list[float]
    validation_loss_curve: list[float]
    best_epoch: int | None
    kind_loss_curves: list[list[float]]


class StoppingRule:
    """Rule that never ends training, and base class of the rules that do.

    One rule may be used for several trainings, but only for one at a time.

    Attributes
    ----------
    validation_loss_curve : list of float
        Loss of the held-out images after each epoch; empty without validation.
    best_epoch : int or None
        Index of the epoch with the lowest validation loss.
    best_state : dict or None
        State of the module after that epoch.
    """

    def __init__(self):
        self.restore([], None, None)

    def is_met(self, kind_loss_curves: list[list[float]]) -> bool:
        """Return whether training ends, given the loss curve of each kind of batch."""
        return False

    def measure(self, module: torch.nn.Module, loss_fn: Callable) -> None:
        """Evaluate the module after an epoch."""

    def restore_best(self, module: torch.nn.Module) -> None:
        """Load the weights of the best epoch into the module, if there are any."""
        if self.best_state is not None:
            module.load_state_dict(self.best_state)

    def state(self) -> tuple[list[float], int | None, dict | None]:
        """Return the attributes, for a checkpoint."""
        return self.validation_loss_curve, self.best_epoch, self.best_state

    def restore(
        self,
        validation_loss_curve: list[float],
        best_epoch: int | None,
        best_state: dict | None,
    ) -> None:
        """Set the attributes to values that :meth:`state` has returned."""
        self.validation_loss_curve = validation_loss_curve
        self.best_epoch = best_epoch
        self.best_state = best_state


class EarlyStopping(StoppingRule):
    """Rule that ends training when the loss of held-out images no longer decreases.

    The module ends with the weights of the epoch that has the lowest loss.

    Parameters
    ----------
    validation_batches : re-iterable
        Held-out images, which are passed to the training loss.
    n_iter_no_change : int or None
        Number of epochs without a lower loss after which training ends. None means that
        training does not end early.
    generator : torch.Generator, default=None
        Generator from which the loss draws. Each validation draws the same numbers, so that
        the losses of epochs can be compared, and leaves the generator as it was.
    """

    def __init__(
        self,
        validation_batches: Iterable,
        n_iter_no_change: int | None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.validation_batches = validation_batches
        self.n_iter_no_change = n_iter_no_change
        self._generator = generator

    def is_met(self, kind_loss_curves: list[list[float]]) -> bool:
        """Return whether the best epoch is `n_iter_no_change` or more epochs ago."""
        if self.best_epoch is None or self.n_iter_no_change is None:
            return False
        last_epoch = len(self.validation_loss_curve) - 1
        return last_epoch - self.best_epoch >= self.n_iter_no_change

    def measure(self, module: torch.nn.Module, loss_fn: Callable) -> None:
        """Compute the held-out loss, and keep the weights if the loss is the lowest."""
        curve = self.validation_loss_curve
        with _same_draws(self._generator):
            loss = _mean_loss(module, loss_fn, self.validation_batches)
        if self.best_epoch is None or loss < curve[self.best_epoch]:
            self.best_epoch = len(curve)
            self.best_state = copy.deepcopy(module.state_dict())
        curve.append(loss)


class Convergence(StoppingRule):
    """Rule that ends training when the training losses no longer change.

    Parameters
    ----------
    tol : float or None
        Training ends if the mean loss of each kind of batch has changed by less than this
        from one epoch to the next, for `n_iter_no_change` epochs. None means that training
        does not end early.
    n_iter_no_change : int or None
        Number of epochs. None means the same as for `tol`.
    """

    def __init__(self, tol: float | None, n_iter_no_change: int | None):
        super().__init__()
        self.tol = tol
        self.n_iter_no_change = n_iter_no_change

    def is_met(self, kind_loss_curves: list[list[float]]) -> bool:
        """Return whether no curve has changed for `n_iter_no_change` epochs."""
        n_epochs = self.n_iter_no_change
        if self.tol is None or n_epochs is None or len(kind_loss_curves[0]) <= n_epochs:
            return False
        return all(
            abs(after - before) < self.tol
            for curve in kind_loss_curves
            for before, after in pairwise(curve[-n_epochs - 1 :])
        )


class EpochWatcher:
    """Observer of the epochs of one stage. This base class ignores them."""

    def begin(self) -> None:
        """Note that an epoch begins."""

    def end(self, module: torch.nn.Module, history: TrainingHistory) -> bool:
        """Note that an epoch has ended, and return whether the stage ends with it.

        Parameters
        ----------
        module : torch.nn.Module
            Module with the weights that it would have if the stage ended now.
        history : TrainingHistory
            History so far.
        """
        return False


def train(
    module: torch.nn.Module,
    loss_fn: Callable[..., torch.Tensor],
    batches: Collection,
    *,
    optimizer: torch.optim.Optimizer,
    n_epochs: int,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
    stopping: StoppingRule | None = None,
    mixed_precision: bool = False,
    draws: bool = False,
    weight_average: float | None = None,
    checkpoint: Checkpoint | None = None,
    loss_state: dict[str, Any] | None = None,
    watcher: EpochWatcher | None = None,
    stage: str = "training",
    label: str = "training",
) -> TrainingHistory:
    """Minimize ``loss_fn`` over `batches`.

    Parameters
    ----------
    module : torch.nn.Module
        Module that contains every parameter and buffer that the training changes. It is in
        train mode during the epochs and in eval mode during validation.
    loss_fn : callable
        Function ``loss_fn(batch)`` that returns a scalar, the mean loss of the batch. The
        loop uses nothing else of a batch except, in validation, its length.
    batches : re-iterable with a length
        Batches, of which one pass is an epoch. If they have an attribute `n_kinds`, like
        :class:`~skocc._engine.batches.InTurn`, that many kinds of batches alternate, and
        each kind has its own loss curve.
    optimizer : torch.optim.Optimizer
        Optimizer of the parameters. The caller makes it, so two stages can share it.
    n_epochs : int
        Maximum number of passes over `batches`.
    scheduler : LRScheduler, default=None
        Scheduler that is stepped after each epoch.
    stopping : StoppingRule, default=None
        :class:`EarlyStopping` or :class:`Convergence`, which may end training before
        `n_epochs`. None means that training does not end early.
    mixed_precision : bool, default=False
        Whether the loss is computed in bfloat16 where torch considers that safe.
    draws : bool, default=False
        Whether `loss_fn` draws random numbers without a generator, in addition to layers
        such as dropout. They then come from the streams of
        :func:`~skocc._engine.seeding.seeded`.
    weight_average : float, default=None
        Decay in (0, 1) of an exponential average over the steps, of all weights and of all
        floating-point buffers such as BatchNorm's statistics. The module ends with these
        averages. The decay is lower at the start, so that the first steps have little
        weight. It cannot be combined with :class:`EarlyStopping`, which evaluates single
        steps. None means that the module ends with the weights of the last step.
    checkpoint : Checkpoint, default=None
        File to which the state is written after epochs. If the file exists, training
        resumes from it; on a CPU the result equals that of an uninterrupted training, bit
        by bit. None means that nothing is written.
    loss_state : dict of str to object, default=None
        What the loss changes besides the module, for the checkpoint: objects with
        `state_dict` and `load_state_dict`.
    watcher : EpochWatcher, default=None
        Observer of the epochs, which can end the stage.
    stage : str, default="training"
        Name of this stage in messages.
    label : str, default="training"
        Name of this stage in the progress bar, after that of the estimator.

    Returns
    -------
    history : TrainingHistory

    Raises
    ------
    FloatingPointError
        The mean loss of an epoch is not finite.
    ValueError
        The checkpoint belongs to another training or has more epochs than `n_epochs`, or
        `weight_average` is combined with :class:`EarlyStopping`.
    OSError
        The checkpoint cannot be written.

    Warns
    -----
    UserWarning
        Ctrl-C ended the stage; the module keeps its current weights.
    """
    _check_one_end(weight_average, stopping, stage)
    step = _Step(module, loss_fn, optimizer, mixed_precision, draws, weight_average)
    n_kinds = getattr(batches, "n_kinds", 1)
    stopping = stopping or StoppingRule()
    run = _Run(step, n_epochs, n_kinds, scheduler, stopping, loss_state or {}, stage)
    run.start(checkpoint, len(batches))
    watcher = watcher or EpochWatcher()
    with run.progress_bar(len(batches), label) as progress:
        run.show(progress)
        try:
            with WholeInterrupts():
                while not run.finished():
                    watcher.begin()
                    run.epoch(batches, progress)
                    run.save_if_due(checkpoint)
                    run.tell(watcher, checkpoint)
        except KeyboardInterrupt:
            run.interrupt(checkpoint)
    return run.end()


def train_by_milestones(
    module: torch.nn.Module,
    loss_fn: Callable[..., torch.Tensor],
    batches: Collection,
    *,
    n_epochs: int,
    learning_rate: float,
    weight_decay: float,
    milestones: Iterable[int],
    make_optimizer: Callable[..., torch.optim.Optimizer] | None = None,
    **options,
) -> list[float]:
    """Train, and divide the learning rate by ten at each milestone.

    Parameters
    ----------
    module, loss_fn, batches, n_epochs, **options
        As in :func:`train`.
    learning_rate, weight_decay : float
        Initial learning rate, and L2 penalty of the weights.
    milestones : iterable of int
        Epochs, in any order.
    make_optimizer : callable, default=None
        Function with the parameters of :func:`adam`, which is the default.

    Returns
    -------
    loss_curve : list of float
        Mean loss of the batches in each finished epoch.
    """
    make_optimizer = make_optimizer or adam
    optimizer = make_optimizer(module.parameters(), learning_rate, weight_decay)
    history = train(
        module,
        loss_fn,
        batches,
        optimizer=optimizer,
        n_epochs=n_epochs,
        scheduler=milestone_schedule(milestones)(optimizer),
        **options,
    )
    return history.loss_curve


def milestone_schedule(
    milestones: Iterable[int],
) -> Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler]:
    """Return a function from an optimizer to its scheduler.

    Parameters
    ----------
    milestones : iterable of int
        Epochs, in any order, at which the learning rate is divided by ten.
    """

    def schedule(optimizer):
        return torch.optim.lr_scheduler.MultiStepLR(
            optimizer, sorted(milestones), gamma=0.1
        )

    return schedule


def adam(
    parameters: Iterable, learning_rate: float, weight_decay: float
) -> torch.optim.Adam:
    """Return an Adam optimizer.

    Parameters
    ----------
    parameters : iterable of Parameter, or of dict
        Parameters to optimize. Dicts are groups, whose settings take precedence, as in
        torch.
    learning_rate, weight_decay : float
        Learning rate, and L2 penalty of the weights.

    Returns
    -------
    optimizer : torch.optim.Adam
    """
    # scikit-learn's checks accept True as a number, but torch does not.
    return torch.optim.Adam(parameters, lr=learning_rate, weight_decay=float(weight_decay))


class _Step:
    """One optimization step: computes the loss of a batch and updates the weights."""

    def __init__(self, module, loss_fn, optimizer, mixed_precision, draws, weight_average):
        self.module, self.loss_fn, self.optimizer = module, loss_fn, optimizer
        self.device = next(module.parameters()).device
        # Not autocast(enabled=False): some versions of torch reject some device names.
        self._precision = nullcontext()
        if mixed_precision:
            self._precision = torch.autocast(self.device.type, torch.bfloat16)
        # A mode intercepts every operation, which is slow and useless if nothing draws.
        self._modes = nullcontext if draws or may_draw(module) else without_modes
        self.averaged = None
        if weight_average is not None:
            average = _moving_average(weight_average)
            self.averaged = AveragedModel(module, avg_fn=average, use_buffers=True)

    def __call__(self, batch):
        """Take a step, and return the loss before it, as a tensor on the device."""
        with without_modes():
            self.optimizer.zero_grad()
        with self._precision, self._modes():
            loss = self.loss_fn(batch)
        with without_modes():
            loss.backward()
            self.optimizer.step()
            if self.averaged is not None:
                self.averaged.update_parameters(self.module)
        return loss.detach()


class _Run:
    """State of a training: its loss curves, its stopping rule and its checkpoints."""

    def __init__(self, step, n_epochs, n_kinds, scheduler, stopping, loss_state, stage):
        self._step, self._scheduler, self._stopping = step, scheduler, stopping
        self._n_epochs, self._n_kinds, self._stage = n_epochs, n_kinds, stage
        self._loss_state, self._started = loss_state, time.monotonic()
        # This also resets the rule, which may have been used before.
        self._restore(([], [[] for _ in range(n_kinds)], [], None, None, None))

    @property
    def n_done(self):
        """Number of finished epochs."""
        return len(self._loss_curve)

    def progress_bar(self, n_batches, label):
        """Return a progress bar over the batches of all epochs."""
        n_done, n_all = self.n_done * n_batches, self._n_epochs * n_batches
        return progress_bar(label, n_all, n_done=n_done)

    def show(self, progress):
        """Show the number of finished epochs, and the loss of the last one."""
        values = {"epochs": f"{self.n_done}/{self._n_epochs}"}
        if self._loss_curve:
            values["loss"] = f"{self._loss_curve[-1]:.4g}"
        progress.tell(**values)

    def start(self, checkpoint, n_batches):
        """Continue from the state in a checkpoint, if there is one."""
        logger.info(
            "%s: starts on %s, at most %d epochs of %d batches",
            self._stage, self._step.device, self._n_epochs, n_batches,
        )  # fmt: skip
        self._resume(checkpoint)
        if self.n_done:
            logger.info("%s: resumes after %d epochs", self._stage, self.n_done)
        if checkpoint is not None and not self.finished():
            checkpoint.check_folder()

    def finished(self):
        """Return whether all epochs have run, or training is to end early."""
        is_over = self._is_ended or self.n_done >= self._n_epochs
        return is_over or self._stopping.is_met(self._kind_curves)

    def tell(self, watcher, checkpoint):
        """Tell an observer that an epoch has ended; it may end the training."""
        averaged = self._step.averaged
        module = self._step.module if averaged is None else averaged.module
        self._is_ended = bool(watcher.end(module, self._history()))
        if self._is_ended and checkpoint is not None:
            self._save(checkpoint)  # or a resumed training would go on

    def interrupt(self, checkpoint):
        """Warn that Ctrl-C has ended the training."""
        self._is_ended = True
        if checkpoint is not None and checkpoint.keeps_interrupts:
            self._save(checkpoint)
        warn(
            f"Interrupted: {self._stage} ends after {self.n_done} of {self._n_epochs} "
            "epochs and keeps what was learned.",
        )

    def epoch(self, batches, progress):
        """Take a step for each batch, then evaluate the module."""
        module, n_kinds = self._step.module, self._n_kinds
        module.train()
        # Losses stay on the device until the epoch ends: reading one waits for the device.
        totals = [torch.zeros((), device=self._step.device) for _ in range(n_kinds)]
        for index, batch in enumerate(batches):
            totals[index % n_kinds] += self._step(batch)
            progress.update()
        totals = torch.stack(totals).tolist()
        loss = sum(totals) / len(batches)
        self._loss_curve.append(_finite(loss, self.n_done, self._stage))
        for curve, total in zip(self._kind_curves, totals, strict=True):
            curve.append(total * n_kinds / len(batches))
        if self._scheduler is not None:
            self._scheduler.step()
        self.show(progress)
        self._stopping.measure(module, self._step.loss_fn)
        held_out = self._stopping.validation_loss_curve[-1:]
        logger.debug(
            "%s: epoch %d of %d, loss %.6g%s", self._stage, self.n_done, self._n_epochs,
            loss, f", held-out loss {held_out[0]:.6g}" if held_out else "",
        )  # fmt: skip

    def end(self):
        """Load the final weights into the module, and return the history."""
        module, averaged = self._step.module, self._step.averaged
        self._stopping.restore_best(module)
        if averaged is not None:
            module.load_state_dict(averaged.module.state_dict())
        self._log_end()
        return self._history()

    def _history(self):
        return TrainingHistory(
            self._loss_curve,
            self._stopping.validation_loss_curve,
            self._stopping.best_epoch,
            self._kind_curves,
        )

    def _log_end(self):
        is_early = self._is_ended or self.n_done < self._n_epochs
        best = self._stopping.best_epoch
        logger.info(
            "%s: ended%s after %d epochs in %.1f s, loss %s%s",
            self._stage,
            " early" if is_early else "",
            self.n_done,
            time.monotonic() - self._started,
            f"{self._loss_curve[-1]:.6g}" if self._loss_curve else "unknown",
            "" if best is None else f", weights of epoch {best + 1}",
        )

    def _resume(self, checkpoint):
        if checkpoint is None:
            return
        state = checkpoint.load(self._parts(), self._step.device, self._check_state)
        if state is not None:
            self._restore(state)
            _check_epochs(self.n_done, self._n_epochs, self._stage)

    def save_if_due(self, checkpoint):
        """Write the state every `checkpoint_every` epochs and after the last one."""
        if checkpoint is None:
            return
        if self.n_done % checkpoint.checkpoint_every == 0 or self.finished():
            self._save(checkpoint)

    def _save(self, checkpoint):
        checkpoint.save(self._parts(), self._state(), self._step.device)
        logger.debug("%s: checkpoint after epoch %d", self._stage, self.n_done)

    def _parts(self):
        step = self._step
        parts = {"module": step.module, "optimizer": step.optimizer}
        parts |= {"scheduler": self._scheduler, "averaged": step.averaged}
        return parts | self._loss_state

    def _state(self):
        # Of how many epochs the training was ended early; more may be asked for later.
        ended_of = self._n_epochs if self._is_ended else None
        return self._loss_curve, self._kind_curves, *self._stopping.state(), ended_of

    def _restore(self, state):
        self._loss_curve, self._kind_curves, *of_rule, ended_of = state
        self._stopping.restore(*of_rule)
        self._is_ended = ended_of == self._n_epochs

    def _check_state(self, state):
        """Raise an error if a state does not fit this training."""
        loss_curve, kind_curves, validation_curve, best_epoch, best_state, _ = state
        n_done = len(loss_curve)
        check_form("the loss", loss_curve, [0.0] * n_done)
        check_form("the losses", kind_curves, [[0.0] * n_done] * self._n_kinds)
        check_form("the validation", validation_curve, [0.0] * len(validation_curve))
        if best_epoch is not None:
            best = 0, self._step.module.state_dict()
            check_form("the best epoch", (best_epoch, best_state), best)
            validation_curve[best_epoch]


def _moving_average(decay):
    """Return the update function of an exponential average, in torch's format."""

    def average(averaged, value, n_averaged):
        if not averaged.is_floating_point():
            return value
        # The weight of all earlier steps is 2/11, 3/12, 4/13, and so on up to `decay`. A
        # tensor: reading the number would wait for the device.
        weight = (9 / (n_averaged.to(value.dtype) + 10)).clamp(min=1 - decay)
        return averaged + weight * (value - averaged)

    return average


@contextmanager
def _same_draws(generator):
    """Give a generator the same state in every block, and its own after the block."""
    if generator is None:
        yield
        return
    before = generator.get_state()
    generator.manual_seed(0)
    try:
        yield
    finally:
        generator.set_state(before)


@torch.no_grad()
def _mean_loss(module, loss_fn, batches) -> float:
    module.eval()
    losses, sizes = [], []
    for batch in track(batches, "held-out images"):
        losses.append(loss_fn(batch))
        while isinstance(batch, tuple):  # (images, targets) or (kind, batch)
            batch = batch[-1]
        sizes.append(len(batch))
    # The mean over images, not over batches, because the last batch may be smaller.
    weights = torch.tensor(sizes, dtype=torch.float64)
    total = (torch.stack(losses).double().cpu() * weights).sum()
    return total.item() / weights.sum().item()


def _check_one_end(weight_average, stopping, stage):
    if weight_average is not None and isinstance(stopping, EarlyStopping):
        raise ValueError(
            f"{stage} cannot end both with averaged weights and with those of its best "
            f"epoch. Got weight_average={weight_average} and EarlyStopping. Remove one "
            "of them."
        )


def _check_epochs(n_done, n_epochs, stage):
    if n_done > n_epochs:
        raise ValueError(
            f"The checkpoint of {stage} has {n_done} epochs. Got n_epochs={n_epochs}. "
            f"Set n_epochs={n_done} or more to resume from it, or name another folder."
        )


def _finite(loss, epoch, stage) -> float:
    if not math.isfinite(loss):
        raise FloatingPointError(
            f"The loss of {stage} is {loss} in epoch {epoch + 1}. Lower the learning "
            "rate of this stage, or scale X to a range near [0, 1]."
        )
    return loss
