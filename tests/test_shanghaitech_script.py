"""The script that runs VideoMOCCA on ShanghaiTech, on made folders of its layouts."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "reproduction"
SMALL = ["--image-size", 16, 16, "--device", "cpu", "--params", "clip_length=4",
         "n_epochs=1", "n_clips=8", "embedding_dim=8"]  # fmt: skip


@pytest.fixture
def modules(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return [importlib.import_module(name) for name in ("shanghaitech", "sprite_videos")]


def write(folder, frames):
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames):
        Image.fromarray(frame.squeeze()).save(folder / f"{number:03d}.png")


def make_root(folder, sprites):
    """Write two scenes, each with two videos to train on, and one to test."""
    (folder / "testing" / "test_frame_mask").mkdir(parents=True)
    for scene in (1, 2):
        for number in (1, 2):
            video, _ = sprites.make_video(12, 10 * scene + number)
            write(folder / "training" / "frames" / f"0{scene}_00{number}", video)
        video, is_anomaly = sprites.make_video(60, 100 + scene, "against")
        assert 0 < is_anomaly.sum() < 60
        write(folder / "testing" / "frames" / f"0{scene}_0003", video)
        mask = folder / "testing" / "test_frame_mask" / f"0{scene}_0003.npy"
        np.save(mask, is_anomaly.astype(np.int64))
    return folder


def call(script, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["shanghaitech.py", *map(str, arguments)])
    return script.main()


@pytest.mark.filterwarnings("ignore:.*collapsed")
def test_scenes_and_going_on(modules, tmp_path, monkeypatch, capsys):
    pytest.importorskip("cv2")
    script, sprites = modules
    root, output = make_root(tmp_path / "root", sprites), tmp_path / "out"
    arguments = [root, "--output", output, *SMALL]
    found = call(script, monkeypatch, *arguments)
    assert found.keys() == {"all", "01", "02"}
    assert all(0 <= value <= 1 for value in found.values())
    assert len([*(output / "frames").iterdir()]) == 6
    with Image.open(output / "frames" / "01_0003" / "000.png") as frame:
        assert (np.asarray(frame) == 0).mean() > 0.2  # of the background nothing is left
    assert "all,soft,0," in capsys.readouterr().out
    # Scores are higher for what is normal.
    videos = script.load_video_folders(root, "shanghaitech")
    options = type("Options", (), {"layout": "shanghaitech", "boundary": "hard", "seed": 0})
    assert set(script.report(videos, videos.test_frame_labels, options).values()) == {1}
    # What is there is not done again: neither frames, nor the training, nor scores.
    monkeypatch.delattr(script.BackgroundRemoval, "fit")
    monkeypatch.delattr(script.skocc.VideoMOCCA, "fit")
    (output / "scores_soft_0" / "01_0003.npy").unlink()
    assert call(script, monkeypatch, *arguments) == found


@pytest.mark.filterwarnings("ignore:.*collapsed")
def test_videos_with_their_background(modules, tmp_path, monkeypatch):
    script, sprites = modules
    root, output = make_root(tmp_path / "root", sprites), tmp_path / "out"
    arguments = ["--output", output, "--no-background", "--boundary", "hard", *SMALL]
    found = call(script, monkeypatch, root, *arguments)
    assert found.keys() == {"all", "01", "02"}
    assert not (output / "frames").exists()
    assert (output / "hard_0.safetensors").is_file()
