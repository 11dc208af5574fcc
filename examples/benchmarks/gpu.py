"""All there is to know of a machine with a GPU, in one command and in so many minutes.

In this order: the versions and the card; the tests marked ``gpu``; whether scores on the
GPU and on the CPU are equal; whether a fit of the GPU, saved, scores in a process that sees
none; how long epochs, searches and embeddings take, and what share that is of what the card
can do; the nearest neighbors of real images; and, for as long as there is time, the open
rows of docs/reproduction, several classes side by side.

Each part is a process of its own, with a share of the time. What is known is written at
once, to ``results.jsonl`` (a line of JSON each) and ``results.txt`` in ``--output``: a part
that fails, hangs or kills its process loses no more than what it was at, and its error is a
line too. With the same ``--output``, the rows of the last part go on where they were.

Run it as ``python examples/benchmarks/gpu.py --minutes 10``; ``--device cpu --quick`` runs
all of its code on few and small images, but its figures mean nothing. Data are in the
folder that the environment variable SKOCC_DATA names; what needs them is left out without.
"""

import argparse
import contextlib
import csv
import itertools
import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

import bench_roofline
import numpy as np
import torch

import skocc

ROOT = Path(__file__).resolve().parents[2]
# Largest difference of scores, relative to their mean absolute value, that counts as equal.
TOLERANCE = 1e-4
# A few epochs: what is compared is the arithmetic, not the accuracy.
FEW = {"n_epochs": 2, "batch_size": 50}
TWO_STAGES = {**FEW, "pretrain_n_epochs": 2}
RANDOM_RESNET = {"backbone": "resnet18", "weights": None}
# For each estimator, small and realistic: number of images, their shape, parameters.
SETTINGS = {
    "ConvAE": [
        (40, (32, 32), {**FEW, "base_channels": 4, "augmentation": False}),
        (200, (128, 128), {**FEW, "n_augmented": 200}),
    ],
    "DataSplitOCC": [
        (60, (16, 16), {**TWO_STAGES, "channels": (4, 12, 24, 16, 16)}),
        (1000, (28, 28), TWO_STAGES),
    ],
    "DeepSVDD": [
        (60, (16, 16), TWO_STAGES),
        (2000, (32, 32, 3), {**TWO_STAGES, "boundary": "soft", "warm_up_n_epochs": 1}),
    ],
    "FeatureCAE": [
        (20, (64, 64), {**FEW, **RANDOM_RESNET, "image_size": None, "latent_dim": 8}),
        (100, (224, 224, 3), {**FEW, **RANDOM_RESNET}),
    ],
    "MOCCA": [
        (60, (16, 16), TWO_STAGES),
        (100, (128, 128, 3), {**TWO_STAGES, "patch_size": 64}),
    ],
    "PatchSVDD": [
        (20, (32, 32), {**FEW, "patch_size": 16, "max_bank_bytes": 2**18}),
        (50, (128, 128, 3), {**FEW, "batch_size": 8, "max_bank_bytes": 2**24}),
    ],
    "ResNetKNN": [
        (20, (64, 64), {**RANDOM_RESNET, "image_size": None}),
        (100, (224, 224, 3), {**RANDOM_RESNET, "bank_fraction": 0.1}),
    ],
    "VideoMOCCA": [
        (10, (4, 16, 16, 1), {**FEW, "clip_length": 4, "embedding_dim": 8}),
        (10, (16, 64, 64, 3), {**FEW, "embedding_dim": 64}),
    ],
}
PUBLISHED = [
    "--pretrain-n-epochs", "350", "--pretrain-milestones", "250",
    "--pretrain-weight-decay", "5e-7", "--n-epochs", "150", "--milestones", "50",
]  # fmt: skip
LAYERS = [
    "--train-layers", "3", "0,1,2,3", "--score-layers", "3", "2,3", "1,2,3", "0,1,2,3",
]  # fmt: skip
LAYER_SETS = [
    "6",
    "5,6",
    "4,5,6",
    "3,4,5,6",
    "2,3,4,5,6",
    "1,2,3,4,5,6",
    "0,1,2,3,4,5,6",
]
SPLITTING = [
    "--methods", "NaiveNN", "SSIM", "NNwDS", "DataSplitOCC", "--mixed-precision",
    "--pretrain-n-epochs", "50", "--n-epochs", "50", "--n-test", "3000",
]  # fmt: skip
SEEDS = ["--first-seed", "1", "--seeds", "4"]
CIFAR = (0, 1, 2, 8, 9)
# The open rows of docs/reproduction, the most valuable first: data, script, normal
# classes, guessed minutes of a class on a GPU, arguments. ShanghaiTech is open too, and its
# videos are not at hand.
ROWS = [
    ("cifar10", "data_splitting.py", CIFAR, 6, SPLITTING),
    ("magnetic_tile", "magnetic_tile_mocca.py", (), 15,
     ["--published", "--boundaries", "hard", "soft", "--layer-sets", *LAYER_SETS]),
    ("magnetic_tile", "magnetic_tile_mocca.py", (), 4, ["--objects"]),
    ("magnetic_tile", "magnetic_tile_patches.py", (), 40,
     ["--published", "--scales", "--max-bank-mib", "64"]),
    ("magnetic_tile", "magnetic_tile_autoencoders.py", (), 8, ["conv_ae", "--size", "224"]),
    ("cifar10", "one_vs_rest.py", CIFAR, 4,
     ["--methods", "mocca", "--boundary", "soft", *LAYERS, *PUBLISHED]),
    ("cifar10", "one_vs_rest.py", CIFAR, 8, [*SEEDS, *PUBLISHED]),
    ("mnist", "data_splitting.py", range(10), 6, SPLITTING),
    ("fashion_mnist", "data_splitting.py", range(10), 6, SPLITTING),
    ("mnist", "one_vs_rest.py", range(10), 8, SEEDS),
    ("fashion_mnist", "one_vs_rest.py", range(10), 8, SEEDS),
]  # fmt: skip


