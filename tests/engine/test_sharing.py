"""Fits that share a GPU, by made memory: all else, files and processes, is as there."""

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

import skocc
from skocc._engine import sharing
from skocc._engine.sharing import fit_beside_others
from tests.quick import quick

fcntl = pytest.importorskip("fcntl", reason="Windows has no locks of this kind")
CPU = torch.device("cpu")
WARNS = pytest.mark.filterwarnings("ignore:The memory of the GPU:UserWarning")


def share(folder):
    """Let all fits of this process share a GPU that is not there."""
    tempfile.tempdir = str(folder)
    sharing._physical_name = lambda device: "made-up"
    sharing._has_met_others = False


@pytest.fixture
def shared(tmp_path, monkeypatch):
    """Folder of the locks, for fits of this process."""
    for module, name in (
        (tempfile, "tempdir"),
        (sharing, "_physical_name"),
        (sharing, "_has_met_others"),
    ):
        monkeypatch.setattr(module, name, getattr(module, name))
    share(tmp_path)
    return tmp_path


def no_memory():
    raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")


def until(condition):
    end = time.monotonic() + 600  # of a machine that is busy
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def is_free(path, kind=fcntl.LOCK_EX):
    """Return whether nobody has a lock."""
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


class Greedy(skocc.DeepSVDD):
    """Deep SVDD with a GPU that has room for one fit."""

    memory = other = None

    def _fit(self, images, run):
        memory, failed = self.memory / "memory", self.memory / "failed"
        if self.other and not failed.exists():
            until(memory.exists)
        try:
            memory.touch(exist_ok=False)
        except FileExistsError:
            failed.touch()
            no_memory()
        try:
            if not self.other:
                until(failed.exists)
            super()._fit(images, run)
        finally:
            memory.unlink()


def make(is_other):
    # One draws its seed from an instance, which the failed try has used.
    state = np.random.RandomState(7) if is_other else 7
    quick_params = quick(skocc.DeepSVDD).get_params()
    return Greedy(**(quick_params | {"random_state": state}))


def fit_in_process(folder, is_other, images):
    torch.set_num_threads(1)
    share(folder)
    Greedy.memory, Greedy.other = folder, is_other
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        detector = make(is_other).fit(images)
    messages = [str(w.message) for w in seen if "GPU" in str(w.message)]
    return detector.score_samples(images), detector.random_state, messages


def test_processes_that_do_not_fit_together_end_with_serial_results(digits, tmp_path):
    images = digits[0][:30]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        futures = [
            pool.submit(fit_in_process, tmp_path, is_other, images)
            for is_other in (False, True)
        ]
        results = [future.result(timeout=900) for future in futures]
    for is_other, (scores, state, messages) in enumerate(results):
        serial = skocc.DeepSVDD(**make(is_other).get_params()).fit(images)
        np.testing.assert_array_equal(scores, serial.score_samples(images))
        assert len(messages) == is_other
        if is_other:  # drawn from once, whatever was tried
            assert state.randint(10**9) == serial.random_state.randint(10**9)
            assert "begins again" in messages[0]
            assert "CUDA out of memory" in messages[0]


@WARNS
def test_who_waits_to_be_alone_is_let_in_before_those_who_come_later(shared):
    order, end = [], threading.Event()

    def long():
        order.append("long")
        end.wait(600)

    def large():
        order.append("large")
        if order.count("large") == 1:
            no_memory()

    with ThreadPoolExecutor() as pool:
        futures = [pool.submit(fit_beside_others, long, CPU)]
        until(lambda: order)
        futures.append(pool.submit(fit_beside_others, large, CPU))
        until(lambda: "large" in order and not is_free(shared_file(shared, "gate")))
        for _ in range(3):
            late = pool.submit(fit_beside_others, lambda: order.append("late"), CPU)
            futures.append(late)
        time.sleep(0.3)
        assert order == ["long", "large"]
        end.set()
        for future in futures:
            future.result(600)
    assert order == ["long", "large", "large", "late", "late", "late"]


def shared_file(folder, kind):
    return folder / f"skocc-{os.getuid()}-made-up.{kind}"


def test_a_fit_that_was_alone_fails_as_ever(shared, monkeypatch):
    emptied = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(1))
    for error in (torch.cuda.OutOfMemoryError("CUDA out of memory"), ValueError("else")):
        calls = []

        def fit(calls=calls, error=error):
            calls.append(1)
            raise error

        with pytest.raises(type(error)):
            fit_beside_others(fit, CPU)
        assert calls == [1]
    for kind in ("lock", "gate"):
        assert is_free(shared_file(shared, kind))
        assert shared_file(shared, kind).stat().st_mode & 0o777 == 0o600
    assert not emptied


@WARNS
@pytest.mark.parametrize(
    ("error", "n_calls"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory."), 2),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"), 2),
        (MemoryError("There is not enough memory. Got 'CUDA out of memory'"), 2),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), 1),
        (ValueError("another"), 1),
    ],
)
def test_what_fails_beside_others_is_tried_again_once(error, n_calls, shared, monkeypatch):
    """Also beside a fit that came later, and has ended meanwhile."""
    emptied, calls = [], []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(1))

    def fit():
        calls.append(1)
        with ThreadPoolExecutor() as pool:
            if len(calls) == 1:
                pool.submit(fit_beside_others, lambda: None, CPU).result(600)
            else:
                assert not is_free(shared_file(shared, "lock"), fcntl.LOCK_SH)
        raise error

    with pytest.raises(type(error)):
        fit_beside_others(fit, CPU)
    assert len(calls) == n_calls
    assert emptied  # for the others
    assert is_free(shared_file(shared, "lock"))


