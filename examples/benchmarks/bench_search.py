"""What a second worker gains for a search: 24 candidates in one process and in two.

``GridSearchCV`` of Deep SVDD on scikit-learn's digits, 24 candidates in three folds, is run
by one worker and by two: threads and processes of joblib, and processes of
``dask.distributed`` where it is installed. Every worker has one thread of torch. Each
process imports torch before the time begins, as in the second search of a program; what the
first one waits for that is printed beside it. Printed are seconds, the gain, which is the
ratio of one worker's time to that of two in the same round, and whether all scores equal
those of one worker, to the last bit.

Run it as ``python examples/benchmarks/bench_search.py``; ``--quick`` takes few images.
"""

import argparse
import os

# For this process and its workers, before any of them loads torch.
os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")

import contextlib
import statistics
import time

import joblib
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV

from skocc import DeepSVDD
from skocc.model_selection import NormalOnly, OneClassKFold

GRID = {
    "estimator__random_state": [0, 1],
    "estimator__batch_size": [25, 50, 100],
    "estimator__learning_rate": [1e-4, 1e-3],
    "estimator__embedding_dim": [16, 32],
}


@contextlib.contextmanager
def workers(backend):
    """Run the block with two workers of a backend, or with one."""
    with contextlib.ExitStack() as stack:
        if backend == "dask":
            from distributed import Client, LocalCluster

            cluster = stack.enter_context(
                LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
            )
            stack.enter_context(Client(cluster))
        n_jobs = 1 if backend == "sequential" else 2
        stack.enter_context(joblib.parallel_config(backend, n_jobs=n_jobs))
        yield


def search(images, labels, options, grid):
    """Return the seconds of a search, and its scores."""
    detector = NormalOnly(
        DeepSVDD(
            pretrain_n_epochs=options.n_epochs,
            n_epochs=options.n_epochs,
            filter_init="random",
            device="cpu",
        )
    )
    candidates = GridSearchCV(
        detector, grid, cv=OneClassKFold(3, random_state=0), scoring="roc_auc"
    )
    begun = time.perf_counter()
    candidates.fit(images, labels)
    spent = time.perf_counter() - begun
    results = candidates.cv_results_
    return spent, np.stack([results[f"split{fold}_test_score"] for fold in range(3)])


def main():
    """Read the command line, and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-epochs", type=int, default=5)
    parser.add_argument("--repeat", type=int, default=3, help="rounds of all backends")
    parser.add_argument("--quick", action="store_true", help="few images, one round")
    options = parser.parse_args()
    digits = load_digits()
    images, labels = digits.images / 16, np.where(digits.target == 0, 1, -1)
    if options.quick:
        images, labels = images[:200], labels[:200]
        options.n_epochs, options.repeat = 1, 1
    backends = ["sequential", "threading", "loky"]
    with contextlib.suppress(ImportError):
        import distributed  # noqa: F401

        backends.append("dask")
    print(f"24 candidates, 3 folds, {len(images)} images; {options.repeat} round(s)")
    report({b: [] for b in backends}, images, labels, options)


def report(results, images, labels, options):
    """Run the searches in turns, and print what they took."""
    few = {"estimator__random_state": [0, 1]}
    first = {}
    for _ in range(options.repeat):
        for backend, found in results.items():
            with workers(backend):
                begun = time.perf_counter()
                search(images[:100], labels[:100], options, few)
                first.setdefault(backend, time.perf_counter() - begun)
                found.append(search(images, labels, options, GRID))
    print(f"{'workers':<16} {'first (s)':>9} {'search (s)':>10} {'gain':>6}   range  equal")
    for backend, found in results.items():
        pairs = [*zip(results["sequential"], found, strict=True)]
        gains = [one[0] / two[0] for one, two in pairs]
        title = "one" if backend == "sequential" else f"two, {backend}"
        seconds = statistics.median(spent for spent, _ in found)
        print(
            f"{title:<16} {first[backend]:>9.1f} {seconds:>10.1f} "
            f"{statistics.median(gains):>6.2f}   {min(gains):.2f}-{max(gains):.2f}  "
            f"{all(np.array_equal(one[1], two[1]) for one, two in pairs)}"
        )


if __name__ == "__main__":
    main()
