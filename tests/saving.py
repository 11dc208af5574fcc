"""Processes that are killed while they save, and disks that fill up.

``python -m tests.saving 30`` says how often the file was whole. In a process of its own,
which has one thread and can fork.
"""

import contextlib
import os
import random
import resource
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import safetensors

import skocc

N_FEATURES = 3000


def main(n_moments, seed):
    # It is only safe to fork while there is one thread, and there is.
    warnings.simplefilter("ignore", DeprecationWarning)
    X = np.random.default_rng(0).random((10, N_FEATURES)).astype(np.float32)
    models = [
        skocc.DeepSVDD(
            pretrain_n_epochs=0, n_epochs=0, device="cpu", random_state=random_state
        ).fit(X)
        for random_state in (0, 1)
    ]
    scores = [model.score_samples(X[:3]).tolist() for model in models]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        duration = min(timed(lambda m=model: skocc.save(m, path)) for model in models)
        rng, found = random.Random(seed), {"kill": [0, 0], "full disk": [0, 0]}
        for kind, moment in [(k, i) for k in found for i in range(n_moments)]:
            # What is there is a model, whatever the last moment has left.
            before = skocc.load(path).score_samples(X[:3]).tolist()
            new = scores.index(before) ^ 1
            if kind == "kill":
                child = forked(lambda new=new: skocc.save(models[new], path))
                time.sleep(rng.uniform(0, 3 * duration))
                os.kill(child, signal.SIGKILL)
            else:
                limit = rng.randrange(path.stat().st_size)
                child = forked(lambda n=new, s=limit: save_limited(models[n], path, s))
            _, status = os.waitpid(child, 0)
            after = skocc.load(path).score_samples(X[:3]).tolist()
            found[kind][0] += after in scores
            found[kind][1] += after == scores[new]
            if kind == "full disk":
                assert status == 0, moment
                assert after == before, moment
                assert os.listdir(folder) == [path.name]
            for name in set(os.listdir(folder)) - {path.name}:
                assert name.startswith((".skocc-", ".tmp")), name
                os.unlink(path.with_name(name))
    for kind, (n_whole, n_new) in found.items():
        sys.stdout.write(
            f"{kind}, safetensors {safetensors.__version__}: {n_whole} of {n_moments} "
            f"whole, {n_new} new\n"
        )


def timed(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def forked(function):
    """Return the number of a new process that calls a function."""
    child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(BaseException):
            function()
            status = 0
        os._exit(status)
    return child


def save_limited(model, path, n_bytes):
    """Save where no file may be larger than that."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))
    with pytest.raises(OSError) as raised:
        skocc.save(model, path)
    assert raised.value.filename == str(path)


if __name__ == "__main__":
    main(int(sys.argv[1]), seed=int(sys.argv[2]) if len(sys.argv) > 2 else 0)
