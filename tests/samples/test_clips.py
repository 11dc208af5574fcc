import threading
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import skocc._samples.sources
from skocc import VideoMOCCA
from skocc._base.reading import compare, remember
from skocc._engine.batches import ImageBatches
from skocc._samples.clips import (
    Clips,
    average_over_frames,
    list_frames,
    min_max_normalize,
    read_clips,
)
from skocc._samples.sources import ArrayImages, FileImages
from skocc._samples.windows import window_starts

CPU = torch.device("cpu")
RNG = np.random.default_rng(0)


def read(X, clip_length=4, **options):
    return read_clips(X, clip_length=clip_length, name="Detector", **options)


def numbered_frames(n):
    """Frames of 2 x 2 pixels of which each holds its own index."""
    return np.arange(n, dtype=np.float32).reshape(-1, 1, 1, 1) * np.ones((1, 2, 2, 1), "f")


def frame_numbers(clips):
    return clips[:, :, 0, 0, 0].astype(int).tolist()


@pytest.fixture
def folders(tmp_path):
    """Two folders of 12 and 5 gray 6 x 7 frames, and their pixels."""
    videos = []
    for name, n in [("b", 12), ("a", 5)]:
        (tmp_path / name).mkdir()
        videos.append(RNG.integers(0, 256, (n, 6, 7), dtype=np.uint8))
        for index, frame in enumerate(videos[-1]):
            Image.fromarray(frame).save(tmp_path / name / f"frame{index}.png")
        (tmp_path / name / "notes.txt").write_text("no frame")
        (tmp_path / name / ".frame1.png").write_text("a trace of another system")
    return [tmp_path / "b", tmp_path / "a"], videos


def test_windows_of_each_video_only():
    clips = Clips(ArrayImages(numbered_frames(9)), [5, 4], clip_length=3)
    assert clips.shape == (5, 3, 2, 2, 1)
    expected = [[0, 1, 2], [1, 2, 3], [2, 3, 4], [5, 6, 7], [6, 7, 8]]
    assert frame_numbers(clips.load(slice(None))) == expected
    assert frame_numbers(clips.load(np.array([4, 0, 4]))) == [
        expected[4], expected[0], expected[4],
    ]  # fmt: skip
    scores = np.array([3.0, 1, 2, 5, 4])
    np.testing.assert_array_equal(clips.lowest_of_videos(scores), [1, 4])


def test_a_stride_leaves_out_no_frame():
    clips = Clips(ArrayImages(numbered_frames(11)), [8, 3], clip_length=3, stride=2)
    assert clips.starts.tolist() == [0, 2, 4, 5, 8]


def test_frames_average_the_clips_that_hold_them():
    """Check 5, exactly."""
    curve = average_over_frames(np.array([0.0, 3, 6]), np.arange(3), clip_length=3)
    assert curve.tolist() == [0, 1.5, 3, 4.5, 6]
    assert min_max_normalize(curve).tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert min_max_normalize(np.full(3, 7.0)).tolist() == [0, 0, 0]
    assert min_max_normalize(np.array([1, 1.1, 1]), 0.2).tolist() == [0, 0, 0]


def test_average_with_a_stride_by_brute_force():
    starts = np.array(window_starts(23, 6, 4))
    scores = RNG.normal(size=len(starts))
    expected = [
        np.mean([s for s, start in zip(scores, starts, strict=True) if 0 <= f - start < 6])
        for f in range(23)
    ]
    np.testing.assert_allclose(average_over_frames(scores, starts, 6), expected)


def test_frames_are_in_natural_order(folders):
    names = [path.name for path in list_frames(folders[0][0])]
    assert names == [f"frame{index}.png" for index in range(12)]


def test_natural_order_of_mixed_names(tmp_path):
    for name in ["10.png", "9.png", "a2.png", "a.png", "b01.png", "b1.png"]:
        (tmp_path / name).touch()
    names = [path.name for path in list_frames(tmp_path)]
    assert names == ["9.png", "10.png", "a.png", "a2.png", "b01.png", "b1.png"]


