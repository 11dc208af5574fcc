import os
from pathlib import Path

# Before torch is loaded, and for the processes that the tests are shared among: two of them
# with two threads each would wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from skocc._samples import progress


@pytest.fixture(autouse=True)
def one_thread():
    """Keep torch to one thread, also after a library has set the number for all of OpenMP.

    The networks of the tests are so small that a second thread only costs.
    """
    torch.set_num_threads(1)


@pytest.fixture
def progress_labels(monkeypatch):
    """Set of the labels of all progress bars, also of those of short stages."""
    labels = set()
    monkeypatch.setattr(progress.Bar, "_make", lambda bar, _: labels.add(bar.label))
    return labels


@pytest.fixture(scope="session")
def data_dir():
    """Folder of real images and golden vectors, for tests marked `data`."""
    folder = os.environ.get("SKOCC_DATA")
    if folder is None:
        pytest.skip("the environment variable SKOCC_DATA names no folder")
    return Path(folder)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    return torch.device(request.param)


@pytest.fixture(scope="session")
def digits(all_digits):
    """Images (60, 8, 8) of one digit and (120, 8, 8) of the others, in [0, 1]."""
    return all_digits[0][:60], all_digits[1][:120]


@pytest.fixture(scope="session")
def all_digits():
    """Images (178, 8, 8) of one digit and (1619, 8, 8) of the others, in [0, 1]."""
    bunch = load_digits()
    images = (bunch.images / 16).astype(np.float32)
    return images[bunch.target == 0], images[bunch.target != 0]


@pytest.fixture
def image_files(tmp_path):
    """Twelve gray 16 x 12 (H x W) images: their array and their paths."""
    images = np.random.default_rng(0).integers(0, 256, (12, 16, 12), dtype=np.uint8)
    paths = []
    for index, image in enumerate(images):
        paths.append(tmp_path / f"{index:02d}.png")
        Image.fromarray(image).save(paths[-1])
    return images, paths
