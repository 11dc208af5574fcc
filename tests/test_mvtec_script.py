"""The script that runs all methods on MVTec AD, on a made folder of its layout."""

import csv
import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skocc.datasets import make_defects, make_textures

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "reproduction"
SMALL = [
    "--backbone", "resnet18", "--layers", "layer1", "--weights", "none", "--device", "cpu",
    "--params", "image_size=64", "n_epochs=1", "pretrain_n_epochs=1",
    "n_augmented=4",
]  # fmt: skip


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("mvtec")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Return a folder with the fifteen categories of MVTec AD, of few small images."""
    folder = tmp_path_factory.mktemp("mvtec")
    images = make_textures(22, size=64, random_state=0)
    defective, masks = make_defects(images[14:], kind="cut", random_state=0)
    sys.path.insert(0, str(FOLDER))
    try:
        module = importlib.import_module("mvtec")
    finally:
        sys.path.remove(str(FOLDER))
    parts = {
        "train/good": images[:6],
        "test/good": images[6:14],
        "test/cut": defective,
        "ground_truth/cut": masks,
    }
    for category in (*module.TEXTURES, *module.OBJECTS):
        for part, arrays in parts.items():
            (folder / category / part).mkdir(parents=True)
            ending = "_mask.png" if part.startswith("ground") else ".png"
            for number, array in enumerate(arrays):
                pixels = (255 * np.asarray(array, float)).astype(np.uint8)
                path = folder / category / part / f"{number:03d}{ending}"
                Image.fromarray(pixels).save(path)
    return folder


def call(script, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["mvtec.py", *map(str, arguments)])
    script.main()


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_all_categories_and_going_on(script, root, tmp_path, monkeypatch, capsys):
    output = tmp_path / "mvtec.csv"
    small = [text.replace("image_size=64", "image_size=32") for text in SMALL]
    arguments = [root, "--output", output, "--methods", "resnet_knn", *small]
    call(script, monkeypatch, *arguments, "--categories", "tile", "zipper")
    first = rows_of(output)
    assert [row["category"] for row in first] == ["tile", "zipper"]
    call(script, monkeypatch, *arguments)
    rows = rows_of(output)
    assert rows[:2] == first  # what is there is not measured again
    assert {row["category"] for row in rows} == {*script.TEXTURES, *script.OBJECTS}
    assert len(rows) == 15
    for row in rows:
        assert all(0 <= float(row[metric]) <= 1 for metric in script.METRICS)
    capsys.readouterr()
    call(script, monkeypatch, *arguments, "--table")
    table = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    cells = {(r["method"], r["metric"], r["category"]): r for r in table}
    assert cells["patch_svdd", "image AUROC", "bottle"]["published"] == "0.986"
    assert cells["patch_svdd", "image AUROC", "bottle"]["skocc"] == "open"
    mean = np.mean([float(row["image AUROC"]) for row in rows])
    found = float(cells["resnet_knn", "image AUROC", "mean"]["skocc"])
    assert found == pytest.approx(mean, abs=1e-3)


def test_published_means_are_those_of_their_categories(script):
    groups = {}
    for row in script.read_rows(script.PUBLISHED):
        values = groups.setdefault((row["method"], row["metric"]), {})
        values[row["category"]] = float(row["published"])
    for (method, metric), values in groups.items():
        mean = values.pop("mean", None)
        if mean is not None and values:
            assert len(values) == 15, (method, metric)
            assert np.mean([*values.values()]) == pytest.approx(mean, abs=0.006)


def test_settings_of_the_documents(script):
    options = {"device": "cpu", "seed": 3, "backbone": None, "weights": None, "params": {}}
    options = type("Options", (), options)
    texture, thing = (script.make("mocca", name, options) for name in ("wood", "pill"))
    assert (texture.patch_size, texture.image_size, texture.boundary) == (64, 512, "soft")
    assert (thing.patch_size, thing.image_size) == (None, 128)
    assert (texture.rotation_range, thing.rotation_range) == ((0, 45), None)
    assert script.make("mocca", "screw", options).rotation_range == (-45, 45)
    published = script.make("patch_svdd_published", "pill", options)
    assert (published.schedule, published.max_bank_bytes) == ("constant", None)
    assert script.make("mocca_hard", "pill", options).boundary == "hard"
    assert script.make("patchcore", "pill", options).weights is None
    assert script.make("patch_svdd", "pill", options).random_state == 3


def test_figures_of_a_perfect_detector(script, root):
    class Perfect:
        def fit(self, paths):
            assert len(paths) == 6

        def anomaly_map(self, paths, size, return_scores):
            masks = [str(path).replace("/test/", "/ground_truth/") for path in paths]
            masks = [path.replace(".png", "_mask.png") for path in masks]
            maps = [
                np.asarray(Image.open(path)) if "good" not in path else np.zeros((64, 64))
                for path in masks
            ]
            return np.array(maps, np.float32), -np.max(maps, axis=(1, 2))

    figures = script.evaluate(Perfect(), script.load_mvtec_layout(root, "wood"))
    assert {figures[name] for name in script.METRICS} == {"1.0000"}


def test_a_folder_without_categories(script, tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match=r"holds no category\. Pass the folder"):
        call(script, monkeypatch, tmp_path, "--output", tmp_path / "x.csv")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # short trainings collapse
@pytest.mark.parametrize("category", ["wood", "pill"])
def test_all_methods(script, root, tmp_path, monkeypatch, category):
    output = tmp_path / "mvtec.csv"
    call(script, monkeypatch, root, "--output", output, "--categories", category, *SMALL)
    methods = [row["method"] for row in rows_of(output)]
    assert methods[:7] == [*script.DETECTORS]
    assert len(methods) == 11