def test_all_forms_of_the_same_videos(folders):
    paths, videos = folders
    expected = read(videos).load(slice(None))
    assert expected.shape == (11, 4, 6, 7, 1)
    np.testing.assert_array_equal(expected[9, :, :, :, 0], videos[1][:4])
    color = [np.repeat(video[:, np.newaxis], 3, axis=1) for video in videos]
    for X in [
        paths,
        [str(path) for path in paths],
        np.array([str(path) for path in paths]),
        pd.Series(paths),
        [list_frames(path) for path in paths],
        [[Image.fromarray(frame) for frame in video] for video in videos],
        [video[..., np.newaxis] for video in videos],
        tuple(videos),
        [torch.from_numpy(video[:, np.newaxis]) for video in videos],
    ]:
        clips = read(X)
        np.testing.assert_array_equal(clips.load(slice(None)), expected)
        assert clips.shape[1:] == (4, 6, 7, 1)
        assert clips.n_features is None
    channels_first = read(color)
    np.testing.assert_array_equal(channels_first.load(slice(None))[..., :1], expected)


def test_arrays_of_ready_clips():
    X = RNG.random((3, 5, 6, 7, 3), dtype=np.float32)
    for clip_length, n in [(None, 3), (5, 3), (4, 6)]:
        clips = read(X, clip_length)
        assert clips.shape == (n, clip_length or 5, 6, 7, 3)
        np.testing.assert_array_equal(clips.load([n - 1])[0], X[2, -clips.shape[1] :])
        assert read(X[:1], clip_length, like=clips.shape[1:]).shape[0] == n // 3
    tensor = torch.from_numpy(np.moveaxis(X, -1, 2))
    clips = read(tensor, None)
    np.testing.assert_array_equal(clips.load(slice(None)), X)


@pytest.mark.parametrize(
    "X",
    [
        np.zeros((3, 6, 7)),
        np.zeros((3, 6, 7, 1)),
        torch.zeros(3, 1, 6, 7),
        [np.zeros((6, 7))] * 3,
        [Image.new("L", (7, 6))] * 3,
        pd.DataFrame(np.zeros((3, 42))),
    ],
    ids=lambda X: type(X).__name__,
)
def test_images_are_videos_of_one_frame(X):
    clips = read(X, 1, image_shape=(6, 7) if isinstance(X, pd.DataFrame) else None)
    assert clips.shape == (3, 1, 6, 7, 1)
    assert clips.n_features == 42
    assert clips.is_table == isinstance(X, pd.DataFrame)
    assert read([np.zeros((3, 6, 7))], 1).n_features is None  # a video of three frames


def test_sizes_and_dtypes_of_several_videos():
    videos = [RNG.integers(0, 256, (5, 8, 9), dtype=np.uint8), RNG.random((4, 8, 9))]
    clips = read(videos)
    batch = clips.load(slice(None))
    assert batch.dtype == clips.dtype == np.float32
    np.testing.assert_allclose(batch[1, :, :, :, 0], videos[0][1:] / 255, rtol=1e-6)
    np.testing.assert_allclose(batch[2, :, :, :, 0], videos[1], rtol=1e-6)
    videos[1] = RNG.random((4, 10, 11))
    with pytest.raises(ValueError, match=r"one size.*\(10, 11, 1\).*index 1.*image_size"):
        read(videos)
    assert read(videos, image_size=(3, 4)).shape == (3, 4, 3, 4, 1)


