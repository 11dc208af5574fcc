"""What a new public name must bring along."""

import ast
import inspect
import re
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.svm import OneClassSVM

import skocc
import skocc.base
import skocc.datasets
import skocc.feature_extraction
import skocc.metrics
import skocc.model_selection
import skocc.plotting
from skocc.feature_extraction import Pixels

ROOT = Path(__file__).parent.parent
MODULES = [
    skocc,
    skocc.base,
    skocc.datasets,
    skocc.feature_extraction,
    skocc.metrics,
    skocc.model_selection,
    skocc.plotting,
]


PACKAGES = [module.__name__.partition(".")[2] for module in MODULES[1:]]
# Private by the reference, and still without the underscore that says so.
# Folders of methods are private but for what skocc exports of them.
PRIVATE = {"estimators"}


def listed_names():
    """Return the names in docs/reference as {name of the module: names}."""
    listed = {}
    for page in (ROOT / "docs" / "reference").glob("*.rst"):
        module = None  # in the index, whose list is one of pages
        for line in page.read_text().splitlines():
            if match := re.fullmatch(r"\.\. currentmodule:: (\S+)", line):
                module = match[1]
            elif module and (match := re.fullmatch(r"(?: {3}|\.\. data:: )(\w+)", line)):
                listed.setdefault(module, []).append(match[1])
    return listed


@pytest.mark.parametrize("module", MODULES)
def test_public_names_are_those_of_the_reference(module):
    listed = listed_names()[module.__name__]
    others = {"__version__", *PACKAGES} if module is skocc else set()
    assert sorted([*listed, *others]) == sorted(module.__all__), "see docs/reference"
    made_here = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and str(getattr(value, "__module__", "")).startswith(f"{module.__name__}.")
    }
    assert made_here <= set(module.__all__)
    for name in [*listed, *others - {"__version__"}]:
        assert getattr(module, name).__doc__, f"{name} has no docstring"


def test_files_of_no_public_package_have_an_underscore():
    assert {f"skocc.{name}" for name in PACKAGES} == listed_names().keys() - {"skocc"}
    folder = ROOT / "skocc"
    names = {path.stem for path in folder.iterdir() if path.suffix in ("", ".py")}
    assert {name for name in names if name[0] != "_"} - PRIVATE == {*PACKAGES}
    for name in {*PACKAGES} - {"base"}:
        assert all(path.name[0] == "_" for path in (folder / name).iterdir())


@pytest.mark.parametrize("module", MODULES)
def test_unknown_name(module):
    with pytest.raises(AttributeError, match="no attribute 'NoSuchMethod'"):
        module.NoSuchMethod  # noqa: B018
    assert set(module.__all__) <= set(dir(module))


def test_dir_shows_what_is_public():
    assert dir(skocc) == sorted(skocc.__all__)
    assert [name for name in dir(skocc) if name[0] == "_"] == ["__version__"]


