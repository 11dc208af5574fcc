"""The scripts of Patch SVDD's and MOCCA's ablations, on a made folder of tiles."""

import csv
import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skocc.datasets import load_mvtec_layout, make_defects, make_textures

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "reproduction"
SMALL = ["--size", "32", "--max-bank-mib", "0.05", "--device", "cpu", "--quick"]


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("magnetic_tile_patches")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Return a folder with six tiles to train on, three others and three with a defect."""
    root = tmp_path_factory.mktemp("tiles") / "magnetic_tile"
    normal = np.uint8(255 * make_textures(9, size=32, random_state=0))
    broken, masks = make_defects(normal[6:], random_state=0)
    parts = {"train/good": normal[:6], "test/good": normal[6:], "test/hole": broken}
    parts["ground_truth/hole"] = np.uint8(255 * masks)
    for part, images in parts.items():
        (root / part).mkdir(parents=True)
        for number, image in enumerate(images):
            suffix = "_mask" if part.startswith("ground") else ""
            Image.fromarray(image).save(root / part / f"{number:03}{suffix}.png")
    return root.parent


def test_tiles_with_made_defects(root, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    script = importlib.import_module("made_tiles")
    sizes = ["--n-train", "3", "--n-each", "1"]
    argv = ["made_tiles.py", str(root), str(tmp_path / "out"), *sizes]
    monkeypatch.setattr(sys, "argv", argv)
    script.main()
    made = load_mvtec_layout(tmp_path / "out" / "magnetic_tile")
    assert len(made.train_paths) == 3
    assert sorted(made.test_defects) == ["good", "scratch", "twist"]
    for path, mask in zip(made.test_paths, made.test_masks, strict=True):
        pixels = np.asarray(Image.open(path))
        assert pixels.shape == (256, 256)
        if mask is not None:
            assert 0 < np.asarray(Image.open(mask)).mean() < 0.02 * 255


@pytest.fixture
def rows_of(script, root, tmp_path, monkeypatch):
    def run(*arguments, small=SMALL, script=script):
        output = tmp_path / "rows.csv"
        argv = ["script", "--data", root, "--output", output, *small, *arguments]
        monkeypatch.setattr(sys, "argv", [str(part) for part in argv])
        script.main()
        with output.open(newline="") as file:
            return list(csv.DictReader(file))

    return run


def test_lines_of_each_scale(rows_of, capsys):
    rows = rows_of("--scales", "--set", "objective=svdd", "n_epochs=1", "strides=2,4")
    assert [row["map"] for row in rows] == ["product", "small", "big", "sum", "max"]
    assert {row["setting"] for row in rows} == {
        "quick, objective=svdd, n_epochs=1, strides=(2, 4)"
    }
    values = [float(row["pixel AUROC"]) for row in rows]
    assert all(0 < value <= 1 for value in values)
    assert len(set(values)) > 1
    rows_of(
        "--scales", "--seed", "1", "--set", "objective=svdd", "n_epochs=1", "strides=2,4"
    )
    capsys.readouterr()
    rows_of("--table")
    table = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [row["map"] for row in table] == [row["map"] for row in rows]
    assert {row["seeds"] for row in table} == {"2"}
    assert all(" ± " in row["image AUROC"] for row in table)


@pytest.mark.parametrize(
    ("arguments", "method"),
    [
        (["--set", "n_epochs=1"], "PatchSVDD"),
        (["--control", "random"], "PatchSVDD, random encoder"),
        (["--control", "raw"], "raw patches"),
    ],
)
def test_controls(rows_of, arguments, method):
    (row,) = rows_of(*arguments)
    assert row["method"] == method
    assert 0 < float(row["image AUROC"]) <= 1


def test_embedding_of_places(rows_of, tmp_path):
    rows_of("--set", "n_epochs=1", "--embeddings", tmp_path / "tsne.csv")
    with (tmp_path / "tsne.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    places = {(float(row["row"]), float(row["column"])) for row in rows}
    assert len(rows) == 3 * 25  # three images, patches of 16 pixels every 4
    assert places == {(i / 2 - 1, j / 2 - 1) for i in range(5) for j in range(5)}
    assert np.ptp([float(row["x"]) for row in rows]) > 0


def test_published_settings_are_parameters(script):
    detector = script.PatchSVDD(**script.PUBLISHED)
    steps = detector.n_epochs * detector.n_pairs / detector.batch_size * 8
    assert steps == pytest.approx(299 * 100, rel=1e-3)  # draws of an image
    assert detector.n_pairs * detector.batch_size == 64


@pytest.mark.filterwarnings("ignore:.*collapsed")
def test_sets_of_layers_from_one_autoencoder(rows_of):
    script = importlib.import_module("magnetic_tile_mocca")
    short = ["image_size=32", "patch_size=16", "n_epochs=1", "pretrain_n_epochs=1"]
    rows = rows_of(
        "--set", *short, "--layer-sets", "0", "0,1", "--device", "cpu", small=[],
        script=script,
    )  # fmt: skip
    assert [(row["boundary"], row["layers"]) for row in rows] == [
        ("hard", "0"),
        ("hard", "0+1"),
        ("soft", "0"),
        ("soft", "0+1"),
    ]
    assert all(0.5 <= float(row["max BA"]) <= 1 for row in rows)
    assert all(0 < float(row["pixel AUROC"]) <= 1 for row in rows)


@pytest.mark.filterwarnings("ignore:.*collapsed")
def test_whole_images_have_no_maps(rows_of):
    script = importlib.import_module("magnetic_tile_mocca")
    short = ["image_size=32", "n_epochs=1", "pretrain_n_epochs=1", "rotation_range=-45,45"]
    arguments = ["--objects", "--device", "cpu", "--set", *short]
    (row,) = rows_of(*arguments, small=[], script=script)
    assert row["pixel AUROC"] == ""
    assert row["size"] == "32"
    assert 0 <= float(row["image AUROC"]) <= 1