@pytest.mark.parametrize(
    ("X", "params", "message"),
    [
        ("folder", {}, r"collection of videos.*single str.*\[folder\]"),
        ([], {}, "holds no videos.*n_samples=0"),
        (np.zeros((0, 4, 4, 4, 1)), {}, "holds no clips.*n_samples=0"),
        (np.zeros((9, 8, 8, 3)), {}, r"clip_length=4 frames.* 1 in .*\[video\]"),
        (["no/folder"], {}, r"folder of frame files.*'no/folder'.*not there.*ffmpeg"),
        ([np.zeros((5, 4, 4)), "a"], {}, "one kind.*list of paths"),
        ([np.zeros((5, 4, 4)), np.zeros(3)], {}, r"one kind.*shapes \[\(3,\)"),
        ([np.zeros((5, 4, 4)), np.zeros((3, 4, 4))], {}, "clip_length=4.*3 in .*index 1"),
        (
            [np.zeros((5, 4, 4)), np.zeros((3, 4, 4))],
            {"clip_length": None},
            "3 to 5 frames",
        ),
        ([np.full((5, 4, 4), np.nan)], {}, "In the video at index 0 of X: X contains NaN"),
        ([np.zeros((5, 4, 4))], {"clip_stride": 5}, "clip_stride=5 and clips of 4 frames"),
        ([np.zeros((4, 4, 4))], {}, "Detector needs at least 2 clips.*Got 1"),
    ],
)
def test_what_cannot_be_read(X, params, message):
    with pytest.raises(ValueError, match=message):
        read(X, min_samples=2, **params)


def test_folders_without_frames_and_files(folders, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty.*holds no frames.*Got 0 entries"):
        list_frames(tmp_path / "empty")
    with pytest.raises(ValueError, match=r"which is a file.*ffmpeg"):
        list_frames(folders[0][0] / "frame1.png")


def test_another_size_than_in_fit(folders):
    detector = VideoMOCCA(clip_length=4)
    remember(detector, folders[0], read(folders[0]))
    with pytest.raises(ValueError, match=r"\(4, 6, 8, 1\).*fitted on.*\(4, 6, 7, 1\)"):
        compare(detector, None, read([np.zeros((5, 6, 8))], like=(4, 6, 7, 1)))


def test_a_pass_decodes_each_frame_once(folders, monkeypatch):
    decoded, decode, lock = [], skocc._samples.sources._decode, threading.Lock()

    def counting_decode(item, *args):
        with lock:
            decoded.append(item)
        return decode(item, *args)

    monkeypatch.setattr(skocc._samples.sources, "_decode", counting_decode)
    clips = read(folders[0])
    assert decoded == []
    batches = ImageBatches(clips, 2, device=CPU)
    seen = torch.cat(list(batches))
    assert seen.shape == (11, 1, 4, 6, 7)
    assert len(decoded) == len(set(decoded)) == 17
    np.testing.assert_allclose(
        seen[-1, 0].numpy(), folders[1][1][1:] / np.float32(255), rtol=1e-6
    )


def test_memory_of_a_long_video_is_that_of_batches(tmp_path):
    frame = Image.fromarray(RNG.integers(0, 256, (64, 64), dtype=np.uint8))
    for index in range(3):
        frame.save(tmp_path / f"{index}.png")
    # 600 frames of 4 KB as one source; all of them are 2.4 MB, all clips 20 MB.
    files = FileImages([tmp_path / f"{index % 3}.png" for index in range(600)])
    clips = Clips(files, [600], clip_length=8)
    tracemalloc.start()
    for _ in ImageBatches(clips, 4, device=CPU):
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1e6


def test_clips_drawn_with_replacement():
    clips = Clips(ArrayImages(numbered_frames(6)), [6], clip_length=3)

    def passes():
        generator = torch.Generator().manual_seed(0)
        batches = ImageBatches(clips, 4, device=CPU, generator=generator, n_drawn=22)
        assert len(batches) == 6
        return [torch.cat(list(batches))[:, 0, 0, 0, 0].tolist() for _ in range(2)]

    first, second = passes()
    assert len(first) == 22
    assert first != second
    assert set(first) == {0, 1, 2, 3}
    assert passes() == [first, second]
