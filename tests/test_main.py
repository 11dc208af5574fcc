import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import skocc
from skocc.__main__ import main

QUICK = ["--method", "DeepSVDD"]
for name, value in {
    "pretrain_n_epochs": 1, "n_epochs": 1, "random_state": 0, "device": "cpu",
}.items():  # fmt: skip
    QUICK += ["--param", f"{name}={value}"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Forty normal images, some of them in a folder within."""
    folder = tmp_path_factory.mktemp("normal")
    (folder / "more").mkdir()
    images = np.random.default_rng(0).integers(0, 100, (40, 8, 8), dtype=np.uint8)
    for index, image in enumerate(images):
        within = folder / "more" if index % 3 == 0 else folder
        Image.fromarray(image).save(within / f"{index:02d}.PNG")
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def model(folder):
    path = folder.parent / "model.safetensors"
    sizes = ["--calibration-size", "0.5", "--false-alarm-rate", "0.1"]
    assert main(["fit", str(folder), *QUICK, *sizes, "--output", str(path)]) == 0
    return path


def test_fit_sets_a_threshold_from_images_held_out(folder, model):
    detector = skocc.load(model)
    assert (detector.n_epochs, detector.device) == (1, "cpu")
    assert len(detector.train_scores_) == 20
    files = sorted(folder.rglob("*.PNG"))
    scores = np.sort(detector.score_samples(files))
    # The second lowest of 20 held-out scores, 0.1 * 21 rounded down.
    assert np.isclose(scores, detector.offset_, rtol=1e-6).any()
    n_below = (scores < detector.offset_ - 1e-9).sum()
    assert 1 <= n_below <= 12


def test_score_prints_a_table(folder, model, capsys):
    assert main(["score", str(model), str(folder)]) == 0
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert lines[0] == "path,score,label,error"
    assert len(lines) == 41
    assert "40 images:" in shown.err


def test_in_a_process_of_its_own(folder, model, tmp_path):
    broken = tmp_path / "new"
    broken.mkdir()
    Image.fromarray(np.full((8, 8), 255, dtype=np.uint8)).save(broken / "a.png")
    (broken / "b.png").write_bytes(b"no image")
    table = tmp_path / "table.csv"
    command = [sys.executable, "-m", "skocc", "score", model, broken, "--output", table]
    done = subprocess.run(
        command,
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(skocc.__file__).parents[1],
    )
    assert done.stdout == ""
    assert "2 images:" in done.stderr
    assert "1 that cannot be scored" in done.stderr
    read = pd.read_csv(table)
    assert read["path"].tolist() == [str(broken / "a.png"), str(broken / "b.png")]
    assert read["error"].notna().tolist() == [False, True]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--calibration-size", "0.2"], "19 are needed"),
        (["--param", "no_such=1"], "no_such"),
        (["--param", "n_epochs=many", "--calibration-size", "0.5"], "n_epochs"),
    ],
)
def test_errors_of_fit(folder, tmp_path, arguments, message, capsys):
    output = tmp_path / "model.safetensors"
    assert main(["fit", str(folder), *QUICK, *arguments, "--output", str(output)]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("skocc fit: ")
    assert message in shown
    assert not output.exists()


def test_errors_of_folders(model, tmp_path, capsys):
    assert main(["score", str(model), str(tmp_path)]) == 1
    assert "There are no images in" in capsys.readouterr().err
    assert main(["score", str(model), str(tmp_path / "nowhere")]) == 1
    assert "is no folder" in capsys.readouterr().err
    assert main(["score", str(tmp_path / "no.safetensors"), str(tmp_path)]) == 1
    assert "cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [[], ["fit", ".", *QUICK], ["fit", ".", "--param", "x"]]
)
def test_usage(arguments, capsys):
    with pytest.raises(SystemExit) as error:
        main(arguments)
    assert error.value.code == 2
    assert "usage: python -m skocc" in capsys.readouterr().err


def test_values_of_parameters(folder, tmp_path):
    path = tmp_path / "model.safetensors"
    arguments = ["--calibration-size", "0.5", "--output", str(path)]
    for param in ["image_size=(10, 12)", "boundary=soft", "nu=0.2"]:
        arguments += ["--param", param]
    assert main(["fit", str(folder), *QUICK, *arguments]) == 0
    detector = skocc.load(path)
    assert (detector.image_size, detector.boundary, detector.nu) == ((10, 12), "soft", 0.2)
