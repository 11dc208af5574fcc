import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from torch import nn

import skocc
from examples.reproduction.sprite_videos import (
    frame_auroc,
    make_detector,
    make_test_videos,
    make_video,
)
from skocc import DeepSVDD, VideoMOCCA
from skocc._ops.losses import hard_boundary_loss, reconstruction_loss, squared_distance
from skocc._samples.clips import average_over_frames, min_max_normalize
from skocc.estimators._spheres import away_from_zero

RNG = np.random.default_rng(0)
VIDEOS = [RNG.random((n, 8, 9), dtype=np.float32) for n in (9, 12, 7)]
WINDOWS = [
    video[start : start + 4, :, :, np.newaxis]
    for video in VIDEOS
    for start in range(len(video) - 3)
]


def quick(**params):
    small = {
        "clip_length": 4,
        "embedding_dim": 8,
        "n_epochs": 2,
        "warm_up_n_epochs": 0,
        "batch_size": 10,
        "device": "cpu",
        "random_state": 0,
    }
    if params.get("boundary") == "hard":
        del small["warm_up_n_epochs"]
    return VideoMOCCA(**(small | params))


@pytest.fixture(scope="module")
def detector():
    return quick().fit(VIDEOS)


def as_batch(clips):
    return torch.from_numpy(np.moveaxis(np.stack(clips), -1, 1))


def features(detector, clips):
    with torch.no_grad():
        return detector.network_["encoder"].codes_and_features(as_batch(clips), range(7))


def test_what_a_fit_leaves(detector):
    assert detector.image_shape_ == (4, 8, 9, 1)
    assert detector.layers_ == tuple(range(7))
    assert [center.shape for center in detector.centers_] == [(100,)] * 7
    assert detector.radii_.shape == (7,)
    assert detector.train_scores_.shape == (3,)
    assert not hasattr(detector, "n_features_in_")
    assert set(detector.network_) == {"normalize", "encoder", "decoder"}


def test_centers_are_means_of_the_untrained_network_in_eval_mode(detector):
    untrained = quick(n_epochs=0).fit(VIDEOS)
    _, expected = features(untrained, WINDOWS)
    for center, trained_center, z in zip(
        untrained.centers_, detector.centers_, expected, strict=True
    ):
        np.testing.assert_allclose(center, away_from_zero(z.mean(0)), atol=1e-5)
        np.testing.assert_array_equal(trained_center, center)


@pytest.mark.parametrize("weight", [0.0, 1.0, 0.5])
def test_loss_is_the_mean_over_layers_plus_the_reconstruction(weight):
    # One batch and hardly a step: the weights after it are those of the loss.
    detector = quick(
        boundary="hard",
        reconstruction_weight=weight,
        n_epochs=1,
        learning_rate=1e-12,
        batch_size=50,
    ).fit(VIDEOS)
    network = detector.network_.train()
    codes, z = features(detector, WINDOWS)
    with torch.no_grad():
        error = reconstruction_loss(network["decoder"](codes), as_batch(WINDOWS))
    layers = [
        hard_boundary_loss(squared_distance(zj, torch.from_numpy(center)))
        for zj, center in zip(z, detector.centers_, strict=True)
    ]
    expected = float(torch.stack(layers).mean() + weight * error)
    assert detector.loss_curve_ == [pytest.approx(expected, rel=1e-4)]
    assert float(error) > 1


def test_without_reconstruction_the_decoder_is_as_it_was():
    def decoder(**params):
        return quick(**params).fit(VIDEOS).network_["decoder"].state_dict()

    untrained = decoder(n_epochs=0)
    for name, value in decoder(reconstruction_weight=0).items():
        assert torch.equal(value, untrained[name])
    trained = decoder()
    assert not torch.equal(trained["pixels.weight"], untrained["pixels.weight"])


def test_score_of_a_video_is_that_of_its_lowest_clip(detector):
    scores = detector.score_samples(np.stack(WINDOWS))
    expected = [scores[:6].min(), scores[6:15].min(), scores[15:].min()]
    np.testing.assert_allclose(detector.score_samples(VIDEOS), expected, rtol=1e-5)
    np.testing.assert_allclose(detector.train_scores_, expected, rtol=1e-5)
    by_layer = detector.layer_scores(np.stack(WINDOWS))
    assert by_layer.shape == (len(WINDOWS), 7)
    np.testing.assert_allclose(by_layer.mean(axis=1), scores, rtol=1e-5)
    assert detector.layer_scores(VIDEOS).shape == (3, 7)
    assert detector.predict(VIDEOS).tolist().count(-1) == 1


