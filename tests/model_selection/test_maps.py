"""Heat maps through meta-estimators and pipelines."""

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skocc import MOCCA, DeepSVDD, PatchSVDD
from skocc.model_selection import NormalOnly, ThresholdTuner
from tests.quick import quick


def half(images):
    return images[:, ::2, ::2]


@pytest.mark.parametrize(
    "steps",
    [
        [],
        ["passthrough"],
        [FunctionTransformer(half)],
        [FunctionTransformer(half), "passthrough"],
        [Pipeline([("half", FunctionTransformer(half))])],
    ],
    ids=range(5),
)
@pytest.mark.parametrize("around", [ThresholdTuner, NormalOnly])
def test_maps_through_a_pipeline(steps, around):
    images = np.random.default_rng(0).random((20, 32, 32), dtype=np.float32)
    pipeline = make_pipeline(*steps, quick(PatchSVDD))
    params = {"max_fpr": 0.5, "calibration_size": 4} if around is ThresholdTuner else {}
    fitted = around(pipeline, **params)
    assert hasattr(fitted, "anomaly_map")
    with pytest.raises(NotFittedError):
        fitted.anomaly_map(images)
    fitted.fit(images)
    halved = any(step != "passthrough" for step in steps)
    seen = half(images) if halved else images
    detector = fitted.estimator_[-1]
    maps, scores = fitted.anomaly_map(images[:3], size=20, return_scores=True)
    np.testing.assert_array_equal(maps, detector.anomaly_map(seen[:3], size=20))
    np.testing.assert_array_equal(scores, fitted.score_samples(images[:3]))
    assert fitted.anomaly_map(images[:3]).shape == seen[:3].shape
    # One around the other, and a pipeline within a pipeline.
    nested = around(make_pipeline(make_pipeline("passthrough", fitted)), **params)
    nested.fit(images)
    assert nested.anomaly_map(images[:3]).shape == seen[:3].shape


@pytest.mark.parametrize("around", [ThresholdTuner, NormalOnly])
def test_no_maps_where_the_last_step_has_none(around):
    for detector in [quick(DeepSVDD), make_pipeline("passthrough", quick(MOCCA))]:
        fitted = around(detector)
        assert not hasattr(fitted, "anomaly_map")
        with pytest.raises(AttributeError, match="has no attribute 'anomaly_map'"):
            fitted.anomaly_map([])
    # It depends on a parameter of the last step.
    assert hasattr(around(make_pipeline(quick(MOCCA, patch_size=8))), "anomaly_map")
