"""What a process has set, and what its other threads do, is nothing to a fit or a score."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import joblib
import numpy as np
import pytest
import torch
from sklearn.model_selection import GridSearchCV
from torch.overrides import TorchFunctionMode

import skocc
from skocc._engine.ambient import WholeInterrupts
from skocc.feature_extraction import DeepFeatures
from tests.quick import ESTIMATORS, quick

every_estimator = pytest.mark.parametrize("estimator_class", ESTIMATORS)


class default_dtype:
    """``torch.set_default_dtype`` for a block."""

    def __init__(self, dtype):
        self._dtype = dtype

    def __enter__(self):
        self._before = torch.get_default_dtype()
        torch.set_default_dtype(self._dtype)

    def __exit__(self, *error):
        torch.set_default_dtype(self._before)


class default_device:
    """``torch.set_default_device`` for a block."""

    def __init__(self, device):
        self._device = device

    def __enter__(self):
        torch.set_default_device(self._device)

    def __exit__(self, *error):
        torch.set_default_device(None)


class Drawing(torch.nn.Module):
    """A user's network, which draws as users' networks do."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 6, 3)
        self.drop = torch.nn.Dropout2d(0.3)
        self.recurrent = torch.nn.LSTM(6, 5, num_layers=2, dropout=0.2, batch_first=True)

    def forward(self, batch):
        maps = self.drop(self.conv(batch))
        if self.training:
            maps = maps + 0.1 * torch.randn_like(maps) * torch.rand(())
        return self.recurrent(maps.flatten(2).transpose(1, 2))[0][:, -1]


SETTINGS = {
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "default device": lambda: default_device("meta"),
    "device context": lambda: torch.device("meta"),
    "errors of NumPy": lambda: np.errstate(all="raise"),
}


@contextmanager
def all_settings():
    """All of them at once."""
    with ExitStack() as stack:
        for name in [
            "float64",
            "inference_mode",
            "autocast",
            "default device",
            "errors of NumPy",
        ]:
            stack.enter_context(SETTINGS[name]())
        yield


# Branches that draw, build or compute in ways that the others do not.
BRANCHES = {
    "augmentation": (skocc.ConvAE, {"augmentation": True, "n_augmented": 30}),
    "dropout": (skocc.DataSplitOCC, {"dropout": 0.3}),
    "soft": (skocc.DeepSVDD, {"boundary": "soft", "warm_up_n_epochs": 0}),
    "backbone": (skocc.DataSplitOCC, {"backbone": Drawing()}),
    "network of torchvision": (
        skocc.FeatureCAE,
        {"backbone": "mobilenet_v3_small", "layers": ("features.0",), "image_size": 16},
    ),
    "residual": (skocc.MOCCA, {"backbone": "residual", "channels": (2, 3, 4, 5)}),
    "patches": (skocc.MOCCA, {"patch_size": 8, "backbone": "plain_residual"}),
    "coreset": (skocc.ResNetKNN, {"bank_fraction": 0.5, "pooling": "locally_aware"}),
    "dense pairs": (skocc.PatchSVDD, {"sampling": "dense", "noise": True}),
}


def results(estimator, normal, others):
    """Return what a fit gives: scores, labels, heat maps."""
    estimator.fit(normal)
    found = [estimator.train_scores_, estimator.score_samples(others)]
    found.append(estimator.predict(others))
    if hasattr(estimator, "anomaly_map"):
        found.append(estimator.anomaly_map(others))
    return found


