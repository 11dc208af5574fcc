"""Time to import the library.

``import skocc`` must not wait for torch: a script that only reads the version, or a
documentation build, should not take seconds. And importing an estimator must cost little
more than torch and scikit-learn, which it cannot do without.

Each statement runs in fresh interpreters, in turns with the others, so that other work on
the machine slows all of them. The times are those of whole processes, the start of Python
included. Targets: ``import skocc`` in less than 0.8 seconds; an estimator in at most 1.15
times the time of ``import torch, sklearn``, as the median of the ratios of neighbors. That
of ``OneClassSVM`` is there for comparison.

Run it as ``python examples/benchmarks/bench_import.py``; the first round, which may have to
read the files from disk, is not counted.
"""

import argparse
import statistics
import subprocess
import sys
import time

REFERENCE = "import torch, sklearn"
STATEMENTS = (
    "pass",
    "import skocc",
    "from skocc import DeepSVDD",
    REFERENCE,
    "import torch; from sklearn.svm import OneClassSVM",
)


def seconds(statement):
    """Return how long a fresh interpreter takes for a statement."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--n-repeats", type=int, default=7)
    arguments = parser.parse_args()

    for statement in STATEMENTS:
        seconds(statement)
    rounds = [
        {statement: seconds(statement) for statement in STATEMENTS}
        for _ in range(arguments.n_repeats)
    ]
    print(f"{'statement':<50} {'median (s)':>10} {'best (s)':>9} {'ratio':>6}")
    for statement in STATEMENTS:
        times = [times[statement] for times in rounds]
        ratio = statistics.median(times[statement] / times[REFERENCE] for times in rounds)
        print(
            f"{statement:<50} {statistics.median(times):>10.2f} {min(times):>9.2f} "
            f"{ratio:>6.2f}"
        )


if __name__ == "__main__":
    main()
