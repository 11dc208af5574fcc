"""The only optimisation loop."""

import copy
import math
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from itertools import pairwise
from typing import NamedTuple

import torch
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from skocc._warnings import warn
from skocc.engine.ambient import without_modes
from skocc.engine.checkpoints import Checkpoint, check_form
from skocc.engine.seeding import may_draw


class TrainingHistory(NamedTuple):
    """What one call of :func:`train` did.

    Attributes
    ----------
    loss_curve : list of float
        Mean loss of the batches, per finished epoch.
    validation_loss_curve : list of float
        Mean loss of the validation images, in eval mode; empty without them.
    best_epoch : int or None
        Index of the epoch whose weights the module has now; None without validation.
    kind_loss_curves : list of list of float
        Mean loss of the batches of each kind, per finished epoch of this call.
    """

    loss_curve: list[float]
    validation_loss_curve: list[float]
    best_epoch: int | None
    kind_loss_curves: list[list[float]]


def train(
    module: torch.nn.Module,
    loss_fn: Callable[..., torch.Tensor],
    batches: Iterable,
    *,
    optimizer: torch.optim.Optimizer,
    n_epochs: int,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
    validation_batches: Iterable | None = None,
    patience: int | None = None,
    n_kinds: int = 1,
    tolerance: float | None = None,
    mixed_precision: bool = False,
    draws: bool = False,
    weight_average: float | None = None,
    checkpoint: Checkpoint | None = None,
    verbose: int = 0,
    stage: str = "training",
) -> TrainingHistory:
    """Minimise ``loss_fn`` over `batches`.

    Parameters
    ----------
    module : torch.nn.Module
        Holds every parameter and buffer that the stage changes; it is put in train mode
        for the epochs and in eval mode for validation.
    loss_fn : callable
        ``loss_fn(batch)`` gives a scalar, a mean over the batch. Of a batch no more is
        looked at than, in validation, its length.
    batches : re-iterable with a length
        One pass is one epoch.
    optimizer : torch.optim.Optimizer
        Made by the caller, who decides whether two stages share it.
    n_epochs : int
        Passes over `batches`; fewer when stopped early.
    scheduler : LRScheduler, default=None
        Stepped after each epoch.
    validation_batches : re-iterable, default=None
        Held-out images. The module ends with the weights of the epoch with the lowest
        validation loss.
    patience : int, default=None
        Epochs without a lower validation loss after which training ends. None: never.
    n_kinds : int, default=1
        Batches come in turns of so many kinds, each with a loss of its own.
    tolerance : float, default=None
        Training ends when, for `patience` epochs, the mean loss of each kind has changed
        by less from one epoch to the next. None: never.
    mixed_precision : bool, default=False
        Whether the loss is computed in bfloat16 where torch holds that to be safe.
    draws : bool, default=False
        Whether `loss_fn` draws random numbers without a generator, beside those of layers
        such as dropout. They then come from the streams of
        :func:`~skocc.engine.seeding.seeded`.
    weight_average : float, default=None
        In (0, 1). The module ends with averages over the steps of all its weights, and of
        its buffers of floating point such as BatchNorm's statistics: with the exponential
        ones of this decay, less at the start, so that the first steps are forgotten soon.
        Not with `validation_batches`, which are measured at single steps. None: with the
        weights of the last step.
    checkpoint : Checkpoint, default=None
        File that the state is written to after epochs. If there is one already, training
        goes on from it; on a CPU the result is that of a training without a break, bit by
        bit. None: nothing is written.
    verbose : int, default=0
        Whether a progress bar is shown.
    stage : str, default="training"
        What the progress bar and messages call this stage.

    Returns
    -------
    history : TrainingHistory

    Raises
    ------
    FloatingPointError
        The mean loss of an epoch is not finite.
    ValueError
        The checkpoint is of another training, or of more epochs than `n_epochs`; or
        `weight_average` is to be combined with `validation_batches`.

    Warns
    -----
    UserWarning
        Ctrl-C ended the stage; the module keeps what was learnt.
    """
    if weight_average is not None and validation_batches is not None:
        raise ValueError(
            f"{stage} cannot end both with averaged weights and with those of its best "
            f"epoch. Got weight_average={weight_average} and validation_batches. Leave "
            "out one of them."
        )
    device = next(module.parameters()).device
    # Not torch's own switch: some versions refuse the mere name of some devices.
    precision = nullcontext()
    if mixed_precision:
        precision = torch.autocast(device.type, torch.bfloat16)
    # Seeing every operation takes longer than many of them, where none draws anything.
    forward = nullcontext if draws or may_draw(module) else without_modes
    loss_curve: list[float] = []
    kind_curves: list[list[float]] = [[] for _ in range(n_kinds)]
    validation_curve: list[float] = []
    best_epoch, best_state = None, None
    averaged = None
    if weight_average is not None:
        average = _moving_average(weight_average)
        averaged = AveragedModel(module, avg_fn=average, use_buffers=True)
    parts = {"module": module, "optimizer": optimizer, "scheduler": scheduler}
    parts["averaged"] = averaged
    saved = checkpoint and checkpoint.load(
        parts, device, lambda history: _check_history(history, module, n_kinds)
    )
    if saved is not None:
        loss_curve, kind_curves, validation_curve, best_epoch, best_state = saved
        _check_epochs(len(loss_curve), n_epochs, stage)
    n_saved = len(loss_curve)

    def history():
        return loss_curve, kind_curves, validation_curve, best_epoch, best_state

    progress = tqdm(
        total=n_epochs * len(batches),
        initial=n_saved * len(batches),
        desc=stage,
        unit="batch",
        disable=not verbose,
    )
    try:
        for epoch in range(len(loss_curve), n_epochs):
            has_validation = best_epoch is not None and patience is not None
            if has_validation and epoch - 1 - best_epoch >= patience:
                break
            if tolerance is not None and _has_converged(kind_curves, tolerance, patience):
                break
            module.train()
            # Losses stay on the device until the epoch ends: reading one waits for it.
            totals = [torch.zeros((), device=device) for _ in range(n_kinds)]
            for index, batch in enumerate(batches):
                with without_modes():
                    optimizer.zero_grad()
                with precision, forward():
                    loss = loss_fn(batch)
                with without_modes():
                    loss.backward()
                    optimizer.step()
                    if averaged is not None:
                        averaged.update_parameters(module)
                totals[index % n_kinds] += loss.detach()
                progress.update()
            totals = torch.stack(totals).tolist()
            loss_curve.append(_finite(sum(totals) / len(batches), epoch, stage))
            for curve, total in zip(kind_curves, totals, strict=True):
                curve.append(total * n_kinds / len(batches))
            if scheduler is not None:
                scheduler.step()
            progress.set_postfix(loss=f"{loss_curve[-1]:.4g}", refresh=False)
            if validation_batches is not None:
                loss = _mean_loss(module, loss_fn, validation_batches)
                if best_epoch is None or loss < validation_curve[best_epoch]:
                    best_epoch, best_state = epoch, copy.deepcopy(module.state_dict())
                validation_curve.append(loss)
            if checkpoint is not None and (epoch + 1) % checkpoint.checkpoint_every == 0:
                checkpoint.save(parts, history(), device)
                n_saved = epoch + 1
        if checkpoint is not None and len(loss_curve) > n_saved:
            checkpoint.save(parts, history(), device)
    except KeyboardInterrupt:
        warn(
            f"Interrupted: {stage} ends after {len(loss_curve)} of {n_epochs} epochs and "
            "keeps what was learnt.",
        )
    finally:
        progress.close()
    if best_state is not None:
        module.load_state_dict(best_state)
    if averaged is not None:
        module.load_state_dict(averaged.module.state_dict())
    return TrainingHistory(loss_curve, validation_curve, best_epoch, kind_curves)


