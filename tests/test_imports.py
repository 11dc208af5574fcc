"""What is loaded when, and what is said where something is missing.

All of it in one process of its own: to load torch and scikit-learn takes seconds.
"""

import subprocess
import sys

# Each breaks in a way of its own when it is imported.
BROKEN = {
    "torchvision": "RuntimeError('operator torchvision::nms does not exist')",
    "pynndescent": "ImportError('no pynndescent here')",
    "skimage": "ImportError('no scikit-image here')",
    "cv2": "ImportError('no OpenCV here')",
    "matplotlib": "ImportError('no matplotlib here')",
}
PROGRAM = """
import sys

sys.path.insert(0, sys.argv[1])


def assert_not_loaded(*names):
    loaded = set(names) & set(sys.modules)
    assert not loaded, loaded


def assert_needs(function, *words):
    try:
        function()
    except ImportError as error:
        assert all(word in str(error) for word in words), error
    else:
        raise AssertionError(f"no ImportError that says {words}")


import skocc

heavy = "torch", "torchvision", "PIL", "tqdm"
assert_not_loaded(*heavy, "sklearn", "pynndescent", "numba")

# Subpackages need no import of their own.
skocc.datasets.load_mvtec_layout
assert_not_loaded(*heavy)
skocc.metrics.auroc
assert_not_loaded(*heavy)
skocc.model_selection.classical_detectors
skocc.plotting.RocCurveDisplay
assert_not_loaded("torch", "torchvision")
from skocc.__main__ import main

try:
    main(["fit", "--help"])  # which lists the detectors
except SystemExit:
    pass
assert_not_loaded("torch", "torchvision")
# Extras are needed where they are used, not where they are imported.
direct = skocc.feature_extraction.DirectFeatures()
background = skocc.feature_extraction.BackgroundRemoval()
skocc.DeepSVDD
assert_not_loaded("torchvision", "pynndescent", "numba", "skimage", "cv2", "matplotlib")

import numpy as np
import torch

X = np.random.default_rng(0).random((20, 32, 32))
short = {"n_epochs": 1, "device": "cpu"}

# A broken torchvision does not reach what needs none.
skocc.DeepSVDD(pretrain_n_epochs=1, **short).fit(X).predict(X)
skocc.ConvAE(augmentation=False, base_channels=2, **short).fit(X).predict(X)
assert_needs(
    lambda: skocc.DeepSVDD(backbone="resnet18", weights=None).fit(X),
    "Install the torchvision that matches your torch",
)
assert_needs(
    lambda: skocc.ConvAE(base_channels=2, **short).fit(X), "or set augmentation=False"
)
assert_needs(lambda: direct.fit(X), 'pip install "skocc[direct]"')
assert_needs(
    lambda: skocc.plotting.RocCurveDisplay.from_predictions([1, -1], [1, 0]),
    "no matplotlib here",
    'pip install "skocc[plot]"',
)
assert_needs(lambda: background.fit(X), "no OpenCV here", "skocc[video]")
import skocc._ops.neighbors

skocc._ops.neighbors.nearest(torch.rand(3, 2), torch.rand(9, 2))
assert_not_loaded("pynndescent", "numba")
assert_needs(
    lambda: skocc._ops.neighbors.ApproximateIndex(torch.rand(9, 2)),
    'pip install "skocc[approximate]"',
)
"""


def test_what_is_loaded_and_what_is_missing(tmp_path):
    for name, error in BROKEN.items():
        (tmp_path / f"{name}.py").write_text(f"raise {error}")
    subprocess.run([sys.executable, "-c", PROGRAM, tmp_path], check=True)
