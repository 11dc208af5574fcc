"""Progress of long stages: what is being done, how far it is, how much time is left.

This is the only file that uses tqdm. An estimator whose `verbose` is set shows its stages,
and a stage is shown once it has taken two seconds. A thread draws the bar: the time goes on
while a batch, or a step that cannot say how far it is, takes long, and Ctrl-C, which Python
raises in the main thread, never interrupts a half-written line.
"""

import contextvars
import logging
import multiprocessing
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager, nullcontext
from functools import cache, wraps
from typing import TypeVar, cast

from skocc._samples.log import logger

# Seconds until a bar appears, so that short stages do not flicker; then between two states
# of a bar, and between two lines where there is no terminal.
_DELAY, _INTERVAL, _LINE_INTERVAL = 2.0, 0.25, 30.0
# Seconds that a stage waits for its last state to be drawn: a terminal that takes no more
# text must not stop a fit.
_PATIENCE = 5.0
# Size of a terminal that does not say what it has; to tqdm, zero rows and columns leave
# no room for a bar.
_DEFAULT_SIZE = {"ncols": 80, "nrows": 20}
_LINE = (
    "{desc}: {percentage:.0f}% ({n_fmt} of {total_fmt}), {elapsed} passed, {remaining} left"
    "{postfix}"
)
_Function = TypeVar("_Function", bound=Callable)
_LINE_WITHOUT_TOTAL = "{desc}: {elapsed} passed"


class _Shown(threading.local):
    """What this thread shows.

    Attributes
    ----------
    name : str or None
        Name before that of a stage. None: stages are not shown.
    n_bars, n_levels : int
        Number of its bars, and how many it may have, one within the other.
    pause : Bar or None
        Bar of the time between two stages.
    """

    name: str | None = None
    n_bars, n_levels = 0, 2
    pause: "Bar | None" = None


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
    _end_pause()
    _shown.name, _shown.n_levels = name if verbose else None, 2 if inner else 1
    _begin_pause()
    try:
        yield
    finally:
        _end_pause()
        _shown.name, _shown.n_levels = before
        _begin_pause()


def _begin_pause():
    """Show the time until the next stage, in which networks are built, for example."""
    if _shown.name is not None and _shown.n_bars == 0 and sys.stderr is not None:
        _shown.pause = Bar(f"{_shown.name}: preparation", None, "", 0, leave=False)
        _shown.pause.start()


def _end_pause():
    if _shown.pause is not None:
        _shown.pause.stop()
        _shown.pause = None


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
    """Progress of a stage that is shown once it has taken two seconds.

    Parameters
    ----------
    label : str
        Name of the estimator, then that of the stage.
    total : int or None
        Number of steps. None: unknown, so that only the time is shown.
    unit : str
        Name of a step.
    n_done : int
        Number of steps that were done before.
    leave : bool, default=True
        Whether the last state remains, unless the bar is within another.
    """

    def __init__(self, label, total, unit, n_done, leave=True):
        self._leave, self._is_inner = leave, False
        self._label, self._total, self._unit = label, total, unit
        self._n_before = self._n = n_done
        self._values = {}
        self._ended = threading.Event()

    def __enter__(self):
        _end_pause()
        self._is_inner = _shown.n_bars > 0
        _shown.n_bars += 1
        self.start()
        return self

    def __exit__(self, *error):
        _shown.n_bars -= 1
        if error[0] is None and self._total is not None:
            self._total = self._n  # training may end early
        self.stop()
        _begin_pause()

    def start(self):
        """Start the thread that draws the bar."""
        self._stream, self._started = sys.stderr, time.time()
        # A widget appears in the cell of the notebook whose context the thread has.
        draw = contextvars.copy_context().run
        self._thread = threading.Thread(target=draw, args=(self._draw,), daemon=True)
        self._thread.start()

    def stop(self):
        """Let the thread draw the last state, and wait for its end."""
        self._ended.set()
        self._thread.join(timeout=_PATIENCE)

    def update(self, n=1):
        self._n += n

    def tell(self, **values):
        self._values = values

    def _draw(self):
        if self._ended.wait(_DELAY):
            return
        try:
            bar, interval = self._make()
            if bar is None:
                return
            _drawn.add(bar)
            try:
                is_ended = False
                while not is_ended:
                    self._show(bar)
                    is_ended = self._ended.wait(interval)
                bar.total = self._total
                self._show(bar, refresh=False)
                bar.close()
            finally:
                _drawn.discard(bar)
        except (OSError, ValueError):
            pass  # the stream is closed, and a fit does not fail for that

    def _show(self, bar, refresh=True):
        bar.n = self._n
        bar.set_postfix(self._values, refresh=False)
        if refresh:
            bar.refresh()

    def _make(self):
        """Return a bar of tqdm, or None, and the seconds between two of its states."""
        tqdm, is_widget = _tqdm()
        options, interval = _width(self._stream), _INTERVAL
        if self._total is None:
            options["bar_format"] = "{desc}: {elapsed}"
        if not is_widget:
            options["file"] = self._stream
            if not _is_terminal(self._stream):
                if self._is_inner:
                    return None, None
                options, interval = {"file": _Lines(self._stream)}, _LINE_INTERVAL
                options["bar_format"] = (
                    _LINE_WITHOUT_TOTAL if self._total is None else _LINE
                )
        bar = tqdm(
            desc=self._label,
            total=self._total,
            unit=self._unit,
            initial=self._n_before,
            leave=self._leave and not self._is_inner,
            smoothing=0,  # the mean rate of all steps
            delay=_DELAY or 1e-9,  # not drawn before it has a state
            **options,
        )
        bar.start_t = self._started
        return bar, interval


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
        If it has no length, only the time is shown.
    stage, unit
        As in :func:`progress_bar`.
    """
    total = len(items) if isinstance(items, Sized) else None
    with progress_bar(stage, total, unit=unit) as progress:
        for item in items:
            yield item
            progress.update()


def waiting(stage: str) -> Silent:
    """Return a context that shows the time of a step that cannot say how far it is.

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