def test_frame_scores_by_hand(detector):
    video, windows = VIDEOS[1], WINDOWS[6:15]
    clip_scores = detector.score_samples(np.stack(windows))
    curve = average_over_frames(clip_scores, np.arange(9), 4)
    np.testing.assert_allclose(
        detector.score_frames(video, normalize=None), curve, rtol=1e-5
    )
    detector.network_.eval()
    codes, _ = features(detector, windows)
    with torch.no_grad():
        differences = detector.network_["decoder"](codes) - as_batch(windows)
    errors = differences.square().flatten(1).sum(1).double().numpy()
    mean_errors = average_over_frames(errors, np.arange(9), 4)
    expected = -min_max_normalize(-curve) - min_max_normalize(mean_errors)
    scores = detector.score_frames(video, normalize="video")
    assert scores.shape == (12,)
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores, expected, atol=2e-3)
    alone = quick(reconstruction_weight=0).fit(VIDEOS)
    scores = alone.score_frames(video, normalize="video")
    assert (scores.min(), scores.max()) == (-1, 0)
    # Within the clips of a frame: Eq. 8, with the minimum in the numerator.
    expected = np.zeros(12)
    for frame in range(12):
        near = slice(max(0, frame - 3), frame + 4)
        for values in (-curve, mean_errors):
            low, high = values[near].min(), values[near].max()
            expected[frame] -= (values[frame] - low) / (high - low)
    scores = detector.score_frames(video)
    np.testing.assert_allclose(scores, expected, atol=5e-3)
    with pytest.raises(ValueError, match=r"'clips', 'video' or None\. Got True"):
        detector.score_frames(video, normalize=True)


@pytest.mark.parametrize("boundary", ["hard", "soft"])
def test_a_still_video_has_no_anomaly(boundary):
    detector = quick(boundary=boundary).fit(VIDEOS)
    # Enough clips for batches of two sizes, whose roundings differ.
    still = np.repeat(VIDEOS[0][:1], 36, axis=0)
    for normalize in ("clips", "video"):
        scores = detector.score_frames(still, normalize=normalize)
        np.testing.assert_array_equal(scores, np.zeros(36))


def test_frame_scores_do_not_depend_on_batches(detector):
    scores = detector.score_frames(VIDEOS[1], normalize=None)
    for batch_size in (2, 50):
        other = pickle.loads(pickle.dumps(detector)).set_params(batch_size=batch_size)
        np.testing.assert_allclose(
            other.score_frames(VIDEOS[1], normalize=None), scores, rtol=1e-4
        )


def test_stride_leaves_out_no_frame():
    detector = quick(clip_stride=3).fit(VIDEOS)
    scores = detector.score_frames(VIDEOS[0], normalize=None)
    assert scores.shape == (9,)
    clips = np.stack([WINDOWS[0], WINDOWS[3], WINDOWS[5]])
    expected = average_over_frames(detector.score_samples(clips), np.array([0, 3, 5]), 4)
    np.testing.assert_allclose(scores, expected, rtol=1e-5)


def test_folders_and_ready_clips_agree_with_arrays(tmp_path):
    videos = [(255 * video).astype(np.uint8) for video in VIDEOS[:2]]
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder, video in zip(folders, videos, strict=True):
        folder.mkdir()
        for index, frame in enumerate(video):
            Image.fromarray(frame).save(folder / f"{index}.png")
    from_arrays, from_folders = quick().fit(videos), quick().fit(folders)
    assert from_folders.loss_curve_ == from_arrays.loss_curve_
    np.testing.assert_array_equal(
        from_folders.score_frames(folders[1]), from_arrays.score_frames(videos[1])
    )
    np.testing.assert_array_equal(
        from_folders.score_samples(videos), from_arrays.score_samples(folders)
    )
    clips = np.stack([videos[0][i : i + 4] for i in range(6)])[..., np.newaxis]
    clips = np.concatenate([clips, [videos[1][i : i + 4, ..., None] for i in range(9)]])
    ready = quick(clip_length=None).fit(clips)
    assert ready.loss_curve_ == from_arrays.loss_curve_
    assert ready.train_scores_.shape == (15,)
    tensor = torch.from_numpy(np.moveaxis(clips, -1, 2))
    np.testing.assert_array_equal(ready.score_samples(tensor), ready.train_scores_)


