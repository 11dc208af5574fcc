import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import skocc
from skocc.__main__ import main
from skocc.datasets import make_textures, stain_defects


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    """Textures in the layout of MVTec AD, stained ones with masks; a name is hostile."""
    folder = tmp_path_factory.mktemp("<b>tiles")
    images = (255 * make_textures(34, size=64, random_state=0)).astype(np.uint8)
    images[28:], masks = stain_defects(images[28:], random_state=0)
    places = ["train/good"] * 20 + ["test/good"] * 8 + ["test/st<i>ain"] * 6
    for index, (image, place) in enumerate(zip(images, places, strict=True)):
        path = folder / place / f"{index:02d} & $x$.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
        if index >= 28:
            path = folder / "ground_truth" / "st<i>ain" / f"{path.stem}_mask.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(masks[index - 28]).save(path)
    return folder


# Without files of weights, on features of an untrained network.
OFFLINE = ["--backbone", "shufflenet_v2_x0_5", "--weights", "none", "--image-size", "64"]
OFFLINE += ["--device", "cpu"]


def compared(capsys, *arguments):
    """Run the command, and return the table and the page."""
    output, table = Path(arguments[-1]), Path(arguments[-1]).with_suffix(".csv")
    command = ["compare", *arguments[:-1], *OFFLINE, "--table", table, "--output", output]
    assert main(list(map(str, command))) == 0, capsys.readouterr().err
    return pd.read_csv(table).set_index("detector"), output.read_text(encoding="utf-8")


def test_compare_writes_a_page(tiles, tmp_path, capsys, monkeypatch):
    methods = ["--methods", "IsolationForest,ResNetKNN"]
    table, page = compared(capsys, tiles, *methods, tmp_path / "page.html")
    assert sorted(table.index) == ["IsolationForest", "ResNetKNN"]
    assert table["error"].isna().all()
    assert table["pixel_auroc"].notna().to_dict() == {
        "ResNetKNN": True, "IsolationForest": False,
    }  # fmt: skip
    assert "8 normal images and 6 anomalous ones" in page
    assert "st&lt;i&gt;ain/28 &amp; $x$.png, st&lt;i&gt;ain" in page
    assert "&lt;b&gt;tiles" in page
    assert "<b>" not in page
    assert str(tmp_path.parent) not in page
    assert "--methods IsolationForest,ResNetKNN" in page
    # What is there is not fitted again, and one detector more is.
    fitted = []
    monkeypatch.setattr(skocc.ResNetKNN, "fit", lambda self, X: fitted.append(self))
    methods[1] += ",OneClassSVM"
    again, _ = compared(capsys, tiles, *methods, tmp_path / "page.html")
    assert not fitted
    assert len(list((tmp_path / "page.html.kept").iterdir())) == 3
    # But for the test against the best, which may be another one now.
    before, after = (rows.loc["ResNetKNN"].drop("p_value") for rows in (table, again))
    pd.testing.assert_series_equal(after, before)


def test_compare_normal_images_alone(tiles, tmp_path, capsys):
    folder = tiles / "train" / "good"
    command = [folder, "--methods", "LocalOutlierFactor", "--n-train", "12"]
    table, page = compared(capsys, *command, tmp_path / "page.html")
    assert "synthetic_image_auroc" in table
    assert "need no label" in page
    assert "5 normal images and 5 anomalous ones" in page


def test_compare_named_folders(tiles, tmp_path, capsys):
    command = [tiles / "test", "--normal", "good", "--masks", tiles / "ground_truth"]
    methods = ["--methods", "EllipticEnvelope,MOCCA", "--budget", "0.01"]
    table, page = compared(capsys, *command, *methods, tmp_path / "page.html")
    # Six images are too few for a covariance, perhaps; the other goes on.
    assert table.loc["MOCCA", "pixel_auroc"] > 0
    assert "2 normal images and 6 anomalous ones" in page


def test_errors_of_compare(tiles, tmp_path, capsys, monkeypatch):
    output = ["--output", str(tmp_path / "page.html")]
    for arguments, message in [
        ([tiles / "test"], "Name the one with normal images"),
        ([tiles, "--n-train", "21"], "a number of the 20 normal images"),
        ([tiles, "--table", tmp_path], "it is a folder or device"),
        ([tmp_path / "nowhere"], "is no folder"),
        ([tiles, "--masks", "ground_truth"], "Pass normal"),
        ([tiles, "--weights", tmp_path / "none.pt"], "There is no file of weights"),
    ]:
        assert main(["compare", *map(str, arguments), *output]) == 1
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["compare", str(tiles), "--methods", "ResNet", *output])
    assert "names out of ResNetKNN" in capsys.readouterr().err
    # Before anything is fitted.
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["compare", str(tiles), *output]) == 1
    assert 'pip install "skocc[plot]"' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_compare_all_methods(tiles, tmp_path, capsys):
    table, page = compared(capsys, tiles, "--budget", "0.05", tmp_path / "page.html")
    assert len(table) == 11
    assert table["error"].isna().all(), table["error"].dropna().tolist()
    assert len(page) < 3 * 2**20
