import numpy as np
import pytest

from skocc.feature_extraction import BackgroundRemoval, DirectFeatures, Pixels


@pytest.mark.parametrize(
    ("transformer", "stages"),
    [
        (BackgroundRemoval(), {"background", "frames"}),
        (DirectFeatures(), {"features"}),
        (Pixels(), {"pixels"}),
    ],
)
def test_stages_of_transformers(transformer, stages, progress_labels):
    images = np.random.default_rng(0).integers(0, 256, (40, 16, 16), dtype=np.uint8)
    transformer.fit_transform(images)
    assert not progress_labels
    transformer.set_params(verbose=1).fit_transform(images)
    name = type(transformer).__name__
    assert progress_labels == {f"{name}: {stage}" for stage in stages}