def train_by_milestones(
    module: torch.nn.Module,
    loss_fn: Callable[..., torch.Tensor],
    batches: Iterable,
    *,
    n_epochs: int,
    learning_rate: float,
    weight_decay: float,
    milestones: Iterable[int],
    mixed_precision: bool = False,
    verbose: int = 0,
    stage: str = "training",
) -> list[float]:
    """Train with Adam, a tenth of the step size from each milestone on.

    Parameters
    ----------
    module, loss_fn, batches, n_epochs, mixed_precision, verbose, stage
        As in :func:`train`.
    learning_rate, weight_decay : float
        Step size at the start, and L2 penalty of the weights.
    milestones : iterable of int
        Epochs, in any order.

    Returns
    -------
    loss_curve : list of float
        Mean loss of the batches, per finished epoch.
    """
    optimizer = adam(module.parameters(), learning_rate, weight_decay)
    history = train(
        module,
        loss_fn,
        batches,
        optimizer=optimizer,
        n_epochs=n_epochs,
        scheduler=torch.optim.lr_scheduler.MultiStepLR(
            optimizer, sorted(milestones), gamma=0.1
        ),
        mixed_precision=mixed_precision,
        verbose=verbose,
        stage=stage,
    )
    return history.loss_curve


def adam(
    parameters: Iterable, learning_rate: float, weight_decay: float
) -> torch.optim.Adam:
    """Return Adam for some parameters.

    Parameters
    ----------
    parameters : iterable of Parameter, or of dict
        Dicts are groups, whose own settings come first, as in torch.
    learning_rate, weight_decay : float
        Step size, and L2 penalty of the weights.

    Returns
    -------
    optimizer : torch.optim.Adam
    """
    # To torch, True is not the number that it is to scikit-learn's checks.
    return torch.optim.Adam(parameters, lr=learning_rate, weight_decay=float(weight_decay))


