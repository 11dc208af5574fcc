"""What can only be told on a card: all of it is marked ``gpu``."""

import copy
import warnings

import numpy as np
import pytest
import torch

import skocc
from tests.quick import ESTIMATORS, quick
from tests.waits import VARIANTS, fit_counting_waits

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_no_step_waits_for_the_device(name, variant):
    """An epoch of twice as many batches has as many waits: those of the epoch itself."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")

        def count():
            return sum("called a synchronizing" in str(x.message) for x in caught)

        torch.cuda.set_sync_debug_mode("warn")
        try:
            _, _, at_steps = fit_counting_waits(name, variant, count)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    for counts in at_steps:
        # torchvision moves the matrix of each image's affine change.
        n_allowed = 3 * 4 * (len(counts) - 1) if variant.get("augmentation") else 0
        assert counts[-1] - counts[0] <= n_allowed


@pytest.mark.parametrize("cls", ESTIMATORS)
def test_scores_are_those_of_the_cpu(cls, tmp_path, monkeypatch):
    """One fit, scored on both devices in full float32; and saved, loaded and scored."""
    X = np.random.default_rng(0).random((24, 16, 16)).astype(np.float32)
    there = quick(cls, device="cuda").fit(X)
    here = copy.deepcopy(there).set_params(device="cpu")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    scores = there.score_samples(X)
    expected = here.score_samples(X)
    tolerance = 1e-4 * np.abs(expected).mean()
    np.testing.assert_allclose(scores, expected, rtol=0, atol=tolerance)
    skocc.save(there, tmp_path / "fit.skocc")
    loaded = skocc.load(tmp_path / "fit.skocc").set_params(device="cpu")
    np.testing.assert_allclose(loaded.score_samples(X), expected, rtol=1e-6, atol=tolerance)
