"""Fits that are killed and resumed, and fits that Ctrl-C ends, at random moments.

``python -m tests.resuming kill 20`` kills each trained detector at 20 moments, and says how
often it ended with the scores of a fit that nothing has disturbed; ``interrupt`` presses
Ctrl-C, and ``both`` does both. Names of detectors may follow. In a process of its own,
which has one thread and can fork.
"""

import os
import pickle
import random
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

import skocc
from skocc._engine import seeding
from skocc.base import NetworkDetector
from tests.quick import quick
from tests.saving import forked


class Denoising(NetworkDetector):
    """Detector of one's own, whose network and loss draw random numbers."""

    def build_network(self):
        layers = nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Dropout(), nn.Linear(16, 64)
        return nn.Sequential(nn.Flatten(), *layers)

    def loss(self, network, batch):
        noisy = batch + 0.1 * torch.randn_like(batch)
        return (network(noisy) - batch.flatten(1)).square().mean()

    def sample_scores(self, network, batch):
        return -(network(batch) - batch.flatten(1)).square().mean(dim=1)


# Parameters that make training keep more than weights: radii, averages, best epochs.
PARAMS = {
    "ConvAE": {"augmentation": True, "n_augmented": 120, "n_epochs": 4},
    "DataSplitOCC": {
        "pretrain_n_epochs": 4, "n_epochs": 6, "dropout": 0.2, "weight_average": 0.9,
    },
    "DeepSVDD": {
        "boundary": "soft", "warm_up_n_epochs": 2, "filter_init": "dictionary",
        "pretrain_n_epochs": 8, "n_epochs": 12,
    },
    "FeatureCAE": {"n_epochs": 12, "validation_fraction": 0.2},
    "MOCCA": {
        "radius_update": "epoch", "warm_up_n_epochs": 2, "validation_fraction": 0.2,
        "pretrain_n_epochs": 8, "n_epochs": 8, "pretrain_milestones": (3,),
    },
    "PatchSVDD": {"n_epochs": 4, "image_size": 16},
    "VideoMOCCA": {"warm_up_n_epochs": 1, "n_epochs": 3, "n_clips": 40},
}  # fmt: skip
NAMES = (*PARAMS, "Denoising")


def make(name, **params):
    """Return an unfitted detector whose fit takes some tenths of a second."""
    if name == "Denoising":
        known = {"n_epochs": 40, "validation_fraction": 0.2, "random_state": 0}
        return Denoising(**known, batch_size=20, device="cpu", **params)
    return quick(getattr(skocc, name), batch_size=20, **PARAMS[name], **params)


def images():
    """Return a few images of one digit."""
    bunch = load_digits()
    return (bunch.images[bunch.target == 0] / 16)[:60]


def ended(child):
    """Wait for a process, and return its status."""
    return os.waitpid(child, 0)[1]


def result(estimator):
    """Return all that tells two fits apart."""
    weights = {k: v.numpy().tobytes() for k, v in estimator.network_.state_dict().items()}
    scores = estimator.score_samples(images()).tobytes()
    curves = estimator.loss_curve_, estimator.validation_loss_curve_
    return estimator.train_scores_.tobytes(), scores, estimator.offset_, weights, curves


def fit_and_tell(name, folder, file):
    """Fit with checkpoints in a folder, and write the result to a file."""
    estimator = make(name, checkpoint_dir=folder).fit(images())
    Path(file).write_bytes(pickle.dumps(result(estimator)))


def kill(name, n_moments, seed):
    """Return how many resumed fits equal one that was not killed, and how many resumed."""
    rng, n_equal, n_resumed = random.Random(seed), 0, 0
    with tempfile.TemporaryDirectory() as place:
        # First, so that children need not import what this process then has.
        whole = result(make(name).fit(images()))
        started = time.perf_counter()
        child = forked(lambda: fit_and_tell(name, f"{place}/whole", f"{place}/result"))
        assert ended(child) == 0
        seconds = time.perf_counter() - started
        assert pickle.loads(Path(place, "result").read_bytes()) == whole
        for moment in range(n_moments):
            folder, file = f"{place}/{moment}", f"{place}/result {moment}"
            for _ in range(1 + moment % 2):  # every other fit is killed twice
                child = forked(lambda f=folder, r=file: fit_and_tell(name, f, r))
                time.sleep(rng.uniform(0, 0.8 * seconds))
                os.kill(child, signal.SIGKILL)
                ended(child)
            n_resumed += any(Path(folder).glob("*.pt"))
            Path(file).unlink(missing_ok=True)
            child = forked(lambda f=folder, r=file: fit_and_tell(name, f, r))
            if ended(child) == 0:
                n_equal += pickle.loads(Path(file).read_bytes()) == whole
    return n_equal, n_resumed


def settings():
    """Return what a fit must leave as it was."""
    state = np.random.get_state()  # noqa: NPY002
    return (
        random.getstate(), state[1].tobytes(), state[2:], torch.get_rng_state().tolist(),
        torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled(),
        torch._C._len_torch_function_stack(), torch.is_inference_mode_enabled(),
        getattr(seeding._current, "streams", None), np.geterr(),
    )  # fmt: skip


def fit_interrupted(name, file):
    """Fit until Ctrl-C, and write what it leaves to a file."""
    X, estimator = images(), make(name)
    params, before = dict(vars(estimator)), settings()
    outcome = "whole"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            Path(f"{file} begins").touch()
            estimator.fit(X)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        except KeyboardInterrupt:
            outcome = "unfitted"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert settings() == before
    if hasattr(estimator, "collapsed_"):  # which is set last
        assert np.isfinite(estimator.score_samples(X)).all()
        told = any("keeps what was learned" in str(one.message) for one in caught)
        outcome = "fitted" if told else "whole"
    else:
        assert vars(estimator) == params
    Path(file).write_text(outcome)


def interrupt(name, n_moments, seed):
    """Return how many fits were left fitted or unfitted, nothing else, by kind."""
    rng, found = random.Random(seed), {"fitted": 0, "unfitted": 0, "whole": 0, "broken": 0}
    with tempfile.TemporaryDirectory() as place:
        make(name).fit(images())
        started = time.perf_counter()
        make(name).fit(images())
        seconds = time.perf_counter() - started
        for moment in range(n_moments):
            file = Path(place, str(moment))
            child = forked(lambda f=file: fit_interrupted(name, f))
            while not Path(f"{file} begins").exists():
                time.sleep(1e-3)
            time.sleep(rng.uniform(0, 0.8 * seconds))
            os.kill(child, signal.SIGINT)
            is_well = ended(child) == 0
            found[file.read_text() if is_well else "broken"] += 1
    return found


def main(what, n_moments, names, seed=0):
    # It is only safe to fork while there is one thread, and there is.
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for name in names or NAMES:
        if what in ("kill", "both"):
            n_equal, n_resumed = kill(name, n_moments, seed)
            line = f"{n_equal} of {n_moments} equal, {n_resumed} from a checkpoint"
            sys.stdout.write(f"{name}, killed: {line}\n")
        if what in ("interrupt", "both"):
            found = interrupt(name, n_moments, seed)
            counts = ", ".join(f"{n} {kind}" for kind, n in found.items())
            line = f"{n_moments - found['broken']} of {n_moments} well: {counts}"
            sys.stdout.write(f"{name}, Ctrl-C: {line}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
