"""scikit-learn's callbacks, which exist from its version 1.9 on.

This is the only file that knows them. `fit` of a detector tells them of a tree of tasks:
the fit, its stages, and the epochs of each stage.
"""

from contextlib import contextmanager

import torch

from skocc._engine.seeding import seeded
from skocc._engine.training import EpochWatcher

try:
    from sklearn.callback import CallbackSupportMixin
except ImportError:  # scikit-learn before 1.9

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Stands for scikit-learn's class of this name where there is none."""


class FitCallbacks:
    """The callbacks of one `fit`, told of its stages and epochs.

    Parameters
    ----------
    estimator : estimator
        Estimator that is being fitted. Create this object before anything can fail: what
        scikit-learn begins here it ends after `fit`, with or without an error.
    X, y : object
        Arguments of `fit`, which are passed to the callbacks.
    """

    def __init__(self, estimator, X, y):
        self._told = {"estimator": estimator, "X": X, "y": y}
        self._context = None
        if getattr(estimator, "_skl_callbacks", None):  # those of `set_callbacks`
            self._context = estimator._init_callback_context(max_subtasks=None)
            _begin(self._context, self._told)

    def end(self):
        """Tell the callbacks that the estimator is fitted."""
        if self._context is not None:
            _end(self._context, self._told, lambda: {})

    @contextmanager
    def stage(self, name, n_epochs, show, snapshot=None):
        """Tell the callbacks of a stage, for the length of the block.

        Parameters
        ----------
        name : str
        n_epochs : int
            Maximum number of epochs.
        show : callable
            Function ``show(history)`` that sets the loss curves of the estimator after each
            epoch, where a callback can read them.
        snapshot : callable, default=None
            Function from the module to the attributes of the estimator as if `fit` had
            ended with that module. It is called only if a callback asks. None: the stage
            leaves nothing that can score.

        Yields
        ------
        watcher : EpochWatcher
        """
        if self._context is None:
            yield EpochWatcher()
            return
        context = self._context.subcontext(task_name=name, max_subtasks=int(n_epochs))
        _begin(context, self._told)
        yield _Watcher(context, self._told, show, snapshot)
        _end(context, self._told)


class _Watcher(EpochWatcher):
    """Tells callbacks of the epochs of a stage."""

    def __init__(self, stage, told, show, snapshot):
        self._stage, self._told, self._show = stage, told, show
        self._snapshot = snapshot

    def begin(self):
        self._epoch = self._stage.subcontext(task_name="epoch")
        _begin(self._epoch, self._told)

    def end(self, module, history):
        self._show(history)
        attributes = self._snapshot and (lambda: self._snapshot(module))
        return _end(self._epoch, self._told, attributes)


def _begin(context, told):
    with _own_draws():
        context.call_on_fit_task_begin(**told)


def _end(context, told, attributes=None):
    with _own_draws():
        return context.call_on_fit_task_end(**told, reconstruction_attributes=attributes)


def _own_draws():
    """Return a context in which a callback does not draw from the streams of the fit."""
    return seeded(None, torch.device("cpu"))