def _moving_average(decay):
    """Return how an exponential average goes on by a value, as torch calls it."""

    def average(averaged, value, n_averaged):
        if not averaged.is_floating_point():
            return value
        # The weight of all earlier steps is 2/11, 3/12, 4/13, and so on up to `decay`. A
        # tensor: reading the number would wait for the device.
        weight = (9 / (n_averaged.to(value.dtype) + 10)).clamp(min=1 - decay)
        return averaged + weight * (value - averaged)

    return average


@torch.no_grad()
def _mean_loss(module, loss_fn, batches) -> float:
    module.eval()
    losses, sizes = [], []
    for batch in batches:
        losses.append(loss_fn(batch))
        while isinstance(batch, tuple):  # images and targets, or a kind and its batch
            batch = batch[-1]
        sizes.append(len(batch))
    # Of images, not of batches: the last of them is smaller.
    sizes = torch.tensor(sizes, dtype=torch.float64)
    return (torch.stack(losses).double().cpu() * sizes).sum().item() / sizes.sum().item()


def _has_converged(curves, tolerance, n_epochs):
    """Return whether no curve has changed by `tolerance` for `n_epochs` epochs."""
    if len(curves[0]) <= n_epochs:
        return False
    return all(
        abs(after - before) < tolerance
        for curve in curves
        for before, after in pairwise(curve[-n_epochs - 1 :])
    )


def _check_history(history, module, n_kinds):
    """Raise an error for a history that a training of the module cannot have."""
    loss_curve, kind_curves, validation_curve, best_epoch, best_state = history
    n_epochs = len(loss_curve)
    check_form("the loss", loss_curve, [0.0] * n_epochs)
    check_form("the losses", kind_curves, [[0.0] * n_epochs] * n_kinds)
    check_form("the validation", validation_curve, [0.0] * len(validation_curve))
    if best_epoch is not None:
        check_form("the best epoch", (best_epoch, best_state), (0, module.state_dict()))
        validation_curve[best_epoch]


def _check_epochs(n_done, n_epochs, stage):
    if n_done > n_epochs:
        raise ValueError(
            f"The checkpoint of {stage} is of {n_done} epochs. Got n_epochs={n_epochs}. "
            f"Set n_epochs={n_done} or more to go on from it, or name another folder."
        )


def _finite(loss, epoch, stage) -> float:
    if not math.isfinite(loss):
        raise FloatingPointError(
            f"The loss of {stage} is {loss} in epoch {epoch + 1}. Lower the learning "
            "rate of this stage, or bring X to a range near [0, 1]."
        )
    return loss
