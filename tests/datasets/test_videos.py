import numpy as np
import pytest
from PIL import Image

from skocc import VideoMOCCA
from skocc.datasets import load_video_folders


def write_frames(folder, n_frames, suffix):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(n_frames)
    for index in range(1, n_frames + 1):
        pixels = rng.integers(rng.integers(50, 256), size=(16, 16)).astype(np.uint8)
        # Without leading zeros: the order is natural.
        Image.fromarray(pixels).save(folder / f"{index}{suffix}")


@pytest.fixture
def shanghaitech(tmp_path):
    for name, n_frames in [("01_001", 12), ("01_002", 11)]:
        write_frames(tmp_path / "training" / "frames" / name, n_frames, ".jpg")
    (tmp_path / "testing" / "test_frame_mask").mkdir(parents=True)
    for name, n_frames in [("01_0014", 11), ("02_0128", 12)]:
        write_frames(tmp_path / "testing" / "frames" / name, n_frames, ".jpg")
        mask = np.zeros(n_frames, np.uint8)
        mask[3 : 3 + n_frames - 10] = 1
        np.save(tmp_path / "testing" / "test_frame_mask" / f"{name}.npy", mask)
    return tmp_path


@pytest.fixture
def ucsd(tmp_path):
    for name, n_frames in [("Train001", 10), ("Train002", 11), ("Train003", 12)]:
        write_frames(tmp_path / "Train" / name, n_frames, ".tif")
    for name, n_frames in [("Test001", 12), ("Test002", 10)]:
        write_frames(tmp_path / "Test" / name, n_frames, ".tif")
        (tmp_path / "Test" / f"{name}_gt").mkdir()
        for index in range(1, n_frames + 1):
            mask = np.zeros((16, 16), bool)
            mask[3, 4] = index >= n_frames - 1
            Image.fromarray(mask).save(tmp_path / "Test" / f"{name}_gt" / f"{index}.bmp")
    (tmp_path / "Test" / ".DS_Store").touch()
    return tmp_path


def anomalous(videos):
    return [np.flatnonzero(labels == -1).tolist() for labels in videos.test_frame_labels]


def test_shanghaitech(shanghaitech):
    videos = load_video_folders(str(shanghaitech), "shanghaitech")
    frames = shanghaitech / "training" / "frames"
    assert videos.train_videos == [frames / "01_001", frames / "01_002"]
    frames = shanghaitech / "testing" / "frames"
    assert videos.test_videos == [frames / "01_0014", frames / "02_0128"]
    assert [len(labels) for labels in videos.test_frame_labels] == [11, 12]
    assert anomalous(videos) == [[3], [3, 4]]
    assert set(np.concatenate(videos.test_frame_labels)) == {1, -1}


def test_shanghaitech_frames_beside_films(shanghaitech):
    training = shanghaitech / "training"
    (training / "frames").rename(training / "videos")
    (training / "videos" / "01_001.avi").touch()
    videos = load_video_folders(shanghaitech, "shanghaitech")
    assert [video.parent.name for video in videos.train_videos] == ["videos", "videos"]


def test_ucsd_masks(ucsd):
    videos = load_video_folders(ucsd, "ucsd")
    assert [video.name for video in videos.train_videos] == [
        "Train001",
        "Train002",
        "Train003",
    ]
    assert [video.name for video in videos.test_videos] == ["Test001", "Test002"]
    # In the order of the names as text, 10 to 12 would come before 2.
    assert anomalous(videos) == [[10, 11], [8, 9]]


def test_ucsd_file_comes_first(ucsd):
    (ucsd / "Test" / "UCSDped1.m").write_text(
        "% TestVideoFile{end+1}.gt_frame = [1:3];\n"
        "TestVideoFile = {};\n"
        "TestVideoFile{end+1}.gt_frame = [2:4, 7 : 8 12];\n"
        "TestVideoFile{end+1}.gt_frame = [10:10];\n"
    )
    assert anomalous(load_video_folders(ucsd, "ucsd")) == [[1, 2, 3, 6, 7, 11], [9]]


