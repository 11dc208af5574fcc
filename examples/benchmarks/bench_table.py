"""A table of many small files: what a second process gains, and what a kill costs.

``--n-files`` PNG files of 16 x 16 pixels, each of its own, are scored by a small network
into a folder of Parquet files: by one process, by two, and by two that are killed
(SIGKILL, with their children) when a third and two thirds of the parts are there, and then
started again. Printed are seconds, the gain of the second process, the peak memory of the
largest process in MiB, and whether the table has one row for each file, in order, with the
scores of the first. The gain is that of the whole call, which starts processes that import
torch.

Run it as ``python examples/benchmarks/bench_table.py``; ``--quick`` takes few files.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

import skocc
from skocc import DeepSVDD


def make_files(folder, n_files):
    """Write files of random pixels, a thousand to a folder; return their paths."""
    rng, paths = np.random.default_rng(0), []
    for number in range(n_files):
        home = folder / f"{number // 1000:03}"
        home.mkdir(exist_ok=True)
        paths.append(home / f"{number:06}.png")
        image = Image.fromarray(rng.integers(0, 256, (16, 16), dtype=np.uint8))
        image.save(paths[-1], compress_level=0)
    return paths


def start(model, names, directory, options, n_jobs):
    """Start a process that makes the table, with children of a group of its own."""
    program = (
        "import json, sys, skocc, pathlib;"
        "names = json.loads(pathlib.Path(sys.argv[2]).read_text());"
        "skocc.predict_table(skocc.load(sys.argv[1]), names, directory=sys.argv[3],"
        "chunk_size=int(sys.argv[4]), n_jobs=int(sys.argv[5]))"
    )
    arguments = [model, names, directory, options.chunk_size, n_jobs]
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, start_new_session=True)


def memory_of(group):
    """Return the largest resident memory in MiB of the processes of a group, by Linux."""
    largest = 0
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
            if int(fields[2]) == group:
                pages = int((status.parent / "statm").read_text().split()[1])
                largest = max(largest, pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
        except (OSError, IndexError, ValueError):  # it has ended meanwhile
            continue
    return largest


def run(model, names, directory, options, n_jobs, stop_at=None):
    """Make the table, or a part of it; return seconds and the largest memory."""
    begun, largest = time.perf_counter(), 0
    process = start(model, names, directory, options, n_jobs)
    while process.poll() is None:
        largest = max(largest, memory_of(process.pid))
        if stop_at is not None and len([*directory.glob("part-*.parquet")]) >= stop_at:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return time.perf_counter() - begun, largest
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"the table ended with status {process.returncode}")
    return time.perf_counter() - begun, largest


def main():
    """Read the command line, and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-files", type=int, default=100_000)
    parser.add_argument("--chunk-size", type=int, default=1000)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.n_files, options.chunk_size = 300, 50
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "files").mkdir()
        paths = make_files(folder / "files", options.n_files)
        images = np.random.default_rng(1).integers(0, 256, (200, 16, 16), dtype=np.uint8)
        model, names = folder / "model.skocc", folder / "names.json"
        quick = {"pretrain_n_epochs": 1, "n_epochs": 1, "random_state": 0, "device": "cpu"}
        skocc.save(DeepSVDD(**quick).fit(images), model)
        names.write_text(json.dumps([str(path) for path in paths]))
        print(f"{options.n_files} files, {options.chunk_size} a part", flush=True)
        seconds, tables = {}, {}
        runs = {"one process": (1, ()), "two": (2, ()), "two, killed": (2, (1 / 3, 2 / 3))}
        for title, (n_jobs, stops) in runs.items():
            directory, spent, largest = folder / title, 0, 0
            n_parts = -(-options.n_files // options.chunk_size)
            for share in (*stops, None):
                stop_at = share and int(share * n_parts)
                part = run(model, names, directory, options, n_jobs, stop_at)
                spent, largest = spent + part[0], max(largest, part[1])
            seconds[title], tables[title] = spent, pd.read_parquet(directory)
            print(f"{title}: {spent:.1f} s, {largest:.0f} MiB", flush=True)
        print(f"gain of the second: {seconds['one process'] / seconds['two']:.2f}")
        first = tables["one process"]
        for title, table in tables.items():
            is_whole = table["path"].tolist() == [str(path) for path in paths]
            differs = np.abs(table["score"] - first["score"]).max()
            print(
                f"{title}: one row each, in order: {is_whole}; scores differ {differs:.1g}"
            )


if __name__ == "__main__":
    main()
