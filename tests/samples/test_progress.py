import io
import logging
import multiprocessing
import os
import threading
import warnings
from types import SimpleNamespace

import pytest

from skocc._samples import progress
from skocc._samples.log import logger
from skocc._samples.progress import Silent, progress_bar, shown, track, waiting


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self):
        return True


def stderr_is(stream, monkeypatch):
    """Give the bars a stream; pytest sets that of the process after the fixtures."""
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=stream))
    return stream


@pytest.fixture
def at_once(monkeypatch):
    """Bars that appear at once."""
    monkeypatch.setattr(progress, "_DELAY", 0)


@pytest.fixture
def terminal(monkeypatch, at_once):
    return stderr_is(Terminal(), monkeypatch)


@pytest.fixture
def file(monkeypatch, at_once):
    return stderr_is(io.StringIO(), monkeypatch)


def test_nothing_is_shown_unless_asked_for(terminal):
    assert [*track("ab", "letters")] == ["a", "b"]
    with shown("Net", 0):
        assert type(progress_bar("scores", 3)) is Silent
    with shown("Net", 1):
        assert type(progress_bar("scores", 3)) is progress.Bar
    assert type(progress_bar("scores", 3)) is Silent
    assert terminal.getvalue() == ""


def test_a_short_stage_shows_nothing(monkeypatch):
    terminal = stderr_is(Terminal(), monkeypatch)
    with shown("Net", 1):
        assert [*track("ab", "letters")] == ["a", "b"]
    assert terminal.getvalue() == ""


def test_a_terminal_shows_one_line_that_is_drawn_again(terminal):
    with shown("Net", True), progress_bar("training", 4) as bar:
        assert "Net: training:   0%" in terminal.getvalue()
        bar.tell(loss="0.5")
        bar.update(4)
    text = terminal.getvalue()
    assert text.count("\n") == 1
    assert text.endswith("\n")
    last = text.split("\r")[-1]
    assert last.startswith("Net: training: 100%")
    assert "4/4 [00:00<00:00" in last
    assert "batch/s, loss=0.5]" in last


def test_elsewhere_each_state_is_a_line(file):
    with shown("Net", 1):
        assert [*track([10, 20, 30], "scores")] == [10, 20, 30]
    lines = file.getvalue().splitlines()
    assert lines == [
        "Net: scores: 0% (0 of 3), 00:00 passed, ? left",
        "Net: scores: 100% (3 of 3), 00:00 passed, 00:00 left",
    ]
    assert "\r" not in file.getvalue()


