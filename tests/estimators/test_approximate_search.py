"""The methods with a bank of patches, searched by a graph instead of exactly."""

import numpy as np
import pytest
import torch
from sklearn.base import clone

import skocc


# One test for both, since in each process the graph search is compiled for half a minute.
# In the quick run, the tests of neighbors search by it.
@pytest.mark.slow
def test_approximate_search_finds_nearly_the_same_also_after_loading(
    smooth_images, tmp_path, progress_labels
):
    images, common = smooth_images, {"random_state": 0, "device": "cpu"}
    patches = skocc.PatchSVDD(
        patch_size=16, strides=(4, 8), n_pairs=8, n_epochs=1, **common
    )
    cells = skocc.ResNetKNN(
        backbone="resnet18", weights=None, layers=("layer1",), image_size=None,
        reweighting=3, **common,
    )  # fmt: skip
    for exact in [patches, cells]:
        exact.fit(images[:8])
        detector = clone(exact).set_params(search="approximate").fit(images[:8])
        scores = detector.score_samples(images)
        np.testing.assert_allclose(scores, exact.score_samples(images), rtol=0.02)
        np.testing.assert_allclose(detector.train_scores_, exact.train_scores_, rtol=0.02)
        path = tmp_path / f"{type(exact).__name__}.safetensors"
        skocc.save(detector, path)
        assert not progress_labels
        loaded = skocc.load(path).set_params(verbose=1)
        np.testing.assert_allclose(loaded.score_samples(images), scores, rtol=1e-6)
        stages = {"neighbor graph", "scores"}
        assert progress_labels == {f"{type(exact).__name__}: {stage}" for stage in stages}
        progress_labels.clear()
        # numba sets the number of threads for OpenMP, and so for torch.
        torch.set_num_threads(2)
        loaded.set_params(verbose=0).score_samples(images)
        assert torch.get_num_threads() == 2
        torch.set_num_threads(1)
