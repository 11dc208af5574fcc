"""What the threshold of heat maps costs a fit: seconds and peak memory.

``fit`` takes the highest value of the heat map of each training image for
``pixel_threshold_``, in the pass that gives their scores. Each fit runs in a process of its
own, in turn with this checkout and with ``--other``, one from before this was so, on one
thread; the table has the least of ``--n-runs`` fits, and ratios. Seconds are those of the
processor, which other processes of the machine change little. Images are random textures
of 224 x 224 pixels; the networks have random weights.

Run it as ``python examples/benchmarks/bench_map_thresholds.py --other ../skocc-before``.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

FEATURES = {"backbone": "resnet18", "weights": None, "image_size": None}
# Class, parameters, images; in small trainings a pass over the images is a large part.
CASES = {
    "ResNetKNN": ("ResNetKNN", FEATURES, 24),
    "ResNetKNN, smoothing=4": ("ResNetKNN", {**FEATURES, "smoothing": 4}, 24),
    "ResNetKNN, coreset of 10 %": (
        "ResNetKNN",
        {**FEATURES, "smoothing": 4, "subsampling": "coreset", "bank_fraction": 0.1},
        24,
    ),
    "PatchSVDD": ("PatchSVDD", {"n_epochs": 1, "strides": (16, 32)}, 8),
    "FeatureCAE": ("FeatureCAE", {**FEATURES, "n_epochs": 5}, 24),
    "ConvAE": ("ConvAE", {"n_epochs": 2, "augmentation": False}, 24),
    "ConvAE, ssim": (
        "ConvAE",
        {"n_epochs": 2, "augmentation": False, "reconstruction_metric": "ssim"},
        24,
    ),
    "MOCCA, patch_size=64": (
        "MOCCA",
        {"patch_size": 64, "pretrain_n_epochs": 0, "n_epochs": 2, "warm_up_n_epochs": 0},
        24,
    ),
}


def fit(name):
    """Fit once, and print seconds and the peak of memory in MiB as JSON."""
    import skocc
    from skocc.datasets import make_textures

    method, params, n_images = CASES[name]
    images = make_textures(n_images, size=224, random_state=0)
    detector = getattr(skocc, method)(device="cpu", random_state=0, **params)
    start = time.process_time()
    detector.fit(images)
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps([seconds, peak / (2**20 if sys.platform == "darwin" else 2**10)]))


def measure(name, checkout):
    """Return seconds and the peak of memory of a fit in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--fit", name]
    done = subprocess.run(
        command, env=environment, check=True, stdout=subprocess.PIPE, cwd=checkout
    )
    return json.loads(done.stdout)


def main():
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--other", type=Path, help="checkout of a commit before")
    parser.add_argument("--n-runs", type=int, default=3)
    parser.add_argument("--fit", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fit:
        fit(options.fit)
        return
    here = Path(__file__).resolve().parents[2]
    checkouts = [here, (options.other or here).resolve()]
    print(f"{'':28}" + f"{'after':>9}{'before':>9}{'ratio':>9}" * 2 + "  (seconds, MiB)")
    for name in CASES:
        runs = [[measure(name, at) for at in checkouts] for _ in range(options.n_runs)]
        cells = ""
        for index in range(2):
            after, before = (min(run[k][index] for run in runs) for k in range(2))
            cells += f"{after:9.2f}{before:9.2f}{after / before:9.2f}"
        print(f"{name:28}{cells}", flush=True)


if __name__ == "__main__":
    main()