class Report:
    """Two files, of the same lines: JSON, and text that is printed as well."""

    def __init__(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder

    def add(self, part, **values):
        """Write a line."""
        with (self.folder / "results.jsonl").open("a") as file:
            file.write(json.dumps({"part": part, **values}) + "\n")
        text = "  ".join(f"{key}: {_short(value)}" for key, value in values.items())
        with (self.folder / "results.txt").open("a") as file:
            file.write(f"{part:<13}{text}\n")
        print(f"{part:<13}{text}", flush=True)

    @contextlib.contextmanager
    def errors_of(self, part, **values):
        """Write what goes wrong in the block as a line, and go on after it."""
        try:
            yield
        except Exception:
            self.add(part, **values, status="failed", error=traceback.format_exc())


def _short(value):
    return f"{value:.4g}" if isinstance(value, float) else value


def call(command, seconds, **options):
    """Run a command; return its output and how it ended: ok, failed, or out of time."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )
    try:
        output, _ = process.communicate(timeout=max(1, seconds))
        return output, "ok" if process.returncode == 0 else "failed"
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()[0], "out of time"


def about(report, options):
    """Versions, card and driver."""
    report.add("about", python=platform.python_version(), system=platform.platform())
    report.add("about", skocc=skocc.__version__, torch=torch.__version__)
    report.add("about", cuda=torch.version.cuda, cudnn=torch.backends.cudnn.version())
    if options.device.type == "cuda":
        properties = torch.cuda.get_device_properties(options.device)
        report.add("about", card=properties.name, gib=properties.total_memory / 2**30)
        fields = "driver_version,pstate,clocks.max.sm,power.limit,utilization.gpu"
        query = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv"]
        output, status = call(query, 20)
        report.add("about", status=status, nvidia_smi=output.strip())


def tests(report, options):
    """The tests that need a card; without one, they are skipped."""
    where = ["tests/engine"] if options.quick else ["tests"]
    command = [sys.executable, "-m", "pytest", *where, "-m", "gpu", "-n", "0", "-q", "-rfE"]
    output, status = call(command, options.left() - 5, cwd=ROOT)
    last = output.strip().rpartition("\n")[2]
    counts = {name: int(number) for number, name in re.findall(r"(\d+) (\w+)", last)}
    failed = re.findall(r"^(?:FAILED|ERROR) .*", output, re.MULTILINE)
    report.add("tests", status=status, **counts, output=failed or output[-300:])


def make_images(n, shape):
    """Return smooth random images of n and of 32 more, uint8."""
    generator = np.random.default_rng(0)
    coarse = generator.random((n + 32, *(-(-s // 4) for s in shape[:2]), *shape[2:]))
    fine = coarse.repeat(4, axis=1).repeat(4, axis=2)[:, : shape[0], : shape[1]]
    pixels = (255 * (0.7 * fine + 0.3 * generator.random(fine.shape))).astype(np.uint8)
    return pixels[:n], pixels[n:]


def difference(scores, expected):
    """Return the largest difference, relative to the mean absolute value of the scores."""
    return float(np.abs(scores - expected).max() / np.abs(expected).mean())


def equality(report, options):
    """Fit on either device, and score on both, each fit also without TF32."""
    places = dict.fromkeys([str(options.device), "cpu"])
    sizes = ("small",) if options.quick else ("small", "realistic")
    for size, place in itertools.product(sizes, places):
        for name, settings in SETTINGS.items():
            setting = settings[size == "realistic"]
            with report.errors_of("equality", estimator=name, size=size, fitted_on=place):
                compare(report, options, name, size, setting, place)


def compare(report, options, name, size, setting, fitted_on):
    """Fit once, score on both devices, and keep the fit and the scores in files."""
    n, shape, params = setting
    images, others = make_images(n, shape)
    detector = getattr(skocc, name)(**params, device=fitted_on, random_state=0)
    start = time.perf_counter()
    detector.fit(images)
    row = {"estimator": name, "size": size, "fitted_on": fitted_on}
    row["fit_s"] = time.perf_counter() - start
    scores = {}
    # TF32, torch's default for convolutions on a GPU, has a thousandth of an error.
    for place, tf32 in (("cpu", True), (str(options.device), True), ("exact", False)):
        detector.set_params(device=str(options.device) if place == "exact" else place)
        torch.backends.cudnn.allow_tf32 = tf32
        detector.score_samples(others[:2])  # what a first call loads
        start = time.perf_counter()
        scores[place] = detector.score_samples(others)
        row[f"ms_{place}"] = 1000 * (time.perf_counter() - start) / len(others)
    torch.backends.cudnn.allow_tf32 = True
    row["difference"] = difference(scores[str(options.device)], scores["cpu"])
    row["difference_without_tf32"] = difference(scores["exact"], scores["cpu"])
    equal = row["difference_without_tf32"] <= TOLERANCE
    report.add("equality", **row, status="ok" if equal else "failed")
    if fitted_on == str(options.device):
        path = options.output / f"{name}-{size}"
        skocc.save(detector, path.with_suffix(".skocc"))
        np.savez(path.with_suffix(".npz"), images=others, scores=scores["cpu"])


def saved(report, options):
    """Load the fits of the part before in a process that sees no card, and score there."""
    command = [sys.executable, __file__, *sys.argv[1:], "--only", "rescore"]
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    output, status = call(command, options.left() - 5, env=hidden)
    counts = {"files": len(list(options.output.glob("*.skocc")))}
    counts["equal"] = output.count("status: ok")
    if status == "ok" and counts["equal"] == counts["files"]:
        report.add("saved", **counts, status="ok")
    else:
        report.add("saved", **counts, status="failed", output=output[-2000:])


def rescore(report, options):
    """Score what `compare` saved."""
    for path in sorted(options.output.glob("*.skocc")):
        with report.errors_of("saved", file=path.name):
            arrays = np.load(path.with_suffix(".npz"))
            detector = skocc.load(path).set_params(device="cpu")
            wrong = difference(detector.score_samples(arrays["images"]), arrays["scores"])
            status = "ok" if wrong <= TOLERANCE else "failed"
            cuda = torch.cuda.is_available()
            report.add("saved", file=path.name, difference=wrong, cuda=cuda, status=status)


def roofline(report, options):
    """Time the steps of the benchmarks, beside what the device can do."""
    for line in bench_roofline.lines(
        options.device, options.quick, is_time_left=lambda: options.left() > 10
    ):
        report.add("roofline", **line)


def knn(report, options):
    """Time ResNetKNN on magnetic tiles, with all vectors and with a tenth of them."""
    data = os.environ.get("SKOCC_DATA")
    if data is None or not (Path(data) / "magnetic_tile").is_dir() or options.quick:
        reason = "--quick" if options.quick else "no magnetic_tile in SKOCC_DATA"
        report.add("knn", status="skipped", reason=reason)
        return
    script = ROOT / "examples" / "benchmarks" / "bench_feature_knn.py"
    command = [sys.executable, script, "speed", "--device", str(options.device)]
    output, status = call(command, options.left() - 5)
    report.add("knn", status=status, output=output[-2000:])


def reproduction(report, options):
    """Run the open rows side by side, and write each line of theirs when it is there."""
    waiting, running = jobs(report, options), []
    while waiting or running:
        while waiting and len(running) < options.n_jobs:
            name, minutes, command, path = waiting.pop(0)
            left = options.left() / 60
            if minutes > left and not options.quick:
                reason = f"takes about {minutes} minutes, {left:.1f} are left"
                report.add("reproduction", row=name, status="not started", reason=reason)
                continue
            with path.with_suffix(".log").open("w") as log:
                process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
            n_known = len(read_rows(path))
            running.append([name, process, path, n_known, time.monotonic()])
        time.sleep(0.5)
        out_of_time = options.left() < 5
        for job in list(running):
            name, process, path, n_known, start = job
            if out_of_time:
                process.kill()
                process.wait()
            status = process.poll()
            rows = read_rows(path)
            for row in rows[n_known:]:
                report.add("reproduction", row=name, **row)
            job[3] = len(rows)
            if status is not None:
                running.remove(job)
                ended = "out of time" if out_of_time else "failed" if status else "ok"
                tail = path.with_suffix(".log").read_text()[-2000:] if status else ""
                seconds = time.monotonic() - start
                report.add(
                    "reproduction", row=name, status=ended, seconds=seconds, output=tail
                )


def jobs(report, options):
    """Return name, minutes, command and CSV file of each class of each row with data."""
    data, found = Path(os.environ.get("SKOCC_DATA", "nowhere")), []
    for number, (dataset, script, classes, minutes, arguments) in enumerate(ROWS):
        name = f"{dataset} {script} {' '.join(arguments)}"
        if not list(data.glob(f"{dataset}*")):
            reason = f"no {dataset} in the folder that SKOCC_DATA names"
            report.add("reproduction", row=name, status="skipped", reason=reason)
            continue
        for label in classes or [None]:
            path = options.output / f"row-{number}-{'all' if label is None else label}.csv"
            command = [sys.executable, ROOT / "examples" / "reproduction" / script]
            command += [] if label is None else [dataset, "--classes", str(label)]
            command += [*arguments, "--device", str(options.device), "--output", path]
            if options.quick:
                command += ["--pretrain-n-epochs", "1", "--n-epochs", "1"]
            whole = name if label is None else f"{name} --classes {label}"
            found.append((whole, minutes, [str(part) for part in command], path))
    return found[:1] if options.quick else found


def read_rows(path):
    """Return the lines of a CSV file that another process may be writing."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [row for row in csv.DictReader(file) if None not in row.values()]


# Each part, and the share of all minutes that it may take, at most.
PARTS = {about: 0.1, tests: 0.3, equality: 0.3, saved: 0.15, roofline: 0.3, knn: 0.15}
PARTS[reproduction] = 1.0


def run_parts(report, options, arguments):
    """Run the parts, each in a process, until there is no time left."""
    for part, share in PARTS.items():
        seconds = min(options.left(), 60 * options.minutes * share)
        if seconds < 5:
            report.add(part.__name__, status="not started", reason="no time left")
            continue
        command = [sys.executable, __file__, *arguments, "--only", part.__name__]
        command += ["--minutes", str(seconds / 60)]
        with subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, start_new_session=True
        ) as process:
            try:
                _, errors = process.communicate(timeout=seconds + 10)
                if process.returncode:
                    report.add(part.__name__, status="failed", error=errors[-4000:])
            except subprocess.TimeoutExpired:
                report.add(part.__name__, status="out of time")
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # with all that it has started


def main(arguments=None):
    """Read the command line."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--device", type=torch.device, default="cuda")
    parser.add_argument("--quick", action="store_true", help="few and small images")
    parser.add_argument("--output", type=Path, default="gpu-results", help="folder")
    default = min(6, os.cpu_count() or 1)
    parser.add_argument("--n-jobs", type=int, default=default, help="rows side by side")
    names = [part.__name__ for part in (*PARTS, rescore)]
    parser.add_argument("--only", choices=names, help="one part, in this process")
    options = parser.parse_args(arguments)
    end = time.monotonic() + 60 * options.minutes
    options.left = lambda: end - time.monotonic()
    has_device = options.device.type != "cuda" or torch.cuda.is_available()
    if options.only is None and not has_device:
        print("No CUDA device: nothing to measure. Try --device cpu --quick for a dry run.")
        return
    report = Report(options.output)
    if options.only is not None:
        {part.__name__: part for part in (*PARTS, rescore)}[options.only](report, options)
    else:
        run_parts(report, options, arguments)


if __name__ == "__main__":
    main()