def test_lines_become_rare(monkeypatch):
    """The first after two seconds, one every half minute, and one at the end."""
    file, now = stderr_is(io.StringIO(), monkeypatch), [100.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    with shown("Net", 1), progress_bar("training", 1000) as bar:
        for _ in range(1000):
            now[0] += 0.1
            bar.update()
    shares = [line.split()[2] for line in file.getvalue().splitlines()]
    assert shares == ["2%", "32%", "62%", "92%", "100%"]


def test_a_step_without_length_shows_its_name(terminal):
    with shown("Net", 1), waiting("graph"):
        assert "Net: graph ..." in terminal.getvalue()
    assert terminal.getvalue().count("\n") == 0  # nothing remains of it


def test_a_line_without_length(file):
    with shown("Net", 1):
        assert [*track(iter("ab"), "letters")] == ["a", "b"]
        with waiting("graph"):
            assert file.getvalue().endswith("Net: graph ...\n")


def test_one_level_within_another(terminal):
    with shown("Net", 1), progress_bar("training", 2) as outer:
        outer.update(2)
        with progress_bar("held-out images", 5) as inner:
            assert "Net: held-out images" in terminal.getvalue()
            assert type(progress_bar("third level", 1)) is Silent
            inner.update()
        n_before = len(terminal.getvalue())
    # The inner bar is gone, and the outer one remains.
    assert "held-out" not in terminal.getvalue()[n_before:]
    assert terminal.getvalue().split("\r")[-1].startswith("Net: training: 100%")


def test_no_second_level_without_a_terminal(file):
    with shown("Net", 1), progress_bar("training", 2):
        with progress_bar("held-out images", 5):
            pass
        assert "Net: training" in file.getvalue()
    assert "held-out" not in file.getvalue()


def test_no_second_level_if_the_caller_wants_one_bar(terminal):
    class Detector:
        verbose = 1

    one_bar = shown("score", 1, inner=False)
    with one_bar, progress_bar("files", 2), progress.stages_of(Detector()):
        assert type(progress_bar("scores", 2)) is Silent
    with progress.stages_of(Detector()):
        assert type(progress_bar("scores", 2)) is progress.Bar
    with progress.stages_of(object()):
        assert type(progress_bar("scores", 2)) is Silent


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_ends_the_bar_where_it_is(terminal, error):
    def fail(item):
        if item == 1:
            raise error

    with pytest.raises(error), shown("Net", 1):
        [*map(fail, track(range(4), "scores"))]
    text = terminal.getvalue()
    assert text.split("\r")[-1].startswith("Net: scores:  25%")
    assert text.endswith("\n")
    assert (progress._shown.name, progress._shown.n_bars) == (None, 0)
    assert not progress._drawn


def test_a_loop_that_is_left_ends_the_bar(terminal):
    with shown("Net", 1):
        items = track(range(4), "scores")
        next(items)
        items.close()
    assert progress._shown.n_bars == 0


def test_a_stage_that_ends_early_is_complete(file):
    with shown("Net", 1), progress_bar("training", 100) as bar:
        bar.update(20)
    assert "100% (20 of 20)" in file.getvalue()


def test_steps_that_were_done_before_do_not_count_as_fast(file):
    with shown("Net", 1), progress_bar("training", 4, n_done=3):
        assert "75% (3 of 4), 00:00 passed, ? left" in file.getvalue()


@pytest.mark.filterwarnings("error")
def test_a_closed_stream_does_not_stop_the_work(terminal):
    terminal.close()
    with shown("Net", 1):
        assert [*track("ab", "letters")] == ["a", "b"]


def test_without_stderr_there_are_no_bars(monkeypatch):
    stderr_is(None, monkeypatch)
    with shown("Net", 1):
        assert [*track("ab", "letters")] == ["a", "b"]


def test_another_thread_shows_its_own_stages(terminal):
    kinds = []
    with shown("Net", 1), progress_bar("training", 2):
        thread = threading.Thread(target=lambda: kinds.append(progress_bar("scores", 1)))
        thread.start()
        thread.join()
    assert type(kinds[0]) is Silent


def test_a_worker_writes_lines(terminal, monkeypatch):
    assert progress._is_terminal(terminal)
    monkeypatch.setattr(multiprocessing.current_process(), "_name", "LokyProcess-1")
    assert not progress._is_terminal(terminal)


def test_a_terminal_without_size_has_bars(monkeypatch, at_once):
    """As in a container or under a program that records a session."""
    pty = pytest.importorskip("pty")  # not on Windows
    leader, follower = pty.openpty()  # of 0 columns
    try:
        with os.fdopen(follower, "w") as stream, shown("Net", 1):
            monkeypatch.setattr("sys.stderr", stream)
            with progress_bar("training", 2):
                text = os.read(leader, 1000).decode()
                while "Net: training" not in text:
                    text += os.read(leader, 1000).decode()
    finally:
        os.close(leader)
    assert "0/2" in text


def test_the_log_is_written_on_lines_of_its_own(terminal):
    handler = logging.StreamHandler(terminal)
    logger.addHandler(handler)
    try:
        with shown("Net", 1), progress_bar("training", 2):
            logger.warning("a record")
            n_before = len(terminal.getvalue())
    finally:
        logger.removeHandler(handler)
    line = terminal.getvalue()[:n_before].split("\r")[-1]
    assert line == "a record\n"


def test_notebooks_without_widgets_are_not_told_so(monkeypatch):
    """tqdm warns there on import, which is no news for those who use skocc."""
    warned = []
    progress._tqdm.cache_clear()
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            progress._tqdm()
    finally:
        progress._tqdm.cache_clear()
    assert not warned
