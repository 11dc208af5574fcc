import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError

import skocc
from skocc.plotting import EmbeddingDisplay
from tests.quick import ESTIMATORS, quick

EMBEDDERS = [cls for cls in ESTIMATORS if hasattr(cls, "embed")]


def test_who_embeds():
    names = {cls.__name__ for cls in ESTIMATORS} - {cls.__name__ for cls in EMBEDDERS}
    assert names == {"PatchSVDD", "ResNetKNN"}  # of which patches and cells are embedded


@pytest.mark.parametrize("cls", EMBEDDERS)
def test_a_vector_for_each_sample(cls, digits):
    normal, others = digits
    detector = quick(cls)
    with pytest.raises(NotFittedError):
        detector.embed(normal)
    detector.fit(normal)
    X = np.concatenate([normal[:7], others[:7]])
    scores = detector.score_samples(X)
    embeddings = detector.embed(X)
    assert embeddings.dtype == np.float32
    assert embeddings.ndim == 2
    assert len(embeddings) == len(X)
    assert np.ptp(embeddings, axis=0).max() > 0
    np.testing.assert_array_equal(detector.score_samples(X), scores)
    # A sample has its own, whatever is beside it.
    np.testing.assert_allclose(
        detector.embed(X[::-1])[::-1], embeddings, rtol=1e-3, atol=1e-5
    )
    np.testing.assert_allclose(
        detector.embed(X[3:4])[0], embeddings[3], rtol=1e-3, atol=1e-5
    )
    with pytest.raises(ValueError, match="X"):
        detector.embed(np.full_like(X, np.nan))
    display = EmbeddingDisplay.from_estimator(detector, X, [1] * 7 + [-1] * 7, method="pca")
    expected = EmbeddingDisplay.from_predictions(embeddings, method="pca")
    np.testing.assert_array_equal(display.points, expected.points)


def test_scores_follow_from_embeddings(digits):
    normal, others = digits
    spheres = quick(skocc.DeepSVDD, boundary="hard").fit(normal)
    distances = ((spheres.embed(others) - spheres.center_) ** 2).sum(axis=1)
    np.testing.assert_allclose(-distances, spheres.score_samples(others), rtol=1e-4)

    layers = quick(skocc.MOCCA, boundary="hard").fit(normal)
    ends = np.cumsum([len(center) for center in layers.centers_])
    parts = np.split(layers.embed(others), ends[:-1], axis=1)
    distances = [
        ((part - center) ** 2).sum(axis=1)
        for part, center in zip(parts, layers.centers_, strict=True)
    ]
    np.testing.assert_allclose(
        -np.stack(distances, axis=1), layers.layer_scores(others), rtol=1e-3, atol=1e-6
    )

    split = quick(skocc.DataSplitOCC).fit(normal)
    with torch.no_grad():
        logits = split.network_["classifier"](torch.from_numpy(split.embed(others)))
    np.testing.assert_allclose(
        -logits[:, 0], split.score_samples(others), rtol=1e-3, atol=1e-5
    )


def test_patches_are_averaged(digits):
    normal = np.kron(digits[0][:10], np.ones((2, 2), np.float32))
    detector = quick(skocc.MOCCA, patch_size=8, n_crops=2, normalization=None).fit(normal)
    quarters = [normal[:, i : i + 8, j : j + 8] for i in (0, 8) for j in (0, 8)]
    alone = [detector.embed(np.tile(quarter, (1, 2, 2))) for quarter in quarters]
    assert np.ptp(alone, axis=0).max() > 0.01
    np.testing.assert_allclose(detector.embed(normal), np.mean(alone, axis=0), atol=1e-5)


def test_clips_are_averaged():
    videos = np.random.default_rng(0).random((4, 8, 16, 16)).astype(np.float32)
    detector = quick(skocc.VideoMOCCA, clip_length=4, clip_stride=4)
    detector.fit(list(videos))
    halves = [detector.embed(list(part)) for part in (videos[:, :4], videos[:, 4:])]
    together = detector.embed(list(videos))
    assert together.shape == halves[0].shape
    np.testing.assert_allclose(together, np.mean(halves, axis=0), rtol=1e-4, atol=1e-5)