def test_clips_of_an_epoch_are_drawn(monkeypatch):
    n_steps, step = 0, torch.optim.Adam.step

    def counting_step(self, *args, **kwargs):
        nonlocal n_steps
        n_steps += 1
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.Adam, "step", counting_step)
    quick().fit(VIDEOS)  # 19 clips in batches of 10
    assert n_steps == 2 * 2
    n_steps = 0
    quick(n_clips=45).fit(VIDEOS)
    assert n_steps == 2 * 5


def test_subsets_of_layers_and_warm_start():
    detector = quick(layers=(6, 2), warm_start=True).fit(VIDEOS)
    assert detector.layers_ == (2, 6)
    centers = detector.centers_
    detector.fit(VIDEOS)
    assert len(detector.loss_curve_) == 4
    np.testing.assert_array_equal(detector.centers_, centers)
    assert detector.loss_curve_[-1] < detector.loss_curve_[0]


def test_saving_pickling_and_cloning(detector, tmp_path):
    scores = detector.score_frames(VIDEOS[0])
    skocc.save(detector, tmp_path / "video.safetensors")
    for copy in [
        skocc.load(tmp_path / "video.safetensors"),
        pickle.loads(pickle.dumps(detector)),
        clone(detector).fit(VIDEOS),
    ]:
        np.testing.assert_array_equal(copy.score_frames(VIDEOS[0]), scores)
        assert copy.image_shape_ == (4, 8, 9, 1)


def test_search_over_videos():
    search = GridSearchCV(
        quick(),
        {"batch_size": [10]},
        cv=2,
        scoring=lambda detector, X, y=None: detector.score_samples(X).mean(),
    )
    search.fit([*VIDEOS, VIDEOS[0]])
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_estimator_.train_scores_.shape == (4,)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"normalization": "local_contrast"}, "'normalization' parameter of VideoMOCCA"),
        ({"clip_length": 8}, "at least clip_length=8 frames.*7 in the video at index 2"),
        ({"layers": (7,)}, "from 0 to 6"),
        ({"n_clips": 1}, "n_clips"),
    ],
)
def test_parameters_that_do_not_fit_videos(params, message):
    with pytest.raises(ValueError, match=message):
        quick(**params).fit(VIDEOS)


def test_images_are_videos_of_one_frame():
    images = RNG.random((20, 8, 9))
    by_images, by_clips = (
        quick(clip_length=clip_length).fit(X)
        for clip_length, X in [(1, images), (None, images[:, None, :, :, None])]
    )
    assert by_images.n_features_in_ == 72
    np.testing.assert_array_equal(by_images.score_samples(images), by_clips.train_scores_)


def test_images_and_videos_are_told_apart(detector):
    images = RNG.random((20, 8, 9))
    with pytest.raises(ValueError, match=r"at least clip_length=4 frames\. Got 1 in"):
        detector.score_samples(images)
    with pytest.raises(ValueError, match=r"must be images"):
        DeepSVDD().fit(np.stack(WINDOWS))


@pytest.mark.parametrize("name", ["encoder", "decoder"])
def test_both_halves_learn(name, detector):
    untrained = quick(n_epochs=0).fit(VIDEOS).network_[name]
    for (key, before), (_, after) in zip(
        untrained.named_parameters(),
        detector.network_[name].named_parameters(),
        strict=True,
    ):
        assert isinstance(after, nn.Parameter)
        assert not torch.equal(before, after), key


def test_a_short_training_tells_ways_to_move_apart():
    detector = make_detector(random_state=0)
    detector.set_params(clip_length=6, layers=(0, 1), n_epochs=5, device="cpu")
    detector.fit([make_video(120, seed)[0] for seed in range(6)])
    # Over five seeds 0.967 +- 0.048 and 0.958 +- 0.050.
    for videos in make_test_videos(n_videos=2).values():
        assert frame_auroc(detector, videos) >= 0.8


@pytest.mark.slow
def test_synthetic_surveillance():
    """One moves wrongly: too fast, or against the direction of the others."""
    detector = make_detector(random_state=0)
    detector.fit([make_video(120, seed)[0] for seed in range(12)])
    tests = make_test_videos()
    # Over five seeds 0.985 +- 0.007, 0.971 +- 0.023, and 0.977 +- 0.014 together.
    for videos in [*tests.values(), [video for group in tests.values() for video in group]]:
        assert frame_auroc(detector, videos) >= 0.9
