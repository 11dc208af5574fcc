import importlib.util
import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import check_estimator

import skocc
from skocc.feature_extraction import BackgroundRemoval

needs_cv2 = pytest.mark.skipif(
    importlib.util.find_spec("cv2") is None,
    reason='OpenCV is not installed: pip install "skocc[video]"',
)


@pytest.fixture(scope="module")
def video():
    """Frames (60, 20, 24, 3) of a textured ground that a bright block crosses once."""
    rng = np.random.default_rng(0)
    frames = np.empty((60, 20, 24, 3), dtype=np.uint8)
    frames[:] = rng.integers(40, 100, (20, 24, 3))
    for left in range(20):
        frames[20 + left, 8:12, left : left + 4] = (250, 240, 230)
    return frames


@needs_cv2
@pytest.mark.filterwarnings("ignore")
def test_sklearn_suite():
    results = check_estimator(
        BackgroundRemoval(image_shape=(1, -1)), on_fail=None, on_skip=None
    )
    assert len(results) > 40
    failed = [result for result in results if result["status"] == "failed"]
    assert not failed


@needs_cv2
def test_what_moves_is_kept_and_the_rest_is_zero(video):
    removal = BackgroundRemoval(n_dilations=0)
    frames = removal.fit(video).transform(video)
    assert frames.dtype == np.uint8
    np.testing.assert_array_equal(removal.background_, video[0])
    moves = np.zeros(video.shape[:3], dtype=bool)
    for left in range(20):
        moves[20 + left, 8:12, left : left + 4] = True
    np.testing.assert_array_equal(frames.any(axis=3), moves)
    np.testing.assert_array_equal(frames[moves], video[moves])


@needs_cv2
def test_threshold_is_of_the_sum_over_channels_and_dilation_a_diamond():
    video = np.full((30, 9, 9, 3), 100, dtype=np.uint8)
    removal = BackgroundRemoval(threshold=60, n_dilations=2).fit(video)
    frame = video[:1].copy()
    frame[0, 4, 4] = (120, 80, 120)  # differs by 60, not more
    assert not removal.transform(frame).any()
    frame[0, 4, 4] = (120, 79, 120)
    rows, columns = np.mgrid[:9, :9]
    diamond = np.abs(rows - 4) + np.abs(columns - 4) <= 2
    np.testing.assert_array_equal(removal.transform(frame)[0].all(axis=2), diamond)


@needs_cv2
def test_frames_are_treated_alone_and_kinds_of_values_agree(video):
    removal = BackgroundRemoval().fit(video)
    frames = removal.transform(video)
    blocks = [removal.transform(video[start : start + 7]) for start in range(0, 60, 7)]
    np.testing.assert_array_equal(np.concatenate(blocks), frames)
    floats = (video / 255).astype(np.float32)
    other = BackgroundRemoval().fit(floats)
    np.testing.assert_array_equal(other.background_, removal.background_)
    np.testing.assert_allclose(other.transform(floats), frames / 255, atol=1e-6)


@needs_cv2
def test_saving_pickling_and_errors(video, tmp_path):
    removal = BackgroundRemoval(threshold=50).fit(video)
    frames = removal.transform(video[:3])
    skocc.save(removal, tmp_path / "camera.safetensors")
    for copy in [
        pickle.loads(pickle.dumps(removal)),
        skocc.load(tmp_path / "camera.safetensors"),
        clone(removal).fit(video),
    ]:
        np.testing.assert_array_equal(copy.transform(video[:3]), frames)
    with pytest.raises(NotFittedError):
        BackgroundRemoval().transform(video)
    with pytest.raises(ValueError, match=r"1 \(gray\) or 3.*Got.*\(20, 24, 2\).*Pick"):
        BackgroundRemoval(image_shape=(20, 24, 2)).fit(video[..., :2])
    with pytest.raises(ValueError, match="fitted on"):
        removal.transform(video[:, :10])
