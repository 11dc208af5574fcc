import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import skocc
from skocc.__main__ import main

QUICK = ["--method", "DeepSVDD"]
for param in ["pretrain_n_epochs=1", "n_epochs=1", "device=cpu"]:
    QUICK += ["--param", param]
HALF = ["--calibration-size", "0.5", "--max-fpr", "0.1"]


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
    assert main(["fit", str(folder), *QUICK, *HALF, "--output", str(path)]) == 0
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


@pytest.mark.parametrize("cv", ["4", "loo"])
def test_fit_holds_out_each_image_once(folder, tmp_path, cv, capsys):
    path = tmp_path / "model.safetensors"
    method = [*QUICK] if cv == "4" else ["--method", "PatchSVDD", "--param", "patch_size=8"]
    command = ["fit", str(folder), *method, "--param", "n_epochs=1", "--max-fpr", "0.03"]
    assert main([*command, "--cv", cv, "--output", str(path)]) == 0
    assert "about 0.03 by 40 images held out in turn" in capsys.readouterr().err
    detector = skocc.load(path)
    assert len(detector.train_scores_) == 40
    if cv == "loo":
        assert detector.offset_ == np.sort(detector.train_scores_)[0]
        assert detector.pixel_threshold_ == detector.train_map_maxima_.max()


def test_score_prints_a_table(folder, model, capsys):
    assert main(["score", str(model), str(folder)]) == 0
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert lines[0] == "path,score,label,error"
    assert len(lines) == 41
    assert "40 images:" in shown.err


def test_rows_and_facts_for_programs(folder, model, tmp_path, capsys):
    output = tmp_path / "b.safetensors"
    fit = ["fit", str(folder), *QUICK, *HALF, "--output", str(output), "--json"]
    assert main(fit) == 0
    facts = json.loads(capsys.readouterr().out)
    detector = skocc.load(output)
    assert facts["class"] == "DeepSVDD"
    assert facts["threshold"] == detector.offset_
    assert facts["held_out_images"] + len(detector.train_scores_) == facts["images"]
    (tmp_path / "new").mkdir()
    name = "\u2028 =1\udcff.png"
    (tmp_path / "new" / name).write_bytes(b"no image")
    first = sorted(folder.glob("*.PNG"))[0]
    (tmp_path / "new" / "a.png").write_bytes(first.read_bytes())
    assert main(["score", str(output), str(tmp_path / "new" / "*"), "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    good, bad = map(json.loads, lines)
    (score,) = detector.score_samples([first])
    assert (good["score"], good["label"]) == (score, detector.predict([first])[0])
    assert good["error"] is bad["score"] is bad["label"] is None
    assert bad["path"] == str(tmp_path / "new" / name)
    assert main(["score", str(output), str(tmp_path / "new" / "*.jpg"), "--json"]) == 1
    assert "There are no images in" in capsys.readouterr().err


def test_p_values_of_images_that_were_held_out(folder, tmp_path, capsys):
    pytest.importorskip("skops")
    output = tmp_path / "tuner"
    fit = ["fit", str(folder), *QUICK, *HALF, "--output", str(output)]
    assert main([*fit, "--keep-held-out", "--verbose"]) == 0
    capsys.readouterr()
    (tmp_path / "new").mkdir()
    first = sorted(folder.glob("*.PNG"))[0]
    (tmp_path / "new" / "a.png").write_bytes(first.read_bytes())
    (tmp_path / "new" / "b.png").write_bytes(b"no image")
    tuner = skocc.load(output)
    assert len(tuner.calibration_scores_) == 20
    assert tuner.estimator.verbose == tuner.estimator_.verbose == 0
    (p_value,) = tuner.p_values([first])
    assert main(["score", str(output), str(tmp_path / "new")]) == 0
    good, bad = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert [*good] == ["path", "score", "p_value", "label", "error"]
    assert float(good["p_value"]) == p_value
    assert bad["p_value"] == bad["score"] == bad["label"] == ""
    assert main(["score", str(output), str(tmp_path / "new"), "--json"]) == 0
    good, bad = map(json.loads, capsys.readouterr().out.splitlines())
    assert (good["p_value"], bad["p_value"]) == (p_value, None)


def test_a_table_with_a_broken_file(folder, model, tmp_path, capsys):
    broken = tmp_path / "new"
    broken.mkdir()
    Image.fromarray(np.full((8, 8), 255, dtype=np.uint8)).save(broken / "a.png")
    (broken / "b.png").write_bytes(b"no image")
    table = tmp_path / "table.csv"
    assert main(["score", str(model), str(broken), "--output", str(table)]) == 0
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "2 images:" in shown.err
    assert "1 that cannot be scored" in shown.err
    read = pd.read_csv(table)
    assert read["path"].tolist() == [str(broken / "a.png"), str(broken / "b.png")]
    assert read["error"].notna().tolist() == [False, True]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--calibration-size", "0.2"], "19 are needed"),
        (["--cv", "loo"], "Got DeepSVDD"),
        (["--cv", "1"], "'cv'"),
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
    "arguments",
    [
        [],
        ["fit", ".", *QUICK],
        ["fit", ".", "--param", "x"],
        ["fit", "", *QUICK, "--output", "m.safetensors"],
        ["fit", ".", *QUICK, "--output", " "],
        ["fit", ".", "--method", "show_versions", "--output", "m.safetensors"],
        ["score", "m.safetensors", ""],
        ["score", "", "."],
    ],
)
def test_usage(arguments, capsys):
    with pytest.raises(SystemExit) as error:
        main(arguments)
    assert error.value.code == 2
    assert "usage: python -m skocc" in capsys.readouterr().err


def test_version_and_help(capsys):
    for arguments in [["--version"], ["score", "--help"], ["fit", "--help"]]:
        with pytest.raises(SystemExit) as error:
            main(arguments)
        assert error.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"skocc {skocc.__version__}\n")
    assert "unquote" in shown
    assert ", ".join(skocc.DETECTORS) in " ".join(shown.split())


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        (["image_size=(10, 12)", "boundary=soft", "nu=0.2"],
         {"image_size": (10, 12), "boundary": "soft", "nu": 0.2}),
        (["image_size=10,12", "learning_rate=1e-3", "channels=8,16"],
         {"image_size": (10, 12), "learning_rate": 1e-3, "channels": (8, 16)}),
        (["image_size=10", "milestones=1", "weight_decay=0", "channels=[8, 16]"],
         {"image_size": 10, "milestones": (1,), "weight_decay": 0, "channels": [8, 16]}),
        (["random_state=3"], {"random_state": 3}),
    ],
)  # fmt: skip
def test_values_of_parameters(folder, tmp_path, params, expected):
    path = tmp_path / "model.safetensors"
    arguments = [*HALF, "--output", str(path)]
    for param in params:
        arguments += ["--param", param]
    assert main(["fit", str(folder), *QUICK, *arguments]) == 0
    found = skocc.load(path).get_params()
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize("layers", ["features.0", "features.0,features.3"])
def test_layers_are_words(folder, tmp_path, layers):
    path = tmp_path / "model.safetensors"
    params = ["backbone=squeezenet1_1", "weights=None", "image_size=32", "device=cpu"]
    arguments = [argument for param in params for argument in ["--param", param]]
    arguments += ["--method", "ResNetKNN", "--param", f"layers={layers}", *HALF]
    assert main(["fit", str(folder), *arguments, "--output", str(path)]) == 0
    assert skocc.load(path).layers == tuple(layers.split(","))


