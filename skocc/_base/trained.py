"""The base of detectors that train a network: held-out images, optimizer, curves."""

import copy
from collections.abc import Iterable
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from skocc._base.detector import BaseDetector
from skocc._base.resuming import check_resumable, stage_checkpoint
from skocc._engine.batches import Subset
from skocc._engine.training import EarlyStopping, TrainingHistory, adam, train


class TrainedDetector(BaseDetector):
    """Base class of detectors that train a network.

    `_fit` of a subclass calls `_hold_out`, `_train_network` and, at its end, `_keep`.

    ``_keep(network, images, run)``
        Set the attributes that follow from a trained network: `network_` on the CPU and in
        eval mode, and what is computed with it. What training needs is set before. Besides
        `_fit`, callbacks call it on a copy of the estimator after an epoch.

    A user may override `make_optimizer` and `adjust_loss`.
    """

    # Parameters that must be the same in a fit that resumes, although for most detectors
    # they may change.
    _fixed_parameters: tuple[str, ...] = ()

    def _draws_before_training(self):
        """Return whether a fit draws numbers that are in no checkpoint."""
        return True

    def _identity_of_frozen(self):
        """Return plain values by name that identify what a fit trains on but the images."""
        return {}

    def _learn(self, X, y, learn, *, is_warm, n_before=0, **options):
        if self.checkpoint_dir is not None and n_before == 0:
            check_resumable(self, is_warm)
        return super()._learn(X, y, learn, is_warm=is_warm, n_before=n_before, **options)

    def make_optimizer(
        self, parameters: Iterable, learning_rate: float, weight_decay: float
    ) -> torch.optim.Optimizer:
        """Return the optimizer of a stage of the training: Adam. Override it for another.

        Parameters
        ----------
        parameters : iterable of torch.nn.Parameter, or of dict
            What the stage trains, in torch's format.
        learning_rate, weight_decay : float
            Parameters of the estimator for this stage.

        Returns
        -------
        optimizer : torch.optim.Optimizer
            A new one, of these parameters.
        """
        return adam(parameters, learning_rate, weight_decay)

    def adjust_loss(self, loss, network, batch) -> torch.Tensor:
        """Return the loss that the main stage minimizes. Override it to change the loss.

        Parameters
        ----------
        loss : scalar Tensor
            Loss of the method.
        network : torch.nn.Module
            Network in training, as in ``network_``.
        batch : Tensor of shape (b, C, H, W), or a tuple that ends in such a tensor
            What `loss` was computed from: images on the device of the network.

        Returns
        -------
        loss : scalar Tensor
            By default, `loss`.
        """
        return loss

    def _hold_out(self, images, run):
        """Return the images to train on, and those held out, or None."""
        if self.validation_fraction == 0:
            return images, None
        parts = split_indices(
            len(images), self.validation_fraction, self._min_samples, run.generator
        )
        return tuple(Subset(images, indices) for indices in parts)

    def _train_network(
        self,
        network,
        loss_fn,
        batches,
        images,
        run,
        *,
        held_out=None,
        parameters=None,
        schedule=None,
        draws=False,
        **options,
    ) -> TrainingHistory:
        """Train in the main stage, and set the loss curves and the best epoch.

        Parameters
        ----------
        network, loss_fn, batches, draws, **options
            As in :func:`~skocc._engine.training.train`.
        images : image source
            Images for `_keep`.
        run : Run
        held_out : batches, default=None
            Batches of held-out images, which end training early. None: there are none.
        parameters : iterable, default=None
            Parameters to train. None: all of the network.
        schedule : callable, default=None
            Function from the optimizer to its scheduler.
        """
        optimizer = self.make_optimizer(
            network.parameters() if parameters is None else parameters,
            self.learning_rate,
            self.weight_decay,
        )
        if held_out is not None:
            options["stopping"] = EarlyStopping(
                held_out, self.n_iter_no_change, run.generator
            )
        show, name = self._curves_shown(run), type(self).__name__
        snapshot = partial(self._snapshot, images=images, run=run)
        with run.callbacks.stage(name, self.n_epochs, show, snapshot) as watcher:
            history = train(
                network,
                lambda batch: self.adjust_loss(loss_fn(batch), network, batch),
                batches,
                optimizer=optimizer,
                n_epochs=self.n_epochs,
                scheduler=schedule and schedule(optimizer),
                # Nobody knows what a user's loss draws.
                draws=draws or type(self).adjust_loss is not TrainedDetector.adjust_loss,
                checkpoint=stage_checkpoint(self, run),
                watcher=watcher,
                stage=name,
                **options,
            )
        show(history)
        self.best_epoch_ = history.best_epoch
        return history

    def _curves_shown(self, run):
        """Return a function that sets the loss curves, after those of a warm start."""
        names = ("loss_curve_", "validation_loss_curve_")
        before = {name: getattr(self, name, []) if run.is_warm else [] for name in names}

        def show(history):
            self.loss_curve_ = before["loss_curve_"] + history.loss_curve
            self.validation_loss_curve_ = (
                before["validation_loss_curve_"] + history.validation_loss_curve
            )

        return show

    @contextmanager
    def _pretraining(self, run):
        """Yield how an autoencoder is trained: options of `train_by_milestones`."""

        def show(history):
            self.pretrain_loss_curve_ = [*history.loss_curve]

        stage = f"{type(self).__name__}: autoencoder"
        with run.callbacks.stage(stage, self.pretrain_n_epochs, show) as watcher:
            yield {
                "n_epochs": self.pretrain_n_epochs,
                "learning_rate": self.pretrain_learning_rate,
                "weight_decay": self.pretrain_weight_decay,
                "milestones": getattr(self, "pretrain_milestones", ()),
                "make_optimizer": self.make_optimizer,
                "checkpoint": stage_checkpoint(self, run, "autoencoder"),
                "watcher": watcher,
                "stage": stage,
                "label": "autoencoder",
            }

    def _snapshot(self, module, images, run):
        """Return the attributes as if `fit` had ended with this module."""
        fitted = copy.copy(self)
        # The draws of what follows must not move those of the training.
        generator = torch.Generator()
        generator.set_state(run.generator.get_state())
        run = replace(run, generator=generator)
        fitted._keep(copy.deepcopy(module), images, run)
        fitted._set_threshold(images, run)
        return vars(fitted)


def split_indices(
    n_samples: int, fraction: float, n_least: int, generator: torch.Generator
) -> list[np.ndarray]:
    """Return the indices of samples to train on and of those to hold out, at random.

    Parameters
    ----------
    n_samples : int
    fraction : float
        Fraction to hold out. It is one sample at least, unless fewer than `n_least` would
        remain.
    n_least : int
        Minimum number of samples to train on.
    generator : torch.Generator
    """
    n_held_out = min(max(1, round(fraction * n_samples)), max(0, n_samples - n_least))
    order = torch.randperm(n_samples, generator=generator).numpy()
    return [order[n_held_out:], order[:n_held_out]]