def assert_bit_equal(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


@every_estimator
def test_settings_of_the_process_change_nothing(estimator_class, digits):
    data = digits[0][:40], digits[1][:20]
    expected = results(quick(estimator_class), *data)
    with all_settings():
        found = results(quick(estimator_class), *data)
    assert_bit_equal(found, expected)


@pytest.mark.parametrize("branch", BRANCHES)
def test_settings_of_the_process_change_nothing_in_branches(branch, digits):
    estimator_class, params = BRANCHES[branch]
    data = digits[0][:20], digits[1][:10]
    expected = results(quick(estimator_class, **params), *data)
    with all_settings():
        found = results(quick(estimator_class, **params), *data)
    assert_bit_equal(found, expected)


@pytest.mark.parametrize("setting", SETTINGS)
def test_each_setting_of_the_process_changes_nothing(setting, digits):
    data = digits[0][:40], digits[1][:20]
    for estimator_class, params in [
        (skocc.MOCCA, {}),
        (skocc.ResNetKNN, {}),
        BRANCHES["backbone"],
    ]:
        expected = results(quick(estimator_class, **params), *data)
        with SETTINGS[setting]():
            found = results(quick(estimator_class, **params), *data)
        assert_bit_equal(found, expected)


@pytest.mark.parametrize("setting", SETTINGS)
def test_tensors_made_under_a_setting_are_taken(setting, digits):
    images = torch.from_numpy(digits[0][:40, np.newaxis])
    expected = quick(skocc.DeepSVDD).fit(images).score_samples(images)
    with SETTINGS[setting]():
        own = torch.empty(40, 1, 8, 8, device="cpu", dtype=torch.float32).copy_(images)
        detector = quick(skocc.DeepSVDD, warm_start=True).fit(own)
        np.testing.assert_array_equal(detector.score_samples(own), expected)
    # What is fitted there can be trained further elsewhere.
    detector.fit(images)


@pytest.mark.parametrize("setting", SETTINGS)
def test_tables_of_features_and_files_know_no_settings(setting, digits, tmp_path):
    def table():
        features = DeepFeatures(
            backbone="shufflenet_v2_x0_5",
            weights=None,
            layers=("conv1",),
            image_size=None,
            random_state=0,
        )
        return features.fit_transform(digits[0][:5])

    path = tmp_path / "detector.safetensors"
    detector = quick(skocc.MOCCA).fit(digits[0][:40])
    skocc.save(detector, path)
    expected = table()
    with SETTINGS[setting]():
        np.testing.assert_array_equal(table(), expected)
        loaded = skocc.load(path).set_params(warm_start=True)
    np.testing.assert_array_equal(
        loaded.score_samples(digits[1][:20]), detector.score_samples(digits[1][:20])
    )
    loaded.fit(digits[0][:40])


def fits_in_threads(make, data, n_fits=6):
    with ThreadPoolExecutor(n_fits) as pool:
        barrier = threading.Barrier(n_fits)

        def fit(seed):
            torch.set_num_threads(1)  # as the process has it; each thread has its own
            barrier.wait()
            return results(make(seed), *data)

        return list(pool.map(fit, range(n_fits)))


@every_estimator
def test_fits_in_threads_equal_their_serial_twins(estimator_class, digits):
    data = digits[0][:16], digits[1][:6]
    state = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002

    def make(seed):
        return quick(estimator_class, random_state=seed)

    expected = [results(make(seed), *data) for seed in range(6)]
    for found, serial in zip(fits_in_threads(make, data), expected, strict=True):
        assert_bit_equal(found, serial)
    assert torch.equal(torch.get_rng_state(), state[0])
    assert np.random.get_state()[1].tolist() == state[1]  # noqa: NPY002


@pytest.mark.parametrize("branch", ["augmentation", "dropout", "backbone"])
def test_branches_that_draw_are_fitted_in_threads(branch, digits):
    estimator_class, params = BRANCHES[branch]
    data = digits[0][:12], digits[1][:5]

    def make(seed):
        return quick(estimator_class, **params, random_state=seed)

    expected = [results(make(seed), *data) for seed in range(4)]
    for found, serial in zip(fits_in_threads(make, data, 4), expected, strict=True):
        assert_bit_equal(found, serial)


def test_other_threads_may_draw_and_compute_meanwhile(digits):
    """A user's thread sees its own random numbers, and its own modules."""
    network = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Dropout(0.5))
    done = threading.Event()
    failures = []

    def expected_draws(n):
        torch.manual_seed(3)
        return [(torch.rand(4), network(torch.ones(2, 3))) for _ in range(n)]

    def draw():
        try:
            torch.manual_seed(3)
            while not done.is_set():
                drawn.append((torch.rand(4), network(torch.ones(2, 3))))
        except Exception as error:
            failures.append(error)

    drawn = []
    thread = threading.Thread(target=draw)
    thread.start()
    try:
        alone = []
        for _ in range(2):
            for estimator_class, params in [
                (skocc.FeatureCAE, {}),
                BRANCHES["augmentation"],
                BRANCHES["dropout"],
            ]:
                estimator = quick(estimator_class, **params).fit(digits[0][:12])
                alone.append(estimator.train_scores_)
    finally:
        done.set()
        thread.join()
    assert not failures
    assert len(drawn) > 10
    for (a, b), (c, d) in zip(drawn, expected_draws(len(drawn)), strict=True):
        assert torch.equal(a, c)
        assert torch.equal(b, d)
    for scores, again in zip(alone[:3], alone[3:6], strict=True):
        np.testing.assert_array_equal(scores, again)


