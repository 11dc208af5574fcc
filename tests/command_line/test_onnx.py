import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import skocc
from skocc.__main__ import main
from tests.quick import quick

for name in ("onnx", "onnxruntime", "onnxscript"):
    pytest.importorskip(name, reason="needs the extra onnx")
export = pytest.importorskip("skocc._export.onnx")
pytestmark = pytest.mark.skipif(
    torch.__version__ < export._TORCH, reason=f"needs torch {export._TORCH}"
)


def write_images(folder, n, *, seed, dtype=np.uint8):
    """Write gray images that differ, and return their paths."""
    folder.mkdir()
    noise = np.random.default_rng(seed).random((n, 24, 20))
    stripes = 0.5 + 0.3 * np.sin(np.arange(24) / 2)[:, None]
    images = (np.iinfo(dtype).max * (0.7 * stripes + 0.3 * noise)).astype(dtype)
    for index, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{index:02d}.png")
    return sorted(folder.glob("*.png"))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A model with heat maps, its exported file, and a folder of new images."""
    folder = tmp_path_factory.mktemp("onnx")
    paths = write_images(folder / "normal", 40, seed=0)
    detector = quick(skocc.ConvAE, image_size=16).fit(paths)
    skocc.save(detector, folder / "model.safetensors")
    write_images(folder / "new", 18, seed=1)
    command = ["export", folder / "model.safetensors", folder / "model.onnx"]
    assert main([*map(str, command)]) == 0
    return folder


def validate(folder, *options, model="model.safetensors", images="new", file="model.onnx"):
    paths = (folder / file, folder / model, folder / images)
    return main(["validate", *map(str, paths), *options])


def test_export_says_what_it_has_written(made, capsys):
    path = made / "again.onnx"
    command = ["export", str(made / "model.safetensors"), str(path), "--json"]
    assert main([*command, "--dtype", "float32"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {"path": str(path), "bytes": path.stat().st_size, "class": "ConvAE"}
    # Numbers from 0 to 1 have the scores of the pixels that they are of.
    assert validate(made, file="again.onnx") == 0


def test_a_file_is_validated_against_its_model(made, capsys):
    assert validate(made) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert "images: 18\n" in shown.out
    assert "labels that differ: 0\n" in shown.out
    assert validate(made, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["agrees"] is True
    assert 0 <= found["score_difference"] < 1e-5
    assert 0 <= found["map_difference"] < 1e-5
    assert found["milliseconds"] > 0
    assert found["bytes"] == (made / "model.onnx").stat().st_size


@pytest.mark.parametrize("what", ["scores", "labels"])
def test_a_file_of_another_model_has_status_1(made, what, capsys):
    detector = skocc.load(made / "model.safetensors")
    if what == "scores":
        with torch.no_grad():
            detector.network_.output.bias += 0.01
    else:  # of the same scores
        new = detector.score_samples(sorted((made / "new").glob("*.png")))
        detector.offset_ = float(np.median(new)) + 1e-9
        assert (new < detector.offset_).any()
        assert not (new < skocc.load(made / "model.safetensors").offset_).all()
    skocc.save(detector, made / "other.safetensors")
    assert validate(made, "--json", model="other.safetensors") == 1
    shown = capsys.readouterr()
    assert "does not do what" in shown.err
    found = json.loads(shown.out)
    assert found["agrees"] is False
    assert (found["score_difference"] > 1e-4) == (what == "scores")
    assert found["label_differences"] > 0 or what == "scores"


def test_errors(made, tmp_path, capsys):
    def error():
        return capsys.readouterr().err

    assert validate(made, file="model.safetensors") == 1
    assert "cannot be read as a detector" in error()
    detector = quick(skocc.DeepSVDD, image_size=16)
    detector.fit(sorted((made / "normal").glob("*.png")))
    skocc.save(detector, made / "svdd.safetensors")
    assert validate(made, model="svdd.safetensors") == 1
    assert "its class is 'ConvAE'" in error()
    model = str(made / "model.safetensors")
    assert main(["export", model, model]) == 1
    assert "one of the files that are read" in error()
    write_images(made / "deep", 2, seed=2, dtype=np.uint16)
    assert validate(made, images="deep") == 1
    assert "dtype='float32'" in error()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_range_of_intensities(dtype, tmp_path):
    paths = write_images(tmp_path / "normal", 40, seed=0)
    detector = quick(skocc.DeepSVDD, image_size=16, intensity_range=(20, 180))
    skocc.save(detector.fit(paths), tmp_path / "model.safetensors")
    write_images(tmp_path / "new", 5, seed=1)
    command = ["export", tmp_path / "model.safetensors", tmp_path / "model.onnx"]
    assert main([*map(str, command), "--dtype", dtype]) == 0
    assert validate(tmp_path) == 0


@pytest.mark.slow
def test_the_frames_of_a_video(tmp_path):
    frames = [write_images(tmp_path / f"video{i}", 8, seed=i) for i in range(6)]
    # The soft sphere of a network that has hardly learned is a difference of large numbers.
    detector = quick(skocc.VideoMOCCA, clip_length=4, image_size=16, boundary="hard")
    detector.fit(frames)
    skocc.save(detector, Path(tmp_path) / "model.safetensors")
    command = ["export", tmp_path / "model.safetensors", tmp_path / "model.onnx"]
    assert main([*map(str, command)]) == 0
    write_images(tmp_path / "new", 7, seed=9)
    assert validate(tmp_path) == 0
