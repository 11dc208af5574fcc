"""What is shown to newcomers: the README, the quick start and the notebooks."""

import ast
import importlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))


def is_public(module, name):
    """Return whether a page of the reference lists a name of a module of skocc."""
    return name in getattr(importlib.import_module(module), "__all__", ())


def names_of_skocc(source):
    """Return the (module, name) pairs of skocc that a source imports."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "skocc":
            found += [(node.module, alias.name) for alias in node.names]
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            assert not any(name.startswith("skocc.") for name in names), names
    return found


def code_of_readme():
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    return code


def test_the_code_of_the_readme_has_twelve_lines():
    assert len([line for line in code_of_readme().splitlines() if line.strip()]) == 12


@pytest.mark.slow
def test_the_code_of_the_readme_finds_the_defects(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code_of_readme(), names)
    assert names["tuner"].predict(names["defective"]).tolist() == [-1, -1, -1]
    assert all(contour is not None for contour in names["display"].contours_)
    with Image.open("heat_maps.png") as picture:
        assert picture.size > (400, 400)


SCRIPTS = [
    path
    for folder in ("reproduction", "benchmarks")
    for path in sorted((ROOT / "examples" / folder).glob("*.py"))
]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_scripts_find_what_they_import_from_each_other(path, monkeypatch):
    for folder in ("reproduction", "benchmarks"):
        monkeypatch.syspath_prepend(ROOT / "examples" / folder)
    importlib.import_module(path.stem)


def test_links_and_pictures_of_the_readme_lead_to_files():
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", README)
    files = [target for target in targets if not target.startswith("http")]
    assert len(files) > 10
    missing = [name for name in files if not (ROOT / name).exists()]
    assert not missing
    (alt, picture) = re.search(r"!\[(.+?)\]\((.+?)\)", README, re.DOTALL).groups()
    assert len(alt) > 50
    assert (ROOT / picture).stat().st_size < 100_000


def test_the_readme_has_both_commands():
    assert "\n    pip install -e . && python examples/quickstart.py\n" in README
    assert '\n    pip install -e ".[test]" && python -m pytest\n' in README


@pytest.mark.slow
@pytest.mark.parametrize("random_state", range(3))
def test_the_quick_start_finds_what_pixels_do_not_show(
    random_state, tmp_path, monkeypatch, capsys
):
    from examples import quickstart

    picture = tmp_path / "maps.png"
    command = ["quickstart.py", "--random-state", str(random_state), "--picture", picture]
    monkeypatch.setattr(sys, "argv", list(map(str, command)))
    quickstart.main()
    printed = capsys.readouterr().out
    assert str(picture) in printed
    rows = re.findall(r"^(\w+) +(\d\.\d+) ", printed, re.MULTILINE)
    aurocs = {name: float(value) for name, value in rows}
    assert list(aurocs) == ["PatchSVDD", "OneClassSVM", "IsolationForest"]
    # Over seeds 0 to 4: 0.968 +- 0.018, and those of scikit-learn 0.501 +- 0.072 and
    # 0.472 +- 0.055.
    assert aurocs["PatchSVDD"] > 0.91
    assert max(aurocs["OneClassSVM"], aurocs["IsolationForest"]) < 0.72
    with Image.open(picture) as image:
        assert image.size == (800, 820)


def test_the_picture_of_the_quick_start_marks_what_is_above_the_threshold():
    from examples.quickstart import draw

    images = np.full((2, 24, 24), 0.5)
    maps = np.zeros((2, 24, 24))
    maps[0, 8:16, 8:16] = 2
    picture = np.asarray(draw(images, maps, 1, maps > 0))
    red = (picture == [255, 0, 0]).all(axis=-1)
    # The border of a square of 8 pixels, each drawn as 8 x 8, in the first row only.
    assert red.sum() == 28 * 64
    assert red[:212].sum() == 28 * 64


def test_there_are_two_notebooks():
    assert [path.stem for path in NOTEBOOKS] == ["first_heat_map", "grid_search"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_clean(path):
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.cells[0].source.startswith("# ")
    for cell in notebook.cells:
        assert "id" not in cell
        assert set(cell.metadata) <= {"mystnb"}  # texts of pictures
        assert cell.source.strip()
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
            for module, name in names_of_skocc(cell.source):
                assert is_public(module, name), (module, name)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(path, tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    # Tests draw without a window; notebooks into the page.
    monkeypatch.delenv("MPLBACKEND", raising=False)
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert pictures
    assert any("sk-top-container" in str(output.get("data")) for output in outputs)
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert list(tmp_path.iterdir()) == []