def test_one_command_gives_one_threshold(folder, tmp_path, capsys):
    thresholds = []
    for seed in [[], ["--seed", "0"], ["--seed", "1"]]:
        path = tmp_path / "model.safetensors"
        assert main(["fit", str(folder), *QUICK, *HALF, *seed, "--output", str(path)]) == 0
        thresholds.append(skocc.load(path).offset_)
        assert f"seed {seed[1] if seed else 0};" in capsys.readouterr().err
    assert thresholds[0] == thresholds[1] != thresholds[2]


def test_destinations_are_looked_at_before_there_is_work(
    folder, model, tmp_path, monkeypatch, capsys
):
    def work(*args, **kwargs):
        raise AssertionError("too early")

    monkeypatch.setattr("skocc.__main__.ThresholdTuner", work)
    monkeypatch.setattr("skocc.__main__.score_files", work)
    for place, message in [
        (tmp_path / "no" / "such" / "m.st", "Make its folder"),
        (tmp_path, "it is a folder or device"),
        (Path("/dev/null"), "it is a folder or device"),
        (tmp_path / "file" / "m.st", "Make its folder"),
    ]:
        (tmp_path / "file").touch()
        for command in [["fit", str(folder), *QUICK], ["score", str(model), str(folder)]]:
            assert main([*command, "--output", str(place)]) == 1
            assert message in capsys.readouterr().err
    before = model.read_bytes()
    assert main(["score", str(model), str(folder), "--output", str(model)]) == 1
    assert "one of the files that are read" in capsys.readouterr().err
    assert model.read_bytes() == before


