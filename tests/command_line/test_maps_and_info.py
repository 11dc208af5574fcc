import json

import numpy as np
import pytest
from PIL import Image
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

import skocc
from skocc.__main__ import main
from skocc.datasets import make_textures, stain_defects
from skocc.model_selection import ThresholdTuner

pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A fitted detector of textures, in a file."""
    images = (255 * make_textures(14, size=32, random_state=0)).astype(np.uint8)
    detector = skocc.PatchSVDD(
        patch_size=16, n_epochs=0, contamination=0.2, device="cpu", random_state=0
    ).fit(images[:12])
    path = tmp_path_factory.mktemp("models") / "a.safetensors"
    skocc.save(detector, path)
    return path


@pytest.fixture
def folder(tmp_path):
    """Two images and two that are stained, one in a folder within, and a broken file."""
    images = (255 * make_textures(4, size=32, random_state=1)).astype(np.uint8)
    images[2:], masks = stain_defects(images[2:], random_state=0)
    places = ("a.png", "a.bmp", "b.png", "more/c.png")
    for image, place in zip(images, places, strict=True):
        path = tmp_path / "in" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    (tmp_path / "in" / "d.png").write_bytes(b"no image")
    np.save(tmp_path / "masks.npy", masks)
    return tmp_path / "in"


def test_maps_are_drawn_over_images(model, folder, tmp_path, capsys):
    command = ["maps", str(model), str(folder), "--output", str(tmp_path / "out")]
    assert main(command) == 0
    errors = capsys.readouterr().err
    assert "5 images: 4 drawn, 1 that cannot be read" in errors
    assert "d.png" in errors
    found = sorted(
        str(p.relative_to(tmp_path / "out")) for p in tmp_path.rglob("out/**/*.png")
    )
    assert found == ["a.bmp.png", "a.png.png", "b.png.png", "more/c.png.png"]
    image = np.asarray(Image.open(folder / "b.png"), dtype=int)
    picture = np.asarray(Image.open(tmp_path / "out" / "b.png.png"), dtype=int)
    assert picture.shape == (*image.shape, 3)
    detector = skocc.load(model)
    (heat,) = detector.anomaly_map([folder / "b.png"])
    # Where the map is at its median or below, the image is as it was; a red line marks
    # what is above the threshold.
    cold = heat <= np.median(heat)
    np.testing.assert_array_equal(picture[cold], np.repeat(image[cold][:, None], 3, 1))
    red = (picture == (255, 0, 0)).all(axis=2)
    assert red.any() == (heat > detector.pixel_threshold_).any()
    assert (heat[red] > detector.pixel_threshold_).all()


def test_only_anomalous_images(model, folder, tmp_path, capsys):
    command = ["maps", str(model), str(folder), "--output", str(tmp_path / "out")]
    assert main([*command, "--anomalous"]) == 0
    files = [folder / name for name in ("a.png", "a.bmp", "b.png", "more/c.png")]
    labels = skocc.load(model).predict(files)
    assert f"{(labels == -1).sum()} drawn" in capsys.readouterr().err
    drawn = {path.name for path in tmp_path.rglob("out/**/*.png")}
    expected = {f"{p.name}.png" for p, k in zip(files, labels, strict=True) if k == -1}
    assert drawn == expected


def test_what_was_drawn_for_programs(model, folder, tmp_path, capsys):
    pattern = str(folder / "**" / "*.png")
    command = ["maps", str(model), pattern, "--output", str(tmp_path / "out"), "--json"]
    assert main(command) == 0
    found = json.loads(capsys.readouterr().out)
    names = ["a.png.png", "b.png.png", "more/c.png.png"]
    assert sorted(found["drawn"]) == [str(tmp_path / "out" / name) for name in names]
    assert found["images"] == 4
    ((path, error),) = found["errors"].items()
    assert path == str(folder / "d.png")
    assert "d.png" in error
    command[4] = str(folder / "out")
    assert main(command) == 1
    assert "within the folder that is read" in capsys.readouterr().err


def test_maps_that_cannot_be_drawn(model, folder, tmp_path, capsys):
    assert main(["maps", str(model), str(folder), "--output", str(folder / "out")]) == 1
    assert "within the folder that is read" in capsys.readouterr().err
    images = np.random.default_rng(0).random((8, 8, 8))
    other = skocc.DeepSVDD(pretrain_n_epochs=0, n_epochs=1, device="cpu").fit(images)
    skocc.save(other, tmp_path / "b.safetensors")
    command = ["maps", str(tmp_path / "b.safetensors"), str(folder)]
    assert main([*command, "--output", str(tmp_path / "out")]) == 1
    assert "Heat maps need a method that has them" in capsys.readouterr().err
    for path in folder.rglob("*.[pb][nm][gp]"):
        path.write_bytes(b"no image")
    assert main(["maps", str(model), str(folder), "--output", str(tmp_path / "out")]) == 1
    assert "None of the files can be read" in capsys.readouterr().err


def test_info_says_what_is_in_a_file(model, capsys):
    assert main(["info", str(model), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    detector = skocc.load(model)
    assert facts["class"] == "PatchSVDD"
    assert facts["parameters"] == {
        "patch_size": 16, "n_epochs": 0, "contamination": 0.2, "device": "cpu",
        "random_state": 0,
    }  # fmt: skip
    assert facts["training_images"] == 12
    assert facts["image_shape"] == [32, 32, 1]
    assert facts["offset"] == detector.offset_
    assert facts["pixel_threshold"] == detector.pixel_threshold_
    is_flagged = detector.train_scores_ < detector.offset_
    assert facts["flagged_training_images"] == is_flagged.mean() > 0
    assert facts["versions"]["skocc"] == skocc.__version__
    assert main(["info", str(model)]) == 0
    text = capsys.readouterr().out
    assert "class " in text
    assert "patch_size=16" in text
    assert main(["info", str(model.parent / "missing")]) == 1


def test_info_of_a_pipeline_with_a_threshold(tmp_path, capsys):
    pytest.importorskip("skops")
    rows = np.random.default_rng(0).random((20, 30)).astype(np.float32)
    short = skocc.DeepSVDD(pretrain_n_epochs=0, n_epochs=1, device="cpu", random_state=0)
    tuner = ThresholdTuner(make_pipeline(MinMaxScaler(), short), max_fpr=0.3).fit(rows)
    skocc.save(tuner, tmp_path / "tuner")
    assert main(["info", str(tmp_path / "tuner"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["class"], facts["held_out_images"]) == ("ThresholdTuner", 4)
    assert facts["parameters"] == {"estimator": "Pipeline", "max_fpr": 0.3}
    (pipeline,) = facts["within"]
    assert [part["class"] for part in pipeline["within"]] == ["MinMaxScaler", "DeepSVDD"]
    assert pipeline["within"][1]["training_images"] == 16
    assert facts["versions"]["skocc"] == skocc.__version__
    assert main(["info", str(tmp_path / "tuner")]) == 0


def test_info_of_an_ensemble_and_of_a_network_of_ones_own(tmp_path, capsys):
    images = np.random.default_rng(0).random((8, 8, 8)).astype(np.float32)
    short = skocc.DeepSVDD(pretrain_n_epochs=0, n_epochs=1, device="cpu", random_state=0)
    ensemble = skocc.model_selection.DetectorEnsemble([("a", short)]).fit(images)
    skocc.save(ensemble, tmp_path / "a.safetensors")
    assert main(["info", str(tmp_path / "a.safetensors"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["class"] == "DetectorEnsemble"