def test_video_mocca_takes_them(ucsd):
    videos = load_video_folders(ucsd, "ucsd")
    detector = VideoMOCCA(
        clip_length=8, clip_stride=8, image_size=16, n_epochs=0, batch_size=4,
        device="cpu", random_state=0,
    )  # fmt: skip
    detector.fit(videos.train_videos)
    assert detector.score_samples(videos.test_videos).shape == (2,)


def test_masks_that_are_no_images_are_named(ucsd):
    mask = ucsd / "Test" / "Test002_gt" / "3.bmp"
    mask.write_bytes(mask.read_bytes()[:50])
    with pytest.raises(ValueError, match=r"Test002_gt/3\.bmp' cannot be read as an image"):
        load_video_folders(ucsd, "ucsd")


def test_unknown_layout(tmp_path):
    with pytest.raises(ValueError, match="Got layout='avenue'"):
        load_video_folders(tmp_path, "avenue")


@pytest.mark.parametrize("layout", ["shanghaitech", "ucsd"])
def test_missing_folders(tmp_path, layout):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_video_folders(tmp_path, layout)


def test_films_are_no_frames(shanghaitech):
    frames = shanghaitech / "training" / "frames"
    frames.rename(shanghaitech / "elsewhere")
    (shanghaitech / "training" / "videos").mkdir()
    (shanghaitech / "training" / "videos" / "01_001.avi").touch()
    with pytest.raises(FileNotFoundError, match="holds no folder of frames"):
        load_video_folders(shanghaitech, "shanghaitech")


def test_empty_video(shanghaitech):
    (shanghaitech / "training" / "frames" / "01_003").mkdir()
    with pytest.raises(ValueError, match=r"01_003' has no frames. Got 0 other"):
        load_video_folders(shanghaitech, "shanghaitech")


def test_shanghaitech_ground_truth_that_does_not_fit(shanghaitech):
    mask = shanghaitech / "testing" / "test_frame_mask" / "02_0128.npy"
    np.save(mask, np.zeros(13))
    with pytest.raises(ValueError, match=r"Got 12 frames in .* values of shape \(13,\)"):
        load_video_folders(shanghaitech, "shanghaitech")
    for content in [b"", b"\x93NUMPY\1\0", b"PK\3\4", b"no array"]:
        mask.write_bytes(content)
        with pytest.raises(
            ValueError, match=r"02_0128' cannot be read. Got .*02_0128\.npy"
        ):
            load_video_folders(shanghaitech, "shanghaitech")
    mask.unlink()
    with pytest.raises(ValueError, match="02_0128' has no ground truth"):
        load_video_folders(shanghaitech, "shanghaitech")


def test_ucsd_ground_truth_that_does_not_fit(ucsd):
    file = ucsd / "Test" / "UCSDped2.m"
    file.write_text("TestVideoFile{end+1}.gt_frame = [1:2];\n")
    with pytest.raises(ValueError, match=r"Got 1 lines with gt_frame in .* and 2 folders"):
        load_video_folders(ucsd, "ucsd")
    file.write_text("gt_frame = [1:2];\ngt_frame = [8:11];\n")
    with pytest.raises(ValueError, match=r"Got '8:11' in .* for 10 frames"):
        load_video_folders(ucsd, "ucsd")
    (ucsd / "Test" / "UCSDped1.m").touch()
    with pytest.raises(ValueError, match="more than one ground truth"):
        load_video_folders(ucsd, "ucsd")
    for path in (ucsd / "Test").glob("*.m"):
        path.unlink()
    (ucsd / "Test" / "Test001_gt" / "1.bmp").unlink()
    with pytest.raises(ValueError, match=r"Got 12 frames in .* values of shape \(11,\)"):
        load_video_folders(ucsd, "ucsd")
    (ucsd / "Test" / "Test002_gt").rename(ucsd / "elsewhere")
    with pytest.raises(FileNotFoundError, match="Test002' has no ground truth"):
        load_video_folders(ucsd, "ucsd")