def test_rows_are_written_as_they_come(folder, model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("skocc.__main__._BATCH_SIZE", 10)
    n_calls = 0

    def stumble(detector, X):
        nonlocal n_calls
        n_calls += 1
        if n_calls == 3:
            raise KeyboardInterrupt
        return np.zeros(len(X))

    monkeypatch.setattr(skocc.DeepSVDD, "score_samples", stumble)
    table = tmp_path / "table.csv"
    assert main(["score", str(model), str(folder), "--output", str(table)]) == 130
    assert len(table.read_text().splitlines()) == 21


NAMES = [
    b"=1+1.png", b"+1.png", b"-1.png", b"@a.png", b"a\rb.png", b"a\nb.png", b"50%.png",
    b"%0A.png", b"caf\xe9.png", "caf\u00e9 \u4e2d.png".encode(), b'"a,b".png',
    b"\x1b[31m.png", "\u202egnp.png".encode(), b"a b.png", b"'.png",
]  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_names_are_escaped_and_can_be_had_back(model, tmp_path, encoding, monkeypatch):
    for name in NAMES:
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:
            Image.new("L", (8, 8)).save(file, "png")
    (tmp_path / "broken\r.png").write_text("no image")
    monkeypatch.chdir(tmp_path)
    printed = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(printed, encoding=encoding))
    assert main(["score", str(model), "."]) == 0
    lines = printed.getvalue().decode(encoding).split("\n")
    assert len(lines) == len(NAMES) + 3
    assert all(line.isprintable() for line in lines)
    rows = list(csv.DictReader(lines))
    names = [os.fsencode(unquote(r["path"], errors="surrogateescape")) for r in rows]
    assert sorted(names) == sorted([*NAMES, b"broken\r.png"])
    assert not any(row["path"].startswith(tuple("=+-@")) for row in rows)
    failed = [row for row in rows if row["error"]]
    assert [row["path"] for row in failed] == ["broken%0D.png"]
    assert r"The file 'broken\r.png' cannot be read" in failed[0]["error"]
    assert (failed[0]["score"], failed[0]["label"]) == ("", "")
    assert all(float(row["score"]) and row["label"] in ("1", "-1") for row in rows[2:4])


def test_no_traceback_when_nobody_reads(model, folder):
    """In a process of its own, where ``python -m skocc`` is the command."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as pipe:
        done = subprocess.run(
            [sys.executable, "-m", "skocc", "score", model, folder],
            check=False,
            stdout=pipe,
            stderr=subprocess.PIPE,
            cwd=Path(skocc.__file__).parents[1],
        )
    assert (done.returncode, done.stderr) == (141, b"")


def test_pandas_is_not_needed(folder, model, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert main(["score", str(model), str(folder)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 41


def test_traces_of_other_systems_are_passed_over(folder, model, tmp_path, capsys):
    (tmp_path / "more").mkdir()
    for name in ["1.png", "more/2.png"]:
        Image.new("L", (8, 8)).save(tmp_path / name)
    for name in ["._1.png", "more/._2.png", ".hidden/3.png"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("no image")
    assert main(["score", str(model), str(tmp_path)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_nothing_that_can_be_scored(model, tmp_path, capsys):
    (tmp_path / "1.png").write_text("no image")
    os.mkfifo(tmp_path / "2.png")
    assert main(["score", str(model), str(tmp_path)]) == 1
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 3
    assert "None of the files can be scored" in shown.err


@pytest.fixture
def classes(folder, tmp_path):
    """Make folders of images by their names."""

    def make(*names):
        for name in names:
            (tmp_path / "root" / name).mkdir(parents=True)
            for path in folder.glob("*.PNG"):
                (tmp_path / "root" / name / path.name).write_bytes(path.read_bytes())
        return tmp_path / "root"

    return make


def fit(root, *arguments):
    output = root.parent / "model.safetensors"
    status = main(["fit", str(root), *QUICK, *HALF, *arguments, "--output", str(output)])
    return len(skocc.load(output).train_scores_) if status == 0 else None


def test_of_mvtecs_layout_the_training_images_are_taken(classes, capsys):
    root = classes("train/good", "test/good", "test/crack", "ground_truth/crack")
    assert fit(root) == 13
    assert "fitting on the 26 images in its train/good" in capsys.readouterr().err


@pytest.mark.parametrize(
    "names",
    [
        ["good", "crack"], ["OK", "NG"], ["a/train/good", "b/train/good", "b/test/cut"],
        ["test/good"], ["a", "b/Ground_Truth"], [".", "good"], ["a/good", "a/scratched"],
    ],
)  # fmt: skip
def test_what_is_normal_must_be_said(classes, names, capsys):
    root = classes(*names)
    assert fit(root) is None
    shown = capsys.readouterr().err
    assert "not said which images" in shown
    assert "--normal good" in shown
    assert str(Path(names[-1])) in shown
    assert fit(root, "--normal", "no_such") is None


def test_what_is_normal_can_be_said(classes):
    root = classes("good/day", "good/night", "crack")
    assert fit(root, "--normal", "good") == 26


@pytest.mark.parametrize("names", [["good"], ["2023", "2024/may"], [".", "goods"]])
def test_other_folders_are_all_fitted_on(classes, names):
    assert fit(classes(*names)) == 13 * len(names)


def test_bars_where_they_are_asked_for(folder, tmp_path, progress_labels):
    path, table = tmp_path / "model.safetensors", tmp_path / "table.csv"
    fit = ["fit", str(folder), *QUICK, *HALF, "--output", str(path)]
    assert main(fit) == 0
    assert not progress_labels
    assert main([*fit, "--verbose"]) == 0
    assert {"DeepSVDD: training", "DeepSVDD: scores"} < progress_labels
    progress_labels.clear()
    detector = skocc.load(path)
    assert detector.verbose == 0
    skocc.save(detector.set_params(verbose=1), path)
    score = ["score", str(path), str(folder), "--output", str(table)]
    assert main(score) == 0
    assert not progress_labels
    assert main([*score, "--verbose"]) == 0
    assert progress_labels == {"score: files"}
