"""Progress of long stages: what is being done, how far it is, how much time is left.

This is the only file that uses tqdm. An estimator whose `verbose` is set shows its stages,
and a stage is shown once it has taken two seconds.
"""

import logging
import multiprocessing
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager, nullcontext, suppress
from functools import cache, wraps
from typing import TypeVar, cast

from skocc._samples.log import logger

# Seconds until a bar appears, so that short stages do not flicker, and between two lines
# where there is no terminal.
_DELAY, _LINE_INTERVAL = 2.0, 30.0
_LINE = (
    "{desc}: {percentage:.0f}% ({n_fmt} of {total_fmt}), {elapsed} passed, {remaining} left"
    "{postfix}"
)
# Of a step that cannot say how far it is: nothing would update a time.
_NO_TOTAL = "{desc} ..."
# Of a terminal that does not say how large it is.
_DEFAULT_SIZE = {"ncols": 80, "nrows": 20}
_Function = TypeVar("_Function", bound=Callable)


class _Shown(threading.local):
    """What this thread shows.

    Attributes
    ----------
    name : str or None
        Name before that of a stage. None: stages are not shown.
    n_bars, n_levels : int
        Number of its bars, and how many it may have, one within the other.
    """

    name: str | None = None
    n_bars, n_levels = 0, 2


_shown = _Shown()
# Bars on the screen, of all threads.
_drawn: set = set()


@contextmanager
def shown(name: str, verbose: int, *, inner: bool = True) -> Iterator[None]:
    """Show the stages in the block under a name, or show none of them.

    Parameters
    ----------
    name : str
    verbose : int or bool
        Whether stages are shown.
    inner : bool, default=True
        Whether stages within stages are shown as well, and estimators in the block show
        their own.
    """
    before = _shown.name, _shown.n_levels
    _shown.name, _shown.n_levels = name if verbose else None, 2 if inner else 1
    try:
        yield
    finally:
        _shown.name, _shown.n_levels = before


def stages_of(owner):
    """Return a context that shows the stages of an estimator if its `verbose` says so.

    Parameters
    ----------
    owner : object
        Estimator. If it has no `verbose`, the context changes nothing.
    """
    verbose = getattr(owner, "verbose", None)
    if verbose is None or _shown.n_levels == 1:
        return nullcontext()
    return shown(type(owner).__name__, verbose)


def shows_stages(method: _Function) -> _Function:
    """Decorate a method of an estimator to run in a block of :func:`stages_of`."""

    @wraps(method)
    def run(self, *args, **kwargs):
        with stages_of(self):
            return method(self, *args, **kwargs)

    return cast(_Function, run)


class Silent:
    """Progress of a stage that is not shown."""

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def update(self, n: int = 1) -> None:
        """Note that `n` more steps are done."""

    def tell(self, **values) -> None:
        """Set the values that are shown beside the bar."""


class Bar(Silent):
    """Progress of a stage that is shown.

    Parameters
    ----------
    label : str
        Name of the estimator, then that of the stage.
    total : int or None
        Number of steps. None: unknown, so that only the stage is shown.
    unit : str
        Name of a step.
    n_done : int
        Number of steps that were done before.
    """

    def __init__(self, label, total, unit, n_done):
        self.label, self._total, self._unit = label, total, unit
        self._n_done = n_done
        self._bar, self._is_redrawn = None, False

    def __enter__(self):
        is_inner = _shown.n_bars > 0
        _shown.n_bars += 1
        with suppress(OSError, ValueError):  # the stream is closed: no reason to fail
            self._bar = self._make(is_inner)
        if self._bar is not None:
            _drawn.add(self._bar)
        return self

    def __exit__(self, *error):
        _shown.n_bars -= 1
        if self._bar is None:
            return
        _drawn.discard(self._bar)
        if error[0] is None and self._total is not None:
            self._bar.total = self._bar.n  # training may end early
        with suppress(OSError, ValueError):
            self._bar.close()

    def update(self, n=1):
        if self._bar is None:
            return
        with suppress(OSError, ValueError):
            if self._bar.update(n) and not self._is_redrawn:
                # The first line after two seconds, and then fewer.
                self._bar.mininterval = _LINE_INTERVAL

    def tell(self, **values):
        if self._bar is not None:
            self._bar.set_postfix(values, refresh=False)

    def _make(self, is_inner):
        """Return a bar of tqdm, or None where there is no place for a second one."""
        tqdm, is_widget = _tqdm()
        self._is_redrawn = is_widget or _is_terminal(sys.stderr)
        is_known = self._total is not None
        options = {"bar_format": None if is_known else _NO_TOTAL}
        if not self._is_redrawn:
            if is_inner:
                return None
            options["bar_format"] = _LINE if is_known else _NO_TOTAL
            options["file"] = _Lines(sys.stderr)
        elif not is_widget:
            options.update(_width(sys.stderr), file=sys.stderr)
        return tqdm(
            desc=self.label,
            total=self._total,
            unit=self._unit,
            initial=self._n_done,
            leave=is_known and not is_inner,
            delay=_DELAY if is_known else 0,
            miniters=1,
            smoothing=0,  # the mean rate of all steps
            **options,
        )


