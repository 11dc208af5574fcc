"""Runs the benchmarks, and writes what docs/performance.rst shows of them.

Each is a process of its own, one after the other: a script of this folder, which prints a
table. What it printed is kept in ``docs/results/benchmarks``, below the command and the
machine. The scripts take ratios within one run, so that a busy machine changes them little;
but the tables of one page come from one machine and one version of torch. A script that
fails keeps its error in the file, and ends the run with status 1.

Data are in the folder that the environment variable SKOCC_DATA names. Peers, such as
anomalib, are compared with where they are installed: their packages ask for versions of
others, so that they are best in an environment of their own, beside skocc, whose Python
``--peers-python`` names.

Run it as ``python examples/benchmarks/run_all.py``, or with the names of some scripts;
``--quick`` runs all code on little data, into another folder: its figures mean nothing.
"""

import argparse
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import torch

FOLDER = Path(__file__).parent
RESULTS = FOLDER.parents[1] / "docs" / "results" / "benchmarks"
# A name of the result, the script, its arguments, and those of a quick run.
RUNS = [
    (
        "scores",
        "bench_refined.py scores --n-images 300 --n-full 1",
        "--n-images 3 --n-pairs 2",
    ),
    (
        "scores_two_threads",
        "bench_refined.py scores --n-images 300 --n-full 1 --n-threads 2",
        "--n-images 3 --n-pairs 2",
    ),
    (
        "fit",
        "bench_refined.py fit --n-images 400 --n-full 16 --n-pairs 1",
        "--n-images 3 --n-full 3",
    ),
    (
        "patch_svdd",
        "bench_refined.py patch_svdd --n-images 100 --n-full 8",
        "--n-images 3 --n-full 1 --n-pairs 1",
    ),
    (
        "one_pass",
        "bench_map_thresholds.py --n-images 16",
        "--n-images 4 --n-runs 1 --n-pairs 1",
    ),
    ("table", "bench_table.py", "--quick"),
    ("search", "bench_search.py", "--quick"),
    ("neighbors", "bench_neighbors.py --only tree", "--quick"),
    ("coreset", "bench_coreset.py --kinds tiles", "--quick"),
    ("peers", "bench_peers.py", "--quick"),
    ("epoch", "bench_epoch.py --n-threads 1 --n-pairs 5", "--quick"),
    (
        "files",
        "bench_files.py --formats jpg --sides 256 --n-files 1000 10000 --n-pairs 5",
        "--quick",
    ),
    ("large_files", "bench_files.py --formats jpg --sides 1024 --n-files 200", "--quick"),
    ("dense", "bench_dense.py --n-threads 1", "--image-size 64 --n-repeats 1"),
    (
        "patch_training",
        "bench_patch_training.py --n-threads 1",
        "--image-size 64 --patch-sizes 16 --n-repeats 1",
    ),
    ("import", "bench_import.py", "--n-repeats 1"),
    ("aupro", "bench_aupro.py", "--quick"),
    ("growth", "bench_growth.py", "--quick"),
    ("memory", "bench_memory.py --n-files 1000 5000", "--n-files 300 --side 64"),
    (
        "precision",
        "bench_precision.py --device cpu --part methods compiled --n-images 16 "
        "--n-repeats 3",
        "--quick",
    ),
]
# Scripts that others run, or that need long.
LEFT_OUT = {
    "bench_batch.py", "bench_direct.py", "bench_feature_knn.py", "bench_layers.py",
    "bench_roofline.py",
}  # fmt: skip
# Scripts that only a processor has work in.
ON_CPU = {"bench_aupro.py", "bench_import.py", "bench_memory.py", "bench_search.py"}


def processor():
    """Return the name of the processor, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.split(":")[1] for line in lines if line.startswith("model name")]
        return names[0].strip()
    except (OSError, IndexError):
        return platform.processor() or platform.machine()


def machine(device):
    """Return a line about the machine."""
    capability = torch.backends.cpu.get_cpu_capability()
    parts = [processor(), f"{os.cpu_count()} cores", capability]
    if device.startswith("cuda"):
        parts.append(torch.cuda.get_device_name(device))
    return ", ".join([*parts, f"torch {torch.__version__}"])


def run(name, command, options):
    """Run a script, write what it prints, and return whether it succeeded."""
    python = options.peers_python if name == "peers" else sys.executable
    script, *arguments = command.split()
    if options.device != "cpu" and script not in ON_CPU:
        arguments += ["--device", options.device]
    print(f"{name}: {script} {' '.join(arguments)}", flush=True)
    start = time.perf_counter()
    done = subprocess.run(
        [python, FOLDER / script, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_WAIT_POLICY": "passive"},
    )
    text = [
        f"$ python examples/benchmarks/{script} {' '.join(arguments)}".rstrip(),
        f"# {machine(options.device)}; {time.perf_counter() - start:.0f} s",
        "",
        done.stdout.rstrip(),
    ]
    if done.returncode:
        text.append(done.stderr.rstrip() or f"ended with status {done.returncode}")
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / f"{name}.txt").write_text("\n".join(text) + "\n", encoding="utf-8")
    return done.returncode == 0


def main():
    """Read the command line, and run the benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [name for name, *_ in RUNS]
    parser.add_argument("names", nargs="*", choices=[[], *names], metavar="NAME")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, default=None, help="folder")
    parser.add_argument("--peers-python", default=sys.executable)
    parser.add_argument("--quick", action="store_true", help="little data")
    options = parser.parse_args()
    if options.output is None:
        options.output = Path("quick-benchmarks") if options.quick else RESULTS
    failed = []
    for name, command, quick in RUNS:
        if not options.names or name in options.names:
            if options.quick:
                command = f"{command} {quick}"
            if not run(name, command, options):
                failed.append(name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}; see the files in {options.output}")


if __name__ == "__main__":
    main()