def test_a_process_that_shares_a_gpu_leaves_no_memory_behind(shared, digits, monkeypatch):
    emptied = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(1))
    detector = quick(skocc.DeepSVDD).fit(digits[0][:20])
    detector.score_samples(digits[1][:5])
    assert not emptied
    with ThreadPoolExecutor() as pool:
        fit_beside_others(
            lambda: pool.submit(fit_beside_others, lambda: None, CPU).result(600), CPU
        )
    emptied.clear()
    detector.score_samples(digits[1][:5])
    assert emptied


@WARNS
def test_a_fit_within_a_fit_does_not_wait_for_it(shared, digits):
    tries = []

    class Inner(skocc.DeepSVDD):
        def _fit(self, images, run):
            tries.append("inner")
            if len(tries) == 2:
                with ThreadPoolExecutor() as pool:
                    pool.submit(fit_beside_others, lambda: None, CPU).result(600)
                no_memory()
            super()._fit(images, run)

    params = quick(skocc.DeepSVDD).get_params()

    class Outer(skocc.DeepSVDD):
        def _fit(self, images, run):
            tries.append("outer")
            Inner(**params).fit(digits[0][:20])
            super()._fit(images, run)

    scores = Outer(**params).fit(digits[0][:20]).train_scores_
    assert tries == ["outer", "inner", "outer", "inner"]
    expected = skocc.DeepSVDD(**params).fit(digits[0][:20]).train_scores_
    np.testing.assert_array_equal(scores, expected)


class Failing(skocc.DeepSVDD):
    """Deep SVDD that meets another fit, and has no memory in its third epoch."""

    n_losses = 0

    def adjust_loss(self, loss, network, batch):
        self.n_losses += 1  # goes with the attributes of a fit that fails
        Failing.n_all += 1
        if Failing.n_all == 3:
            with ThreadPoolExecutor() as pool:
                pool.submit(fit_beside_others, lambda: None, CPU).result(600)
            no_memory()
        return loss


@WARNS
@pytest.mark.parametrize("is_kept", [False, True])
def test_the_second_try_goes_on_from_a_checkpoint(is_kept, shared, digits):
    params = quick(skocc.DeepSVDD, n_epochs=4).get_params()
    expected = skocc.DeepSVDD(**params).fit(digits[0][:20])
    Failing.n_all = 0
    folder = shared / "checkpoints" if is_kept else None
    detector = Failing(**(params | {"checkpoint_dir": folder})).fit(digits[0][:20])
    np.testing.assert_array_equal(detector.train_scores_, expected.train_scores_)
    np.testing.assert_array_equal(detector.loss_curve_, expected.loss_curve_)
    assert detector.n_losses == (2 if is_kept else 4)


@WARNS
def test_callbacks_see_both_tries_of_one_fit(shared, digits):
    pytest.importorskip("sklearn.callback", reason="of scikit-learn 1.9")

    class Notes:
        tasks = []

        def setup(self, estimator, context):
            self.tasks.append("setup")

        def teardown(self, estimator, context):
            self.tasks.append("teardown")

        def on_fit_task_begin(self, estimator, context):
            self.tasks.append(context.task_name)

        def on_fit_task_end(self, estimator, context):
            return False

    Failing.n_all = 0
    params = quick(skocc.DeepSVDD, n_epochs=4).get_params()
    Failing(**params).set_callbacks(Notes()).fit(digits[0][:20])
    assert Notes.tasks.count("setup") == Notes.tasks.count("teardown") == 1
    assert Notes.tasks.count("Failing") == 2
    assert Notes.tasks.count("epoch") == 2 + 3 + 2 + 4


HOLDS = """
import sys, tempfile, time, torch
from skocc._engine import sharing
tempfile.tempdir = sys.argv[1]
sharing._physical_name = lambda device: "made-up"
def fit():
    print("fits", flush=True)
    time.sleep(600)
sharing.fit_beside_others(fit, torch.device("cpu"))
"""


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT])
def test_a_process_that_is_killed_leaves_no_lock(kill, shared):
    command = [sys.executable, "-c", HOLDS, shared]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=Path(skocc.__file__).parents[1],
    ) as process:
        assert process.stdout.readline() == b"fits\n"
        assert not is_free(shared_file(shared, "lock"))
        process.send_signal(kill)
        assert process.wait(600) != 0
    assert is_free(shared_file(shared, "lock"))


def test_where_no_file_can_be_made_fits_are_as_ever(shared):
    (shared / "elsewhere").touch()
    shared_file(shared, "lock").symlink_to(shared / "elsewhere")
    calls = []
    fit_beside_others(lambda: calls.append(1), CPU)
    tempfile.tempdir = str(shared / "missing")
    fit_beside_others(lambda: calls.append(2), CPU)
    assert calls == [1, 2]


def test_a_cpu_is_not_shared():
    assert sharing._physical_name(CPU) is None


@pytest.mark.gpu
def test_a_gpu_has_one_name():
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    numbered = torch.device("cuda", torch.cuda.current_device())
    name = sharing._physical_name(numbered)
    assert name == sharing._physical_name(torch.device("cuda"))
    assert len(name) > 10  # no number, which CUDA_VISIBLE_DEVICES would change
