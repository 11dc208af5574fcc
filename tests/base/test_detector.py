import numpy as np
import pytest

import skocc
from skocc._base import detector
from tests.quick import quick


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("ConvAE", {"border": 20}, "Set a smaller border"),
        ("DataSplitOCC", {"channels": (0,)}, "channels must hold positive integers"),
        ("DeepSVDD", {"milestones": (-1,)}, "milestones must hold positive integers"),
        ("FeatureCAE", {}, "needs 1 or 3 channels"),
        ("MOCCA", {"patch_size": 64}, "do not fit into images"),
        ("PatchSVDD", {"patch_size": 20}, "must be a multiple of 8"),
        ("ResNetKNN", {"n_neighbors": 2}, "uses the nearest neighbor alone"),
        ("VideoMOCCA", {"milestones": (-1,)}, "milestones must hold positive integers"),
    ],
)
def test_parameters_are_checked_before_a_device_is_given_the_images(
    name, params, message, monkeypatch
):
    monkeypatch.setattr(detector, "keep_on_device", lambda *_: pytest.fail("moved"))
    n_channels = 2 if name == "FeatureCAE" else 3
    images = np.random.default_rng(0).random((6, 16, 16, n_channels))
    estimator = quick(getattr(skocc, name), **params)
    with pytest.raises(ValueError, match=message):
        estimator.fit(images)
    assert not [attribute for attribute in vars(estimator) if attribute.endswith("_")]
