"""What the threshold of heat maps costs a fit: seconds and peak memory, with and without.

``fit`` takes the highest value of the heat map of each training image for
``pixel_threshold_``, in the pass that gives their scores. "Without", the functions that
make the maps, and take their maxima, are replaced by ones that do nothing. Of ``PatchSVDD``
the maps give the scores too, and stay. Seconds are those of the processor on one thread,
the least of ``--n-runs`` fits, which other processes of the machine change little, or those
of the clock on another ``--device``; MiB are what the first fit with maxima adds to the
peak memory of the process after one without.
Images are textures of 224 x 224 pixels, and the networks have random weights.

The second table has ``anomaly_map(X, return_scores=True)`` against ``anomaly_map(X)``,
and against both ``anomaly_map(X)`` and ``score_samples(X)``: medians and ranges of ratios.

Run it as ``python examples/benchmarks/bench_map_thresholds.py``.
"""

import argparse
import resource
import sys
from contextlib import ExitStack
from functools import partial
from importlib import import_module
from unittest.mock import patch

import numpy as np
import torch
from bench_epoch import seconds

import skocc
from skocc.datasets import make_textures

FEATURES = {"backbone": "resnet18", "weights": None, "image_size": None}
# Class, and parameters: in short trainings a pass over the images is a large part.
CASES = {
    "ResNetKNN": ("ResNetKNN", FEATURES),
    "ResNetKNN, smoothing=4": ("ResNetKNN", {**FEATURES, "smoothing": 4}),
    "PatchSVDD": ("PatchSVDD", {"n_epochs": 1, "strides": (16, 32)}),
    "FeatureCAE": ("FeatureCAE", {**FEATURES, "n_epochs": 5}),
    "ConvAE": ("ConvAE", {"n_epochs": 1, "augmentation": False}),
    "ConvAE, ssim": (
        "ConvAE",
        {"n_epochs": 1, "augmentation": False, "reconstruction_metric": "ssim"},
    ),
    "MOCCA, patch_size=64": (
        "MOCCA",
        {"patch_size": 64, "pretrain_n_epochs": 0, "n_epochs": 1, "warm_up_n_epochs": 0},
    ),
}
MAKERS = ("_pixel_scores", "_pixel_errors", "_maps_of")


def without_maxima(stack, cls):
    """Replace what makes maps, and takes their maxima, in a class."""
    for name in MAKERS:
        if hasattr(cls, name):
            patched = patch.object(cls, name, lambda *args: np.zeros(1))
            stack.enter_context(patched)
    module = import_module(cls.__module__)
    patched = patch.object(module, "map_maxima", lambda maps: torch.zeros(1))
    stack.enter_context(patched)
    if cls is skocc.ResNetKNN:  # whose scores need no maps
        patched = patch.object(module, "search_highest", lambda *args: torch.zeros(1))
        stack.enter_context(patched)


def peak_memory():
    """Return the peak resident memory of this process in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def ratios_of_one_pass(detector, images, n_pairs):
    """Return the seconds of maps with scores by those of maps, and of maps and scores."""
    steps = [
        lambda: detector.anomaly_map(images, return_scores=True),
        lambda: detector.anomaly_map(images),
        lambda: detector.score_samples(images),
    ]
    times = []
    for _ in range(n_pairs):
        times.append([seconds(step, torch.device(detector.device)) for step in steps])
    both, maps, scores = np.array(times).T
    return both / maps, both / (maps + scores)


def main():
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-images", type=int, default=48)
    parser.add_argument("--n-runs", type=int, default=3)
    parser.add_argument("--n-pairs", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    device = options.device
    torch.set_num_threads(1)
    images = make_textures(options.n_images, size=224, random_state=0)
    capability = torch.backends.cpu.get_cpu_capability()
    print(f"torch {torch.__version__}, {capability}, {device}")
    print(f"{'':24}{'with':>9}{'without':>9}{'ratio':>9}  (seconds) {'MiB':>7}")
    fitted = []
    for name, (method, params) in CASES.items():
        cls = getattr(skocc, method)
        detector = cls(device=device, random_state=0, **params)
        detector.fit(images[:4])  # what the first fit of a kind does once
        fit, times, peaks = partial(detector.fit, images), {False: [], True: []}, []
        for _ in range(options.n_runs):
            with ExitStack() as stack:
                without_maxima(stack, cls)
                times[False].append(seconds(fit, torch.device(device)))
            peaks.append(peak_memory())
            times[True].append(seconds(fit, torch.device(device)))
            peaks.append(peak_memory())
        after, before = min(times[True]), min(times[False])
        added = peaks[1] - peaks[0]
        cells = f"{after:9.2f}{before:9.2f}{after / before:9.2f}"
        print(f"{name:24}{cells} {'':11}{added:8.0f}", flush=True)
        fitted.append((name, detector))
    print(f"\n{'maps and scores, against':24}{'maps':>20}{'maps, then scores':>24}")
    for name, detector in fitted:
        cells = [
            f"{np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f})"
            for ratios in ratios_of_one_pass(detector, images, options.n_pairs)
        ]
        print(f"{name:24}{cells[0]:>20}{cells[1]:>24}", flush=True)


if __name__ == "__main__":
    main()
