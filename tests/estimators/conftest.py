import numpy as np
import pytest
import torch
from torch.nn import functional


@pytest.fixture(scope="module")
def smooth_images():
    """Twelve smooth gray images (12, 40, 36) that differ from each other."""
    coarse = np.random.default_rng(0).random((12, 1, 10, 9), dtype=np.float32)
    fine = functional.interpolate(torch.from_numpy(coarse), (40, 36), mode="bilinear")
    return fine[:, 0].numpy()