class _Lines:
    """Stream for tqdm that writes each state of a bar as a line of its own."""

    encoding = "ascii"

    def __init__(self, stream):
        self._stream, self._last = stream, ""

    def write(self, text):
        text = text.strip()
        if text and text != self._last:
            self._stream.write(text + "\n")
            self._last = text

    def flush(self):
        self._stream.flush()


def progress_bar(
    stage: str, total: int | None, *, unit: str = "batch", n_done: int = 0
) -> Silent:
    """Return a context whose value is the progress of a stage.

    It is silent if this thread shows no stages, and in a third level: a stage within one
    is shown, a stage within that is not.

    Parameters
    ----------
    stage : str
        Name of the stage, in plain words.
    total : int or None
        Number of steps. None: unknown.
    unit : str, default="batch"
        Name of a step.
    n_done : int, default=0
        Number of steps that were done before.
    """
    if _shown.name is None or _shown.n_bars >= _shown.n_levels or sys.stderr is None:
        return Silent()
    return Bar(f"{_shown.name}: {stage}", total, unit, n_done)


def track(items: Iterable, stage: str, *, unit: str = "batch") -> Iterator:
    """Yield the items, and show how many are done.

    Parameters
    ----------
    items : iterable
        If it has no length, only the stage is shown.
    stage, unit
        As in :func:`progress_bar`.
    """
    total = len(items) if isinstance(items, Sized) else None
    with progress_bar(stage, total, unit=unit) as progress:
        for item in items:
            yield item
            progress.update()


def waiting(stage: str) -> Silent:
    """Return a context that shows a step that cannot say how far it is.

    Parameters
    ----------
    stage : str
        As in :func:`progress_bar`.
    """
    return progress_bar(stage, None)


@cache
def _tqdm():
    """Return the class of tqdm that suits the place, and whether it draws widgets.

    It is imported here because most programs show no bar.
    """
    from tqdm import TqdmWarning, std

    with warnings.catch_warnings():
        # A notebook without ipywidgets has lines in place of widgets.
        warnings.simplefilter("ignore", TqdmWarning)
        from tqdm import auto
    return auto.tqdm, auto.notebook_tqdm is not std.tqdm


def _is_terminal(stream):
    """Return whether bars can be redrawn: not by several processes in one terminal."""
    is_worker = multiprocessing.current_process().name != "MainProcess"
    return not is_worker and getattr(stream, "isatty", lambda: False)()


def clear_bars() -> None:
    """Clear the bars on the screen. They are soon drawn again, below what is written."""
    for bar in [*_drawn]:
        bar.clear()


def _width(stream):
    """Return the option for the width of a bar, also of a terminal that has no size."""
    try:
        has_size = os.get_terminal_size(stream.fileno()).columns > 0
    except (AttributeError, OSError, ValueError):
        has_size = True  # tqdm knows what to do with other streams
    return {"dynamic_ncols": True} if has_size else _DEFAULT_SIZE


class _BarsCleared(logging.Filter):
    """Clears the bars before a record of the log is written."""

    def filter(self, record):
        clear_bars()
        return True


logger.addFilter(_BarsCleared())