def test_editors_are_told_what_is_loaded():
    tree = ast.parse((ROOT / "skocc" / "__init__.py").read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    told = {
        alias.asname: (line.module, alias.name)
        for line in block.body
        for alias in line.names
    }
    loaded = {name: (module, name) for name, module in skocc._MODULES.items()}
    assert told == loaded | {name: ("skocc", name) for name in skocc._SUBPACKAGES}
    block.body.clear()
    run = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert {ast.unparse(node) for node in run} == {
        "import importlib",
        "from skocc._base.versions import __version__ as __version__",
        "from skocc.estimators import MODULES as _DETECTOR_MODULES",
        "from typing import TYPE_CHECKING",
    }


def test_the_list_of_detectors_is_complete():
    """Against what the package exports and the folder of estimators holds."""
    exported = [getattr(skocc, name) for name in skocc.__all__]
    detectors = [v.__name__ for v in exported if hasattr(v, "score_samples")]
    assert sorted(detectors) == list(skocc.DETECTORS)
    for name in skocc.DETECTORS:
        assert getattr(skocc, name).__module__.startswith("skocc.estimators.")


def test_every_estimator_has_a_test_file():
    for name in skocc.DETECTORS:
        stem = skocc._MODULES[name].rpartition(".")[2]
        expected = ROOT / "tests" / "estimators" / f"test{stem}.py"
        assert expected.exists(), f"{name} needs {expected}"


def test_show_versions(capsys):
    skocc.show_versions()
    shown = capsys.readouterr().out
    for package in ["python", "torch", "scikit-learn", "CUDA devices"]:
        assert f"{package}: " in shown


def test_oldest_versions_are_those_that_are_tested():
    # In 3.10 pytest brings the same parser by another name.
    tomllib = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    extras = project["optional-dependencies"]
    named = [*project["dependencies"]]
    for extra in extras.keys() - {"docs", "dev"}:
        named += [name for name in extras[extra] if not name.startswith("skocc[")]
    lines = (ROOT / ".ci" / "oldest.txt").read_text().splitlines()
    tested = {line.replace("==", ">=") for line in lines if not line.startswith("#")}
    assert set(named) == tested


rng = np.random.default_rng(0)
IMAGES, MASKS = rng.random((6, 16, 16)).astype(np.float32), rng.random((6, 16, 16)) > 0.8
SCORES, LABELS = rng.random(6), np.array([1, -1, 1, -1, 1, -1])
GOOD = {
    "scores": SCORES, "y_score": SCORES, "calibration_scores": SCORES, "p_values": SCORES,
    "scores_normal": SCORES, "scores_uniform": SCORES, "y_true": LABELS, "y_test": LABELS,
    "X": IMAGES, "X_train": IMAGES, "X_test": IMAGES, "images": IMAGES, "maps": IMAGES,
    "masks": MASKS, "labels": LABELS, "normal": 1, "name": "auroc", "n_images": 2,
    "folder": "nowhere", "root": "nowhere", "layout": "ucsd",
    "make_anomalies": lambda images, random_state: (1 - images, None),
    "detectors": {"svm": make_pipeline(Pixels(image_size=8), OneClassSVM())},
}  # fmt: skip
ODD = [
    None, -1, 2.5, np.nan, np.inf, 1e308, "x", "", b"x", [], (), {}, [[1, 2], [3]], True,
    np.True_, np.int64(3), [None] * 6, ["good"] * 6, object(), print, np.zeros(0),
    np.zeros(6), np.zeros((6, 4)), np.zeros((2, 2, 2, 2, 2)), np.array([None] * 6),
    np.array(["a"] * 6), np.zeros(6, complex), pd.DataFrame({"a": [1, 2, 3, 4, 5, 6]}),
]  # fmt: skip
FUNCTIONS = [
    (module, name)
    for module in ["metrics", "model_selection", "datasets"]
    for name in getattr(skocc, module).__all__
    if inspect.isfunction(getattr(getattr(skocc, module), name)) and "fetch_one" not in name
]
# What Python or NumPy says when a value has got further than it should have.
RAW = (
    "not supported between|unhashable|truth value|signature matching|has no attribute|"
    "not iterable|has no len|unsupported operand|cannot be interpreted|to integer|"
    "cannot unpack"
)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("module", "name"), FUNCTIONS)
def test_odd_arguments_of_functions_are_refused_in_words(module, name):
    function = getattr(getattr(skocc, module), name)
    parameters = inspect.signature(function).parameters.values()
    plain = [p for p in parameters if p.kind is not p.VAR_KEYWORD]
    good = {p.name: GOOD[p.name] for p in plain if p.default is p.empty}
    for parameter in plain:
        for value in ODD:
            try:
                function(**(good | {parameter.name: value}))
            except (ValueError, TypeError, FileNotFoundError) as error:
                message = str(error)
            else:
                continue
            assert message
            assert not re.search(RAW, message), (parameter.name, value, message)