def search(estimator_class, X, y, split, backend):
    grid = {"random_state": [0, 1], "batch_size": [10, 20]}
    cv_search = GridSearchCV(
        quick(estimator_class), grid, cv=split, scoring="roc_auc", refit=False, n_jobs=2
    )
    with joblib.parallel_config(backend=backend):
        cv_search.fit(X, y)
    return cv_search.cv_results_["mean_test_score"]


# The fits of a search in threads are those of the test above; the rest is scikit-learn's.
@pytest.mark.parametrize(
    "estimator_class",
    [
        c if c is skocc.MOCCA else pytest.param(c, marks=pytest.mark.slow)
        for c in ESTIMATORS
    ],
)
def test_searches_in_threads_find_the_same(estimator_class, digits):
    X = np.concatenate([digits[0][:30], digits[1][:15]])
    y = np.r_[np.ones(30, dtype=int), np.full(15, -1)]
    split = [(np.arange(20), np.arange(20, 45))]
    serial = search(estimator_class, X, y, split, "sequential")
    np.testing.assert_array_equal(search(estimator_class, X, y, split, "threading"), serial)


@pytest.mark.slow
@every_estimator
@pytest.mark.parametrize("backend", ["loky", "multiprocessing"])
def test_searches_in_processes_find_the_same(estimator_class, backend, digits):
    """With as many threads of torch as here, one."""
    X = np.concatenate([digits[0][:30], digits[1][:15]])
    y = np.r_[np.ones(30, dtype=int), np.full(15, -1)]
    split = [(np.arange(20), np.arange(20, 45))]
    serial = search(estimator_class, X, y, split, "sequential")
    np.testing.assert_array_equal(search(estimator_class, X, y, split, backend), serial)


def run(code, **environment):
    """Run a program in a process of its own and return what it prints."""
    result = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


FORK = """
import os, signal, sys, warnings
import numpy as np, torch
import skocc
torch.set_num_threads(2)
X = np.random.default_rng(0).random((24, 16, 16), dtype=np.float32)
def fit():
    return skocc.DeepSVDD(
        pretrain_n_epochs=1, n_epochs=1, device="cpu", random_state=0
    ).fit(X)
detector = fit()
scores = detector.score_samples(X)
torch.nn.Conv2d(3, 8, 3)(torch.rand(8, 3, 64, 64))  # starts the threads of OpenMP
if (child := os.fork()) == 0:
    signal.alarm(60)  # in place of waiting for ever
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        found = detector.score_samples(X)
        again = fit().score_samples(X)
    assert np.allclose(found, scores, rtol=1e-4), (found, scores)
    assert np.allclose(again, scores, rtol=1e-2), (again, scores)
    messages = [str(w.message) for w in seen]
    assert len(messages) == 1, messages
    assert "forked" in messages[0] and "one thread" in messages[0], messages
    os._exit(0)
_, status = os.waitpid(child, 0)
assert status == 0, status
assert torch.get_num_threads() == 2
print("done")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_scores_and_fits():
    assert run(FORK, OMP_NUM_THREADS="2").strip() == "done"


class Mode(TorchFunctionMode):
    """Mode that passes all on."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


def test_interrupts_leave_modes_and_gradients_as_they_were():
    def interrupted(spoil):
        with WholeInterrupts():
            spoil()
            raise KeyboardInterrupt

    with Mode() as mode:
        for spoil in (
            torch._C._pop_torch_function_stack,
            lambda: torch._C._push_on_torch_function_stack(Mode()),
            lambda: torch.set_grad_enabled(False),
        ):
            with pytest.raises(KeyboardInterrupt):
                interrupted(spoil)
            assert torch._C._len_torch_function_stack() == 1
            assert torch._C._get_function_stack_at(0) is mode
            assert torch.is_grad_enabled()


def test_an_interrupt_that_torch_hides_is_one():
    def hidden():
        try:
            raise KeyboardInterrupt
        finally:
            raise RuntimeError("trying to pop from empty mode stack")

    with pytest.raises(KeyboardInterrupt), WholeInterrupts():
        hidden()
    with pytest.raises(RuntimeError, match="of its own"), WholeInterrupts():
        raise RuntimeError("of its own")
